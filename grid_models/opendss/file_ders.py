"""DERs of a user's OpenDSS file (PVSystem, Storage, Generator) and who runs them.

``engine``: OpenDSS with the file's controls. ``ours``: constant-power injections that the caller
moves, in the file's place. ``none``: out of service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import listed
from grid_models.feeder.model import Bus, Der, DerKind, VoltVarCurve
from grid_models.opendss.elements import as_complex, terminals
from grid_models.opendss.engine import Engine

FileDers = Literal["engine", "ours", "none"]
DER_CONTROLS = ("invcontrol", "expcontrol", "storagecontroller")
SHAPES = ("daily", "yearly", "duty")
_DER_KINDS: dict[str, DerKind] = {"pvsystem": "pv", "storage": "battery", "generator": "inverter"}
FILE_DER_CLASSES = tuple(_DER_KINDS)


def ders_of(engine: Engine, buses: Mapping[str, Bus]) -> Iterator[tuple[Der, str]]:
    """Yield each PVSystem, Storage and Generator in service on live phases, and its full name."""
    dss = engine.dss
    for kind_name, kind in _DER_KINDS.items():
        for full in elements_of(engine, (kind_name,)):
            dss.Circuit.SetActiveElement(full)
            bus, nodes = terminals(dss)[0]
            phases = () if bus not in buses else buses[bus].phases
            phases = tuple(n for n in phases if n in nodes)
            if not phases:
                continue
            kva, p_max_kw, p_min_kw, energy_kwh = _rating(engine, full, kind)
            name = full.replace(".", "_", 1)
            yield Der(name, kind, bus, phases, kva, p_max_kw, p_min_kw, energy_kwh), full


def _rating(engine: Engine, full: str, kind: DerKind) -> tuple[float, float, float, float]:
    """Return apparent power, largest and smallest injection, and energy."""

    def value(name: str) -> float:
        return float(engine.value(full, name))

    if kind == "pv":
        return value("kva"), min(value("pmpp"), value("kva")), 0.0, 0.0
    if kind == "battery":
        kw = value("kwrated")
        return max(value("kva"), kw), kw, -kw, value("kwhrated")
    kva = max(value("kva"), value("kw"))
    return kva, kva, 0.0, 0.0


def elements_of(engine: Engine, classes: Sequence[str]) -> list[str]:
    """Return the full names of the elements of some classes that are in service."""
    dss = engine.dss
    found = []
    for full in (str(n).lower() for n in dss.Circuit.AllElementNames()):
        if full.partition(".")[0] in classes:
            dss.Circuit.SetActiveElement(full)
            if dss.CktElement.Enabled():
                found.append(full)
    return found


def adopt(
    engine: Engine, buses: Mapping[str, Bus]
) -> tuple[list[Der], NDArray[np.float64], tuple[str, ...]]:
    """Put the file's DERs and their controls out of service.

    Returns
    -------
    list of Der
        The DERs on energised buses, with the volt-var curve of their InvControl.
    ndarray, shape (2, n)
        Their p_kw and q_kvar in the last solution.
    tuple of str
        What of their behaviour is not adopted, one sentence for each kind.
    """
    dss = engine.dss
    curves, notes = _volt_var_curves(engine)
    ders, powers = [], []
    shaped = 0
    for der, full in ders_of(engine, buses):
        dss.Circuit.SetActiveElement(full)
        power = as_complex(dss.CktElement.TotalPowers()) / engine.times_counted()
        powers.append((-float(power[0].real), -float(power[0].imag)))
        ders.append(replace(der, volt_var=curves.get(full)))
        shaped += der.kind != "pv" and has_shape(engine, full)
    if shaped:
        notes.append(
            f"{shaped} generator or storage elements of the file have load shapes, which are not "
            "used: file_ders is 'ours'"
        )
    others = elements_of(engine, ("storagecontroller", "expcontrol"))
    if others:
        notes.append(f"{listed(others)}: not used, because file_ders is 'ours'")
    taken = {der.name for der in ders}
    every = disable(engine)
    dead = [full for full in every if full.replace(".", "_", 1) not in taken]
    if dead:
        notes.append(
            f"{len(dead)} of {len(every)} DERs of the file, without voltage: {listed(dead, 4)}"
        )
    return ders, np.array(powers, dtype=np.float64).reshape(-1, 2).T, tuple(notes)


def disable(engine: Engine) -> list[str]:
    """Put the file's DERs and their controls out of service; return the names of the DERs."""
    ders = elements_of(engine, FILE_DER_CLASSES)
    for full in (*elements_of(engine, DER_CONTROLS), *ders):
        engine.command(f'edit "{full}" enabled=no')
    return ders


