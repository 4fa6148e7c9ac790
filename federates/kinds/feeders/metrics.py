"""Metrics of many feeders, added up while they step."""

from __future__ import annotations

from collections.abc import Mapping

from federates.core.federate import FloatArray


class FleetMetrics:
    """Import of all feeders together, and the lowest and highest voltage in any of them."""

    def __init__(self, dt_s: float) -> None:
        self._dt_h = dt_s / 3600.0
        self._mwh, self._peak_mw = 0.0, -float("inf")
        self._low_pu, self._high_pu = float("inf"), -float("inf")
        self._dark_h = 0.0

    def add(self, values: Mapping[str, FloatArray]) -> None:
        """Take in the outputs of a step."""
        mw = 1e-3 * float(values["total_kw"][0])
        self._mwh += mw * self._dt_h
        self._peak_mw = max(self._peak_mw, mw)
        low, high = values["feeder_v_min_pu"].min(), values["feeder_v_max_pu"].max()
        if high == 0.0:
            self._dark_h += self._dt_h
            return
        self._low_pu, self._high_pu = min(self._low_pu, float(low)), max(self._high_pu, float(high))

    def totals(self) -> dict[str, float]:
        """Return the metrics."""
        return {
            "feeder_v_min_pu": self._low_pu,
            "feeder_v_max_pu": self._high_pu,
            "import_mwh": self._mwh,
            "import_peak_mw": self._peak_mw,
            "feeders_dark_h": self._dark_h,
        }
