"""Reduction on the tree: the same X and Y as the dense reduction, and few neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import GridModelError
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Feeder, Line, Regulator, Source, Transformer, Winding
from grid_models.linear.kron import kron_reduce
from grid_models.linear.kron_tree import TreeReduction, tree_reduce
from grid_models.linear.lindistflow import LinDistFlow

Z_OHM = np.array([[0.35 + 1.02j, 0.16 + 0.50j, 0.16 + 0.42j],
                  [0.16 + 0.50j, 0.34 + 1.05j, 0.15 + 0.38j],
                  [0.16 + 0.42j, 0.15 + 0.38j, 0.34 + 1.03j]])  # fmt: skip
"""A mile of IEEE configuration 601, rounded."""
SECONDARY_OHM = np.array([[0.02 + 0.01j, 0.005 + 0.004j], [0.005 + 0.004j, 0.02 + 0.01j]])
EVERYTHING = 10**6


def centre_tapped(seed: int, buses: int, homes: int, *, top: str = "line") -> Feeder:
    """A random three-phase tree of primaries; homes on centre-tapped secondaries at random buses.

    `top`: what feeds the primaries, a line, an ideal regulator on each phase, or a delta - wye
    transformer.
    """
    rng = np.random.default_rng(seed)
    three = (1, 2, 3)
    nodes = {f"b{i}": Bus(f"b{i}", three, 7.2) for i in range(buses + 1)}
    nodes["b0"] = Bus("b0", three, 66.4) if top == "delta" else nodes["b0"]
    lines, transformers, regulators = [], [], []
    for i in range(1, buses + 1):
        up = 0 if i == 1 else int(rng.integers(max(1, i - 6), i))
        if i > 1 or top == "line":
            z = Z_OHM * float(rng.uniform(0.05, 0.5))
            lines.append(Line(f"l{i}", f"b{up}", f"b{i}", three, z, 0 * z.real))
    if top == "regulators":
        regulators = [
            Regulator(f"r{p}", "b0", "b1", (p,), 3 * p, p, 120.0, 2.0, 60.0, 100.0, 0.0, 0.0)
            for p in three
        ]
    if top == "delta":
        sides = (Winding("b0", three, "delta", 115.0, 5e3, 0.5), Winding(
            "b1", three, "wye", 7.2 * 3**0.5, 5e3, 0.5))  # fmt: skip
        transformers.append(Transformer("substation", 3, sides, (8.0,)))
    for h in range(homes):
        bus, phase = f"b{int(rng.integers(1, buses + 1))}", int(rng.integers(1, 4))
        nodes |= {f"{k}{h}": Bus(f"{k}{h}", (1, 2), 0.12) for k in ("x", "home")}
        windings = (
            Winding(bus, (phase, 0), "wye", 7.2, 25.0, 0.6),
            Winding(f"x{h}", (1, 0), "wye", 0.12, 25.0, 1.2),
            Winding(f"x{h}", (0, 2), "wye", 0.12, 25.0, 1.2),
        )
        transformers.append(Transformer(f"t{h}", 1, windings, (2.04, 2.04, 1.36)))
        z = SECONDARY_OHM * float(rng.uniform(0.5, 2.0))
        lines.append(Line(f"s{h}", f"x{h}", f"home{h}", (1, 2), z, 0 * z.real))
    kv = 115.0 if top == "delta" else 7.2 * 3**0.5
    return Feeder(
        "centre-tapped",
        Source("b0", kv, r_ohm=0.01, x_ohm=0.1),
        nodes,
        tuple(lines),
        (),
        tuple(transformers),
        tuple(regulators),
    )


def legs(homes: int) -> list[str]:
    return [f"home{h}.{p}" for h in range(homes) for p in (1, 2)]


def assert_reduces(model: LinDistFlow, reduced: TreeReduction, atol: float = 1e-9) -> None:
    """X is the model's own sensitivity, and Y its inverse over agents and relays."""
    labels = [*reduced.agents, *reduced.relays]
    _, x = model.sensitivity(labels, labels)
    np.testing.assert_allclose(reduced.x.dense(), x, atol=atol * np.abs(x).max())
    np.testing.assert_allclose(reduced.x.diagonal, np.diag(x), rtol=1e-9)
    np.testing.assert_allclose(reduced.x.rows(np.array([0])), x[:1], atol=atol * np.abs(x).max())
    assert (reduced.x.times_abs(np.ones(len(x))) >= np.abs(x).sum(axis=1) * (1 - 1e-9)).all()
    np.testing.assert_allclose(reduced.y @ x, np.eye(len(x)), atol=1e3 * atol)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 20),
    st.sampled_from(["line", "regulators", "delta"]),
    st.sampled_from([3, 8, EVERYTHING]),
)
def test_x_and_its_inverse_whatever_is_left_as_a_relay(
    seed: int, homes: int, top: str, max_degree: int
) -> None:
    model = LinDistFlow.from_feeder(centre_tapped(seed, 12, homes, top=top))
    reduced = tree_reduce(model, legs(homes), max_degree=max_degree)
    assert_reduces(model, reduced)
    if max_degree == EVERYTHING:
        assert not reduced.relays


