"""What a safety layer reports: when it acted, how much it changed, and who does not follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray

_QUIET_S = 60.0
"""An episode ends when nothing was changed for so long: a policy that swings has one, not many."""
_SHOWN = 12
_NOTICED = 0.01


class Episodes:
    """Events and metrics of a layer.

    Parameters
    ----------
    names, kva : Of the DERs.
    period_s : Between two steps.
    """

    def __init__(self, names: Sequence[str], kva: FloatArray, period_s: float) -> None:
        self._names, self._kva, self._period_s = names, kva, period_s
        self._events: list[dict[str, Any]] = []
        self._open: dict[str, tuple[float, float, float]] = {}
        self._acted_s = self._changed_kvarh = self._curtailed_kwh = self._slack_pu = 0.0

    def add(self, time_s: float, changed: FloatArray, curtailed_kw: float, slack_pu: float) -> None:
        """Take in a step: changes of reactive power over rating (n,), curtailed power, slack."""
        most = float(np.abs(changed).max(initial=0.0))
        hours = self._period_s / 3600.0
        self._acted_s += self._period_s * (most > _NOTICED)
        self._changed_kvarh += float(np.abs(changed) @ self._kva) * hours
        self._curtailed_kwh += curtailed_kw * hours
        self._slack_pu = max(self._slack_pu, slack_pu)
        self._episode("safety", time_s, most if most > _NOTICED else 0.0, "most_of_rating")
        noticed = curtailed_kw > _NOTICED * float(self._kva.max(initial=0.0))
        self._episode("curtailment", time_s, curtailed_kw if noticed else 0.0, "most_kw")

    def frozen(self, changed: NDArray[np.bool_], frozen: NDArray[np.bool_]) -> None:
        """Report the inverters that froze, and those that follow again."""
        for event, which in (
            ("inverters_frozen", changed & frozen),
            ("inverters_follow", changed & ~frozen),
        ):
            names = [self._names[i] for i in np.flatnonzero(which).tolist()]
            if names:
                self._events.append({"event": event, "count": len(names), "ders": names[:_SHOWN]})

    def take(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def summary(self) -> dict[str, float]:
        """Return the metrics."""
        return {
            "safety_acted_s": self._acted_s,
            "safety_changed_kvarh": self._changed_kvarh,
            "safety_curtailed_kwh": self._curtailed_kwh,
            "safety_slack_max_pu": self._slack_pu,
        }

    def _episode(self, what: str, time_s: float, size: float, unit: str) -> None:
        """Open an episode, keep its largest size, or close it."""
        begin_s, last_s, most = self._open.get(what, (time_s, time_s, 0.0))
        if size > 0.0:
            if what not in self._open:
                self._events.append({"event": f"{what}_begins", unit: size})
            self._open[what] = begin_s, time_s, max(most, size)
        elif what in self._open and time_s - last_s >= _QUIET_S:
            del self._open[what]
            self._events.append(
                {"event": f"{what}_ends", "duration_s": last_s - begin_s, unit: most}
            )
