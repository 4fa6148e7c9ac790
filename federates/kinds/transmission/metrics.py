"""Metrics of a transmission federate: frequency, tie flow, voltages, what was lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from federates.core.federate import FloatArray
from federates.kinds.feeder.events import BoundedEvents
from grid_models.transmission.model import TransmissionEvent

_DEAD_PU = 0.05
"""A bus with less has no voltage: it is neither too low nor too high."""


class TransmissionMetrics:
    """Extremes and last values over a run.

    Attributes
    ----------
    tell : Where events go; nowhere before a run has begun.
    """

    def __init__(self) -> None:
        self.tell: Callable[..., None] = lambda *_, **__: None
        self._coi_hz = self._tie_mw = np.nan
        self._low_hz, self._high_hz, self._bus_low_hz = np.inf, -np.inf, np.inf
        self._low_pu, self._high_pu = np.inf, -np.inf
        self._shed_mw, self._tripped, self._collapsed_s = 0.0, 0, np.nan

    def start(self, tell: Callable[..., None]) -> None:
        """Pass on the events of the run."""
        self.tell = BoundedEvents(tell)

    def add(self, coi_hz: float, frequency_hz: FloatArray, v_pu: FloatArray, tie_mw: float) -> None:
        """Take in a step that counts."""
        self._coi_hz, self._tie_mw = coi_hz, tie_mw
        self._low_hz = float(np.fmin(self._low_hz, coi_hz))
        self._high_hz = float(np.fmax(self._high_hz, coi_hz))
        self._bus_low_hz = float(np.fmin(self._bus_low_hz, np.fmin.reduce(frequency_hz)))
        live = v_pu[v_pu >= _DEAD_PU]
        self._low_pu = float(live.min(initial=self._low_pu))
        self._high_pu = float(live.max(initial=self._high_pu))

    def note(self, event: TransmissionEvent) -> None:
        """Take in an event, and pass it on."""
        self.tell(event.kind, event.time_s, **event.details)
        if event.kind == "load_shed":
            self._shed_mw += float(event.details["load_mw"])
        elif event.kind == "machine_tripped":
            self._tripped += 1
        elif event.kind == "collapsed":
            self._collapsed_s = event.time_s

    def totals(self) -> dict[str, float]:
        """Return the metrics of all steps."""
        totals = {
            "frequency_min_hz": self._low_hz,
            "frequency_max_hz": self._high_hz,
            "frequency_final_hz": self._coi_hz,
            "bus_frequency_min_hz": self._bus_low_hz,
            "tie_mw": self._tie_mw,
            "v_min_pu": self._low_pu,
            "v_max_pu": self._high_pu,
            "load_shed_mw": self._shed_mw,
            "machines_tripped_count": float(self._tripped),
        }
        collapsed = np.isfinite(self._collapsed_s)
        return totals | ({"collapsed_at_s": self._collapsed_s} if collapsed else {})
