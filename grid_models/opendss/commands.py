"""The OpenDSS commands that build a circuit from a `Feeder`. Text only: no engine here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError, nearest_name
from grid_models.feeder.model import (
    Bus,
    Capacitor,
    Der,
    Feeder,
    Line,
    Load,
    Regulator,
    Switch,
    Transformer,
)

# Constant-power loads must stay so over the whole range of interest; OpenDSS's own limits of 0.95
# and 1.05 turn them into impedances inside it.
LOAD_V_MIN_PU, LOAD_V_MAX_PU = 0.7, 1.3
# A DER injects what it is told at any voltage that a grid may have. Below, it fades with the
# voltage, so that an island without a source still has a solution.
DER_V_MIN_PU, DER_V_MAX_PU = 0.5, 2.0
# A stiff source and an ideal switch need some impedance for the admittance matrix to exist.
STIFF_OHM = 1e-6
SWITCH_OHM = 1e-4
# Stand-ins for the impedance-free regulator of the IEEE documents: 0.001 % on 10 MVA.
REGULATOR_KVA, REGULATOR_X_PCT = 10000.0, 0.001
BASE_HZ = 60.0
_LOAD_MODEL = {"PQ": 1, "Z": 2, "I": 5}


def feeder_commands(feeder: Feeder) -> list[str]:
    """Return the commands that define the feeder's circuit, without its DERs.

    Regulators come with their controls, which act only in a control mode other than off.
    """
    s = feeder.source
    r, x = max(s.r_ohm, STIFF_OHM), max(s.x_ohm, STIFF_OHM)
    # The engine's kv of a source: line to line, but for one of a single phase.
    kv = s.base_kv_ll / (math.sqrt(3.0) if len(s.phases) == 1 else 1.0)
    commands = [
        "clear",
        f"new circuit.feeder bus1={_at(s.bus, s.phases)} phases={len(s.phases) or 3} "
        f"basekv={kv!r} pu={s.v_pu!r} "
        f"angle={s.angle_deg!r} r1={r!r} x1={x!r} r0={r!r} x0={x!r}",
    ]
    commands += [_line(line) for line in feeder.lines if line.closed]
    commands += [_switch(switch) for switch in feeder.switches]
    commands += [f"open line.{s.name} 1" for s in feeder.switches if not s.closed]
    commands += [_transformer(transformer) for transformer in feeder.transformers]
    for regulator in feeder.regulators:
        kv_ln = feeder.buses[regulator.from_bus].base_kv_ln
        commands += _regulator(regulator, kv_ln)
    commands += [_capacitor(bank) for bank in feeder.capacitors if bank.closed]
    commands += [_load(load) for load in feeder.all_loads]
    commands += [
        f'new "reactor.neutral_{bus.name}" bus1={_at(bus.name, (bus.neutral,))} phases=1 '
        f"r={STIFF_OHM} x=0"
        for bus in feeder.buses.values()
        if bus.neutral  # taken as grounded, as in the lines
    ]
    # With base voltages the engine measures its convergence against them. Without, against the
    # voltage itself, which never settles on a bus that has none.
    commands.append("makebuslist")
    commands += [
        f"setkvbase bus={bus.name} kvln={bus.base_kv_ln!r}" for bus in feeder.buses.values()
    ]
    return commands


def der_command(element: str, der: Der, bus: Bus, *, floating: bool) -> str:
    """Return the command for a constant-power injection: a load of negative power, at rest.

    A load is the engine's cheapest constant-power element. It keeps its power from `DER_V_MIN_PU`
    to `DER_V_MAX_PU` of the bus's voltage. It stands between its phases and the bus's neutral (or
    ground). On a bus without a path to ground (`floating_buses`) phase-to-ground power has no
    meaning, so there the resource sits between its phases, a single-phase one between its phase
    and the next.
    """
    nodes = der.phases
    conn, n = "wye", len(nodes)
    # The engine's kv of a wye element: line to line for two and three phases.
    kv = bus.base_kv_ln * bus.base_fit * (math.sqrt(3.0) if n in (2, 3) else 1.0)
    if floating and len(bus.phases) > 1:
        if n == 1:
            place = bus.phases.index(nodes[0])
            nodes = (nodes[0], bus.phases[(place + 1) % len(bus.phases)])
        conn, n = "delta", (3 if len(nodes) == 3 else 1)
        kv = bus.base_kv_ln * math.sqrt(3.0)
    elif bus.neutral:
        nodes = (*nodes, bus.neutral)
    return (
        f'new "load.{element}" bus1="{_at(bus.name, nodes)}" phases={n} conn={conn} kv={kv!r} '
        f"model=1 kw=0 kvar=0 vminpu={DER_V_MIN_PU} vmaxpu={DER_V_MAX_PU}"
    )


def floating_buses(feeder: Feeder) -> set[str]:
    """Return the buses that no conducting path ties to ground (behind delta windings only).

    A bus with a neutral conductor is not one.
    """
    group = {bus: bus for bus in feeder.buses}

    def root(bus: str) -> str:
        while group[bus] != bus:
            group[bus] = group[group[bus]]
            bus = group[bus]
        return bus

    ends = [(e.from_bus, e.to_bus) for e in feeder.lines]
    ends += [(e.from_bus, e.to_bus) for e in feeder.switches]
    ends += [(e.from_bus, e.to_bus) for e in feeder.regulators]
    for a, b in ends:
        group[root(a)] = root(b)
    grounded = {root(feeder.source.bus)} if feeder.source.bus in group else set()
    for transformer in feeder.transformers:
        for w in transformer.windings:
            if w.connection == "wye" and 0 in w.nodes:
                grounded.add(root(w.bus))
    return {
        bus.name
        for bus in feeder.buses.values()
        if root(bus.name) not in grounded and not bus.neutral
    }


def _at(bus: str, nodes: Iterable[int]) -> str:
    return ".".join([bus, *(str(n) for n in nodes)])


def _matrix(values: NDArray[np.float64]) -> str:
    rows = (" ".join(repr(float(v)) for v in row) for row in values)
    return "[" + " | ".join(rows) + "]"


@lru_cache(maxsize=4096)
def _line(line: Line) -> str:
    n = len(line.phases)
    # A section of no length still needs an invertible matrix.
    z = line.z_ohm if np.all(np.abs(np.diag(line.z_ohm)) > 1e-9) else SWITCH_OHM * np.eye(n)
    c_nf = line.b_us * 1e3 / (2.0 * math.pi * BASE_HZ)
    return (
        f'new "line.{line.name}" bus1={_at(line.from_bus, line.phases)} '
        f"bus2={_at(line.to_bus, line.to_phases or line.phases)} phases={n} length=1 units=none "
        f"rmatrix={_matrix(z.real)} xmatrix={_matrix(z.imag)} cmatrix={_matrix(c_nf)}"
        + (f" normamps={line.norm_amps!r}" if line.norm_amps else "")
    )


def _switch(switch: Switch) -> str:
    return (
        f'new "line.{switch.name}" bus1={_at(switch.from_bus, switch.phases)} '
        f"bus2={_at(switch.to_bus, switch.to_phases or switch.phases)} "
        f"phases={len(switch.phases)} length=1 "
        f"units=none r1={SWITCH_OHM} r0={SWITCH_OHM} x1=0 x0=0 c1=0 c0=0"
    )


def _transformer(transformer: Transformer) -> str:
    names = ("xhl", "xht", "xlt")
    x = " ".join(f"{k}={v!r}" for k, v in zip(names, transformer.x_pct, strict=False))
    text = (
        f'new "transformer.{transformer.name}" phases={transformer.n_phases} '
        f"windings={len(transformer.windings)} {x}"
    )
    for number, w in enumerate(transformer.windings, start=1):
        text += (
            f" wdg={number} bus={_at(w.bus, w.nodes)} conn={w.connection} kv={w.kv!r} "
            f"kva={w.kva!r} %r={w.r_pct!r} tap={w.tap_pu!r}"
        )
    return text


def _regulator(regulator: Regulator, kv_ln: float) -> list[str]:
    n = len(regulator.phases)
    kv = kv_ln * (1.0 if n == 1 else math.sqrt(3.0))
    phase = regulator.phases.index(regulator.monitored_phase) + 1
    buses = f"{_at(regulator.from_bus, regulator.phases)} {_at(regulator.to_bus, regulator.phases)}"
    return [
        f'new "transformer.{regulator.name}" phases={n} windings=2 buses=[{buses}] '
        f"conns=[wye wye] kvs=[{kv!r} {kv!r}] kvas=[{REGULATOR_KVA} {REGULATOR_KVA}] "
        f"xhl={REGULATOR_X_PCT} %loadloss=0.00001 ppm=0 taps=[1 {regulator.tap_pu!r}]",
        f'new "regcontrol.{regulator.name}" transformer={regulator.name} winding=2 '
        f"vreg={regulator.v_set_v!r} band={regulator.bandwidth_v!r} ptratio={regulator.pt_ratio!r} "
        f"ctprim={regulator.ct_primary_a!r} r={regulator.r_set_v!r} x={regulator.x_set_v!r} "
        f"ptphase={phase}",
    ]


def _capacitor(bank: Capacitor) -> str:
    n = len(bank.phases)
    kv = bank.kv_ln * (1.0 if n == 1 else math.sqrt(3.0))
    n = 1 if bank.connection == "delta" and n == 2 else n
    # A bank of negative kvar is how a shunt reactor is kept.
    kind = "capacitor" if bank.kvar >= 0.0 else "reactor"
    return (
        f'new "{kind}.{bank.name}" bus1={_at(bank.bus, bank.phases)} phases={n} '
        f"conn={bank.connection} kv={kv!r} kvar={abs(bank.kvar)!r}"
    )


def _load(load: Load) -> str:
    # OpenDSS counts a two-node delta as one phase.
    n = 1 if load.connection == "delta" and len(load.phases) == 2 else len(load.phases)
    return (
        f'new "load.{load.name}" bus1={_at(load.bus, load.phases)} phases={n} '
        f"conn={load.connection} kv={load.kv!r} model={_LOAD_MODEL[load.model]} kw={load.kw!r} "
        f"kvar={load.kvar!r} vminpu={LOAD_V_MIN_PU} vmaxpu={LOAD_V_MAX_PU}"
    )


def check_der(der: Der, feeder: Feeder) -> str:
    """Return the bus of a resource, lower-case, or complain that it has no place there."""
    where = f"DER '{der.name}'"
    bus = der.bus.lower()
    if bus not in feeder.buses:
        raise FeederError(
            f"bus '{der.bus}' is not a bus of '{feeder.name}'",
            where=where,
            expected="a bus of the feeder",
            nearest=nearest_name(der.bus, feeder.buses),
        )
    phases = feeder.buses[bus].phases
    if not der.phases or not set(der.phases) <= set(phases):
        raise FeederError(
            f"bus '{der.bus}' does not have phases {der.phases}",
            where=where,
            expected=f"phases of {phases}",
        )
    return bus


def element_names(feeder: Feeder, der_elements: Sequence[str]) -> dict[str, str]:
    """Map a feeder's own names to the engine's; where two share a name the DER or load wins."""
    names: dict[str, str] = {}
    for kind, group in (
        ("capacitor", feeder.capacitors),
        ("transformer", feeder.regulators),
        ("transformer", feeder.transformers),
        ("line", feeder.switches),
        ("line", feeder.lines),
        ("load", feeder.all_loads),
    ):
        names |= {e.name.lower(): f"{kind}.{e.name}" for e in group}
    for der, element in zip(feeder.ders, der_elements, strict=True):
        names[der.name.lower()] = f"load.{element}"
    return names
