"""The homes behind a feeder's DERs, as arrays for their plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.consumer.homes import Homes, Storages, Trips
from grid_models.ders.batteries import BatteryParameters
from grid_models.ders.homes import HomeTable, homes_of
from grid_models.ders.houses import HouseParameters, houses_of_ders
from grid_models.ders.vehicles import VehicleParameters
from grid_models.feeder.model import Der

PLANNED = {"pv": "pv", "battery": "battery", "vehicle": "vehicle", "house": "heat_pump"}
"""Kind of DER to kind of device in a plan."""


@dataclass(frozen=True)
class SiteHomes:
    """The h homes of n DERs.

    Attributes
    ----------
    table : Which DER belongs to which home.
    homes : Their devices; several DERs of a kind in a home are one.
    base_kw : (h,). Consumption at nominal load that is not planned.
    start_c : (h,). Indoor temperature before the first measurement.
    share : (n,). Of each DER in the devices of its kind in its home, by rating.
    rating_kw : (h,). Sum of the ratings of the home's DERs.
    """

    table: HomeTable
    homes: Homes
    base_kw: FloatArray
    start_c: FloatArray
    share: FloatArray
    rating_kw: FloatArray


def site_homes(ders: Sequence[Der], seed: int, where: str) -> SiteHomes:
    """Return the homes of some DERs, with the parameters that the feeder's models draw by name.

    Raises ControllerError: A DER is of a kind that no home plans.
    """
    for der in ders:
        if der.kind not in PLANNED:
            raise ControllerError(
                f"no home plans '{der.name}', a DER of kind {der.kind}",
                where=where,
                expected="DERs of kind house, pv, battery or vehicle (key ders)",
            )
    table = homes_of(ders)
    h = len(table.names)
    rating = np.array([_rating(der) for der in ders])
    kind = np.array([der.kind for der in ders], dtype=object)
    share = np.ones(len(ders))
    for name in PLANNED:
        index = np.flatnonzero(kind == name)
        total = _per(table.home[index], rating[index], h)
        share[index] = rating[index] / np.maximum(total[table.home[index]], 1e-12)
    homes = homes_with(table.names, ders, table.home, seed)
    houses, total = homes.houses, _per(table.home, rating, h)
    return SiteHomes(table, homes, houses.base_kw, houses.start_c, share, total)


def homes_with(
    names: tuple[str, ...], ders: Sequence[Der], home: NDArray[np.intp], seed: int
) -> Homes:
    """Return homes called `names` with the devices `ders`; `home` (n,): the home of each device.

    Several of a kind in a home are one. Devices of kinds that are not in `PLANNED` are left out.
    """
    h = len(names)
    units = {name: [der for der in ders if der.kind == name] for name in PLANNED}
    kind = np.array([der.kind for der in ders], dtype=object)
    of = {name: home[kind == name] for name in PLANNED}
    return Homes(
        names,
        _houses(units["house"], of["house"], h, seed),
        _per(of["pv"], [_rating(der) for der in units["pv"]], h),
        _storages(units["battery"], of["battery"], h),
        _storages(units["vehicle"], of["vehicle"], h),
        _trips(units["vehicle"], of["vehicle"], h, seed),
    )


def _rating(der: Der) -> float:
    return max(der.p_max_kw, -der.p_min_kw)


def _per(home: NDArray[np.intp], values: ArrayLike, h: int) -> FloatArray:
    """Return sums of values per home, (h,)."""
    return np.bincount(home, np.asarray(values), h).astype(np.float64, copy=False)


def _houses(ders: Sequence[Der], home: NDArray[np.intp], h: int, seed: int) -> HouseParameters:
    """Return the house of each home; without one, a house that nothing heats or cools.

    Several houses behind one DER are one of their sum: conductances, capacities and ratings add up,
    set-points are the mean.
    """
    one = np.ones(h)
    none = HouseParameters(
        one, one, one, 0.0 * one, 20.0 * one, 24.0 * one, one, 0.0 * one, 22.0 * one
    )
    if not ders:
        return none
    single, group = houses_of_ders(ders, seed)
    n, at = np.bincount(group), home
    conductance = np.bincount(group, 1.0 / single.r_k_per_kw)
    found = {
        "r_k_per_kw": 1.0 / conductance,
        "c_kwh_per_k": np.bincount(group, single.c_kwh_per_k),
        "hvac_kw": np.bincount(group, single.hvac_kw),
        "base_kw": np.bincount(group, single.base_kw),
        **{
            name: np.bincount(group, getattr(single, name)) / n
            for name in ("cop", "heat_set_c", "cool_set_c", "band_k", "start_c")
        },
    }
    placed = {name: getattr(none, name).copy() for name in found}
    for name, values in found.items():
        placed[name][at] = values
    return replace(none, **placed)


def _storages(ders: Sequence[Der], home: NDArray[np.intp], h: int) -> Storages:
    """Return the storage of each home, with the limits and losses of the feeder's batteries."""
    known = BatteryParameters()
    return Storages.alike(
        _per(home, [der.energy_kwh for der in ders], h),
        _per(home, [der.p_min_kw for der in ders], h),
        _per(home, [der.p_max_kw for der in ders], h),
        known.soc_min,
        known.soc_max,
        known.charge_efficiency,
    )


def _trips(ders: Sequence[Der], home: NDArray[np.intp], h: int, seed: int) -> Trips:
    """Return the day of each home's vehicle; of several, that of the first, with all their use."""
    leave, back, target = np.zeros(h), np.zeros(h), np.zeros(h)
    if not ders:
        return Trips(leave, back, np.zeros(h), target, leave.copy())
    use = VehicleParameters.of_ders(ders, seed)
    energy = _per(home, [der.energy_kwh for der in ders], h)
    first = np.unique(home, return_index=True)[1]
    leave[home[first]], back[home[first]] = use.leave_h[first], use.return_h[first]
    np.divide(_per(home, use.target_kwh, h), energy, out=target, where=energy > 0.0)
    trip = _per(home, use.trip_kwh, h)
    return Trips(leave, back, trip, np.minimum(target, 1.0), leave.copy())
