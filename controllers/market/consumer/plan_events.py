"""Bad input of single homes, and targets that their plans miss: as events, so that others go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.market.consumer.batch_qp import Array
from controllers.market.consumer.home_plan import HomeEvent, HomePlan
from controllers.market.consumer.homes import HomeForecast, Homes
from controllers.market.consumer.plan_model import StorageCase

SERIES = {"irradiance_pu": 0.0, "temp_c": 20.0, "base_kw": 0.0, "price_per_kwh": 0.0}


def cleaned(
    homes: Homes, forecast: HomeForecast, starts: dict[str, Array]
) -> tuple[HomeForecast, dict[str, Array], list[HomeEvent]]:
    """Replace what is not a number: in a forecast by the value before it (the first: after it).

    A storage whose charge is not known counts as empty, a house at the middle of its set-points.
    """
    events: list[HomeEvent] = []
    filled: dict[str, Any] = {}
    for name, otherwise in SERIES.items():
        values = getattr(forecast, name)
        bad = ~np.isfinite(values)
        if not bad.any():
            continue
        filled[name] = _held(np.atleast_2d(values), np.atleast_2d(bad), otherwise)
        filled[name] = filled[name].reshape(values.shape)
        counts = np.broadcast_to(bad, forecast.shape).sum(axis=1)
        steps = forecast.shape[1]
        for i in np.flatnonzero(counts):
            text = f"{counts[i]} of {steps} values of {name} are not numbers"
            used = "the value before them" if counts[i] < steps else f"{otherwise:g}"
            what = f"{used} is used"
            events.append(HomeEvent(homes.names[i], "forecast", f"{text}; {what}"))
    middle = 0.5 * (homes.houses.heat_set_c + homes.houses.cool_set_c)
    kept = {}
    for name, otherwise_at in (
        ("battery", homes.battery.soc_min * homes.battery.energy_kwh),
        ("vehicle", homes.vehicle.soc_min * homes.vehicle.energy_kwh),
        ("temp", middle),
    ):
        bad = ~np.isfinite(starts[name])
        kept[name] = np.where(bad, otherwise_at, starts[name])
        for i in np.flatnonzero(bad):
            text = f"{name} at the start is not a number; {kept[name][i]:.2f} is used"
            events.append(HomeEvent(homes.names[i], "start", text))
    return replace(forecast, **filled), kept, events


def plan_events(homes: Homes, plan: HomePlan, cases: dict[str, StorageCase]) -> list[HomeEvent]:
    """Return where starts are outside limits, and where trips, targets and comfort are missed.

    Parameters
    ----------
    cases : Of batteries and vehicles of all homes.
    """
    events: list[HomeEvent] = []

    def tell(where: NDArray[np.bool_], kind: str, text: str, *values: Array) -> None:
        events.extend(
            HomeEvent(homes.names[i], kind, text.format(*(v[i] for v in values)))
            for i in np.flatnonzero(where)
        )

    for name, units in (("battery", homes.battery), ("vehicle", homes.vehicle)):
        low, high = units.soc_min * units.energy_kwh, units.soc_max * units.energy_kwh
        start = plan.soc_kwh[name][:, 0]
        outside = (start < low - 1e-6) | (start > high + 1e-6)
        inside = (plan.soc_kwh[name] >= low[:, None] - 1e-3) & (
            plan.soc_kwh[name] <= high[:, None] + 1e-3
        )
        back = np.where(inside.any(axis=1), inside.argmax(axis=1), -1)
        text = f"{name} starts at {{:.2f}} kWh, outside {{:.2f}} to {{:.2f}} kWh; "
        tell(
            outside & (back >= 0), "limits", text + "inside after {} steps", start, low, high, back
        )
        tell(outside & (back < 0), "limits", text + "not inside in this plan", start, low, high)
    case = cases["vehicle"]
    short = (case.wanted_kwh - case.trip_kwh).sum(axis=0)
    text = "the trip needs {:.2f} kWh more than the vehicle can have"
    tell(short > 1e-6, "trip", text, short)
    due = homes.trips.target_soc * homes.vehicle.energy_kwh
    at_target = case.due & (homes.vehicle.energy_kwh > 0.0)
    missing = np.where(at_target, due - plan.soc_kwh["vehicle"][:, 1:].T, 0.0).max(axis=0)
    text = "the target of {:.2f} kWh is missed by {:.2f} kWh"
    tell(missing > 1e-3, "target", text, due, missing)
    half, houses = 0.5 * homes.houses.band_k, homes.houses
    temp = plan.temp_c[:, 1:]
    low_by = (houses.heat_set_c - half)[:, None] - temp
    off = np.maximum(low_by, temp - (houses.cool_set_c + half)[:, None]).max(axis=1)
    tell((houses.hvac_kw > 0.0) & (off > 1e-3), "comfort", "up to {:.2f} K outside the band", off)
    tell(~plan.converged, "solver", "the plan is not optimal to the solver's tolerance")
    return events


def _held(values: Array, bad: NDArray[np.bool_], otherwise: float) -> Array:
    """Return rows with bad entries replaced by the last good one, else the first good one."""
    steps = np.arange(values.shape[1])
    last = np.maximum.accumulate(np.where(bad, -1, steps), axis=1)
    first = (~bad).argmax(axis=1, keepdims=True)
    held = np.take_along_axis(values, np.where(last < 0, first, last), axis=1)
    nothing = bad.all(axis=1, keepdims=True)
    return np.where(nothing, otherwise, held)
