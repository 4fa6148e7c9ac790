"""Electric vehicles: batteries that are away for a part of each day and use energy meanwhile.

Thesis (Nair, device models): "EV model similar to BS", ``P = 0`` while the vehicle is away, V1G
``P <= 0`` (it only charges), V2G either sign, a state of charge to reach. Here a vehicle is V2G
where `Der.p_max_kw` is positive.

A vehicle uses `trip_kwh` evenly over its time away. Energy beyond what the battery holds is charged
elsewhere and counted (`VehicleFleet.elsewhere_kwh`), so that the energy balance holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.ders.rules import DerError
from grid_models.ders.thermal import Array, label_keys, uniform_between
from grid_models.feeder.model import Der, VehicleUse

DAY_H = 24.0
SOC_TARGET = 0.8
_AT_HOME_H = 1e-9  # a shorter absence is rounding


@dataclass(frozen=True)
class VehicleParameters:
    """When each vehicle is away and what it needs, each of shape (n,).

    Attributes
    ----------
    leave_h, return_h : Hours of day, 0 to 24; it is away in ``[leave_h, return_h)``, over midnight
        where `return_h` is the smaller.
    trip_kwh : Energy that one time away takes from the battery.
    target_kwh : Stored energy wanted at departure.
    start_kwh : Energy at the start of a run.
    """

    leave_h: Array
    return_h: Array
    trip_kwh: Array
    target_kwh: Array
    start_kwh: Array

    @classmethod
    def of_ders(
        cls, ders: Sequence[Der], seed: int, battery: BatteryParameters | None = None
    ) -> VehicleParameters:
        """Return the parameters of DERs; values that a DER leaves open are drawn by seed and name.

        Drawn: `leave_h` from 6.5 to 9, `return_h` from 16 to 19 (commuters, own choice),
        `trip_kwh` from 5 to 13 (25 to 65 km at 0.2 kWh/km), at most what a vehicle with its target
        can use. The target is 80 % of the energy, the start a full battery: that of a vehicle that
        came home the evening before.

        Raises DerError: A DER's use is impossible.
        """
        battery = battery or BatteryParameters()
        uses = [der.vehicle or VehicleUse() for der in ders]
        for der, use in zip(ders, uses, strict=True):
            _check_use(der, use, battery)
        keys = label_keys([der.name for der in ders], seed)
        energy = np.array([der.energy_kwh for der in ders], dtype=np.float64)
        target = energy * _given([use.soc_target for use in uses], SOC_TARGET)
        trip = np.minimum(uniform_between(keys, 23, 5.0, 13.0), target - battery.soc_min * energy)
        return cls(
            leave_h=_given([use.leave_h for use in uses], uniform_between(keys, 21, 6.5, 9.0)),
            return_h=_given([use.return_h for use in uses], uniform_between(keys, 22, 16.0, 19.0)),
            trip_kwh=_given([use.trip_kwh for use in uses], trip),
            target_kwh=target,
            start_kwh=energy * _given([use.soc_start for use in uses], battery.soc_max),
        )

    def hours_away(self, time_s: float, dt_s: float) -> Array:
        """Return how much of ``[time_s, time_s + dt_s)`` each is away, h, for dt_s <= 86400."""
        window = (self.return_h - self.leave_h) % DAY_H
        begin = (time_s / 3600.0 - self.leave_h) % DAY_H
        end = begin + dt_s / 3600.0
        today = np.maximum(np.minimum(end, window) - begin, 0.0)
        away: Array = today + np.maximum(np.minimum(end, DAY_H + window) - DAY_H, 0.0)
        return np.where(away < _AT_HOME_H, 0.0, away)


class VehicleFleet(BatteryFleet):
    """Vehicles, vectorised: `BatteryFleet` with times away.

    Call `plug` at the begin of a step, then `limits`, then `advance`.

    Attributes
    ----------
    names : (n,).
    home : (n,). Whether each is plugged in for the whole step.
    leaving_short_kwh : (n,). Target less stored energy of those that leave in this step; else 0.
    elsewhere_kwh : (n,). Energy charged elsewhere since the start.
    """

    def __init__(self, ders: Sequence[Der], parameters: BatteryParameters, seed: int) -> None:
        super().__init__(ders, parameters)
        self.names = tuple(der.name for der in ders)
        self.use = VehicleParameters.of_ders(ders, seed, parameters)
        self.soc_kwh = self.use.start_kwh.copy()
        self.home: NDArray[np.bool_] = np.zeros(len(ders), dtype=bool)
        self.leaving_short_kwh: Array = np.zeros(len(ders))
        self.elsewhere_kwh: Array = np.zeros(len(ders))
        self._used_kwh: Array = np.zeros(len(ders))
        use = self.use
        self._kwh_per_h = use.trip_kwh / ((use.return_h - use.leave_h) % DAY_H)

    def plug(self, time_s: float, dt_s: float) -> None:
        """Update which vehicles are plugged in; `time_s` is the time of day, s."""
        away_h = self.use.hours_away(time_s, dt_s)
        home = away_h == 0.0
        short = np.maximum(self.use.target_kwh - self.soc_kwh, 0.0)
        leaves = self.home & ~home & (short > 1e-6)
        self.leaving_short_kwh = np.where(leaves, short, 0.0)
        self.home = home
        self._used_kwh = self._kwh_per_h * away_h

    def limits(self, dt_s: float) -> tuple[Array, Array]:
        """Return the least and largest injection, kW; 0 and 0 for a vehicle that is away.

        One that returns below the least state of charge may stay idle, but cannot discharge.
        """
        low, high = super().limits(dt_s)
        return np.where(self.home, low, 0.0), np.where(self.home, np.maximum(high, 0.0), 0.0)

    def advance(self, dt_s: float, p_kw: Array) -> None:
        """Integrate injections inside `limits`, and the energy of trips, over the step."""
        soc = self.stored(dt_s, p_kw) - self._used_kwh
        self.elsewhere_kwh = self.elsewhere_kwh + np.maximum(-soc, 0.0)
        self.soc_kwh = np.minimum(np.maximum(soc, 0.0), self._high)


def _given(values: Sequence[float | None], otherwise: Array | float) -> Array:
    """Return the values with `otherwise` in place of None, shape (n,)."""
    found = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.where(np.isnan(found), otherwise, found)


def _check_use(der: Der, use: VehicleUse, battery: BatteryParameters) -> None:
    """Raise DerError where a use is impossible."""
    where = f"DER '{der.name}'"
    shares = (battery.soc_min, battery.soc_max)
    limits = {
        "leave_h": (0.0, DAY_H),
        "return_h": (0.0, DAY_H),
        "trip_kwh": (0.0, der.energy_kwh),
        "soc_target": shares,
        "soc_start": shares,
    }
    for name, (low, high) in limits.items():
        value = getattr(use, name)
        if value is not None and not low <= value <= high:
            expected = f"a number from {low:g} to {high:g}"
            raise DerError(f"{name} is {value}", where=where, expected=expected)
    leave_h, return_h = use.leave_h, use.return_h
    if leave_h is None or return_h is None:
        fault = (leave_h is None) != (return_h is None)
    else:
        fault = (return_h - leave_h) % DAY_H == 0.0
    if fault:
        raise DerError(
            f"leave_h is {leave_h}, return_h is {return_h}",
            where=where,
            expected="two different hours of day, or neither (then they are drawn)",
        )
