"""Disturbances of DERs that bypass their own controls: tripped, switched on, demand changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Group = NDArray[np.intp]


@dataclass(frozen=True)
class DerDisturbance:
    """Disturbance of n DERs in one step, each array (n,). `extra_kw` and `factor` concern loads.

    A DER that is not disturbed has the same output, to the last bit, as without a disturbance.

    Attributes
    ----------
    connected : False: off the grid. It neither draws nor injects; its temperature and energy go on.
    extra_kw : Further demand, kW.
    factor : Multiple of the demand, before `extra_kw` is added.
    thermostat_k : Added to both set-points of a house, K.
    """

    connected: Flags
    extra_kw: Array
    factor: Array
    thermostat_k: Array

    @classmethod
    def none(cls, n: int) -> DerDisturbance:
        """Return a disturbance that does nothing to `n` DERs."""
        return cls(np.ones(n, dtype=bool), np.zeros(n), np.ones(n), np.zeros(n))

    def at(self, index: slice | Group) -> DerDisturbance:
        """Return that of some DERs."""
        return DerDisturbance(
            self.connected[index],
            self.extra_kw[index],
            self.factor[index],
            self.thermostat_k[index],
        )

    @property
    def alters(self) -> Flags:
        """Whose demand is to be another, shape (n,)."""
        flags: Flags = (self.extra_kw != 0.0) | (self.factor != 1.0)
        return flags


def altered_kw(demand_kw: Array, rating_kw: Array, disturbance: DerDisturbance) -> Array:
    """Return the demand of loads under a disturbance, at most their rating, shape (n,).

    A demand that is above the rating by itself may stay there.
    """
    wanted = np.maximum(demand_kw * disturbance.factor + disturbance.extra_kw, 0.0)
    wanted = np.minimum(wanted, np.maximum(rating_kw, demand_kw))
    wanted = np.where(disturbance.alters, wanted, demand_kw)
    return np.where(disturbance.connected, wanted, 0.0)


def altered_units_kw(
    unit_kw: Array, rating_kw: Array, other_kw: Array, group: Group, disturbance: DerDisturbance
) -> Array:
    """Return the power of switchable units (HVAC, heaters) under a disturbance of their groups,
    (m,).

    More demand is shared in proportion to what each unit has left to its rating, less in proportion
    to what it draws. Demand is limited by the units' ratings, and cannot fall below `other_kw`.

    Parameters
    ----------
    unit_kw, rating_kw : (m,). Power and rating of each unit.
    other_kw : (m,). Consumption beside each unit that cannot be switched.
    group : (m,). Position of each unit's DER in `disturbance`.
    """
    n = len(disturbance.factor)
    now = np.bincount(group, unit_kw, n)
    room = np.maximum(rating_kw - unit_kw, 0.0)
    demand = now + np.bincount(group, other_kw, n)
    change = demand * (disturbance.factor - 1.0) + disturbance.extra_kw
    left = np.bincount(group, room, n)
    up = np.clip(change / np.maximum(left, 1e-12), 0.0, 1.0)
    down = np.clip(-change / np.maximum(now, 1e-12), 0.0, 1.0)
    moved = unit_kw + up[group] * room - down[group] * unit_kw
    moved = np.where(disturbance.alters[group], moved, unit_kw)
    return np.where(disturbance.connected[group], moved, 0.0)
