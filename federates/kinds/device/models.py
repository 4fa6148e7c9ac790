"""The models of devices: the physics of the emulators, without registers and sockets.

A simulated device is this model; an emulated one is the same model behind Modbus/TCP in another
process. So the two differ by what registers do to numbers, and by nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from controllers.core.mail import FloatArray
from federates.kinds.device.roles import RoleName
from grid_models.feeder.model import Der


@dataclass(frozen=True)
class Surroundings:
    """Surroundings of the devices in one step.

    Attributes
    ----------
    v_pu : (n,); At the terminals, mean over the phases.
    irradiance_pu, temp_c, load_pu : The feeder's weather, and the multiple of nominal demand.
    """

    v_pu: FloatArray
    irradiance_pu: float
    temp_c: float
    load_pu: float

    def at(self, index: Sequence[int]) -> Surroundings:
        """Return those of some devices."""
        return Surroundings(self.v_pu[list(index)], self.irradiance_pu, self.temp_c, self.load_pu)


class DeviceModel(Protocol):
    """n devices of one role."""

    def step(
        self, dt_s: float, around: Surroundings, asked: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Take the set-points that are finite, advance; return values by port, shape (n,)."""
        ...


class InverterModel:
    """PV inverters of IEEE 1547-2018, told reactive power, upper limit and curve."""

    def __init__(self, ders: Sequence[Der]) -> None:
        from hil.devices.inverter_change import V_REF_RANGE
        from hil.emulators.inverter import InverterFleet
        from hil.emulators.inverter_settings import VarRef

        self._kva = np.array([der.kva for der in ders])
        self._p_max_kw = np.array([der.p_max_kw for der in ders])
        self.fleet = InverterFleet(self._p_max_kw, self._kva)
        self.fleet.settings.var_ref[:] = VarRef.va_max
        self._v_ref_range = V_REF_RANGE
        self._v_ref_pu = np.full(len(ders), np.nan)

    def step(
        self, dt_s: float, around: Surroundings, asked: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Advance; ports ``q_set_kvar``, ``p_set_kw`` (an upper limit) and ``volt_var_ref_pu``.

        The last is the reference voltage of the volt-var curve, and switches that curve on.
        """
        settings = self.fleet.settings
        q, p = asked["q_set_kvar"], asked["p_set_kw"]
        settings.var_on |= np.isfinite(q)
        var_pct = np.clip(100.0 * q / self._kva, -100.0, 100.0)
        np.copyto(settings.var_pct, var_pct, where=np.isfinite(q))
        settings.limit_on |= np.isfinite(p)
        limit_pct = np.clip(100.0 * p / self._p_max_kw, 0.0, 100.0)
        np.copyto(settings.limit_pct, limit_pct, where=np.isfinite(p))
        self._turn(asked["volt_var_ref_pu"])
        p_kw, q_kvar = self.fleet.step(dt_s, around.v_pu, around.irradiance_pu)
        return {"p_kw": p_kw, "q_kvar": q_kvar}

    def _turn(self, v_ref_pu: FloatArray) -> None:
        """Set reference voltages that changed: a setting stays until it is written again."""
        new = np.isfinite(v_ref_pu) & (v_ref_pu != self._v_ref_pu)
        self.fleet.settings.volt_var_on |= new
        np.copyto(self.fleet.settings.v_ref, np.clip(v_ref_pu, *self._v_ref_range), where=new)
        np.copyto(self._v_ref_pu, v_ref_pu, where=new)


class BatteryModel:
    """Batteries behind an inverter, told their injection."""

    def __init__(self, ders: Sequence[Der]) -> None:
        from hil.emulators.inverter import BatterySource, InverterFleet

        self._p_max_kw = np.array([der.p_max_kw for der in ders])
        energy_kwh = np.array([der.energy_kwh for der in ders])
        self._source = BatterySource(self._p_max_kw, energy_kwh)
        self.fleet = InverterFleet(self._p_max_kw, source=self._source)

    def step(
        self, dt_s: float, around: Surroundings, asked: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Advance; port ``p_set_kw``."""
        settings, p = self.fleet.settings, asked["p_set_kw"]
        settings.wset_on |= np.isfinite(p)
        within = np.clip(p, -self._p_max_kw, self._p_max_kw)
        np.copyto(settings.wset_kw, within, where=np.isfinite(p))
        p_kw, q_kvar = self.fleet.step(dt_s, around.v_pu, around.irradiance_pu)
        soc_pct = 100.0 * self._source.soc_kwh / self._source.energy_kwh
        return {"p_kw": p_kw, "q_kvar": q_kvar, "soc_pct": soc_pct}


class ThermostatModel:
    """Thermostats with CTA-2045 verbs, each in the house of a label (see `house_labels`)."""

    def __init__(self, ders: Sequence[Der], houses: Sequence[str], seed: int) -> None:
        from hil.emulators.thermostat_plant import thermostats

        self.plant = thermostats(houses, [-der.p_min_kw for der in ders], seed=seed)
        self._last: dict[str, FloatArray] = {}

    def step(
        self, dt_s: float, around: Surroundings, asked: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Advance; ports ``verb`` (code of CTA-2045) and ``cool_set_c``."""
        for name, array in asked.items():
            last = self._last.setdefault(name, np.full(len(array), np.nan))
            # Only a change is set, as by a person at the wall: repeating it would restart a timer.
            for i in np.flatnonzero(np.isfinite(array) & (array != last)).tolist():
                self._turn(i, name, float(array[i]))
            np.copyto(last, array, where=np.isfinite(array))
        self.plant.set_inputs({"temp_out_c": around.temp_c, "load_pu": around.load_pu})
        self.plant.advance(dt_s)
        out = self.plant.outputs()
        return {"p_kw": out["p_kw"], "temp_c": out["temp_in_c"]}

    def _turn(self, i: int, name: str, value: float) -> None:
        """Set a point as its display does: in its own resolution, refused where impossible."""
        from hil.servers.pdu import Refused

        bank = self.plant.thermostats[i].bank
        point = bank.points[name]
        with contextlib.suppress(Refused):
            bank.write(point.table, point.address, point.encode(value))


def house_labels(ders: Sequence[Der], houses: Literal["own", "feeder"]) -> list[str]:
    """Return the labels that the houses behind thermostats are drawn by; see `DeviceOptions`."""
    # The feeder draws the houses of a DER as NAME/0, NAME/1, ...
    return [f"{der.name}/0" if houses == "feeder" else der.name for der in ders]


def build_model(
    role: RoleName, ders: Sequence[Der], seed: int, houses: Literal["own", "feeder"] = "own"
) -> DeviceModel:
    """Return the model of devices of one role."""
    if role == "inverter":
        return InverterModel(ders)
    if role == "battery":
        return BatteryModel(ders)
    return ThermostatModel(ders, house_labels(ders, houses), seed)
