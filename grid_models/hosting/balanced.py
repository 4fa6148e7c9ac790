"""The balanced equivalent of a radial feeder, as a feeder with one phase.

A line of n phases that share the power S equally at the line-to-neutral voltage V drops
``(z_self - z_mutual) S / (n V)``, as in `grid_models.linear.single_phase`. One phase of the
equivalent carries S / 3, so its impedance is three times that over n, and its rating n thirds.
Loads, capacitors and transformers have a third of their power; regulators the mean of their taps.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.feeder.model import (
    Capacitor,
    Der,
    Feeder,
    Line,
    Load,
    Regulator,
    Switch,
    Transformer,
    Winding,
)
from grid_models.feeder.topology import radial_tree
from grid_models.linear.single_phase import positive_sequence

PHASES = 3
_ONE = (1,)


def balanced_feeder(feeder: Feeder) -> Feeder:
    """Return the single-phase equivalent: every power of it is a third of the feeder's.

    Raises TopologyError: The feeder is not radial.
    Raises FeederError: A transformer has more than two windings or joins a phase to a phase.
    """
    tree = radial_tree(feeder)
    served = set(tree.buses)
    buses = {
        name: replace(bus, phases=_ONE, neutral=0)
        for name, bus in feeder.buses.items()
        if name in served
    }
    cut = [s for s in feeder.switches if s.closed and {s.from_bus, s.to_bus} <= served]
    lines = [x for x in feeder.lines if x.closed and {x.from_bus, x.to_bus} <= served]
    base_kv = {name: bus.base_kv_ln for name, bus in buses.items()}
    return replace(
        feeder,
        source=replace(feeder.source, phases=_ONE),
        buses=buses,
        lines=tuple(map(_line, lines)),
        switches=tuple(Switch(s.name, s.from_bus, s.to_bus, _ONE, closed=True) for s in cut),
        transformers=tuple(_transformer(x, base_kv) for x in feeder.transformers),
        regulators=_regulators(feeder),
        capacitors=tuple(_capacitor(x, base_kv[x.bus]) for x in feeder.capacitors if x.closed),
        loads=tuple(_load(x, base_kv[x.bus]) for x in feeder.loads if x.bus in served),
        ders=tuple(map(_der, feeder.ders)),
        other_loads=(),
    )


def _line(line: Line) -> Line:
    n = len(line.phases)
    amps = line.norm_amps
    return replace(
        line,
        phases=_ONE,
        to_phases=(),
        z_ohm=np.array([[positive_sequence(line.z_ohm) * PHASES / n]]),
        b_us=np.array([[positive_sequence(line.b_us).real * n / PHASES]]),
        norm_amps=amps * n / PHASES if amps else amps,
    )


def _transformer(transformer: Transformer, base_kv: dict[str, float]) -> Transformer:
    """Return one of three equal single-phase units, with the ratio of the bank's windings."""
    if len(transformer.windings) != 2:
        raise FeederError(
            f"{len(transformer.windings)} windings",
            where=f"balanced equivalent, transformer '{transformer.name}'",
            expected="two, in a balanced equivalent; the three-phase model takes more",
        )
    windings = []
    for w in transformer.windings:
        # The winding's voltage to neutral: of a bank, or of a unit between two phases.
        across = transformer.n_phases > 1 or (len(w.nodes) > 1 and min(w.nodes[:2]) > 0)
        kv = w.kv / sqrt(3.0) if across else w.kv
        windings.append(Winding(w.bus, (1, 0), "wye", kv, w.kva / PHASES, w.r_pct, w.tap_pu))
    return Transformer(transformer.name, 1, tuple(windings), transformer.x_pct)


def _regulators(feeder: Feeder) -> tuple[Regulator, ...]:
    """Return one regulator for the units between two buses, with the mean of their taps."""
    groups: dict[tuple[str, str], list[Regulator]] = {}
    for unit in feeder.regulators:
        groups.setdefault((unit.from_bus, unit.to_bus), []).append(unit)
    return tuple(
        replace(
            units[0],
            phases=_ONE,
            monitored_phase=1,
            # Taps are whole steps in the tables only; a mean need not be.
            tap_step=sum(u.tap_step * len(u.phases) for u in units)  # type: ignore[arg-type]
            / sum(len(u.phases) for u in units),
        )
        for units in groups.values()
    )


def _capacitor(bank: Capacitor, base_kv_ln: float) -> Capacitor:
    return replace(
        bank,
        phases=_ONE,
        connection="wye",
        kvar=bank.kvar / PHASES,
        kv_ln=bank.kv_ln if bank.kv_ln > 0.0 else base_kv_ln,
    )


def _load(load: Load, base_kv_ln: float) -> Load:
    """Return a third of the load, at the voltage to neutral that it was rated for."""
    between = load.connection == "delta" or len(load.phases) > 1
    kv = load.kv / sqrt(3.0) if between else load.kv
    return replace(
        load,
        phases=_ONE,
        connection="wye",
        kw=load.kw / PHASES,
        kvar=load.kvar / PHASES,
        kv=kv or base_kv_ln,
    )


def _der(der: Der) -> Der:
    return replace(
        der,
        phases=_ONE,
        kva=der.kva / PHASES,
        p_max_kw=der.p_max_kw / PHASES,
        p_min_kw=der.p_min_kw / PHASES,
        energy_kwh=der.energy_kwh / PHASES,
    )
