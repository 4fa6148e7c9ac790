"""Homes of the consumer market: what their devices can do, and what each home expects.

Powers are injections at the home's terminals (charging and consumption are negative), energies kWh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from controllers.market.model.errors import MarketError
from grid_models.ders.houses import HouseParameters

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Storages:
    """One storage per home, each attribute of shape (h,); ``energy_kwh = 0`` means none.

    Attributes
    ----------
    p_min_kw, p_max_kw : Limits of the injection; ``p_min_kw <= 0 <= p_max_kw``. A vehicle that
        cannot feed back (V1G) has ``p_max_kw = 0``.
    energy_kwh : Capacity.
    soc_min, soc_max : Limits of the state of charge, shares of the capacity.
    charge_efficiency, discharge_efficiency : One way.
    """

    p_min_kw: Array
    p_max_kw: Array
    energy_kwh: Array
    soc_min: Array
    soc_max: Array
    charge_efficiency: Array
    discharge_efficiency: Array

    def __post_init__(self) -> None:
        _check_lengths(self, "storages")
        for name, bad, expected in (
            ("p_min_kw", ~(self.p_min_kw <= 0.0), "at most 0 kW"),
            ("p_max_kw", ~(self.p_max_kw >= 0.0), "at least 0 kW"),
            ("energy_kwh", ~(self.energy_kwh >= 0.0), "at least 0 kWh"),
            ("soc_min", ~((self.soc_min >= 0.0) & (self.soc_min <= self.soc_max)), "0 to soc_max"),
            ("soc_max", ~(self.soc_max <= 1.0), "at most 1"),
            ("charge_efficiency", ~_share(self.charge_efficiency), "above 0, at most 1"),
            ("discharge_efficiency", ~_share(self.discharge_efficiency), "above 0, at most 1"),
        ):
            _refuse(bad, f"storages.{name}", expected)

    @classmethod
    def alike(
        cls,
        energy_kwh: Array,
        p_min_kw: Array,
        p_max_kw: Array,
        soc_min: float = 0.1,
        soc_max: float = 1.0,
        efficiency: float = 0.95,
    ) -> Storages:
        """Return storages of h homes that share limits of charge and efficiencies."""
        one = np.ones_like(energy_kwh)
        return cls(
            p_min_kw, p_max_kw, energy_kwh, soc_min * one, soc_max * one, efficiency * one,
            efficiency * one,
        )  # fmt: skip


@dataclass(frozen=True)
class Trips:
    """The day of each home's vehicle, each attribute of shape (h,); hours of the day, 0 to 24.

    Attributes
    ----------
    leave_h, return_h : The vehicle is away from `leave_h` to `return_h`, every day, past midnight
        where `return_h` is the smaller one; equal: never.
    trip_kwh : What it uses in that time.
    target_soc, target_h : State of charge that it needs, and when; 0: no target.
    """

    leave_h: Array
    return_h: Array
    trip_kwh: Array
    target_soc: Array
    target_h: Array

    def __post_init__(self) -> None:
        _check_lengths(self, "trips")
        for name in ("leave_h", "return_h", "target_h"):
            value = getattr(self, name)
            _refuse(~((value >= 0.0) & (value <= 24.0)), f"trips.{name}", "an hour, 0 to 24")
        _refuse(~(self.trip_kwh >= 0.0), "trips.trip_kwh", "at least 0 kWh")
        _refuse(
            ~((self.target_soc >= 0.0) & (self.target_soc <= 1.0)), "trips.target_soc", "0 to 1"
        )

    def away(self, start_s: float, step_s: float, steps: int) -> Array:
        """Return the share of the window that falls into each step, (h, steps); 0: at home."""
        length = np.mod(self.return_h - self.leave_h, 24.0)[:, None]
        step_h = step_s / 3600.0
        begin = start_s / 3600.0 + step_h * np.arange(steps)
        inside = np.zeros((len(self.leave_h), steps))
        for days in (0.0, 24.0):  # the window that began yesterday, and today's
            since = np.mod(begin - self.leave_h[:, None], 24.0) - days
            inside += np.clip(
                np.minimum(since + step_h, length) - np.maximum(since, 0.0), 0.0, None
            )
        return np.divide(inside, length, out=np.zeros_like(inside), where=length > 0.0)

    def due(self, start_s: float, step_s: float, steps: int) -> NDArray[np.bool_]:
        """Return at the end of which steps the target is due, (h, steps): the last before it."""
        end = (start_s + step_s * np.arange(1, steps + 1)) / 3600.0
        ahead = np.mod(self.target_h[:, None] - end + 1e-9, 24.0)
        return (ahead < step_s / 3600.0) & (self.target_soc > 0.0)[:, None]


@dataclass(frozen=True)
class Homes:
    """The devices of h homes; a home may lack any of them (a rating of 0).

    Attributes
    ----------
    names : One per home; errors of forecasts are drawn by name.
    houses : Thermal model and heat pump (``hvac_kw = 0``: none); `base_kw` is not used here.
    pv_kw : (h,). Rating of the PV.
    battery, vehicle : Storages.
    trips : Of the vehicles.
    """

    names: tuple[str, ...]
    houses: HouseParameters
    pv_kw: Array
    battery: Storages
    vehicle: Storages
    trips: Trips

    def __post_init__(self) -> None:
        h = len(self.names)
        counts = {
            "houses": len(self.houses.hvac_kw),
            "pv_kw": len(self.pv_kw),
            "battery": len(self.battery.energy_kwh),
            "vehicle": len(self.vehicle.energy_kwh),
            "trips": len(self.trips.leave_h),
        }
        for name, count in counts.items():
            if count != h:
                raise MarketError(f"{count} entries", where=f"homes.{name}", expected=f"{h} homes")
        _refuse(~(self.pv_kw >= 0.0), "homes.pv_kw", "at least 0 kW")

    def take(self, some: Sequence[int] | NDArray[np.intp]) -> Homes:
        """Return some of the homes."""
        index = np.asarray(some, dtype=np.intp)
        return Homes(
            tuple(self.names[i] for i in index),
            _taken(self.houses, index),
            self.pv_kw[index],
            _taken(self.battery, index),
            _taken(self.vehicle, index),
            _taken(self.trips, index),
        )


@dataclass(frozen=True)
class HomeForecast:
    """What h homes expect for the next H steps; shape (H,) or (h, H), where not said otherwise.

    Attributes
    ----------
    step_s : Length of a step.
    start_s : Time of the day at which the first step begins.
    irradiance_pu : Available PV power as a share of the rating.
    temp_c : Outdoor temperature.
    base_kw : (h, H). Consumption that is not planned, positive.
    price_per_kwh : Of import; export earns the same.
    """

    step_s: float
    start_s: float
    irradiance_pu: Array
    temp_c: Array
    base_kw: Array
    price_per_kwh: Array

    def __post_init__(self) -> None:
        if self.base_kw.ndim != 2 or not self.base_kw.shape[1]:
            raise MarketError(
                f"shape {self.base_kw.shape}", where="forecast.base_kw", expected="(homes, steps)"
            )
        for name in ("irradiance_pu", "temp_c", "price_per_kwh"):
            shape = getattr(self, name).shape
            if shape not in (self.base_kw.shape, self.base_kw.shape[1:]):
                raise MarketError(
                    f"shape {shape}",
                    where=f"forecast.{name}",
                    expected="(steps,) or (homes, steps)",
                )
        if not self.step_s > 0.0:
            raise MarketError(f"{self.step_s} s", where="forecast.step_s", expected="above 0 s")

    @property
    def shape(self) -> tuple[int, int]:
        """Homes and steps."""
        return self.base_kw.shape[0], self.base_kw.shape[1]

    def wide(self, name: str) -> Array:
        """Return an attribute as (h, H)."""
        values: Array = np.broadcast_to(getattr(self, name), self.base_kw.shape)
        return values

    def take(self, some: Sequence[int] | NDArray[np.intp]) -> HomeForecast:
        """Return the forecast of some of the homes."""
        series = ("irradiance_pu", "temp_c", "base_kw", "price_per_kwh")
        index = np.asarray(some, dtype=np.intp)
        wide = {x: getattr(self, x)[index] for x in series if getattr(self, x).ndim == 2}
        return replace(self, **wide)


def _taken(parameters: T, index: NDArray[np.intp]) -> T:
    values = {f.name: getattr(parameters, f.name)[index] for f in fields(parameters)}  # type: ignore[arg-type]
    return type(parameters)(**values)


def _share(values: Array) -> NDArray[np.bool_]:
    return (values > 0.0) & (values <= 1.0)


def _check_lengths(parameters: Any, where: str) -> None:
    shapes = {f.name: np.shape(getattr(parameters, f.name)) for f in fields(parameters)}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != first or len(shape) != 1:
            raise MarketError(
                f"shape {shape}", where=f"{where}.{name}", expected="one number per home"
            )


def _refuse(bad: NDArray[np.bool_], where: str, expected: str) -> None:
    if bad.any():
        raise MarketError(
            f"home {int(np.argmax(bad))} has a value that is not accepted",
            where=where,
            expected=expected,
        )
