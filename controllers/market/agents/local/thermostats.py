"""A curtailment in kW becomes set-points of thermostats, house by house.

A thermostat takes a temperature, not a power, and its unit is on or off. A house that is asked for
less gets a set-point ``cool_set_c + ramp + kick``:

ramp : Rises as long as less is asked for. A house whose set-point is raised by d (K) and rises by
    v (K/h) saves ``(c v + d / r) / cop`` (kW) on average: what its walls and air take up, and what
    comes in less. So ``v = (cop asked - d / r) / c``, an energy balance that needs no forecast.
kick : Acts at once, on houses that are cooling. The temperatures of cooling houses are spread over
    the band, so moving the switching-off temperature up by a share of the band switches this share
    of them off. Afterwards it falls, so that as many houses go off as come on; without it the
    share that was switched off would be made up for within minutes.

Houses that rest get no kick: it would keep all of them off for ``kick / rise`` hours. When nothing
is asked for any more, the kick ends and the ramp goes back slowly, at a rate that adds
`release_share` of the mean cooling power; a leap back would switch on many houses at once.

The share is held on average over many houses. One house switches on and off as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.options import checked_number
from controllers.core.ports import Port
from grid_models.base.errors import nearest_name
from grid_models.ders.houses import HouseParameters

_TINY_KW = 1e-9


@dataclass(frozen=True)
class ThermostatTerms:
    """What the occupants of a house accept.

    Attributes
    ----------
    offset_max_k : Most that the set-point is raised, K.
    release_share : What the way back adds to the mean cooling power, relative to it.
    """

    offset_max_k: float = 2.0
    release_share: float = 0.05

    def __post_init__(self) -> None:
        checked_number("offset_max_k", self.offset_max_k, low=0.0)
        checked_number("release_share", self.release_share, low=0.0, high=1.0, open_low=True)


class ThermostatSetPoints:
    """Cooling set-points of h houses.

    Parameters
    ----------
    houses : HouseParameters of h houses, as their own agents know them.
    terms : ThermostatTerms

    Attributes
    ----------
    offset_k : ndarray (h,). By how much the set-point is raised now, without the kick.
    """

    def __init__(self, houses: HouseParameters, terms: ThermostatTerms | None = None) -> None:
        self._houses, self._terms = houses, terms or ThermostatTerms()
        h = len(houses.cool_set_c)
        self.offset_k: FloatArray = np.zeros(h)
        self._kick_k: FloatArray = np.zeros(h)
        self._share: FloatArray = np.zeros(h)
        self._moved = np.zeros(h, dtype=bool)

    def mean_kw(self, temp_out_c: float) -> FloatArray:
        """Return the mean cooling power at a house's own set-point, kW (h,)."""
        p = self._houses
        warmer = np.maximum(temp_out_c - p.cool_set_c, 0.0)
        power: FloatArray = np.minimum(warmer / (p.r_k_per_kw * p.cop), p.hvac_kw)
        return power

    def step(
        self,
        dt_s: float,
        temp_c: FloatArray,
        temp_out_c: float,
        cooling: NDArray[np.bool_],
        asked_kw: FloatArray,
        flexible_kw: FloatArray | None = None,
    ) -> FloatArray:
        """Return the set-points of the next `dt_s` seconds, degrees C (h,).

        NaN for houses that were never asked: their thermostats are left alone. A house that was
        asked once always gets a number, for a thermostat takes the end of commands for a fault.

        Parameters
        ----------
        temp_c : ndarray (h,). Indoor temperatures; the own set-point is assumed where NaN.
        cooling : ndarray of bool (h,). Whose cooling is on.
        asked_kw : ndarray (h,)
            Curtailment against what the house would draw. Nothing is asked for where it is NaN or
            negative.
        flexible_kw : ndarray (h,)
            Cooling power that the curtailment is a part of; default `mean_kw`.
        """
        p, terms = self._houses, self._terms
        hours = dt_s / 3600.0
        asked = np.where(np.isfinite(asked_kw), np.maximum(asked_kw, 0.0), 0.0)
        base = self.mean_kw(temp_out_c) if flexible_kw is None else flexible_kw
        share = np.minimum(asked / np.maximum(base, _TINY_KW), 1.0)
        here = np.where(np.isfinite(temp_c), temp_c, p.cool_set_c)
        rise = np.maximum(temp_out_c - here, 0.0) / (p.r_k_per_kw * p.c_kwh_per_k)
        fall = np.maximum(p.hvac_kw * p.cop / p.c_kwh_per_k - rise, 0.0)
        asks = share > 0.0
        up = (asked * p.cop - self.offset_k / p.r_k_per_kw) / p.c_kwh_per_k
        # Faster than it warms without cooling no set-point needs to rise.
        back = -terms.release_share * rise
        rate = np.where(asks, np.minimum(np.maximum(up, back), rise), back)
        self.offset_k = np.clip(self.offset_k + rate * hours, 0.0, terms.offset_max_k)
        more = np.maximum(share - self._share, 0.0)
        faded = np.maximum(self._kick_k - (share * fall + np.maximum(rate, 0.0)) * hours, 0.0)
        self._kick_k = np.where(asks, faded + more * p.band_k, 0.0)
        self._share = share
        self._moved |= asks
        raised = self.offset_k + np.where(cooling, self._kick_k, 0.0)
        raised = np.minimum(raised, terms.offset_max_k)
        return np.where(self._moved, p.cool_set_c + raised, np.nan)


class HomeThermostats:
    """The homes whose house is steered by a thermostat, among n homes.

    Such a home offers what holds its own set-point on average, and a part of it as flexibility; it
    follows an award by its set-point, and its house has no cap.

    Parameters
    ----------
    globs : Of house DERs.
    houses : HouseParameters of the n homes.
    names, owner : The house DERs of the hosted homes, and the home of each.
    known : All house DERs of the market, for messages.

    Attributes
    ----------
    here : ndarray of bool (n,). Which homes they are.

    Raises ControllerError: A glob names no house.
    """

    def __init__(
        self,
        globs: Sequence[str],
        houses: HouseParameters,
        names: Sequence[str],
        owner: IntArray,
        known: Sequence[str],
    ) -> None:
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in known):
                raise ControllerError(
                    f"no house is called '{glob}'",
                    where="option 'thermostats'",
                    expected="names or globs of DERs of the kind house",
                    nearest=nearest_name(glob, known),
                )
        chosen = [any(fnmatchcase(name, glob) for glob in globs) for name in names]
        at = np.flatnonzero(chosen)
        self._homes = owner[at]
        self.here = np.zeros(len(houses.cool_set_c), dtype=bool)
        self.here[self._homes] = True
        mine = {f.name: getattr(houses, f.name)[self._homes] for f in fields(houses)}
        self._houses = HouseParameters(**mine)
        self._points = ThermostatSetPoints(self._houses)
        self.cool_set_c: FloatArray = np.full(at.size, np.nan)
        port = Port("cool_set_c", "degC", tuple(compress(names, chosen)), np.nan)
        self.outputs = (port,) if globs else ()

    def follow(
        self,
        dt_s: float,
        temp_c: FloatArray,
        temp_out_c: float,
        cooling_kw: FloatArray,
        asked_kw: FloatArray,
    ) -> None:
        """Set the thermostats for curtailments `asked_kw` (n,) of the homes' cooling.

        `temp_c`, `cooling_kw` (n,): indoor temperature, and power of the cooling as metered.
        """
        at = self._homes
        on = cooling_kw[at] > 0.5 * self._houses.hvac_kw
        self.cool_set_c = self._points.step(dt_s, temp_c[at], temp_out_c, on, asked_kw[at])
