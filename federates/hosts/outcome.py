"""How a run ended on a host, and the state that a host shares with its watchdog."""

from __future__ import annotations

import re
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from federates.core.pacing import Pacer
from federates.core.progress import Progress, StallWatch
from federates.errors import PartnerError
from grid_models.base.errors import FeederateError
from hil.devices.errors import DeviceError

_PAUSE_POLL_S = 0.05


class BusLostError(Exception):
    """The federation ended under a federate: another one failed, or the connection broke."""


@dataclass(frozen=True)
class Failure:
    """The first thing that went wrong in a run."""

    federate: str
    reason: str
    traceback: str = ""

    @classmethod
    def of(cls, federate: str, error: BaseException) -> Failure:
        """Describe an exception: the message for the user, the traceback for the log file."""
        if isinstance(error, PartnerError):  # no code of ours failed
            return cls(error.federate, str(error))
        if isinstance(error, DeviceError):  # not safe, commanded by another run: no code failed
            return cls(federate, str(error))
        text = "".join(traceback.format_exception(error))
        if isinstance(error, FeederateError):
            return cls(federate, str(error), text)
        if isinstance(error, OSError) and error.strerror:
            place = f": {error.filename}" if error.filename else ""
            return cls(federate, f"{error.strerror}{place}", text)
        return cls(federate, f"{type(error).__name__}: {error}", text)

    @classmethod
    def heard(cls, federate: str, words: str) -> Failure:
        """Describe why the federation ended; another host may have named the culprit."""
        named = re.search(r"federate '([^']+)': (.*)", words, re.DOTALL)
        if named is not None:
            return cls(named[1], f"{named[2]} (on another host)")
        return cls(federate, f"lost the federation: {words}")


@dataclass
class Outcome:
    """What a host reports at the end."""

    failure: Failure | None = None
    interrupted: bool = False
    summaries: dict[str, dict[str, float]] = field(default_factory=dict)
    stepping_s: float = 0.0
    """Wall time from the first step to the last, without set-up."""
    pacing: dict[str, float | str] | None = None
    """Lateness of a run in real time."""


def _say_nothing(_: str) -> None:
    """Where nobody listens."""


class Control:
    """Shared by a host, its federates and the watchdog."""

    def __init__(
        self,
        progress: Progress,
        step_timeout_s: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.progress = progress
        self.step_timeout_s = step_timeout_s
        self.on_progress = on_progress
        self._stall = StallWatch(progress, step_timeout_s)
        self.say: Callable[[str], None] = _say_nothing
        """Prints a sentence for the user."""
        self.on_gathered: Callable[[], None] = self._stall.arm
        """Called when everybody has joined: from then on nobody has a reason to wait for long."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called at the first failure, before anybody else can feel it."""
        self.stop = threading.Event()
        self.failure: Failure | None = None
        self._lock = threading.Lock()

    def admit(self, now_ns: int, pacer: Pacer | None) -> bool:
        """Wait for the wall clock and while the run is paused; return False where it was stopped.

        Every host asks before it lets federates read for their steps at `now_ns`.
        """
        progress = self.progress
        if pacer is not None:
            progress.late(pacer.wait(now_ns, self.stop, progress.paused_ns()))
        while progress.paused and not self.stop.wait(_PAUSE_POLL_S):
            pass
        return not self.stop.is_set()

    def fail(self, failure: Failure) -> bool:
        """Keep the first failure; return whether this one was it."""
        with self._lock:
            first = self.failure is None
            if first:
                self.failure = failure
                self.on_failure()
            self.stop.set()
            return first

    def hung(self, names: Sequence[str], strangers: Sequence[str]) -> Failure | None:
        """Return the federate that hangs, if any: one in a step here, else one of `strangers`."""
        limit = f"step_timeout_s = {self.step_timeout_s:g} s"
        row = self.progress.hung(self.step_timeout_s)
        if row is not None:
            return Failure(names[row], f"one step took longer than {limit}")
        if self._stall.stalled():
            reason = f"everybody has waited for it for longer than {limit}"
            return Failure(" or ".join(strangers), reason)
        return None
