"""DMPC on large feeders: sparse operators equal the dense ones, and grow with the feeder's size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.protocol import ControlSite
from controllers.dmpc import feeder_splitting as choice
from controllers.dmpc.dense_plan import dense_part, dense_tail
from controllers.dmpc.feeder import FeederDmpc
from controllers.dmpc.feeder_network import feeder_network
from controllers.dmpc.feeder_problem import FeederProblem, FeederWeights, feeder_problem
from controllers.dmpc.splitting import ClusterSplitting, RowSplitting
from controllers.dmpc.tree_law import cluster_tree_law
from controllers.dmpc.tree_plan import TreeSplitting
from grid_models.feeder.model import Bus, Der, Feeder, Line, Load, Source, Transformer, Winding

THREE = (1, 2, 3)
OHM = np.full((3, 3), 0.05 + 0.12j) + np.eye(3) * (0.1 + 0.25j)


def line(above: str, below: str, phases: tuple[int, ...] = THREE) -> Line:
    pick = np.array(phases) - 1
    zero = np.zeros((len(pick), len(pick)))
    return Line(f"{above}_{below}", above, below, phases, OHM[np.ix_(pick, pick)], zero)


def site_of(parents: list[int], laterals: bool = True) -> ControlSite:
    """Return a three-phase tree; each bus has a PV unit, a load, a lateral or a battery."""
    buses = {"b0": Bus("b0", THREE, 7.2)}
    lines: list[Line] = []
    loads: list[Load] = []
    ders: list[Der] = []
    for i, parent in enumerate(parents, start=1):
        name, phase = f"b{i}", 1 + i % 3
        buses[name] = Bus(name, THREE, 7.2)
        lines.append(line(f"b{parent}", name))
        at = name
        if laterals:
            at = f"s{i}"
            buses[at] = Bus(at, (phase,), 7.2)
            lines.append(line(name, at, (phase,)))
        loads.append(Load(f"d{i}", at, (phase,), "wye", "PQ", 20.0, 8.0, 7.2))
        ders.append(Der(f"pv{i}", "pv", at, (phase,), kva=44.0, p_max_kw=40.0))
        if i % 3 == 0:
            size = {"p_min_kw": -30.0, "energy_kwh": 60.0}
            ders.append(Der(f"bat{i}", "battery", name, THREE, 33.0, 30.0, **size))
    feeder = Feeder("tree", Source("b0", 12.47), buses, tuple(lines), loads=tuple(loads))
    return ControlSite(feeder, tuple(ders), 5.0)


def problem_of(site: ControlSite, clusters: int, horizon: int = 4) -> FeederProblem:
    network = feeder_network(site, clusters, {})
    return feeder_problem(site, network, horizon, 1.0 / 6.0, FeederWeights())


def both_forms(problem: FeederProblem) -> tuple[ClusterSplitting, TreeSplitting]:
    count = range(len(problem.layouts))
    return ClusterSplitting([dense_part(problem, c) for c in count]), TreeSplitting(problem, count)


def random_rows(
    problem: FeederProblem, split: RowSplitting, rng: np.random.Generator
) -> np.ndarray:
    """Return random rows (C, rows, 1), zero where a cluster has none."""
    t = np.zeros((len(problem.layouts), split.bounded + split.coupled, 1))
    for c, layout in enumerate(problem.layouts):
        used = np.r_[: layout.e_rows.stop, split.bounded : split.bounded + problem.coupled(c)]
        t[c, used, 0] = rng.normal(size=len(used))
    return t


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 14),
    k=st.integers(1, 5),
    horizon=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_sparse_operators_are_the_dense_ones(n: int, k: int, horizon: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    site = site_of([int(rng.integers(0, i)) for i in range(1, n + 1)], laterals=False)
    problem = problem_of(site, min(k, n), horizon)
    dense, tree = both_forms(problem)
    assert np.array_equal(dense.give, tree.give)
    for c, plan in enumerate(tree.plans):
        expected = dense_tail(dense_part(problem, c), problem, c)
        assert plan.tail == pytest.approx(expected, abs=1e-12)
    t = random_rows(problem, dense, rng)
    theta = np.zeros((len(t), dense.parameters))
    for c, layout in enumerate(problem.layouts):
        theta[c, : layout.parameters] = rng.normal(size=layout.parameters)
        theta[c, layout.parameters - 1] = 1.0
    g0 = dense.offset(theta)
    assert tree.times(t) == pytest.approx(dense.times(t), abs=1e-9)
    assert tree.offset(theta) == pytest.approx(g0, abs=1e-9)
    rows = random_rows(problem, dense, rng)[:, : dense.bounded]
    settled = tree.bounded_map(t, g0)(rows)
    assert settled == pytest.approx(dense.bounded_map(t, g0)(rows), abs=1e-9)


@pytest.mark.parametrize("clusters", [2, 5])
def test_stored_values_grow_with_the_number_of_ders(clusters: int) -> None:
    stored = []
    for n in (40, 80, 160):
        site = site_of([i // 2 for i in range(n)])
        tree = TreeSplitting(problem_of(site, clusters), range(clusters))
        stored.append(sum(plan.stored for plan in tree.plans) + clusters * tree.give.size)
    # Linear: twice the DERs, twice the values; the matrices of the dense form would be four times.
    assert stored[1] / stored[0] < 2.5
    assert stored[2] / stored[1] < 2.5


def test_the_form_depends_on_size_and_not_on_who_is_hosted(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(site_of([0, 1, 2, 3, 4, 5]), 3)
    for own in ([0, 1, 2], [1]):
        split, _ = choice.feeder_splitting(problem, own)
        assert isinstance(split, ClusterSplitting)
    monkeypatch.setattr(choice, "DENSE_VALUES", 1000)
    for own in ([0, 1, 2], [1]):
        split, _ = choice.feeder_splitting(problem, own)
        assert isinstance(split, TreeSplitting)


def test_sparse_operators_keep_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    # Among others: the same bits in one instance and in one for each cluster.
    monkeypatch.setattr(choice, "DENSE_VALUES", 0)
    check_controller("dmpc")
    check_controller("dmpc", clusters=3, horizon=3, iterations=4)


def test_too_much_memory_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr(choice, "DENSE_VALUES", 0)
    monkeypatch.setattr(choice, "TreeSplitting", nothing)
    site = site_of([0, 1, 2, 3, 4, 5])
    names = FeederDmpc.agents(site, clusters=5)
    with pytest.raises(ControllerError, match=r"5 clusters .* need about [\d.]+ GB") as caught:
        FeederDmpc(site, names, clusters=5, horizon=1000)
    assert "option 'clusters'" in str(caught.value)
    assert "horizon" in str(caught.value)


def split_phase_site() -> ControlSite:
    """Return a feeder whose second cluster hangs on phase 2 and ends in a 120/240 V secondary."""
    buses = {"b0": Bus("b0", THREE, 7.2), "b1": Bus("b1", THREE, 7.2), "b2": Bus("b2", (2,), 7.2)}
    buses["h"] = Bus("h", (1, 2), 0.12)
    windings = (
        Winding("b2", (2,), "wye", 7.2, 25.0, 0.6),
        Winding("h", (1, 0), "wye", 0.12, 25.0, 1.2),
        Winding("h", (0, 2), "wye", 0.12, 25.0, 1.2),
    )
    feeder = Feeder(
        "secondary",
        Source("b0", 12.47),
        buses,
        (line("b0", "b1"), line("b1", "b2", (2,))),
        transformers=(Transformer("t", 1, windings, (2.04, 2.04, 1.36)),),
    )
    ders = (
        Der("house", "pv", "h", (1,), kva=5.0, p_max_kw=5.0),
        Der("trunk", "pv", "b1", (3,), kva=50.0, p_max_kw=45.0),
    )
    return ControlSite(feeder, ders, 5.0)


def test_both_legs_of_a_secondary_belong_to_the_phase_that_feeds_them() -> None:
    site = split_phase_site()
    network = feeder_network(site, {"a": ["b0", "b1"], "b": ["b2", "h"]}, {})
    problem = feeder_problem(site, network, 2, 0.1, FeederWeights())
    dense, tree = both_forms(problem)
    assert cluster_tree_law(site, network, 1).ratio[0] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    assert tree.plans[1].tail[:, 0] == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, 0.0], abs=1e-9)
    t = random_rows(problem, dense, np.random.default_rng(0))
    assert tree.times(t) == pytest.approx(dense.times(t), abs=1e-9)


def test_behind_a_delta_wye_transformer_a_node_follows_two_nodes_above() -> None:
    windings = (
        Winding("b2", THREE, "delta", 12.47, 300.0, 0.6),
        Winding("low", THREE, "wye", 0.48, 300.0, 0.6),
    )
    buses = {name: Bus(name, THREE, 7.2) for name in ("b0", "b1", "b2")}
    buses["low"] = Bus("low", THREE, 0.48 / 3**0.5)
    feeder = Feeder(
        "delta",
        Source("b0", 12.47),
        buses,
        (line("b0", "b1"), line("b1", "b2")),
        transformers=(Transformer("t", 3, windings, (4.0,)),),
    )
    site = ControlSite(feeder, (Der("roof", "pv", "low", (1,), kva=50.0, p_max_kw=45.0),), 5.0)
    network = feeder_network(site, {"a": ["b0", "b1"], "b": ["b2", "low"]}, {})
    problem = feeder_problem(site, network, 2, 0.1, FeederWeights())
    split, tails = choice.feeder_splitting(problem, [0, 1])
    assert isinstance(split, TreeSplitting)
    # |V_a - V_c|^2 / 3 of a balanced source: half of each phase; power is shared likewise.
    ratio = cluster_tree_law(site, network, 1).ratio[0]
    assert np.sort(ratio) == pytest.approx([0.0, 0.5, 0.5], abs=1e-3)
    assert tails[1][3:, 0].sum() == pytest.approx(1.0, abs=1e-9)
