"""A heartbeat per federate, readable from other threads and processes.

The watchdog must see a federate that hangs, even one that holds the interpreter, so the heartbeat
is a small memory-mapped file and not a message.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np

_BUSY_SINCE, _STEPS, _FIELDS = 0, 1, 2


class Progress:
    """Heartbeats of `n` federates, in memory or in a file shared between processes.

    Monotonic time is the same clock in every process of a machine.
    """

    def __init__(self, n: int, path: Path | None = None) -> None:
        size = n * _FIELDS * 8
        if path is None:
            self._map: mmap.mmap | None = None
            self._table = np.zeros((n, _FIELDS), dtype=np.int64)
            return
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._table = np.frombuffer(self._map, dtype=np.int64).reshape(n, _FIELDS)

    def begin(self, row: int) -> None:
        """Say that federate `row` starts computing a step."""
        self._table[row, _BUSY_SINCE] = time.monotonic_ns()

    def end(self, row: int) -> None:
        """Say that federate `row` has finished a step."""
        self._table[row, _BUSY_SINCE] = 0
        self._table[row, _STEPS] += 1

    def steps(self, row: int) -> int:
        """Return how many steps federate `row` has finished."""
        return int(self._table[row, _STEPS])

    def hung(self, limit_s: float) -> int | None:
        """Return the federate that has computed one step for longer than `limit_s`, if any."""
        since = self._table[:, _BUSY_SINCE].copy()  # the federates go on writing
        busy = since > 0
        if not busy.any():
            return None
        worst = int(np.argmin(np.where(busy, since, np.iinfo(np.int64).max)))
        age_s = (time.monotonic_ns() - int(since[worst])) / 1e9
        return worst if age_s > limit_s else None

    def all_waiting(self) -> bool:
        """Whether no federate computes: all wait for the federation."""
        return not self._table[:, _BUSY_SINCE].any()

    def total_steps(self) -> int:
        """Return how many steps all federates have finished together."""
        return int(self._table[:, _STEPS].sum())


class StallWatch:
    """Detects that no federate computes and none is granted time: an external program hangs.

    It waits for the first step until it is armed, since a program may be started by hand.
    """

    def __init__(self, progress: Progress, limit_s: float) -> None:
        self._progress = progress
        self._limit_s = limit_s
        self._steps = 0
        self._since = time.monotonic()
        self._armed = False

    def arm(self) -> None:
        """Expect the first step from now on."""
        self._armed, self._since = True, time.monotonic()

    def stalled(self) -> bool:
        """Return whether time has stood still for longer than the limit. To be called often."""
        steps, now = self._progress.total_steps(), time.monotonic()
        if steps != self._steps or not (steps or self._armed) or not self._progress.all_waiting():
            self._steps, self._since = steps, now
        return now - self._since > self._limit_s
