"""All DERs of a feeder as one plant: a vectorised step from weather and set-points to injections.

Injections are positive (kW, kvar): a battery that charges and a house are negative.

| kind | p set-point | never set, or NaN |
| --- | --- | --- |
| pv | upper limit (curtailment) | no limit |
| battery, inverter | requested injection | the last good one, at first 0 |
| vehicle | requested injection (negative: charging) | it charges at full power until full |
| flexible_load | requested injection (negative) | full demand |
| flexible_load with energy, house | smallest injection: demand is capped | no cap |
| house with a variable-speed heat pump | requested injection | its thermostat decides |

An infinite set-point, and a NaN that the table gives no meaning, is dropped: the last good one
holds. The same holds for a reactive set-point that is not finite. Loads take no reactive set-point;
they draw at their power factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from grid_models.base.options import checked_choice, checked_number
from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.ders.disturbances import DerDisturbance, altered_kw, altered_units_kw
from grid_models.ders.houses import HouseFleet, houses_of_ders
from grid_models.ders.rules import DerError
from grid_models.ders.tanks import TankFleet, tanks_of_ders
from grid_models.ders.vehicles import VehicleFleet
from grid_models.feeder.model import Der

Array = NDArray[np.float64]
Index = slice | NDArray[np.intp]
HEAT_PUMPS = ("thermostat", "variable_speed")


class DerFleet:
    """All DERs of a feeder as one plant.

    Parameters
    ----------
    ders : Their order is the order of every array.
    seed : For the houses and tanks behind house and flexible-load DERs, and the use of vehicles.
    battery : Of all batteries and vehicles.
    priority : What an inverter keeps when p and q together pass its rating.
    q_limit_pu : Largest reactive power over kVA, in (0, 1]; 0.44 is IEEE 1547-2018 Category B.
    pv_temp_coeff_per_k : Relative change of PV power per K of outdoor temperature above 25 degrees
        C; 0 as in the thesis, -0.0035 is usual for silicon.
    power_factor : Of houses and flexible loads, lagging.
    heat_pumps : What a house does under a cap, see `HouseFleet`: its thermostat runs below it, or
        its heat pump runs at it.

    Attributes
    ----------
    p_low_kw, p_high_kw : ndarray, shape (n,)
        Bounds of the injection in the last step; for PV the upper one is the available power.

    Raises DerError: A DER is impossible (name twice, p_min above p_max, a battery without energy)
    or a parameter is out of range.
    """

    def __init__(
        self,
        ders: Sequence[Der],
        *,
        seed: int = 0,
        battery: BatteryParameters | None = None,
        priority: Literal["watt", "var"] = "watt",
        q_limit_pu: float = 1.0,
        pv_temp_coeff_per_k: float = 0.0,
        power_factor: float = 0.95,
        heat_pumps: Literal["thermostat", "variable_speed"] = "thermostat",
    ) -> None:
        self.ders = tuple(ders)
        _check_ders(self.ders)
        checked_choice("priority", priority, ("watt", "var"), error=DerError)
        checked_choice("heat_pumps", heat_pumps, HEAT_PUMPS, error=DerError)
        for name, value in (("q_limit_pu", q_limit_pu), ("power_factor", power_factor)):
            checked_number(name, value, low=0.0, high=1.0, open_low=True, error=DerError)
        self.names = tuple(d.name for d in self.ders)
        self.n = n = len(self.ders)
        self.p_low_kw = np.array([d.p_min_kw for d in self.ders], dtype=np.float64)
        self.p_high_kw = np.array([d.p_max_kw for d in self.ders], dtype=np.float64)
        self._kva = np.array([d.kva for d in self.ders], dtype=np.float64)
        self._kva_sq = self._kva**2
        self._q_limit = q_limit_pu * self._kva
        self._var_first = priority == "var"
        self._pv_coeff = pv_temp_coeff_per_k
        self._tan_phi = math.sqrt(1.0 - power_factor**2) / power_factor
        self._index_kinds()
        self._pv_rating = self.p_high_kw[self._pv].copy()
        self._p_rating_low, self._p_rating_high = self.p_low_kw.copy(), self.p_high_kw.copy()
        self._nan_is_free = np.array(
            [d.kind not in ("battery", "inverter") for d in self.ders], dtype=bool
        )
        self._p_set = np.where(self._nan_is_free, np.nan, 0.0)
        self._q_set = np.zeros(n)
        self._p_kw = np.zeros(n)
        cells = battery or BatteryParameters()
        self.batteries = BatteryFleet(self._of(self._battery), cells)
        self.vehicles = VehicleFleet(self._of(self._vehicle), cells, seed)
        self._vehicle_kva, self._q_limit_pu = self._kva[self._vehicle].copy(), q_limit_pu
        self._build_thermal(seed, heat_pumps == "variable_speed")

    def _of(self, index: Index) -> tuple[Der, ...]:
        """Return the DERs of an index."""
        if isinstance(index, slice):
            return self.ders[index]
        return tuple(self.ders[i] for i in index)

    def _index_kinds(self) -> None:
        where: dict[str, list[int]] = {}
        for i, der in enumerate(self.ders):
            tank = der.kind == "flexible_load" and der.energy_kwh > 0.0
            where.setdefault("tank" if tank else der.kind, []).append(i)
        self._pv = _as_index(where.get("pv", []))
        self._battery = _as_index(where.get("battery", []))
        self._vehicle = _as_index(where.get("vehicle", []))
        self._flexible = _as_index(where.get("flexible_load", []))
        self._tank = _as_index(where.get("tank", []))
        self._house = _as_index(where.get("house", []))
        self._present = frozenset(where)
        self._loads = _as_index(
            sorted(i for k in ("flexible_load", "tank", "house") for i in where.get(k, []))
        )
        self._has_loads = not self._present <= {"pv", "battery", "inverter", "vehicle"}

    def _build_thermal(self, seed: int, variable_speed: bool) -> None:
        self.houses: HouseFleet | None = None
        self.tanks: TankFleet | None = None
        if "house" in self._present:
            parameters, self._house_group = houses_of_ders(self._of(self._house), seed)
            self.houses = HouseFleet(parameters, variable_speed=variable_speed)
            self._house_count = np.bincount(self._house_group).astype(np.float64)
        if "tank" in self._present:
            tank_parameters, self._tank_group = tanks_of_ders(self._of(self._tank), seed)
            self.tanks = TankFleet(tank_parameters)

    @property
    def storage_names(self) -> tuple[str, ...]:
        """Labels of `soc_kwh`: batteries, then vehicles."""
        return tuple(d.name for i in (self._battery, self._vehicle) for d in self._of(i))

    @property
    def soc_kwh(self) -> Array:
        """Energy in each battery and vehicle, kWh, shape (len(storage_names),)."""
        return np.concatenate([self.batteries.soc_kwh, self.vehicles.soc_kwh])

    @property
    def house_names(self) -> tuple[str, ...]:
        """Labels of `temp_c`."""
        return tuple(d.name for d in self._of(self._house))

    @property
    def temp_c(self) -> Array:
        """Mean indoor temperature of each house DER, degrees C, shape (len(house_names),)."""
        if self.houses is None:
            return np.zeros(0)
        total = np.bincount(self._house_group, self.houses.temp_in_c)
        mean: Array = total / self._house_count
        return mean

    @property
    def headroom_kvar(self) -> Array:
        """Reactive power each inverter could give at the last step's p; 0 for loads, shape (n,)."""
        room = np.sqrt(np.maximum(self._kva_sq - self._p_kw**2, 0.0))
        room = np.minimum(room, self._q_limit)
        room[self._loads] = 0.0
        return room

    def step(
        self,
        dt_s: float,
        irradiance_pu: float | Array,
        temp_c: float,
        p_set_kw: Array | None = None,
        q_set_kvar: Array | None = None,
        *,
        load_pu: float | Array = 1.0,
        disturbance: DerDisturbance | None = None,
        time_s: float = 0.0,
    ) -> tuple[Array, Array]:
        """Advance the plant by one step; return p_kw and q_kvar, means over the step, each (n,).

        Parameters
        ----------
        dt_s : Length of the step, s, > 0.
        irradiance_pu : (n,). In units of 1000 W/m2, mean over the step; a PV unit's rating is its
            output at 1 and more.
        temp_c : Outdoor temperature.
        p_set_kw, q_set_kvar : (n,). Set-points, see the module's table; None holds the last.
        load_pu : (n,). Demand of houses and flexible loads, multiple of nominal.
        disturbance : Changes to the DERs that bypass their controls and set-points.
        time_s : Time of day at the begin of the step; vehicles leave and return by it.

        Raises DerError: A set-point array has the wrong shape, or dt_s or the weather is not a
        usable number.
        """
        checked_number("dt_s", dt_s, low=0.0, open_low=True, error=DerError)
        checked_number("temp_c", temp_c, error=DerError)
        self._take_set_points(p_set_kw, q_set_kvar)
        if not self.n:
            return np.zeros(0), np.zeros(0)
        if "vehicle" in self._present:
            self._plug_vehicles(time_s, dt_s)
        low, high = self._bounds(dt_s, irradiance_pu, temp_c, load_pu)
        if self._var_first:
            q = np.minimum(np.maximum(self._q_set, -self._q_limit), self._q_limit)
            room = np.sqrt(np.maximum(self._kva_sq - q * q, 0.0))
        else:
            q, room = self._q_set, self._kva
        p = self._inverter_power(low, high, room)
        if self._has_loads:
            self._load_power(p, low, dt_s, temp_c, load_pu, disturbance)
        if disturbance is not None:
            p[~disturbance.connected] = 0.0
        if not self._var_first:
            room = np.sqrt(np.maximum(self._kva_sq - p * p, 0.0))
            np.minimum(room, self._q_limit, out=room)
            q = np.minimum(np.maximum(q, -room), room)
        if self._has_loads:
            q[self._loads] = self._tan_phi * p[self._loads]
        if disturbance is not None:
            q = np.where(disturbance.connected, q, 0.0)
        if "battery" in self._present:
            self.batteries.advance(dt_s, p[self._battery])
        if "vehicle" in self._present:
            self.vehicles.advance(dt_s, p[self._vehicle])
        self._p_kw = p
        return p.copy(), q  # a caller who writes into it does not change the headroom

    def _plug_vehicles(self, time_s: float, dt_s: float) -> None:
        """Leave neither active nor reactive power where no vehicle is plugged in."""
        self.vehicles.plug(time_s, dt_s)
        kva = np.where(self.vehicles.home, self._vehicle_kva, 0.0)
        self._kva[self._vehicle], self._kva_sq[self._vehicle] = kva, kva**2
        self._q_limit[self._vehicle] = self._q_limit_pu * kva

    def _take_set_points(self, p_set_kw: Array | None, q_set_kvar: Array | None) -> None:
        """Accept the set-points that mean something; the others hold their last good value."""
        for name, values in (("p_set_kw", p_set_kw), ("q_set_kvar", q_set_kvar)):
            if values is not None and values.shape != (self.n,):
                raise DerError(
                    f"{name} has shape {values.shape}", where="DER step", expected=f"({self.n},)"
                )
        if p_set_kw is not None:
            good = np.abs(p_set_kw) != np.inf
            good &= self._nan_is_free | (p_set_kw == p_set_kw)
            np.copyto(self._p_set, p_set_kw, where=good)
        if q_set_kvar is not None:
            np.copyto(self._q_set, q_set_kvar, where=np.isfinite(q_set_kvar))

    def _bounds(
        self, dt_s: float, irradiance_pu: float | Array, temp_c: float, load_pu: float | Array
    ) -> tuple[Array, Array]:
        """Return the least and largest injection of every DER in this step, kW."""
        low, high = self.p_low_kw, self.p_high_kw
        if "pv" in self._present:
            sun = irradiance_pu * (1.0 + self._pv_coeff * (temp_c - 25.0))
            if isinstance(sun, np.ndarray):
                sun = np.minimum(np.maximum(sun, 0.0), 1.0)[self._pv]
            else:
                if math.isnan(sun):
                    raise DerError("irradiance_pu is NaN", where="DER step", expected="a number")
                sun = min(max(sun, 0.0), 1.0)
            high[self._pv] = self._pv_rating * sun
        if "battery" in self._present:
            low[self._battery], high[self._battery] = self.batteries.limits(dt_s)
        if "vehicle" in self._present:
            low[self._vehicle], high[self._vehicle] = self.vehicles.limits(dt_s)
        if "flexible_load" in self._present:
            demand = load_pu[self._flexible] if isinstance(load_pu, np.ndarray) else load_pu
            low[self._flexible] = self._p_rating_low[self._flexible] * demand
            high[self._flexible] = self._p_rating_high[self._flexible] * demand
        return low, high

    def _inverter_power(self, low: Array, high: Array, room: Array) -> Array:
        """Return p inside [low, high] and the rating; loads are overwritten afterwards."""
        # fmin and fmax pass over NaN: an unlimited PV unit gives all it has.
        p = np.fmin(self._p_set, high)
        if "vehicle" in self._present:
            free = np.isnan(self._p_set[self._vehicle])
            p[self._vehicle] = np.where(free, low[self._vehicle], p[self._vehicle])
        np.maximum(p, low, out=p)
        np.minimum(p, room, out=p)
        return np.maximum(p, -room, out=p)

    def _load_power(
        self,
        p: Array,
        low: Array,
        dt_s: float,
        temp_c: float,
        load_pu: float | Array,
        disturbance: DerDisturbance | None,
    ) -> None:
        """Write the injections of flexible loads, tanks and houses into `p`."""
        if "flexible_load" in self._present:
            asked = self._p_set[self._flexible]
            least = low[self._flexible]
            asked = np.where(np.isnan(asked), least, asked)
            high = self.p_high_kw[self._flexible]
            p[self._flexible] = np.minimum(np.maximum(asked, least), high)
            if disturbance is not None:
                rating = -self._p_rating_low[self._flexible]
                by = disturbance.at(self._flexible)
                p[self._flexible] = -altered_kw(-p[self._flexible], rating, by)
        if self.tanks is not None:
            demand = float(np.mean(load_pu))
            wanted = self.tanks.wanted_kw(dt_s, demand)
            total = np.bincount(self._tank_group, wanted).astype(np.float64, copy=False)
            share = _kept(total, self._cap(self._tank))
            granted, drawn = wanted * share[self._tank_group], total * share
            if disturbance is not None:
                granted, drawn = self._disturbed_tanks(granted, drawn, disturbance)
            self.tanks.advance(granted)
            p[self._tank] = -drawn
        if self.houses is not None:
            demand_by_house: float | Array = 1.0
            if isinstance(load_pu, np.ndarray):
                demand_by_house = load_pu[self._house][self._house_group]
            else:
                demand_by_house = load_pu
            cap = self._cap(self._house)
            by_house = None if disturbance is None else disturbance.at(self._house)
            used = self.houses.step(dt_s, temp_c, demand_by_house, cap, self._house_group, by_house)
            p[self._house] = -np.bincount(self._house_group, used)

    def _disturbed_tanks(
        self, granted: Array, drawn: Array, disturbance: DerDisturbance
    ) -> tuple[Array, Array]:
        """Return what each heater and each tank DER draws under a disturbance."""
        assert self.tanks is not None
        group, by = self._tank_group, disturbance.at(self._tank)
        rating = self.tanks.parameters.heater_kw
        moved = altered_units_kw(granted, rating, np.zeros_like(granted), group, by)
        changed = by.alters | ~by.connected
        return moved, np.where(changed, np.bincount(group, moved, len(drawn)), drawn)

    def _cap(self, index: Index) -> Array:
        """Return the largest consumption the set-points allow, inf where there is none."""
        asked = self._p_set[index]
        return np.where(np.isnan(asked), np.inf, np.maximum(-asked, 0.0))