@pytest.mark.parametrize("name", ["ieee13", "ieee123"])
def test_without_relays_it_is_the_dense_reduction(name: str) -> None:
    feeder = load_feeder(name)
    agents = list(dict.fromkeys(f"{d.bus}.{p}" for d in feeder.loads for p in d.phases))
    model = LinDistFlow.from_feeder(feeder)
    at = [model.electrical_nodes(a)[0] for a in agents]
    agents = [a for i, a in enumerate(agents) if at[i] not in at[:i]]
    reduced = tree_reduce(model, agents, max_degree=EVERYTHING)
    dense = kron_reduce(model, agents)
    assert_reduces(model, reduced)
    scale = np.abs(dense.y.toarray()).max()
    np.testing.assert_allclose(reduced.y.toarray(), dense.y.toarray(), atol=1e-8 * scale)


def test_single_phase_model() -> None:
    model = LinDistFlow.from_feeder(load_feeder("ieee123"), "single")
    assert_reduces(model, tree_reduce(model, [f"{i}" for i in range(2, 115, 4)], max_degree=3))
    with pytest.raises(GridModelError, match="sits where the voltage is fixed"):
        tree_reduce(model, ["65", "149"])  # 149: below the regulator of the stiff source


def test_phase_pattern_keeps_the_two_legs_of_a_secondary_together() -> None:
    model = LinDistFlow.from_feeder(centre_tapped(3, 12, 20))
    reduced = tree_reduce(model, legs(20), within_phase=True)
    phase = {t.windings[1].bus[1:]: t.windings[0].nodes[0] for t in model.feeder.transformers}
    feeds = np.array([phase[a.split(".")[0][4:]] for a in reduced.agents])
    x = reduced.x.dense()[:40, :40]
    other = feeds[:, None] != feeds[None, :]
    assert (x[other] == 0.0).all()
    _, physical = model.sensitivity(legs(20), legs(20))
    np.testing.assert_allclose(x[~other], physical[~other], atol=1e-9 * physical.max())
    # The small-feeder pattern of the same name knows the legs' phase as well.
    assert kron_reduce(model, legs(20), pattern="phase").error < 1e-8


def test_two_thousand_agents_have_few_neighbours() -> None:
    """Without relays each would have 1999 neighbours: no agent lies between any two homes."""
    homes = 1000
    model = LinDistFlow.from_feeder(centre_tapped(1, 400, homes))
    reduced = tree_reduce(model, legs(homes))
    m = reduced.y.shape[0]
    assert len(reduced.relays) < homes
    assert reduced.y.nnz / m < 32
    probe = np.cos(np.arange(m) ** 2)
    np.testing.assert_allclose(reduced.y @ reduced.x.times(probe), probe, atol=1e-7)
    few = [0, 1, 700, 1999]
    labels = [legs(homes)[i] for i in few]
    _, x = model.sensitivity(labels, labels)
    np.testing.assert_allclose(reduced.x.rows(np.array(few))[:, few], x, rtol=1e-9)


def test_agents_on_both_sides_of_an_ideal_regulator() -> None:
    """They share a voltage but for the tap: the lower one gets a service drop, as in `kron`."""
    feeder = centre_tapped(2, 6, 3, top="regulators")
    agents = ["b0.1", "b1.1", "b2.1", *legs(3)]
    reduced = tree_reduce(LinDistFlow.from_feeder(feeder), agents)
    x = reduced.x.dense()
    assert x[1, 1] / x[1, 0] == pytest.approx(1.05)
    np.testing.assert_allclose(reduced.y @ x, np.eye(len(x)), atol=1e-7)


def test_errors_say_what_to_change() -> None:
    feeder = centre_tapped(0, 3, 1)
    with pytest.raises(GridModelError, match="share an electrical node"):
        tree_reduce(LinDistFlow.from_feeder(feeder), ["b1.1", "b1.1"])
    stiff = replace(feeder, source=Source("b0", 12.47))
    with pytest.raises(GridModelError, match=r"'b0\.2' sits where the voltage is fixed"):
        tree_reduce(LinDistFlow.from_feeder(stiff), ["b1.1", "b0.2"])
