"""A `Feeder` read from any compiled OpenDSS circuit.

Impedances come from each element's primitive admittance matrix, so line codes, geometries, unit
conversions and frequencies are left to the engine. What a `Feeder` cannot represent is converted:

- Elements out of service, and those on buses without voltage, are left out.
- An open line becomes an open `Switch`; a line with some conductors open keeps the closed ones.
- Neutral conductors are taken as grounded at every bus, hence Kron-reduced.
- A series reactor or capacitor becomes a `Line`; a shunt reactor a `Capacitor` of negative kvar.
- A controlled transformer becomes a `Regulator` where that is exact (same nodes and voltage on
  both sides, wye, a small impedance, taps of 0.00625); else it stays a `Transformer` with its tap.
- Loads of the models 4, 6, 7 and 8 become the nearest of PQ, I and Z (see `_MODEL`). A load
  counts on its phases with voltage only; one without any is in `Feeder.other_loads`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.feeder.model import (
    Capacitor,
    Connection,
    Feeder,
    Line,
    Load,
    LoadModel,
    Regulator,
    Source,
    Switch,
    Transformer,
    Winding,
)
from grid_models.opendss.buses import energised_buses
from grid_models.opendss.elements import each, primitive, source_kv_ll, terminals
from grid_models.opendss.engine import Engine
from grid_models.opendss.voltage_notes import voltage_notes

REGULATOR_MAX_X_PCT = 0.1
TAP_STEP_PU = 0.00625
DEFAULT_AMPS = (400.0, 600.0)
"""OpenDSS' normal and emergency amps of a line whose file gives none: no rating."""
STATUS_VARIABLE, STATUS_FIXED = 0, 1  # of a load; the third, exempt, ignores the load multiplier
_Terminal = tuple[str, tuple[int, ...]]
_FT_PER_UNIT = (1.0, 5280.0, 1000.0, 3280.839895, 3.280839895, 1.0, 1 / 12, 0.03280839895)
_MODEL: dict[int, LoadModel] = {2: "Z", 3: "PQ", 4: "I", 5: "I", 6: "PQ", 7: "PQ", 8: "PQ"}


def feeder_from_engine(engine: Engine, *, name: str, origin: str = "") -> Feeder:
    """Read the feeder of a compiled and solved circuit, without its DERs.

    Parameters
    ----------
    engine : Context that holds the circuit.
    name : Name of the feeder.
    origin : Where the circuit came from.

    Raises FeederError: No voltage base can be found, or there is no source.
    """
    reader = _Reader(engine)
    loads, other_loads = reader.loads()
    regulators, transformers = reader.regulators_and_transformers()
    lines, switches = reader.lines_and_switches()
    return Feeder(
        name=name,
        source=reader.source(),
        buses=reader.buses,
        lines=tuple(lines),
        switches=tuple(switches),
        transformers=tuple(transformers),
        regulators=tuple(regulators),
        capacitors=tuple(reader.capacitors()),
        loads=tuple(loads),
        other_loads=tuple(other_loads),
        origin=origin,
        notes=tuple(voltage_notes(engine, reader.buses, loads, other_loads)),
    )


