"""The plans of homes, and what could not be planned as asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.market.consumer.batch_qp import Array

KINDS = ("pv", "battery", "vehicle", "heat_pump")
OVERLAP_KW = 1e-6


class HomeEvent(NamedTuple):
    """What one home could not plan as asked.

    Attributes
    ----------
    home : Its name.
    kind : ``forecast``, ``start``, ``limits``, ``trip``, ``target``, ``comfort`` or ``solver``.
    text : What happened, with numbers and units.
    """

    home: str
    kind: str
    text: str


@dataclass(frozen=True)
class HomePlan:
    """Plans of h homes for H steps; injections positive, 0 where a home lacks the device.

    Attributes
    ----------
    p_kw, delta_kw : Per kind of `KINDS`, (h, H). The device can go to ``p_kw +- delta_kw``.
    soc_kwh : Per ``battery`` and ``vehicle``, (h, H + 1). At the start and after each step.
    temp_c : (h, H + 1). Indoors; what a home without a heat pump drifts to.
    base_kw : (h, H). Consumption that was not planned, positive.
    overlap_kw : (h,). Largest power that a storage charges and discharges at once.
    exact : (h,). Whether `overlap_kw` is at most 1e-6 kW: the plan without binaries is the one
        with them.
    converged : (h,). Whether the solver reached its tolerance.
    objective : (h,). Weighted cost that the plan minimises.
    events : What could not be done as asked, by home.
    """

    p_kw: Mapping[str, Array]
    delta_kw: Mapping[str, Array]
    soc_kwh: Mapping[str, Array]
    temp_c: Array
    base_kw: Array
    overlap_kw: Array
    exact: NDArray[np.bool_]
    converged: NDArray[np.bool_]
    objective: Array
    events: tuple[HomeEvent, ...]

    @property
    def net_kw(self) -> Array:
        """Injection of each home, (h, H): P_i^0 of stage II."""
        total: Array = self.p_kw["pv"] + self.p_kw["battery"]
        return total + self.p_kw["vehicle"] + self.p_kw["heat_pump"] - self.base_kw

    @property
    def flex_kw(self) -> Array:
        """Flexibility of each home up and down, (h, H): the sum of `delta_kw`."""
        d = self.delta_kw
        total: Array = d["pv"] + d["battery"] + d["vehicle"] + d["heat_pump"]
        return total

    def q_range_kvar(
        self, power_factor: float = 0.95, inverter_power_factor: float = 0.9
    ) -> tuple[Array, Array]:
        """Return the least and largest reactive injection of each home, (h, H).

        Consumption has the lagging `power_factor`; what has an inverter (PV, battery, vehicle) can
        do any power factor down to `inverter_power_factor`, leading or lagging.
        """
        tan, tan_inverter = (
            float(np.sqrt(1.0 - f * f) / f) for f in (power_factor, inverter_power_factor)
        )
        fixed = tan * (self.p_kw["heat_pump"] - self.base_kw)
        room = tan_inverter * sum(np.abs(self.p_kw[k]) for k in ("pv", "battery", "vehicle"))
        return fixed - room, fixed + room
