"""Settings of inverters: ratings, enter service, limits, curves; arrays of one row per inverter.

Defaults are those of IEEE 1547-2018, normal category B, abnormal category II: table 4 (enter
service), table 8 (volt-var), table 10 (volt-watt), tables 12 and 18 (trip), table 24
(frequency-droop). The response times are open-loop response times: the time to 90 % of a step
(clause 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

#: Points of a curve.
CURVE_POINTS = 8
#: Over-voltage and under-voltage trip: (pu, clearing time s); over- and under-frequency: (Hz, s).
TRIP_LIMITS: dict[str, tuple[tuple[float, float], ...]] = {
    "over_voltage": ((1.20, 0.16), (1.10, 2.0)),
    "under_voltage": ((0.45, 0.16), (0.70, 10.0)),
    "over_frequency": ((62.0, 0.16), (61.2, 300.0)),
    "under_frequency": ((56.5, 0.16), (58.5, 300.0)),
}


class VarRef(IntEnum):
    """What a percentage of reactive power refers to (SunSpec 705 DeptRef, 704 VarSetMod)."""

    w_max = 0
    var_max = 1
    var_available = 2
    va_max = 3


class Priority(IntEnum):
    """Which power is reduced when both do not fit into the rating."""

    active = 0
    reactive = 1


class Curve:
    """Piecewise linear curves, one per row; flat beyond both ends.

    Parameters
    ----------
    n : Rows.
    x, y : The first curve of every row, at most `CURVE_POINTS` points, x ascending.
    """

    def __init__(self, n: int, x: ArrayLike, y: ArrayLike) -> None:
        self.x: Array = np.zeros((n, CURVE_POINTS))
        self.y: Array = np.zeros((n, CURVE_POINTS))
        self._slope: Array = np.zeros((n, CURVE_POINTS - 1))
        for row in range(n):
            self.set_row(row, x, y)

    def set_row(self, row: int, x: ArrayLike, y: ArrayLike) -> None:
        """Replace one curve; the last point is repeated up to `CURVE_POINTS`."""
        for table, values in ((self.x, x), (self.y, y)):
            given = np.asarray(values, dtype=np.float64)
            table[row] = np.append(given, np.full(CURVE_POINTS - len(given), given[-1]))
        width = np.diff(self.x[row])
        rise = np.diff(self.y[row])
        self._slope[row] = np.where(width > 0.0, rise / np.where(width > 0.0, width, 1.0), 0.0)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return its tables, one row per curve: to keep rows, and to put them back."""
        return self.x, self.y, self._slope

    def at(self, x: Array) -> Array:
        """Return y at x, shape (n,)."""
        left, width = self.x[:, :-1], np.diff(self.x, axis=1)
        run = np.clip(x[:, None] - left, 0.0, width)
        value: Array = self.y[:, 0] + (self._slope * run).sum(axis=1)
        return value


def _full(n: int, value: float) -> Array:
    return np.full(n, value, dtype=np.float64)


@dataclass
class InverterSettings:
    """Settings of n inverters; every array has shape (n,). Powers in kW, kvar, kVA.

    Percentages are of what the name says; `wset_kw` is an injection. Of the functions of reactive
    power that are on, the first of constant var, constant power factor, volt-var and watt-var
    counts.
    """

    n: int
    rated_kw: Array
    rated_kva: Array
    w_max_kw: Array = field(init=False)
    va_max_kva: Array = field(init=False)
    var_inject_kvar: Array = field(init=False)
    var_absorb_kvar: Array = field(init=False)

    def __post_init__(self) -> None:
        n = self.n
        self.w_max_kw, self.va_max_kva = self.rated_kw.copy(), self.rated_kva.copy()
        # Category B, table 7: 44 % of the nameplate apparent power both ways.
        self.var_inject_kvar = 0.44 * self.rated_kva
        self.var_absorb_kvar = 0.44 * self.rated_kva
        self.started: Flags = np.ones(n, dtype=bool)
        self.service_on: Flags = np.ones(n, dtype=bool)
        self.service_v_low, self.service_v_high = _full(n, 0.917), _full(n, 1.05)
        self.service_hz_low, self.service_hz_high = _full(n, 59.5), _full(n, 60.1)
        self.service_delay_s, self.service_ramp_s = _full(n, 300.0), _full(n, 300.0)
        self.limit_on: Flags = np.zeros(n, dtype=bool)
        self.limit_pct = _full(n, 100.0)
        self.ramp_pct_per_s = _full(n, np.inf)
        self.wset_on: Flags = np.zeros(n, dtype=bool)
        self.wset_kw = _full(n, 0.0)
        self.pf_on: Flags = np.zeros(n, dtype=bool)
        self.pf, self.pf_sign = _full(n, 1.0), _full(n, 1.0)
        self.var_on: Flags = np.zeros(n, dtype=bool)
        self.var_pct = _full(n, 0.0)
        self.var_ref: Codes = np.full(n, VarRef.var_max, dtype=np.int64)
        self.var_priority: Codes = np.full(n, Priority.reactive, dtype=np.int64)
        self.droop_on: Flags = np.zeros(n, dtype=bool)
        self.droop_over_hz, self.droop_under_hz = _full(n, 0.036), _full(n, 0.036)
        self.droop_over_slope, self.droop_under_slope = _full(n, 0.05), _full(n, 0.05)
        self.droop_response_s = _full(n, 5.0)
        self._curves(n)

    def _curves(self, n: int) -> None:
        self.volt_var_on: Flags = np.zeros(n, dtype=bool)
        self.volt_var = Curve(n, (0.92, 0.98, 1.02, 1.08), (44.0, 0.0, 0.0, -44.0))
        self.volt_var_ref: Codes = np.full(n, VarRef.va_max, dtype=np.int64)
        self.volt_var_priority: Codes = np.full(n, Priority.reactive, dtype=np.int64)
        self.volt_var_response_s = _full(n, 5.0)
        self.v_ref = _full(n, 1.0)
        self.v_ref_auto: Flags = np.zeros(n, dtype=bool)
        self.v_ref_auto_s = _full(n, 300.0)
        self.volt_watt_on: Flags = np.zeros(n, dtype=bool)
        # P2 is the lesser of 20 % and what the unit cannot go below, which is nothing here.
        self.volt_watt = Curve(n, (1.06, 1.10), (100.0, 0.0))
        self.volt_watt_available: Flags = np.zeros(n, dtype=bool)
        self.volt_watt_response_s = _full(n, 10.0)
        self.watt_var_on: Flags = np.zeros(n, dtype=bool)
        self.watt_var = Curve(
            n, (-100.0, -50.0, -20.0, 20.0, 50.0, 100.0), (44.0, 0.0, 0.0, 0.0, 0.0, -44.0)
        )
        self.watt_var_ref: Codes = np.full(n, VarRef.va_max, dtype=np.int64)
        self.watt_var_priority: Codes = np.full(n, Priority.reactive, dtype=np.int64)
