"""The single host: no HELICS, one thread steps all federates in time order.

Visibility is HELICS' own: a federate at time t reads what was published before t. So all federates
due at one time read first, and only then step.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np

from controllers.core.mail import FloatArray
from federates.clock import Timing
from federates.core.links import Bundle
from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts.outcome import Control, Failure, Outcome


class MemoryBus:
    """One federate's end of the in-memory exchange."""

    def __init__(
        self,
        name: str,
        values: dict[tuple[str, str], FloatArray | None],
        mail: dict[str, list[Bundle]],
    ) -> None:
        self._name = name
        self._values = values
        self._mail = mail

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last."""
        return self._values.get((source, port))

    def publish(self, port: str, values: FloatArray) -> None:
        """Publish a port."""
        kept = self._values.get((self._name, port))
        if kept is None:
            self._values[self._name, port] = np.array(values, dtype=np.float64)
        else:
            kept[:] = values

    def send(self, peer: str, bundle: Bundle) -> None:
        """Send mail to a peer."""
        self._mail[peer].append(bundle)

    def receive(self) -> list[Bundle]:
        """Return the mail that came in."""
        mail = self._mail[self._name]
        if mail:
            self._mail[self._name] = []
        return mail


def run_single(
    shells: Mapping[str, Shell], horizon_ns: int, control: Control, pacer: Pacer | None = None
) -> Outcome:
    """Step all shells in time order until `horizon_ns`; a pacer holds back the first one."""
    values: dict[tuple[str, str], FloatArray | None] = {}
    mail: dict[str, list[Bundle]] = {name: [] for name in shells}
    members = [
        (shell.federate.timing, shell, MemoryBus(name, values, mail))
        for name, shell in shells.items()
    ]
    names = list(shells)
    outcome = Outcome()
    watchdog = _Watchdog(control, names)
    began = time.perf_counter()
    current = names[0]
    try:
        for name, shell in shells.items():
            current = name
            shell.start()
        for now_ns, due in _instants([timing for timing, _, _ in members], horizon_ns):
            if pacer is not None and due[0] == 0:
                current = names[0]
                pacer.wait(now_ns, control.stop)
            if control.stop.is_set():
                break
            for i in due:
                current = names[i]
                members[i][1].read(members[i][2], now_ns)
            for i in due:
                current = names[i]
                members[i][1].step(members[i][2], now_ns)
            if control.on_progress is not None and due[0] == 0:
                control.on_progress(control.progress.steps(0))
    except KeyboardInterrupt:
        outcome.interrupted = control.failure is None
    except BaseException as error:  # a federate that calls sys.exit has failed, too
        control.fail(Failure.of(current, error))
    finally:
        watchdog.close()
    outcome.stepping_s = time.perf_counter() - began
    outcome.failure = control.failure
    outcome.pacing = pacer.summary() if pacer is not None else None
    return outcome


def _instants(timings: list[Timing], horizon_ns: int) -> Iterator[tuple[int, list[int]]]:
    """Yield (time, indices of the federates due then) in time order."""
    upcoming = np.array([t.offset_ns for t in timings], dtype=np.int64)
    if len({t.period_ns for t in timings}) == 1:
        # The usual case: one period for all, so one round of instants repeats for ever.
        period = timings[0].period_ns
        rounds: dict[int, list[int]] = {}
        for i, t in enumerate(timings):
            rounds.setdefault(t.offset_ns, []).append(i)
        ordered = sorted(rounds.items())
        if ordered[-1][0] - ordered[0][0] < period:
            for base in range(0, horizon_ns, period):
                for offset, due in ordered:
                    if base + offset < horizon_ns:
                        yield base + offset, due
            return
    periods = np.array([t.period_ns for t in timings], dtype=np.int64)
    while (now := int(upcoming.min())) < horizon_ns:
        ready = np.flatnonzero(upcoming == now)
        upcoming[ready] += periods[ready]
        yield now, ready.tolist()


class _Watchdog:
    """Interrupts the main thread when a step takes too long."""

    def __init__(self, control: Control, names: list[str]) -> None:
        self._control = control
        self._names = names
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        if threading.current_thread() is threading.main_thread():
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        limit = self._control.step_timeout_s
        while not self._done.wait(min(0.5, limit / 4)):
            row = self._control.progress.hung(limit)
            if row is not None and not self._done.is_set():
                reason = f"one step took longer than step_timeout_s = {limit:g} s"
                self._control.fail(Failure(self._names[row], reason))
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def close(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
