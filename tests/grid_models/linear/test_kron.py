"""Kron reduction: topology dictates where inv(X) has entries, and Y is that inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError, GridModelError
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Der, Feeder, Line, Source, Switch
from grid_models.linear.kron import KronReduction, kron_reduce
from grid_models.linear.lindistflow import LinDistFlow


def tree(parents: list[int], phases: tuple[int, ...] = (1, 2, 3)) -> Feeder:
    """Bus i + 1 hangs on bus parents[i]; bus 0 is the source."""
    n = len(phases)
    buses = {f"b{i}": Bus(f"b{i}", phases, 2.4) for i in range(len(parents) + 1)}
    z = 0.06 * np.ones((n, n)) + 0.1 * np.eye(n)
    lines = tuple(
        Line(f"l{i + 1}", f"b{up}", f"b{i + 1}", phases, (1 + 0.1 * i) * z * (1 + 2j), 0 * z)
        for i, up in enumerate(parents)
    )
    return Feeder("tree", Source("b0", 2.4 * 3**0.5), buses, lines)


def random_parents(seed: int, n: int = 30) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(rng.integers(max(0, i - 5), i + 1)) for i in range(n)]


def between(parents: list[int], a: int, b: int) -> set[int]:
    """Buses strictly between two buses of a tree."""

    def up(bus: int) -> list[int]:
        way = [bus]
        while way[-1]:
            way.append(parents[way[-1] - 1])
        return way

    one, two = up(a), up(b)
    top = next(x for x in one if x in two)
    return {*one[: one.index(top) + 1], *two[: two.index(top)]} - {a, b}


def assert_inverse(reduced: KronReduction, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(reduced.y @ reduced.x, np.eye(len(reduced.agents)), atol=tolerance)
    assert reduced.error < tolerance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25))
def test_neighbours_are_those_with_no_agent_between(seed: int, k: int) -> None:
    """Brute force over all pairs; the source (bus 0) separates, as its voltage is fixed."""
    parents = random_parents(seed)
    chosen = sorted(np.random.default_rng(seed).choice(30, k, replace=False) + 1)
    model = LinDistFlow.from_feeder(tree(parents), "single")
    reduced = kron_reduce(model, [f"b{i}" for i in chosen])
    blocked = {*chosen, 0}
    for row, a in enumerate(chosen):
        expected = {
            col for col, b in enumerate(chosen) if a != b and not between(parents, a, b) & blocked
        }
        assert set(reduced.neighbours[row]) == expected
    assert_inverse(reduced)
    # The pattern is not too wide either: each neighbour's entry is truly there, and negative.
    inverse = np.linalg.inv(reduced.x)
    for row, near in enumerate(reduced.neighbours):
        assert (inverse[row, list(near)] < -1e-9 * inverse[row, row]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_exact_pattern_on_three_phases(seed: int, k: int) -> None:
    """Agents on any subset of phases: inv(X) has no entry outside the phase-level pattern."""
    feeder = tree(random_parents(seed))
    labels = feeder.node_labels[3:]
    agents = np.random.default_rng(seed).choice(labels, k, replace=False).tolist()
    reduced = kron_reduce(feeder, agents)
    assert_inverse(reduced)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_agents_on_all_phases_couple_bus_by_bus(seed: int) -> None:
    """Then inv(X) is sparse by 3 x 3 blocks: who hears one phase of a bus hears all of them."""
    feeder = tree(random_parents(seed))
    buses = np.random.default_rng(seed).choice(np.arange(1, 31), 12, replace=False)
    agents = [f"b{i}.{p}" for i in buses for p in (1, 2, 3)]
    exact = kron_reduce(feeder, agents)
    assert_inverse(exact)
    for i, near in enumerate(exact.neighbours):
        heard = {agents[j].split(".")[0] for j in (*near, i)}
        assert len(near) + 1 == 3 * len(heard)


def test_agents_of_one_bus_are_neighbours() -> None:
    reduced = kron_reduce(tree([0, 1, 2]), ["b1.1", "b1.2", "b1.3", "b2.1", "b3.2"])
    assert reduced.neighbours[0] == (1, 2, 3, 4)  # b2.2 and b2.3 carry no agent: b3 is next


def test_phase_pattern_is_exact_for_its_own_x() -> None:
    feeder = load_feeder("ieee123")
    agents = load_labels(feeder)
    reduced = kron_reduce(feeder, agents, pattern="phase")
    assert_inverse(reduced)
    phase = [a[-1] for a in agents]
    assert all(phase[i] == phase[j] for i, near in enumerate(reduced.neighbours) for j in near)


def load_labels(feeder: Feeder) -> list[str]:
    return list(dict.fromkeys(f"{d.bus}.{p}" for d in feeder.loads for p in d.phases))


def test_figures_on_ieee123() -> None:
    """85 load buses: 5.2 entries a row, at most 16 (found independently with a prototype)."""
    feeder = load_feeder("ieee123")
    single = LinDistFlow.from_feeder(feeder, "single")
    reduced = kron_reduce(single, list(dict.fromkeys(d.bus for d in feeder.loads)))
    assert len(reduced.agents) == 85
    assert reduced.y.nnz / 85 == pytest.approx(5.2, abs=0.05)
    assert max(np.diff(reduced.y.indptr)) == 16
    assert_inverse(reduced)
    agents = load_labels(feeder)
    assert_inverse(kron_reduce(feeder, agents))
    # Around the operating point X is no path sum any more; the pattern loses 2 %.
    assert kron_reduce(LinDistFlow.from_feeder(feeder, around="nominal"), agents).error < 0.03


def test_all_nodes_give_the_tree_itself() -> None:
    parents = random_parents(1)
    model = LinDistFlow.from_feeder(tree(parents), "single")
    reduced = kron_reduce(model, [f"b{i}" for i in range(1, 31)])
    expected = {frozenset((i, up - 1)) for i, up in enumerate(parents) if up}
    found = {frozenset((i, j)) for i, near in enumerate(reduced.neighbours) for j in near}
    assert found == expected


def test_shared_node_gets_service_drops() -> None:
    """Two DERs at b2.1: a clique through the junction b2, each with 5 % more own reactance."""
    feeder = tree([0, 1, 2, 2])
    twins = [Der(n, "pv", "b2", (1,), 10.0, 10.0) for n in ("east", "west")]
    agents = ["b1.1", *twins, "b3.1", "b4.1"]
    reduced = kron_reduce(LinDistFlow.from_feeder(tree([0, 1, 2, 2], (1,))), agents)
    assert reduced.groups == ((1, 2),)
    assert reduced.agents == ("b1.1", "east", "west", "b3.1", "b4.1")
    assert reduced.neighbours[0] == (1, 2, 3, 4)
    assert reduced.neighbours[1] == (0, 2, 3, 4)
    assert reduced.x[1, 1] == pytest.approx(1.05 * reduced.x[1, 2])
    assert_inverse(reduced)
    assert_inverse(kron_reduce(feeder, agents))


def test_merged_buses_and_mixed_ders_are_not_singular() -> None:
    feeder = tree([0, 1])
    feeder = Feeder(
        "switched",
        feeder.source,
        {**feeder.buses, "b3": Bus("b3", (1, 2, 3), 2.4)},
        feeder.lines,
        (Switch("sw", "b2", "b3", (1, 2, 3), True),),
    )
    assert kron_reduce(feeder, ["b2.1", "b3.1", "b1.1"]).groups == ((0, 1),)
    singles = [Der(f"p{p}", "pv", "b2", (p,), 10.0, 10.0) for p in (1, 2, 3)]
    three = Der("all", "pv", "b3", (1, 2, 3), 10.0, 10.0)
    reduced = kron_reduce(feeder, [*singles, three])
    assert reduced.groups == ((0, 1, 2, 3),)
    assert_inverse(reduced)


def test_renaming_and_order_permute_the_result() -> None:
    feeder = load_feeder("ieee123")
    agents = load_labels(feeder)
    order = np.random.default_rng(0).permutation(len(agents))
    first = kron_reduce(feeder, agents)
    second = kron_reduce(feeder, [agents[i] for i in order])
    np.testing.assert_allclose(
        first.y.toarray()[np.ix_(order, order)],
        second.y.toarray(),
        atol=1e-9 * np.abs(first.y.toarray()).max(),
    )


def test_errors_say_what_to_change() -> None:
    feeder = tree([0, 1])
    with pytest.raises(GridModelError, match=r"'b0\.1' sits where the voltage is fixed"):
        kron_reduce(feeder, ["b0.1", "b1.1"])
    with pytest.raises(GridModelError, match=r"'b1\.1' occurs 2 times"):
        kron_reduce(feeder, ["b1.1", "b1.1"])
    with pytest.raises(GridModelError, match="no agents"):
        kron_reduce(feeder, [])
    with pytest.raises(GridModelError, match="did you mean 'exact'"):
        kron_reduce(feeder, ["b1.1"], pattern="exakt")  # type: ignore[arg-type]
    with pytest.raises(FeederError, match=r"did you mean 'b2\.1'"):
        kron_reduce(feeder, ["b22.1"])