class _Reader:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dss = engine.dss
        self.buses = energised_buses(engine)

    def live(self, *buses: str) -> bool:
        """Whether every one of the buses is in the feeder."""
        return all(bus in self.buses for bus in buses)

    def source(self) -> Source:
        """Return the first source in service."""
        for _ in each(self.dss.Vsources):
            v = self.dss.Vsources
            bus, nodes = terminals(self.dss)[0]
            if bus not in self.buses:
                raise FeederError(
                    f"the source's bus '{bus}' has no voltage in the first solution of OpenDSS",
                    expected="a source with a voltage and an impedance",
                )
            phases = () if nodes == (1, 2, 3) else nodes
            r, x = (float(self.engine.value(f"vsource.{v.Name()}", k)) for k in ("r1", "x1"))
            kv_ll, v_pu, deg = source_kv_ll(self.dss), float(v.PU()), float(v.AngleDeg())
            return Source(bus, kv_ll, v_pu, deg, r, x, phases)
        raise FeederError("the circuit has no source", expected="a Vsource in service")

    def lines_and_switches(self) -> tuple[list[Line], list[Switch]]:
        """Return the lines, series reactors and series capacitors, and the switches."""
        lines: list[Line] = []
        switches: list[Switch] = []
        for _ in each(self.dss.Lines):
            name = str(self.dss.Lines.Name()).lower()
            (a, nodes_a), (b, nodes_b) = terminals(self.dss)
            if not self.live(a, b):
                continue
            joined = self._conductors((a, nodes_a), (b, nodes_b))
            is_open = self.dss.CktElement.IsOpen
            closed = [i for i in joined if not is_open(1, i + 1) and not is_open(2, i + 1)]
            if joined and (not closed or self.dss.Lines.IsSwitch()):
                phases, to_phases = _ends(nodes_a, nodes_b, joined)
                switches.append(Switch(name, a, b, phases, bool(closed), to_phases))
            elif joined:
                units = int(self.dss.Lines.Units())
                feet = float(self.dss.Lines.Length()) * _FT_PER_UNIT[units if units < 8 else 0]
                amps = (float(self.dss.Lines.NormAmps()), float(self.dss.Lines.EmergAmps()))
                rating = None if amps == DEFAULT_AMPS else amps[0] or None
                line = self._series(name, (a, nodes_a), (b, nodes_b), closed)
                lines.append(replace(line, length_ft=feet, norm_amps=rating))
        for kind, interface in (("reactor", self.dss.Reactors), ("cap", self.dss.Capacitors)):
            for _ in each(interface):
                ends = terminals(self.dss)
                if len(ends) < 2 or ends[0][0] == ends[1][0]:
                    continue
                if not self.live(*(bus for bus, _ in ends[:2])):
                    continue
                joined = self._conductors(ends[0], ends[1])
                if joined:
                    name = f"{kind}_{str(interface.Name()).lower()}"
                    lines.append(self._series(name, ends[0], ends[1], joined))
        return lines, switches

    def _is_phase(self, bus: str, node: int) -> bool:
        """Say whether a conductor is a phase: node 1 to 3 (dead or not), or a live one above."""
        own = self.buses[bus]
        return node in own.phases or (1 <= node <= 3 and node != own.neutral)

    def _conductors(self, a: _Terminal, b: _Terminal) -> list[int]:
        """Return which conductors join phases, in the order of the nodes at terminal `a`."""
        joined = [
            i
            for i, (n, m) in enumerate(zip(a[1], b[1], strict=True))
            if self._is_phase(a[0], n) and self._is_phase(b[0], m)
        ]
        return sorted(joined, key=lambda i: a[1][i])

    def _series(self, name: str, a: _Terminal, b: _Terminal, rows: list[int]) -> Line:
        """Return a line from the element's admittance: Y12 = -1/Z, Y11 + Y12 = jB/2."""
        n = len(a[1])
        y = primitive(self.dss)
        series = -y[:n, n : 2 * n][np.ix_(rows, rows)]
        shunt = (y[:n, :n] + y[:n, n : 2 * n])[np.ix_(rows, rows)]
        # Dropping grounded neutral conductors from Y is their Kron reduction.
        z = np.asarray(np.linalg.inv(series), dtype=np.complex128)
        z = np.asarray((z + z.T) / 2.0, dtype=np.complex128)
        b_us = np.asarray(2e6 * shunt.imag, dtype=np.float64)
        phases, to_phases = _ends(a[1], b[1], rows)
        return Line(name, a[0], b[0], phases, z, b_us, to_phases=to_phases)

    def regulators_and_transformers(self) -> tuple[list[Regulator], list[Transformer]]:
        """Return the regulators and all other transformers."""
        controls = controls_by_transformer(self.dss)
        regulators: list[Regulator] = []
        transformers: list[Transformer] = []
        for _ in each(self.dss.Transformers):
            transformer = self._transformer()
            if not self.live(*(w.bus for w in transformer.windings)):
                continue
            control = controls.get(transformer.name)
            regulator = _as_regulator(transformer, control) if control else None
            if regulator is None:
                transformers.append(transformer)
            else:
                regulators.append(regulator)
        return regulators, transformers

    def _transformer(self) -> Transformer:
        t = self.dss.Transformers
        n_phases = int(self.dss.CktElement.NumPhases())
        windings = []
        for number, (bus, nodes) in enumerate(terminals(self.dss), start=1):
            t.Wdg(number)
            connection: Connection = "delta" if t.IsDelta() else "wye"
            wanted = max(n_phases, 2) if connection == "delta" else n_phases + 1
            windings.append(
                Winding(
                    bus=bus,
                    nodes=tuple(self._grounded(bus, n) for n in nodes[:wanted]),
                    connection=connection,
                    kv=float(t.kV()),
                    kva=float(t.kVA()),
                    r_pct=float(t.R()),
                    tap_pu=float(t.Tap()),
                )
            )
        x = [float(t.Xhl())]
        if len(windings) > 2:
            x += [float(t.Xht()), float(t.Xlt())]
        return Transformer(str(t.Name()).lower(), n_phases, tuple(windings), tuple(x))

    def _grounded(self, bus: str, node: int) -> int:
        """Return 0 for the bus's neutral, else the node itself."""
        return 0 if bus in self.buses and node == self.buses[bus].neutral else node

    def capacitors(self) -> list[Capacitor]:
        """Return the shunt banks, shunt reactors among them with negative kvar."""
        banks = []
        for sign, interface in ((1.0, self.dss.Capacitors), (-1.0, self.dss.Reactors)):
            for _ in each(interface):
                ends = terminals(self.dss)
                bus, nodes = ends[0]
                delta = bool(interface.IsDelta())
                phases = tuple(n for n in nodes if self.live(bus) and n in self.buses[bus].phases)
                grounded = len(ends) < 2 or ends[1][0] == bus
                if not grounded or not phases:
                    continue
                n = int(self.dss.CktElement.NumPhases())
                kv = float(interface.kV())
                kv_ln = kv if n == 1 and not delta else kv / np.sqrt(3.0)
                closed = sign < 0.0 or any(int(s) > 0 for s in interface.States())
                banks.append(
                    Capacitor(
                        name=str(interface.Name()).lower(),
                        bus=bus,
                        phases=phases,
                        connection="delta" if delta else "wye",
                        kvar=sign * float(interface.kvar()),
                        kv_ln=float(kv_ln),
                        closed=closed,
                    )
                )
        return banks

    def loads(self) -> tuple[list[Load], list[Load]]:
        """Return the loads at the circuit's present load multiplier, and those without a place."""
        multiplier = float(self.dss.Solution.LoadMult())
        loads: list[Load] = []
        other: list[Load] = []
        for _ in each(self.dss.Loads):
            api = self.dss.Loads
            bus, nodes = terminals(self.dss)[0]
            n = int(self.dss.CktElement.NumPhases())
            phases = self._load_phases(bus, nodes, n, wye=not api.IsDelta())
            # A one-phase wye load whose return is another phase sits between two phases.
            delta = bool(api.IsDelta()) or (n == 1 and len(phases) == 2)
            factor = multiplier if int(api.Status()) == STATUS_VARIABLE else 1.0
            (loads if phases else other).append(
                Load(
                    name=str(api.Name()).lower(),
                    bus=bus,
                    phases=phases or tuple(dict.fromkeys(nodes)),
                    connection="delta" if delta else "wye",
                    model=_MODEL.get(int(api.Model()), "PQ"),
                    kw=float(api.kW()) * factor,
                    kvar=float(api.kvar()) * factor,
                    kv=float(api.kV()),
                    fixed=int(api.Status()) == STATUS_FIXED,
                )
            )
        return loads, other

    def _load_phases(
        self, bus: str, nodes: tuple[int, ...], n: int, *, wye: bool
    ) -> tuple[int, ...]:
        """Return the phases with voltage that a load draws from; none if it cannot draw."""
        if not self.live(bus):
            return ()
        at = self.buses[bus]
        if n > 1 and wye:
            nodes = nodes[:n]
        elif n == 1 and any(0 < k <= 3 and k not in (*at.phases, at.neutral) for k in nodes):
            return ()  # one of its two ends is dead
        phases = tuple(dict.fromkeys(k for k in nodes if k in at.phases))
        return phases if wye or len(phases) <= 3 else ()


