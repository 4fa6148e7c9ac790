"""The loop that steps the federates of one process in time order, shared by all hosts.

Visibility is HELICS' own: a federate at time t reads what was published before t. So all federates
due at one time read first, and only then step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from controllers.core.mail import FloatArray
from federates.clock import Timing
from federates.core.links import Bundle
from federates.core.pacing import Pacer
from federates.core.shell import Shell, SignalBus
from federates.hosts.outcome import Control


class Memory:
    """What the federates of one process have published, and their mail to each other."""

    def __init__(self, names: Sequence[str]) -> None:
        self.values: dict[tuple[str, str], FloatArray] = {}
        self.mail: dict[str, list[Bundle]] = {name: [] for name in names}


class MemoryBus:
    """One federate's end of the exchange within a process."""

    def __init__(self, name: str, memory: Memory) -> None:
        self._name = name
        self._memory = memory

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last."""
        return self._memory.values.get((source, port))

    def publish(self, port: str, values: FloatArray) -> None:
        """Publish a port."""
        kept = self._memory.values.get((self._name, port))
        if kept is None:
            self._memory.values[self._name, port] = np.array(values, dtype=np.float64)
        else:
            kept[:] = values

    def send(self, peer: str, bundle: Bundle) -> None:
        """Send mail to a peer."""
        self._memory.mail[peer].append(bundle)

    def receive(self) -> list[Bundle]:
        """Return the mail that came in."""
        mail = self._memory.mail[self._name]
        if mail:
            self._memory.mail[self._name] = []
        return mail


class StepLoop:
    """Steps the shells of one process until `horizon_ns`.

    Parameters
    ----------
    advance : Called with (time in ns, whether the first shell is due) before that time's steps;
        returns when it may go on.
    pacer : Holds back the shells that keep the wall clock, and so all others.

    Attributes
    ----------
    current : Name of the federate that is worked on; the one to blame for an exception.
    """

    def __init__(
        self,
        shells: Mapping[str, Shell],
        buses: Mapping[str, SignalBus],
        horizon_ns: int,
        control: Control,
        pacer: Pacer | None = None,
        advance: Callable[[int, bool], None] | None = None,
    ) -> None:
        self.current = next(iter(shells))
        self._members = [(name, shell, buses[name]) for name, shell in shells.items()]
        self._horizon_ns = horizon_ns
        self._control = control
        self._pacer = pacer
        each = enumerate(shells.values())
        self._paced = frozenset(i for i, shell in each if shell.federate.wall_clock)
        self._advance = advance

    def start(self) -> None:
        """Let every federate open what it needs."""
        for name, shell, _ in self._members:
            self.current = name
            shell.start(self._control.say)

    def run(self, each_step: Callable[[], None] | None = None) -> None:
        """Step until the horizon, or until the run is stopped.

        Parameters
        ----------
        each_step : Called after each step of the first shell.
        """
        for _ in self.iterate(each_step):
            pass

    def iterate(self, each_step: Callable[[], None] | None = None) -> Iterator[list[int]]:
        """Yield the positions of the shells that are due, after they have read, until the end.

        They step when the next instant is asked for, so that a caller may act between reading and
        stepping. `each_step` as in `run`.
        """
        members, first = self._members, self._members[0][0]
        timings = [shell.federate.timing for _, shell, _ in members]
        for now_ns, due in instants(timings, self._horizon_ns):
            self.current = first
            leads = due[0] == 0
            if self._advance is not None:
                self._advance(now_ns, leads)
            paced = not self._paced.isdisjoint(due)
            if not self._control.admit(now_ns, self._pacer if paced else None):
                return
            for i in due:
                name, shell, bus = members[i]
                self.current = name
                shell.read(bus, now_ns)
            yield due
            for i in due:
                name, shell, bus = members[i]
                self.current = name
                shell.step(bus, now_ns)
            if each_step is not None and leads:
                each_step()


def instants(timings: Sequence[Timing], horizon_ns: int) -> Iterator[tuple[int, list[int]]]:
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
