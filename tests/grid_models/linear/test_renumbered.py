"""Numbers of phases say nothing: every model gives the same feeder under other numbers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.core.protocol import ControlSite
from controllers.dmpc.dense_plan import dense_response
from controllers.dmpc.feeder_network import feeder_network
from controllers.dmpc.tree_law import cluster_tree_law
from grid_models.branch_flow.model import branch_network
from grid_models.catalog import load_feeder
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Feeder, node_label
from grid_models.linear.kron import kron_reduce
from grid_models.linear.kron_tree import tree_reduce
from grid_models.linear.lindistflow import LinDistFlow

Numbers = dict[str, dict[int, int]]


def new_numbers(feeder: Feeder, seed: int) -> Numbers:
    """Give each bus below the source other numbers, the same on both sides of a regulator."""
    rng = np.random.default_rng(seed)
    maps: Numbers = {
        bus: dict(zip((1, 2, 3), rng.permutation(9)[:3] + 1, strict=True)) for bus in feeder.buses
    }
    maps = {bus: {0: 0} | {k: int(v) for k, v in m.items()} for bus, m in maps.items()}
    maps[feeder.source.bus] = {n: n for n in range(4)}
    for unit in feeder.regulators:
        maps[unit.to_bus] = maps[unit.from_bus]
    return maps


def renumbered(feeder: Feeder, maps: Numbers) -> Feeder:
    def at(bus: str, phases: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(maps[bus][p] for p in phases)

    def branches(elements):  # type: ignore[no-untyped-def]
        return tuple(
            replace(e, phases=at(e.from_bus, e.phases), to_phases=at(e.to_bus, e.phases))
            for e in elements
        )

    def there(elements):  # type: ignore[no-untyped-def]
        return tuple(replace(e, phases=at(e.bus, e.phases)) for e in elements)

    return replace(
        feeder,
        buses={
            n: replace(b, phases=tuple(sorted(at(n, b.phases)))) for n, b in feeder.buses.items()
        },
        lines=branches(feeder.lines),
        switches=branches(feeder.switches),
        transformers=tuple(
            replace(t, windings=tuple(replace(w, nodes=at(w.bus, w.nodes)) for w in t.windings))
            for t in feeder.transformers
        ),
        regulators=tuple(
            replace(
                u,
                phases=at(u.from_bus, u.phases),
                monitored_phase=maps[u.from_bus][u.monitored_phase],
            )
            for u in feeder.regulators
        ),
        capacitors=there(feeder.capacitors),
        loads=there(feeder.loads),
        ders=there(feeder.ders),
    )


def label(maps: Numbers, old: str) -> str:
    bus, _, phase = old.rpartition(".")
    return node_label(bus, maps[bus][int(phase)])


@pytest.fixture(scope="module", params=["ieee13", "ieee123"])
def feeder(request: pytest.FixtureRequest) -> Feeder:
    found = load_feeder(request.param)
    return found.with_ders(place(found, DerRule(kind="pv", at="load_phases", total_kw=900.0)))


@pytest.mark.parametrize("seed", range(3))
def test_linear_models_and_reductions_stay(feeder: Feeder, seed: int) -> None:
    maps = new_numbers(feeder, seed)
    other = renumbered(feeder, maps)
    for around in (None, "nominal"):
        a, b = (LinDistFlow.from_feeder(f, around=around) for f in (feeder, other))
        v = dict(zip(b.nodes, b.v_pu(*b.nominal_injection()), strict=True))
        expected = a.v_pu(*a.nominal_injection())
        np.testing.assert_allclose([v[label(maps, x)] for x in a.nodes], expected, atol=1e-9)
    single = [branch_network(f) for f in (feeder, other)]
    assert single[0].buses == single[1].buses
    for what in ("parent", "r_pu", "x_pu", "l_max_pu", "b_pu"):
        np.testing.assert_allclose(*(getattr(network, what) for network in single), rtol=1e-9)
    a, b = (LinDistFlow.from_feeder(f) for f in (feeder, other))
    phase = dict(zip(b.nodes, b.node_phase, strict=True))
    np.testing.assert_array_equal([phase[label(maps, x)] for x in a.nodes], a.node_phase)
    for pattern in ("exact", "phase"):
        one = kron_reduce(a, feeder.ders, pattern=pattern)
        two = kron_reduce(b, other.ders, pattern=pattern)
        np.testing.assert_allclose(two.x, one.x, rtol=1e-7, atol=1e-15)
        assert two.neighbours == one.neighbours
    own = {a.electrical_nodes(der)[0]: der.labels[0] for der in feeder.ders}
    agents = list(own.values())  # one for each electrical node
    trees = (
        tree_reduce(a, agents, within_phase=True),
        tree_reduce(b, [label(maps, x) for x in agents], within_phase=True),
    )
    n = len(agents)
    x, y = (tree.x.dense()[:n, :n] for tree in trees)
    np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-12)


def test_clusters_of_predictive_control_stay(feeder: Feeder) -> None:
    maps = new_numbers(feeder, 4)
    sites = [ControlSite(f, f.ders, 60.0) for f in (feeder, renumbered(feeder, maps))]
    one, two = (SimpleNamespace(site=site, network=feeder_network(site, 5, {})) for site in sites)
    for old, new in zip(one.network.boundaries, two.network.boundaries, strict=True):
        assert new.labels == tuple(x and label(maps, x) for x in old.labels)
    for c, (old, new) in enumerate(zip(one.network.clusters, two.network.clusters, strict=True)):
        assert new.labels == tuple(label(maps, x) for x in old.labels)
        dense = [dense_response(problem, c) for problem in (one, two)]  # type: ignore[arg-type]
        for what in ("ratio", "r", "x", "r_down", "x_down", "share", "load", "load_kva"):
            a, b = (getattr(response, what) for response in dense)
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9, err_msg=what)
        swept = []
        for problem in (one, two):
            law = cluster_tree_law(problem.site, problem.network, c)
            given = np.asarray(law.inject_p.toarray())
            state = law.sweeps().solve(np.vstack([given, np.zeros_like(given)]))
            swept.append((law.ratio, law.watch @ state[len(given) :]))
        for a, b in zip(*swept, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9)


def test_the_engine_agrees(feeder: Feeder) -> None:
    from grid_models.opendss.circuit import Circuit

    maps = new_numbers(feeder, 7)
    a, b = (Circuit.from_feeder(f) for f in (feeder, renumbered(feeder, maps)))
    v = dict(zip(b.node_labels, b.v_pu(), strict=True))
    np.testing.assert_allclose([v[label(maps, x)] for x in a.node_labels], a.v_pu(), atol=1e-5)
