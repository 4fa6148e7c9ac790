"""Events of a feeder federate, bounded: a hunting regulator must not fill the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Tell = Callable[..., None]
"""Appends an event: its kind, the time in s, and further values by name."""


class BoundedEvents:
    """Passes on the first events of each kind; `end` says how many more there were.

    Parameters
    ----------
    tell : Where the events go.
    """

    MOST = 500
    MOST_OF: Mapping[str, int] = {"controls_unsettled": 1}

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._counts: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}

    def __call__(self, kind: str, time_s: float, **values: Any) -> None:
        """Take in an event."""
        self._counts[kind] += 1
        self._last_s[kind] = time_s
        if self._counts[kind] <= self.MOST_OF.get(kind, self.MOST):
            self._tell(kind, time_s, **values)

    def end(self) -> None:
        """Tell of each kind how many events were passed over, at the time of the last."""
        for kind, count in self._counts.items():
            more = count - self.MOST_OF.get(kind, self.MOST)
            if more > 0:
                self._tell("events_not_listed", self._last_s[kind], of=kind, count=more)
