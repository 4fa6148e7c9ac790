"""The processes of paired runs.

Every run is a process of its own, so that a crash or hang does not affect the others. At most as
many run at the same time as there are cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from federates.commands.terminal import (
    LIVE_WORDS,
    PROGRESS,
    PROGRESS_LINES,
    PROGRESS_WORD,
    messages,
)
from federates.runs.paired import State
from grid_models.base import parent

_POLL_S = 0.05
_PATIENCE_S = 30.0
_KEPT_LINES = 40


@dataclass
class Ended:
    """How a run ended: its exit code and its messages."""

    code: int
    lines: list[str]
    wall_s: float


def run_states(
    states: Sequence[State],
    arguments: Callable[[State], list[str]],
    n_at_a_time: int,
    tell: Callable[[State, int, int], None],
    on_end: Callable[[State, Ended], None],
) -> dict[str, Ended]:
    """Run all states; stop all, with readable runs, when one of them has wrong input.

    Parameters
    ----------
    arguments : Gives the words after ``feederate run`` for a state.
    tell : Called with (state, steps done, steps in all), from other threads.
    on_end : Called with (state, how it ended).

    Raises KeyboardInterrupt: After all runs have been told to end and have ended.
    """
    waiting = deque(states)
    running: list[_Child] = []
    ended: dict[str, Ended] = {}
    try:
        while waiting or running:
            while waiting and len(running) < n_at_a_time:
                state = waiting.popleft()
                running.append(_Child(state, arguments(state), tell))
            time.sleep(_POLL_S)
            for child in [c for c in running if c.process.poll() is not None]:
                running.remove(child)
                ended[child.state.name] = end = child.end()
                on_end(child.state, end)
                if end.code == 2:
                    waiting.clear()
                    _stop(running)
    except BaseException:
        _stop(running)
        raise
    return ended


@dataclass
class _Child:
    """A run in progress."""

    state: State
    words: list[str]
    tell: Callable[[State, int, int], None]
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.process = parent.spawn(
            [sys.executable, "-P", "-m", "federates.paired_child", "run", *self.words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {PROGRESS: PROGRESS_LINES},
        )
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            word, *numbers = line.split()[:3] or [""]
            if word == PROGRESS_WORD and len(numbers) == 2:
                self.tell(self.state, int(numbers[0]), int(numbers[1]))
            elif line.startswith(LIVE_WORDS):
                messages().print(line.rstrip(), markup=False, soft_wrap=True)
            else:
                self._lines.append(line.rstrip())

    def end(self) -> Ended:
        parent.close_stdin(self.process)
        self._reader.join(_PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        lines = [line.removeprefix("error: ") for line in self._lines if line]
        return Ended(self.process.wait(), lines, time.perf_counter() - self.began)


def _stop(running: Sequence[_Child]) -> None:
    """End all as on Ctrl-C; kill those that do not end."""
    parent.end((child.process for child in running), _PATIENCE_S)
    for child in running:
        child.end()
