from dataclasses import replace

import numpy as np
import pytest

from grid_models.catalog import load_feeder
from grid_models.feeder.model import Feeder
from grid_models.hosting.balanced import balanced_feeder
from grid_models.opendss.circuit import Circuit


def _spread(feeder: Feeder) -> Feeder:
    """Return a three-phase feeder whose lines are transposed and whose loads are balanced."""
    lines = []
    for line in feeder.lines:
        n = len(line.phases)
        own = np.trace(line.z_ohm) / n
        mutual = (line.z_ohm.sum() - n * own) / (n * (n - 1))
        lines.append(
            replace(
                line,
                z_ohm=(own - mutual) * np.eye(n) + mutual * np.ones((n, n)),
                b_us=np.zeros((n, n)),
            )
        )
    return replace(feeder, lines=tuple(lines), capacitors=())


def test_the_equivalent_of_a_balanced_three_phase_feeder_is_exact() -> None:
    whole = load_feeder("ieee123")
    three = {b for b, bus in whole.buses.items() if len(bus.phases) == 3}
    lines = [x for x in whole.lines if {x.from_bus, x.to_bus} <= three and len(x.phases) == 3]
    loads = tuple(
        replace(x, phases=(1, 2, 3), kv=4.16, connection="wye")
        for x in whole.loads
        if x.bus in three
    )
    regulators = tuple(
        replace(x, tap_step=0) for x in whole.regulators if {x.from_bus, x.to_bus} <= three
    )
    feeder = _spread(replace(whole, lines=tuple(lines), loads=loads, regulators=regulators))
    reached = _reached(feeder)
    feeder = replace(
        feeder,
        buses={b: bus for b, bus in feeder.buses.items() if b in reached},
        lines=tuple(x for x in feeder.lines if {x.from_bus, x.to_bus} <= reached),
        switches=tuple(x for x in feeder.switches if {x.from_bus, x.to_bus} <= reached),
        regulators=tuple(x for x in feeder.regulators if {x.from_bus, x.to_bus} <= reached),
        loads=tuple(x for x in feeder.loads if x.bus in reached),
        transformers=tuple(
            t for t in feeder.transformers if all(w.bus in reached for w in t.windings)
        ),
    )
    exact, one = Circuit.from_feeder(feeder), Circuit.from_feeder(balanced_feeder(feeder))
    for circuit in (exact, one):
        circuit.set_tolerance(1e-10)
        circuit.solve()
    v_pu = dict(zip(one.node_labels, one.v_pu(), strict=True))
    for label, v in zip(exact.node_labels, exact.v_pu(), strict=True):
        assert v == pytest.approx(v_pu[f"{label.rpartition('.')[0]}.1"], abs=1e-6)
    # The impedance that stands for an ideal regulator is not that of a third of a ganged one.
    assert 3.0 * np.array(one.source_kw_kvar()) == pytest.approx(exact.source_kw_kvar(), rel=1e-5)


def _reached(feeder: Feeder) -> set[str]:
    edges = [*feeder.lines, *(s for s in feeder.switches if s.closed), *feeder.regulators]
    reached, grown = {feeder.source.bus}, True
    while grown:
        new = {e.to_bus for e in edges if e.from_bus in reached} | {
            e.from_bus for e in edges if e.to_bus in reached
        }
        grown = not new <= reached
        reached |= new
    return reached


def test_ratings_and_powers_of_the_whole_feeder_are_kept() -> None:
    feeder = load_feeder("ieee123")
    one = balanced_feeder(feeder)
    assert 3.0 * sum(x.kw for x in one.loads) == pytest.approx(sum(x.kw for x in feeder.loads))
    mean = np.mean(Circuit.from_feeder(feeder).v_pu())
    assert np.mean(Circuit.from_feeder(one).v_pu()) == pytest.approx(mean, abs=2e-3)
