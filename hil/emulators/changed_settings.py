"""Settings of some inverters of a fleet changed for a while, and put back exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.devices.inverter_change import InverterChange
from hil.emulators.inverter import InverterFleet
from hil.emulators.inverter_settings import Curve

Rows = NDArray[np.intp]
_FLAT = (
    "volt_var_on", "volt_var_response_s", "v_ref", "v_ref_auto", "v_ref_auto_s", "volt_watt_on",
    "volt_watt_response_s", "pf_on", "pf", "pf_sign",
)  # fmt: skip


class ChangedSettings:
    """Changes settings of a fleet, row by row; the first change of a row keeps what was before."""

    def __init__(self, fleet: InverterFleet) -> None:
        self._fleet = fleet
        self._arrays = [getattr(fleet.settings, name) for name in _FLAT]
        for curve in (fleet.settings.volt_var, fleet.settings.volt_watt):
            self._arrays += curve.arrays
        self._before: dict[int, list[NDArray[np.generic]]] = {}

    def change(self, rows: Rows, change: InverterChange) -> None:
        """Give the inverters in `rows`, shape (m,), the settings that `change` names."""
        for row in rows.tolist():
            self._before.setdefault(row, self._kept(row))
        s, volt_var, volt_watt = self._fleet.settings, change.volt_var, change.volt_watt
        if volt_var is not None:
            s.volt_var_on[rows] = True
            _put(s.volt_var, rows, volt_var.points())
            if volt_var.response_s is not None:
                s.volt_var_response_s[rows] = volt_var.response_s
            if volt_var.v_ref_pu is not None:
                s.v_ref[rows], s.v_ref_auto[rows] = volt_var.v_ref_pu, False
            if volt_var.v_ref_auto_s is not None:
                s.v_ref_auto[rows], s.v_ref_auto_s[rows] = True, volt_var.v_ref_auto_s
        if volt_watt is not None:
            s.volt_watt_on[rows] = True
            _put(s.volt_watt, rows, volt_watt.points())
            if volt_watt.response_s is not None:
                s.volt_watt_response_s[rows] = volt_watt.response_s
        if change.power_factor is not None:
            s.pf_on[rows] = True
            s.pf[rows] = abs(change.power_factor)
            s.pf_sign[rows] = np.copysign(1.0, change.power_factor)
        relay = self._fleet.relay
        for name, trip in change.trips.items():
            kind, _, number = name.rpartition("_")
            # The table has the outer limit, number 2, first.
            at = relay.names.index((kind, 2 - int(number)))
            if trip.limit is not None:
                relay.limit[at, rows] = trip.limit
            if trip.clear_s is not None:
                relay.clear_s[at, rows] = trip.clear_s

    def restore(self, rows: Rows) -> None:
        """Put back what was before the first change of each row."""
        relay = self._fleet.relay
        for row in rows.tolist():
            *kept, limit, clear_s = self._before.pop(row)
            for array, before in zip(self._arrays, kept, strict=True):
                array[row] = before
            relay.limit[:, row], relay.clear_s[:, row] = limit, clear_s

    def _kept(self, row: int) -> list[NDArray[np.generic]]:
        relay = self._fleet.relay
        kept = [array[row].copy() for array in self._arrays]
        return [*kept, relay.limit[:, row].copy(), relay.clear_s[:, row].copy()]


def _put(curve: Curve, rows: Rows, points: tuple[list[float], list[float]] | None) -> None:
    if points is not None:
        for row in rows.tolist():
            curve.set_row(row, *points)
