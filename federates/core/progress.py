"""A heartbeat per federate, readable from other threads and processes, and the order to pause.

The watchdog must see a federate that hangs, even one that holds the interpreter, so the heartbeat
is a small memory-mapped file and not a message. The live page reads and writes the same file.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np

_BUSY_SINCE, _STEPS, _MESSAGES, _FIELDS = 0, 1, 2, 3
# Of the last row, which belongs to the run.
_PAUSED_SINCE, _PAUSED_NS, _LATE_NS = 0, 1, 2


class Progress:
    """Heartbeats of `n` federates, in memory or in a file shared between processes.

    Monotonic time is the same clock in every process of a machine.
    """

    def __init__(self, n: int, path: Path | None = None) -> None:
        size = (n + 1) * _FIELDS * 8
        data: mmap.mmap | bytearray = bytearray(size)
        if path is not None:
            if not path.exists():
                path.write_bytes(data)
            with path.open("r+b") as file:
                data = mmap.mmap(file.fileno(), size)
        table = np.frombuffer(data, dtype=np.int64).reshape(n + 1, _FIELDS)
        self._table, self._run = table[:-1], table[-1]

    def begin(self, row: int) -> None:
        """Say that federate `row` starts computing a step."""
        self._table[row, _BUSY_SINCE] = time.monotonic_ns()

    def end(self, row: int) -> None:
        """Say that federate `row` has finished a step."""
        self._table[row, _BUSY_SINCE] = 0
        self._table[row, _STEPS] += 1

    def sent(self, row: int, n: int) -> None:
        """Say that federate `row` sent `n` messages."""
        self._table[row, _MESSAGES] += n

    def late(self, late_ns: int) -> None:
        """Say how late the last step of a run in real time was."""
        self._run[_LATE_NS] = late_ns

    def snapshot(self) -> tuple[list[list[int]], int]:
        """Return (busy since, steps, messages) of every federate, and the last lateness in ns."""
        return self._table.tolist(), int(self._run[_LATE_NS])

    def pause(self) -> None:
        """Let every federate wait before its next step."""
        if not self._run[_PAUSED_SINCE]:
            self._run[_PAUSED_SINCE] = time.monotonic_ns()

    def resume(self) -> None:
        """Let the federates go on."""
        if self._run[_PAUSED_SINCE]:
            self._run[_PAUSED_NS] += time.monotonic_ns() - self._run[_PAUSED_SINCE]
            self._run[_PAUSED_SINCE] = 0

    @property
    def paused(self) -> bool:
        """Whether federates wait before their next step."""
        return bool(self._run[_PAUSED_SINCE])

    def paused_ns(self) -> int:
        """Return for how long the run has been paused in all."""
        since = int(self._run[_PAUSED_SINCE])
        return int(self._run[_PAUSED_NS]) + (time.monotonic_ns() - since if since else 0)

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

    It waits for the first step until it is armed, since a program may be started by hand, and
    during a pause.
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
        waits = self._progress.all_waiting() and not self._progress.paused
        if steps != self._steps or not (steps or self._armed) or not waits:
            self._steps, self._since = steps, now
        return now - self._since > self._limit_s
