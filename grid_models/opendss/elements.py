"""The active element of a compiled OpenDSS circuit, and its buses with voltage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError
from grid_models.feeder.model import Bus
from grid_models.opendss.engine import Engine

LIVE_PU = 0.02  # below this a node counts as without voltage


def each(interface: Any) -> Iterator[None]:
    """Step through the elements of a class that are in service; each becomes the active one."""
    more = interface.First()
    while more:
        yield
        more = interface.Next()


def source_kv_ll(dss: Any) -> float:
    """Return the line-to-line base of the active source; a single-phase one states its own."""
    kv = float(dss.Vsources.BasekV())
    return kv * float(np.sqrt(3.0)) if int(dss.Vsources.Phases()) == 1 else kv


def terminals(dss: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Return bus and nodes of each terminal of the active element."""
    names = [str(n).split(".")[0].lower() for n in dss.CktElement.BusNames()]
    order = [int(n) for n in dss.CktElement.NodeOrder()]
    n = int(dss.CktElement.NumConductors())
    return [(bus, tuple(order[i * n : (i + 1) * n])) for i, bus in enumerate(names)]


def primitive(dss: Any) -> NDArray[np.complex128]:
    """Return the primitive admittance matrix of the active element, in siemens."""
    flat = as_complex(dss.CktElement.YPrim())
    n = round(np.sqrt(flat.size))
    # The engine stores columns one after the other.
    return flat.reshape(n, n).T


def as_complex(values: Any) -> NDArray[np.complex128]:
    """Return the engine's complex numbers, which some versions give as pairs of real ones."""
    flat = np.asarray(values)
    return flat if np.iscomplexobj(flat) else flat.astype(np.float64).view(np.complex128)


def energised_buses(engine: Engine) -> dict[str, Bus]:
    """Return the buses with voltage, in the engine's order, with their live nodes 1 to 3."""
    dss = engine.dss
    _ensure_voltage_bases(engine)
    volts: dict[str, dict[int, float]] = {}
    labels = (str(n).lower().rpartition(".") for n in dss.Circuit.AllNodeNames())
    for (bus, _, node), v in zip(labels, dss.Circuit.AllBusVMag(), strict=True):
        volts.setdefault(bus, {})[int(node)] = float(v)
    buses = {}
    for bus, by_node in volts.items():
        dss.Circuit.SetActiveBus(bus)
        kv = float(dss.Bus.kVBase())
        xy = (float(dss.Bus.X()), float(dss.Bus.Y())) if dss.Bus.Coorddefined() else (None, None)
        live = [n for n, v in by_node.items() if 1 <= n <= 3 and v > LIVE_PU * kv * 1e3]
        if live:
            buses[bus] = Bus(bus, tuple(sorted(live)), kv, *xy)
    return buses


def _ensure_voltage_bases(engine: Engine) -> None:
    """Where the file left bases out, choose them from the rated voltages it names."""
    if not _buses_without_base(engine.dss):
        return
    kv_ll = {source_kv_ll(engine.dss) for _ in each(engine.dss.Vsources)}
    for _ in each(engine.dss.Transformers):
        t = engine.dss.Transformers
        for number in range(1, int(t.NumWindings()) + 1):
            t.Wdg(number)
            single_wye = engine.dss.CktElement.NumPhases() == 1 and not t.IsDelta()
            kv_ll.add(round(float(t.kV()) * (np.sqrt(3.0) if single_wye else 1.0), 4))
    engine.command(f"set voltagebases=[{' '.join(repr(float(v)) for v in sorted(kv_ll))}]")
    engine.command("calcvoltagebases")
    engine.dss.Solution.Solve()
    missing = _buses_without_base(engine.dss)
    if missing:
        raise FeederError(
            f"bus '{missing[0]}' has no voltage base",
            expected="'Set VoltageBases=[...]' and 'CalcVoltageBases' in the file",
        )


def _buses_without_base(dss: Any) -> list[str]:
    missing = []
    for bus in dss.Circuit.AllBusNames():
        dss.Circuit.SetActiveBus(bus)
        if dss.Bus.kVBase() <= 0.0:
            missing.append(str(bus))
    return missing