def _ends(
    nodes_a: tuple[int, ...], nodes_b: tuple[int, ...], conductors: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `phases` and `to_phases` of the conductors of a line or switch."""
    a, b = (tuple(nodes[i] for i in conductors) for nodes in (nodes_a, nodes_b))
    return a, (() if a == b else b)


def controls_by_transformer(dss: Any) -> dict[str, dict[str, float]]:
    """Settings of every regulator control in service, by transformer name."""
    controls = {}
    for _ in each(dss.RegControls):
        r = dss.RegControls
        controls[str(r.Transformer()).lower()] = {
            "winding": float(r.TapWinding() or r.Winding()),
            "v_set_v": float(r.ForwardVreg()),
            "bandwidth_v": float(r.ForwardBand()),
            "pt_ratio": float(r.PTRatio()),
            "ct_primary_a": float(r.CTPrimary()),
            "r_set_v": float(r.ForwardR()),
            "x_set_v": float(r.ForwardX()),
        }
    return controls


def _as_regulator(transformer: Transformer, control: dict[str, float]) -> Regulator | None:
    """Return the transformer as a `Regulator`, or None where that would not be exact."""
    if len(transformer.windings) != 2 or transformer.x_pct[0] > REGULATOR_MAX_X_PCT:
        return None
    a, b = transformer.windings
    n = transformer.n_phases
    step = (b.tap_pu - 1.0) / TAP_STEP_PU
    alike = (
        a.nodes[:n] == b.nodes[:n]
        and not any(a.nodes[n:] + b.nodes[n:])
        and set(a.nodes[:n]) <= {1, 2, 3}
        and a.connection == b.connection == "wye"
        and abs(a.kv - b.kv) < 1e-6 * a.kv
        and a.tap_pu == 1.0
        and abs(step - round(step)) < 1e-6
        and control["winding"] == 2
    )
    if not alike:
        return None
    settings = {k: v for k, v in control.items() if k != "winding"}
    return Regulator(
        transformer.name, a.bus, b.bus, a.nodes[:n], round(step), a.nodes[0], **settings
    )
