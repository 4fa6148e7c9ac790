"""Watches external programs while a run goes on: their values, their silence, their leaving.

One of our federates is the watcher of a program. It subscribes to all topics that the scenario
declares for it, also to those that nothing else reads, and records them under the program's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from federates.clock import Timing, to_s
from federates.core.oedisi import Topic
from federates.core.recorder import Recorder
from federates.core.run_store import RunStore
from federates.errors import OutputError, PartnerError

_ASK_EVERY_S = 0.25
_PATIENCE_S, _PAUSE_S = 1.0, 0.02


@dataclass(frozen=True)
class Partner:
    """An external federate, as the scenario declares it.

    Attributes
    ----------
    outputs : Its ports and the topics that it publishes them on.
    reads : Topics of ours that it reads.
    max_silence_ns : Longest time between two values of a topic, after which the run fails; None:
        its period, after which there is an event.
    horizon_ns : End of the run.
    """

    name: str
    timing: Timing
    outputs: tuple[tuple[Port, Topic], ...]
    reads: tuple[str, ...]
    max_silence_ns: int | None
    horizon_ns: int

    @property
    def last_step_ns(self) -> int:
        """Time of its last step in the run."""
        return self.step_before(self.horizon_ns)

    def step_before(self, now_ns: int) -> int:
        """Return the time of its last step before `now_ns`; 0 before its first step."""
        n = self.timing.steps_before(now_ns)
        return max(0, self.timing.offset_ns + (n - 1) * self.timing.period_ns)


class PartnerBus(Protocol):
    """What a watch needs from a host."""

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last; None if nothing."""
        ...

    def updates(self, source: str, port: str) -> int:
        """Return how many updates of a topic `latest` has returned."""
        ...

    def has_left(self, federate: str) -> bool:
        """Whether a federate has left the federation."""
        ...


def make_watch(partner: Partner, store: RunStore, say: Callable[[str], None]) -> Watch:
    """Return the watch of a program, with a watch of each of its topics."""
    stay = _Stay(partner.name)
    topics = [
        _TopicWatch(partner, port, topic, store, say, stay) for port, topic in partner.outputs
    ]
    return Watch(partner, topics, stay)


class _Stay:
    """Whether a program is still in the federation.

    The broker may process that a program left after we have been granted the times that this
    released. So one answer that it is there does not settle it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_question = 0.0
        self._settled = False

    def ended(self, bus: PartnerBus) -> bool:
        """Ask for a while, once in a run, and after that once a call."""
        until = time.monotonic() + (0.0 if self._settled else _PATIENCE_S)
        self._settled = True
        while not bus.has_left(self._name):
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_S)
        return True

    def ended_lately(self, bus: PartnerBus) -> bool:
        """Ask, but not at every step of a fast run."""
        wall = time.monotonic()
        if wall < self._next_question:
            return False
        self._next_question = wall + _ASK_EVERY_S
        return bus.has_left(self._name)


class Watch:
    """Watches one program; `say` of `make_watch` prints for the user."""

    def __init__(self, partner: Partner, topics: list[_TopicWatch], stay: _Stay) -> None:
        self._partner = partner
        self._topics = topics
        self._stay = stay

    def look(self, bus: PartnerBus, now_ns: int) -> None:
        """Check and record what came since the last look.

        Raises PartnerError: A value is not finite, or the program has left before its time.
        """
        for topic in self._topics:
            topic.look(bus, now_ns)
        # A program that only reads is never ahead of us, but no value shows that it goes on.
        words = [topic.silence for topic in self._topics if topic.silence]
        if not self._topics:
            words = [f"at time {to_s(now_ns):g} s or before"]
        if words and now_ns < self._partner.last_step_ns and self._stay.ended_lately(bus):
            raise _left(self._partner, words[0])

    def look_last(self, bus: PartnerBus) -> None:
        """Look at the end of the run.

        Raises PartnerError: As `look`, or a topic never had a value.
        """
        for topic in self._topics:
            topic.look(bus, self._partner.horizon_ns)
            topic.refuse_empty()

    def close(self) -> None:
        """Close the recordings."""
        for topic in self._topics:
            topic.close()


class _TopicWatch:
    def __init__(
        self,
        partner: Partner,
        port: Port,
        topic: Topic,
        store: RunStore,
        say: Callable[[str], None],
        stay: _Stay,
    ) -> None:
        self._partner = partner
        self._port = port.name
        self._topic = topic.name
        self._store = store
        self._say = say
        self._stay = stay
        self.silence = ""  # in words, while there is any
        self._recorder = Recorder(partner.name, (port,), store)
        self._last_ns: int | None = None
        self._updates = 0
        self._told = False
        limit = partner.max_silence_ns
        self._limit_ns = partner.timing.period_ns if limit is None else limit

    def look(self, bus: PartnerBus, now_ns: int) -> None:
        name, values = self._partner.name, bus.latest(self._partner.name, self._port)
        if values is not None:
            updates = bus.updates(name, self._port)
            if updates != self._updates:
                self._updates, self.silence = updates, ""
                # HELICS does not tell when a value was published.
                self._last_ns = self._partner.step_before(now_ns)
                self._take(values, self._last_ns)
                return
        last = self._last_ns
        since_ns = self._partner.timing.offset_ns if last is None else last
        if now_ns - since_ns > self._limit_ns:
            since = "no value yet" if last is None else f"no value since {to_s(last):g} s"
            self.silence = f"topic '{self._topic}' has had {since}"
            if not self._told:
                self._told = True
                self._report_silence(bus, now_ns)

    def _take(self, values: FloatArray, at_ns: int) -> None:
        try:
            self._recorder.take(to_s(at_ns), {self._port: values})
        except OutputError as error:
            raise PartnerError(
                f"topic '{self._topic}': {error.what}",
                federate=self._partner.name,
                expected=error.expected,
            ) from None

    def _report_silence(self, bus: PartnerBus, now_ns: int) -> None:
        partner, words, last = self._partner, self.silence, self._last_ns
        if self._stay.ended(bus):
            raise _left(partner, words)
        limit = f"one at least every {to_s(self._limit_ns):g} s"
        if partner.max_silence_ns is not None:
            raise PartnerError(
                f"{words}, at time {to_s(now_ns):g} s",
                federate=partner.name,
                expected=f"{limit} (max_silence_s)",
            )
        self._store.event(
            partner.name,
            "topic_silent",
            to_s(now_ns),
            topic=self._topic,
            last_s=None if last is None else to_s(last),
            expected=limit,
        )
        self._say(
            f"federate '{partner.name}': {words}, at time {to_s(now_ns):g} s; expected {limit}, "
            "its period. The last value holds; with max_silence_s this ends the run"
        )

    def refuse_empty(self) -> None:
        if self._last_ns is None:
            raise PartnerError(
                f"topic '{self._topic}' has had no value in the whole run",
                federate=self._partner.name,
                expected="at least one, or no such output in the scenario",
            )

    def close(self) -> None:
        self._recorder.close()


def _left(partner: Partner, words: str) -> PartnerError:
    return PartnerError(
        f"left the federation before its end: {words}",
        federate=partner.name,
        expected=f"a program that stays until its step at {to_s(partner.last_step_ns):g} s, or "
        "max_silence_s for one whose last value is to hold"
        if partner.outputs
        else f"a program that stays until its step at {to_s(partner.last_step_ns):g} s",
    )
