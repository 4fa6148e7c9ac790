"""Events that say which points of a device became bad or good again, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hil.adapter.point_states import PointStates
from hil.devices.points import Quality

_PAUSE_S = 30.0
"""A point is not told again sooner: one that flickers is not a flood of events."""
_NAMES, _REASONS = 5, 5


class QualityEvents:
    """What was told of the points of one device."""

    def __init__(self, points: PointStates) -> None:
        self._points = points
        self._told_s: dict[str, float] = {}
        self._bad: set[str] = set()

    def texts(self, now_s: float) -> list[str]:
        """Return what there is to tell now: a text per reason, and one for what is good again."""
        points = self._points
        names, bad = points.names, points.quality(now_s) == Quality.BAD
        watched = points.watched()
        if len(names) != len(bad) or len(bad) != len(watched):  # scanned just now
            return []
        changed = {names[i] for i in np.flatnonzero(bad & watched).tolist()} ^ self._bad
        if not changed:
            return []
        ripe = {n for n in changed if now_s - self._told_s.get(n, -np.inf) >= _PAUSE_S}
        due = [n for n in names if n in ripe]
        if not due:
            return []
        self._told_s |= dict.fromkeys(due, now_s)
        good = [n for n in due if n in self._bad]
        self._bad ^= set(due)
        reasons, by_reason = points.reasons(), dict[str, list[str]]()
        for name in due:
            if name in self._bad:
                by_reason.setdefault(reasons.get(name, ""), []).append(name)
        most = int(np.count_nonzero(watched))
        groups = [(found, why) for why, found in by_reason.items()]
        texts = [f"bad: {_listed(found, most)}: {why}" for found, why in groups[:_REASONS]]
        if rest := sum(len(found) for found, _ in groups[_REASONS:]):
            texts.append(f"bad: {rest} more points, for other reasons")
        return texts + ([f"good again: {_listed(good, most)}"] if good else [])


def _listed(names: Sequence[str], most: int) -> str:
    if len(names) == most:
        return f"all {most} points" if most > 1 else names[0]
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
