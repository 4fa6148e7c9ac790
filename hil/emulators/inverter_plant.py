"""Emulated inverters and batteries, ready to be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grid_models.ders.batteries import BatteryParameters
from hil.emulators.inverter import BatterySource, InverterFleet
from hil.emulators.inverter_nameplate import Nameplate
from hil.emulators.inverter_unit import InverterUnit
from hil.emulators.plant import Array, checked_inputs
from hil.servers.habits import Habits
from hil.servers.pdu import Bank

INPUTS = {"v_pu": (0.0, 2.0), "irradiance_pu": (0.0, 1.5), "hz": (40.0, 70.0)}


class InverterPlant:
    """n inverters of one kind with their registers; a `hil.emulators.plant.Plant`.

    Parameters
    ----------
    phases : 1 or 3.
    v_ln : Nominal voltage, line to neutral, V.
    heartbeat_s : See `InverterUnit`.
    """

    def __init__(
        self, fleet: InverterFleet, *, phases: int = 3, v_ln: float = 277.0, heartbeat_s: float = 0
    ) -> None:
        self.fleet = fleet
        self.kind = "battery" if isinstance(fleet.source, BatterySource) else "inverter"
        self.time_s = 0.0
        self.habits = Habits()
        self._inputs: dict[str, Array] = {
            "v_pu": np.ones(fleet.n),
            "irradiance_pu": np.ones(fleet.n),
            "hz": np.full(fleet.n, 60.0),
        }
        name = f"Emulated {self.kind}"
        self.units = [
            InverterUnit(
                fleet, i, Nameplate(f"{i + 1:06d}", phases, v_ln, model_name=name), heartbeat_s
            )
            for i in range(fleet.n)
        ]

    @property
    def banks(self) -> Sequence[Bank]:
        """Registers, one bank per device."""
        return [unit.bank for unit in self.units]

    def set_inputs(self, inputs: Mapping[str, object]) -> None:
        """Take ``v_pu``, ``irradiance_pu``, ``hz``; see `Plant`."""
        self._inputs |= checked_inputs(inputs, INPUTS, self.fleet.n)

    def advance(self, dt_s: float) -> None:
        """Let time pass; a step is split where a timer ends inside it."""
        end_s = self.time_s + dt_s
        while self.time_s < end_s - 1e-9:
            event_s = min(unit.next_event_s for unit in self.units)
            stop_s = min(max(event_s, self.time_s + 1e-6), end_s)
            self.fleet.step(stop_s - self.time_s, **self._inputs)
            self.time_s = stop_s
            for unit in self.units:
                unit.at(stop_s)

    def outputs(self) -> dict[str, Array]:
        """Return ``p_kw`` and ``q_kvar`` (injections), and ``soc_pu`` of batteries."""
        values = {"p_kw": self.fleet.p_kw.copy(), "q_kvar": self.fleet.q_kvar.copy()}
        source = self.fleet.source
        if isinstance(source, BatterySource):
            values["soc_pu"] = source.soc_kwh / source.energy_kwh
        return values

    def set_reading_factors(self, factors: Sequence[float]) -> None:
        """Make the sensors read too much, one factor per device."""
        for unit, factor in zip(self.units, factors, strict=True):
            unit.reading_factor = factor


def inverters(
    n: int, rated_kw: float, rated_kva: float | None = None, *, running: bool = True, **plant: Any
) -> InverterPlant:
    """Return n equal PV inverters; `plant` are keywords of `InverterPlant`."""
    kva = None if rated_kva is None else np.full(n, rated_kva)
    return InverterPlant(InverterFleet(np.full(n, rated_kw), kva, running=running), **plant)


def batteries(
    n: int, rated_kw: float, energy_kwh: float, *, soc_start: float = 0.5, running: bool = True,
    **plant: Any,
) -> InverterPlant:  # fmt: skip
    """Return n equal batteries; `plant` are keywords of `InverterPlant`."""
    parameters = BatteryParameters(soc_start=soc_start)
    source = BatterySource(np.full(n, rated_kw), np.full(n, energy_kwh), parameters)
    fleet = InverterFleet(np.full(n, rated_kw), source=source, running=running)
    return InverterPlant(fleet, **plant)