def _kept(wanted_kw: Array, cap_kw: Array) -> Array:
    """Return the share of the wanted power that a cap leaves."""
    return np.where(wanted_kw > cap_kw, cap_kw / np.maximum(wanted_kw, 1e-12), 1.0)


def _as_index(where: Sequence[int]) -> Index:
    """Return a slice for consecutive positions (views, no copies), else an index array."""
    if not where:
        return slice(0, 0)
    if where[-1] - where[0] + 1 == len(where):
        return slice(where[0], where[-1] + 1)
    return np.array(where, dtype=np.intp)


def _check_ders(ders: Sequence[Der]) -> None:
    names = [d.name for d in ders]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DerError("two DERs have this name", where=f"DER '{twice}'", expected="unique names")
    for der in ders:
        numbers = (der.kva, der.p_max_kw, der.p_min_kw, der.energy_kwh)
        fault = None
        if not all(map(math.isfinite, numbers)) or der.kva < 0.0 or der.energy_kwh < 0.0:
            fault = "finite ratings, kva and energy_kwh not negative"
        elif der.p_min_kw > der.p_max_kw:
            fault = "p_min_kw <= p_max_kw"
        elif der.kind == "pv" and der.p_min_kw != 0.0:
            fault = "p_min_kw = 0 <= p_max_kw for PV"
        elif der.kind in ("battery", "vehicle") and not (
            der.energy_kwh > 0.0 and der.p_min_kw <= 0.0 <= der.p_max_kw
        ):
            fault = f"a {der.kind} with energy_kwh > 0 and p_min_kw <= 0 <= p_max_kw"
        elif der.kind in ("house", "flexible_load") and (der.p_max_kw > 0.0 or der.count < 1):
            fault = "a load: p_min_kw <= p_max_kw <= 0, count >= 1"
        elif der.kind == "house" and der.p_max_kw != 0.0:
            fault = "p_max_kw = 0 for a house"
        if fault:
            raise DerError("ratings are impossible", where=f"DER '{der.name}'", expected=fault)
