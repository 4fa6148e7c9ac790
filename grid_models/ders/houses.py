"""Houses: an RC thermal model with HVAC; consumption is positive here.

Thesis (Nair, device models of heat pumps), for consumption P > 0:

    cooling  T_in(t+1) = theta T_in(t) + (1 - theta) (T_out(t) - rho P(t))
    heating  T_in(t+1) = theta T_in(t) + (1 - theta) (T_out(t) + rho P(t))
    theta = exp(-dt / (R C)),  rho = R eta

the exact solution of ``C dT/dt = (T_out - T)/R -/+ eta P`` for inputs held over the step. (The text
prints P as an injection, P <= 0, which gives the same equations.)

The thermostat has hysteresis and looks one step ahead: a unit that would cross its switching-off
temperature inside the step runs only until then. At 1 s this is a plain on/off thermostat; at 15
min the power is the mean over the step and the comfort band still holds. A heat pump with variable
speed draws what it is told instead, as long as its comfort band and its rating allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import GridModelError
from grid_models.base.options import checked_number
from grid_models.ders.disturbances import DerDisturbance, altered_units_kw
from grid_models.ders.thermal import (
    Array,
    Decay,
    check_arrays,
    grouped,
    label_keys,
    uniform_between,
)
from grid_models.feeder.model import Der


@dataclass(frozen=True)
class HouseParameters:
    """Per house, each of shape (n,).

    Attributes
    ----------
    r_k_per_kw, c_kwh_per_k : Thermal resistance and capacity.
    cop : Heat moved per electrical energy (eta of the thesis).
    hvac_kw : Electrical rating of the HVAC.
    heat_set_c, cool_set_c : Set points; heat_set_c + band_k <= cool_set_c.
    band_k : Whole width of the comfort band round each set point.
    base_kw : Other consumption at ``load_pu = 1``; it cannot be shed (the critical part).
    start_c : Indoor temperature at the start; spread, so that houses do not switch together.
    """

    r_k_per_kw: Array
    c_kwh_per_k: Array
    cop: Array
    hvac_kw: Array
    heat_set_c: Array
    cool_set_c: Array
    band_k: Array
    base_kw: Array
    start_c: Array

    def __post_init__(self) -> None:
        check_arrays(self, ("hvac_kw", "base_kw", "heat_set_c", "cool_set_c"))
        if (self.heat_set_c + self.band_k > self.cool_set_c + 1e-9).any():
            raise GridModelError(
                "heating and cooling bands overlap",
                where="house parameters",
                expected="heat_set_c + band_k <= cool_set_c",
            )

    @classmethod
    def draw(cls, labels: Sequence[str], seed: int, rated_kw: ArrayLike = 7.0) -> HouseParameters:
        """Draw houses; each depends on the seed and its own label only.

        R and C are uniform round 2 K/kW and 2 kWh/K for a house of 7 kW, the residential values
        of Hao, Sanandaji, Poolla and Vincent, "Aggregate flexibility of thermostatically
        controlled loads", IEEE Trans. Power Systems 30(1), 2015, table I, and scale with the
        rating: a larger house loses more and stores more. 20 to 30 % of the rating is critical
        (thesis, DER-rich system), the rest is the HVAC.

        Parameters
        ----------
        labels : One per house.
        rated_kw : HVAC and other consumption together; scalar or shape (n,).
        """
        keys = label_keys(labels, seed)
        rated = np.broadcast_to(np.asarray(rated_kw, dtype=np.float64), keys.shape)
        size = rated / 7.0
        critical = uniform_between(keys, 1, 0.2, 0.3)
        cool = uniform_between(keys, 2, 22.0, 25.0)
        heat = cool - uniform_between(keys, 6, 3.0, 5.0)
        return cls(
            r_k_per_kw=uniform_between(keys, 3, 1.5, 2.5) / size,
            c_kwh_per_k=uniform_between(keys, 4, 1.5, 2.5) * size,
            cop=uniform_between(keys, 5, 2.5, 3.5),
            hvac_kw=(1.0 - critical) * rated,
            heat_set_c=heat,
            cool_set_c=cool,
            band_k=uniform_between(keys, 7, 0.6, 1.4),
            base_kw=critical * rated,
            start_c=heat + (cool - heat) * uniform_between(keys, 8, 0.0, 1.0),
        )


class HouseFleet:
    """Houses with HVAC and other consumption, vectorised.

    Parameters
    ----------
    parameters : Of n houses.
    power_factor : Of everything in the house, lagging.
    variable_speed : What a limit of `step` means for HVAC: False, the thermostat runs below it;
        True, HVAC runs at it.

    Attributes
    ----------
    temp_in_c : (n,). Indoor temperature.
    hvac_kw, base_kw : (n,). Consumption in the last step by use.
    """

    def __init__(
        self,
        parameters: HouseParameters,
        power_factor: float = 0.95,
        variable_speed: bool = False,
    ) -> None:
        checked_number("power_factor", power_factor, low=0.0, high=1.0, open_low=True)
        self.parameters = p = parameters
        self._variable_speed = variable_speed
        self.n = len(p.r_k_per_kw)
        self.tan_phi = float(np.sqrt(1.0 - power_factor**2) / power_factor)
        self.temp_in_c: Array = p.start_c.copy()
        self.hvac_kw: Array = np.zeros(self.n)
        self.base_kw: Array = np.zeros(self.n)
        self.retarget(p.heat_set_c, p.cool_set_c)
        self._cooling = np.zeros(self.n, dtype=bool)
        self._heating = np.zeros(self.n, dtype=bool)
        self._decay = Decay(p.r_k_per_kw * p.c_kwh_per_k)
        self._rho = p.r_k_per_kw * p.cop

    @property
    def heating(self) -> NDArray[np.bool_]:
        """Which units are switched to heating, shape (n,)."""
        return self._heating

    def retarget(self, heat_set_c: Array, cool_set_c: Array) -> None:
        """Change the set points, each of shape (n,); the bands round them keep their width.

        A set point of inf (cooling) or -inf (heating) switches that use off.
        """
        half = 0.5 * self.parameters.band_k
        self._set_c = heat_set_c, cool_set_c
        self._offset_k: Array = np.zeros(self.n)
        self._cool_on_c, self._cool_off_c = cool_set_c + half, cool_set_c - half
        self._heat_on_c, self._heat_off_c = heat_set_c - half, heat_set_c + half

    def step(
        self,
        dt_s: float,
        temp_out_c: float | Array,
        load_pu: float | Array = 1.0,
        limit_kw: Array | None = None,
        group: NDArray[np.intp] | None = None,
        disturbance: DerDisturbance | None = None,
    ) -> Array:
        """Advance all houses by one step; return their consumption, kW, mean over the step, (n,).

        Parameters
        ----------
        dt_s : Length of the step, s.
        temp_out_c : Outdoor temperature over the step; scalar or shape (n,).
        load_pu : Multiple of `base_kw`; scalar or shape (n,).
        limit_kw : Demand response: the most each group may draw, shape (groups,); inf = no limit.
            HVAC gives way, all of a group by the same ratio; other consumption does not. With
            variable speed HVAC draws the whole of what is left, in proportion to its ratings, down
            to the lower end of the comfort band where it is warmer outside than the middle of the
            set-points (cooling), else up to the upper end (heating).
        group : (n,). The group of each house; by default every house is its own.
        disturbance : Of the groups. Moves the thermostats, then switches HVAC on or off, past
            limits too. A unit that is switched on while its thermostat would rest cools where it is
            warmer outside than the middle of its set-points, else it heats. A house off the grid
            draws nothing, and drifts.
        """
        p = self.parameters
        if disturbance is not None and group is None:
            group = np.arange(self.n, dtype=np.intp)
        if disturbance is not None and group is not None:
            self._move_thermostats(disturbance.thermostat_k[group])
        theta = self._decay.at(dt_s)
        free = theta * self.temp_in_c + (1.0 - theta) * temp_out_c
        gain = (1.0 - theta) * self._rho
        hvac = self._wanted_hvac_kw(free, gain)
        self.base_kw = p.base_kw * load_pu
        if limit_kw is not None and self._variable_speed:
            hvac = self._followed(hvac, free, gain, temp_out_c, limit_kw, group)
        elif limit_kw is not None:
            hvac = hvac * self._kept_share(hvac, limit_kw, group)
        heats = self._heating
        if disturbance is not None and group is not None:
            hvac, heats = self._disturbed(hvac, temp_out_c, group, disturbance)
            self.base_kw = np.where(disturbance.connected[group], self.base_kw, 0.0)
        self.temp_in_c = free + np.where(heats, gain, -gain) * hvac
        self._cooling &= self.temp_in_c > self._cool_off_c + 1e-9
        self._heating &= self.temp_in_c < self._heat_off_c - 1e-9
        self.hvac_kw = hvac
        return hvac + self.base_kw

    def _move_thermostats(self, offset_k: Array) -> None:
        """Move both set-points of every house; an offset that did not change costs nothing."""
        if not np.array_equal(offset_k, self._offset_k):
            heat_c, cool_c = self._set_c
            self.retarget(heat_c + offset_k, cool_c + offset_k)
            self._set_c, self._offset_k = (heat_c, cool_c), offset_k

    def _disturbed(
        self, hvac: Array, temp_out_c: float | Array, group: NDArray[np.intp], by: DerDisturbance
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Return the HVAC's power under a disturbance, and which units heat."""
        p = self.parameters
        cold = temp_out_c < 0.5 * (p.heat_set_c + p.cool_set_c)
        forced = ((by.extra_kw > 0.0) | (by.factor > 1.0))[group]
        # A unit that is forced on heats or cools as forced, whatever its thermostat wants.
        turned = forced & np.where(cold, self._cooling, self._heating)
        self._cooling &= ~turned
        self._heating &= ~turned
        hvac = np.where(turned, 0.0, hvac)
        hvac = altered_units_kw(hvac, p.hvac_kw, self.base_kw, group, by)
        return hvac, self._heating | (forced & cold)

    def _wanted_hvac_kw(self, free: Array, gain: Array) -> Array:
        """Switch the thermostats on where needed and return the mean power they ask for."""
        self._cooling |= free > self._cool_on_c
        self._heating |= free < self._heat_on_c
        # A unit never does both: what the indoor air drifts to without it decides.
        self._cooling &= free > self._heat_off_c
        self._heating &= ~self._cooling
        excess = np.where(self._cooling, free - self._cool_off_c, 0.0)
        excess = np.where(self._heating, self._heat_off_c - free, excess)
        return np.minimum(np.maximum(excess / gain, 0.0), self.parameters.hvac_kw)

    def _followed(
        self,
        wanted_kw: Array,
        free: Array,
        gain: Array,
        temp_out_c: float | Array,
        limit_kw: Array,
        group: NDArray[np.intp] | None,
    ) -> Array:
        """Return HVAC at the limits, where there are any; the thermostats where there are none."""
        p = self.parameters
        if group is None:
            group = np.arange(self.n, dtype=np.intp)
        room = np.maximum(limit_kw - grouped(group, self.base_kw, len(limit_kw)), 0.0)
        rated = grouped(group, p.hvac_kw, len(limit_kw))
        asked = p.hvac_kw * np.minimum(room / np.maximum(rated, 1e-12), 1.0)[group]
        cold = temp_out_c < 0.5 * (p.heat_set_c + p.cool_set_c)
        to_the_end = np.where(cold, self._cool_on_c - free, free - self._heat_on_c) / gain
        told = np.isfinite(limit_kw)[group]
        hvac = np.where(told, np.minimum(asked, np.maximum(to_the_end, 0.0)), wanted_kw)
        runs = hvac > 0.0
        self._cooling = np.where(told, runs & ~cold, self._cooling)
        self._heating = np.where(told, runs & cold, self._heating)
        return hvac

    def _kept_share(
        self, flexible_kw: Array, limit_kw: Array, group: NDArray[np.intp] | None
    ) -> Array:
        """Return the share of its flexible consumption each house keeps under its group's limit."""
        if group is None:
            wanted, base = flexible_kw, self.base_kw
        else:
            wanted = grouped(group, flexible_kw, len(limit_kw))
            base = grouped(group, self.base_kw, len(limit_kw))
        room = np.maximum(limit_kw - base, 0.0)
        share = np.where(wanted > room, room / np.maximum(wanted, 1e-12), 1.0)
        return share if group is None else share[group]


def houses_of_ders(ders: Sequence[Der], seed: int) -> tuple[HouseParameters, NDArray[np.intp]]:
    """Return the single houses behind house DERs, and the DER (by position) of each.

    `Der.count` houses share the rating ``-p_min_kw`` in proportion to their `house_parts`.
    """
    labels = [f"{der.name}/{k}" for der in ders for k in range(der.count)]
    group = np.repeat(np.arange(len(ders), dtype=np.intp), [der.count for der in ders])
    part = house_parts(labels, seed)
    total = grouped(group, part, len(ders))
    rating = np.array([-der.p_min_kw for der in ders])
    rated = part * (rating / np.maximum(total, 1e-12))[group]
    return HouseParameters.draw(labels, seed, rated), group


def house_parts(labels: Sequence[str], seed: int) -> Array:
    """Return the part of each house in the rating of its DER, from 4 to 10, shape (n,).

    The thesis' houses have 4 to 10 kW; the largest of a DER is at most 2.5 times the smallest.
    """
    return uniform_between(label_keys(labels, seed), 0, 4.0, 10.0)