def _volt_var_curves(engine: Engine) -> tuple[dict[str, VoltVarCurve], list[str]]:
    """Return the volt-var curve of each element under an InvControl, and notes on other modes."""
    dss, notes = engine.dss, []
    curves: dict[str, VoltVarCurve] = {}
    for control in elements_of(engine, ("invcontrol",)):

        def value(name: str, control: str = control) -> str:
            return engine.value(control, name).strip().lower()

        mode, reference = value("mode"), value("voltage_curvex_ref")
        curve = value("vvc_curve1")
        if mode != "voltvar" or reference != "rated" or not curve:
            notes.append(f"{control}: mode '{mode}' is not adopted, its DERs have no control")
            continue
        dss.XYCurves.Name(curve)
        v_pu, q_pu = np.array(dss.XYCurves.XArray()), np.array(dss.XYCurves.YArray())
        shape = VoltVarCurve(
            tuple(v_pu.tolist()), tuple(q_pu.tolist()), value("refreactivepower") == "varmax"
        )
        members = value("derlist").strip("[]() ").replace(",", " ").split()
        members = members or elements_of(engine, ("pvsystem", "storage"))
        curves |= dict.fromkeys(members, shape)
    return curves, notes


def has_shape(engine: Engine, full: str) -> bool:
    """Whether an element has a load shape."""
    return any(engine.value(full, shape).strip("[] ") for shape in SHAPES)


class SunDrivenPv:
    """PVSystems that have a load shape, whose place the irradiance of a profile takes.

    A PVSystem without a load shape is constant in every solution mode of OpenDSS and stays so.

    Attributes
    ----------
    notes : A sentence on those without a load shape.
    """

    def __init__(self, engine: Engine) -> None:
        every = elements_of(engine, ("pvsystem",))
        shaped = [full for full in every if has_shape(engine, full)]
        constant = [full.partition(".")[2] for full in every if full not in shaped]
        self.notes: tuple[str, ...] = ()
        if constant:
            self.notes = (
                f"{len(constant)} of {len(every)} PVSystems have no load shape "
                f"({listed(constant, 4)}): their irradiance is constant, as in OpenDSS; with "
                "'file_ders: ours' they follow the profile",
            )
        self._irradiance = np.ones(len(shaped))
        self._engine = engine
        if not shaped:
            return
        engine.command("new loadshape.feederate_constant npts=1 interval=1 mult=(1)")
        for full in shaped:
            of_own = " ".join(f"{shape}=feederate_constant" for shape in SHAPES)
            engine.command(f'edit "{full}" {of_own}')
        self._handles = engine.handles("PVSystem", [full.partition(".")[2] for full in shaped])
        self._index = engine.property_index("PVSystem", "irradiance")
        self._pointer = engine.ffi.cast("double*", self._irradiance.ctypes.data)

    def set(self, irradiance_pu: float) -> None:
        """Set the irradiance, in units of 1000 W/m2."""
        n = len(self._irradiance)
        if n and self._irradiance[0] != irradiance_pu:
            self._irradiance[:] = irradiance_pu
            self._engine.lib.Batch_SetFloat64Array(self._handles, n, self._index, self._pointer, 0)
