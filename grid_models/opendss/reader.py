"""A `Feeder` read from any compiled OpenDSS circuit.

Impedances come from each element's primitive admittance matrix, so line codes, geometries, unit
conversions and frequencies are left to the engine. What a `Feeder` cannot represent is converted:

- Elements out of service, and those on buses without voltage, are left out.
- An open line becomes an open `Switch`; a line with some conductors open keeps the closed ones.
- Neutral conductors (nodes 4 and up) are taken as grounded at every bus, hence Kron-reduced.
- A series reactor or capacitor becomes a `Line`; a shunt reactor a `Capacitor` of negative kvar.
- A controlled transformer becomes a `Regulator` where that is exact (same nodes and voltage on
  both sides, wye, a small impedance, taps of 0.00625); else it stays a `Transformer` with its tap.
- Loads of the models 4, 6, 7 and 8 become the nearest of PQ, I and Z (see `_MODEL`).
"""

from __future__ import annotations

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
from grid_models.opendss.elements import each, energised_buses, primitive, source_kv_ll, terminals
from grid_models.opendss.engine import Engine

REGULATOR_MAX_X_PCT = 0.1
TAP_STEP_PU = 0.00625
STATUS_VARIABLE, STATUS_FIXED = 0, 1  # of a load; the third, exempt, ignores the load multiplier
_FT_PER_UNIT = (1.0, 5280.0, 1000.0, 3280.839895, 3.280839895, 1.0, 1 / 12, 0.03280839895)
_MODEL: dict[int, LoadModel] = {2: "Z", 3: "PQ", 4: "I", 5: "I", 6: "PQ", 7: "PQ", 8: "PQ"}


def feeder_from_engine(engine: Engine, *, name: str, origin: str = "") -> Feeder:
    """Read the feeder of a compiled and solved circuit, without its DERs.

    Parameters
    ----------
    engine : Context that holds the circuit.
    name : Name of the feeder.
    origin : Where the circuit came from.

    Raises FeederError: No voltage base can be found, there is no source, or a line swaps phases.
    """
    reader = _Reader(engine)
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
        loads=tuple(reader.loads()),
        origin=origin,
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
            bus = terminals(self.dss)[0][0]
            r, x = (float(self.engine.command(f"? vsource.{v.Name()}.{k}")) for k in ("r1", "x1"))
            return Source(bus, source_kv_ll(self.dss), float(v.PU()), float(v.AngleDeg()), r, x)
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
            _check_no_swap(name, nodes_a, nodes_b)
            phases = tuple(sorted(n for n in nodes_a if 1 <= n <= 3))
            closed = self._closed_nodes(nodes_a)
            if phases and (not closed or self.dss.Lines.IsSwitch()):
                switches.append(Switch(name, a, b, phases, bool(closed)))
            elif phases:
                units = int(self.dss.Lines.Units())
                feet = float(self.dss.Lines.Length()) * _FT_PER_UNIT[units if units < 8 else 0]
                amps = float(self.dss.Lines.NormAmps()) or None
                lines.append(self._series(name, a, b, nodes_a, closed, feet, amps))
        for kind, interface in (("reactor", self.dss.Reactors), ("cap", self.dss.Capacitors)):
            for _ in each(interface):
                ends = terminals(self.dss)
                if len(ends) < 2 or ends[0][0] == ends[1][0] or not self.live(ends[0][0]):
                    continue
                name = f"{kind}_{str(interface.Name()).lower()}"
                (a, nodes_a), (b, nodes_b) = ends[:2]
                _check_no_swap(name, nodes_a, nodes_b)
                lines.append(self._series(name, a, b, nodes_a, nodes_a, 0.0, None))
        return lines, switches

    def _closed_nodes(self, nodes: tuple[int, ...]) -> tuple[int, ...]:
        is_open = self.dss.CktElement.IsOpen
        return tuple(
            node
            for i, node in enumerate(nodes, start=1)
            if 1 <= node <= 3 and not is_open(1, i) and not is_open(2, i)
        )

    def _series(
        self,
        name: str,
        a: str,
        b: str,
        nodes: tuple[int, ...],
        kept: tuple[int, ...],
        length_ft: float,
        amps: float | None,
    ) -> Line:
        """Return a line from the element's admittance: Y12 = -1/Z, Y11 + Y12 = jB/2."""
        n = len(nodes)
        y = primitive(self.dss)
        phases = tuple(sorted(p for p in kept if 1 <= p <= 3))
        rows = [nodes.index(p) for p in phases]
        series = -y[:n, n : 2 * n][np.ix_(rows, rows)]
        shunt = (y[:n, :n] + y[:n, n : 2 * n])[np.ix_(rows, rows)]
        # Dropping grounded neutral conductors from Y is their Kron reduction.
        z = np.asarray(np.linalg.inv(series), dtype=np.complex128)
        z = np.asarray((z + z.T) / 2.0, dtype=np.complex128)
        b_us = np.asarray(2e6 * shunt.imag, dtype=np.float64)
        return Line(name, a, b, phases, z, b_us, length_ft, amps)

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
                    nodes=nodes[:wanted],
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

    def capacitors(self) -> list[Capacitor]:
        """Return the shunt banks, shunt reactors among them with negative kvar."""
        banks = []
        for sign, interface in ((1.0, self.dss.Capacitors), (-1.0, self.dss.Reactors)):
            for _ in each(interface):
                ends = terminals(self.dss)
                bus, nodes = ends[0]
                delta = bool(interface.IsDelta())
                phases = tuple(n for n in nodes if 1 <= n <= 3)
                grounded = len(ends) < 2 or ends[1][0] == bus
                if not self.live(bus) or not grounded or not phases:
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

    def loads(self) -> list[Load]:
        """Return the loads at the circuit's present load multiplier."""
        multiplier = float(self.dss.Solution.LoadMult())
        loads = []
        for _ in each(self.dss.Loads):
            api = self.dss.Loads
            bus, nodes = terminals(self.dss)[0]
            phases = tuple(dict.fromkeys(n for n in nodes if 1 <= n <= 3))
            if not self.live(bus) or not phases:
                continue
            n = int(self.dss.CktElement.NumPhases())
            # A one-phase wye load whose return is another phase sits between two phases.
            delta = bool(api.IsDelta()) or (n == 1 and len(phases) == 2)
            factor = multiplier if int(api.Status()) == STATUS_VARIABLE else 1.0
            loads.append(
                Load(
                    name=str(api.Name()).lower(),
                    bus=bus,
                    phases=phases,
                    connection="delta" if delta else "wye",
                    model=_MODEL.get(int(api.Model()), "PQ"),
                    kw=float(api.kW()) * factor,
                    kvar=float(api.kvar()) * factor,
                    kv=float(api.kV()),
                    fixed=int(api.Status()) == STATUS_FIXED,
                )
            )
        return loads


def _check_no_swap(name: str, nodes_a: tuple[int, ...], nodes_b: tuple[int, ...]) -> None:
    pairs = zip(nodes_a, nodes_b, strict=False)
    if any(a != b for a, b in pairs if 1 <= a <= 3 and 1 <= b <= 3):
        raise FeederError(
            f"line '{name}' joins phases {nodes_a} to phases {nodes_b}",
            expected="lines that keep their phases",
        )


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
