"""When an iterative agent computes: its waiting policy and the mailbox that goes with it.

`Barrier`: compute once the next message of every peer is in. One buffer per round, because a
neighbour may run one round ahead. With the resend it gives the trajectory of a plain loop, bit for
bit, over links that lose and delay.

`Asynchronous`: compute once a fraction of the peers has fresh mail and no message was used too
often (partial barrier and bounded delay of R. Zhang and J. Kwok, "Asynchronous Distributed ADMM for
Consensus Optimization", ICML 2014). The latest message counts.

A message is fresh until the agent that received it has computed with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link


@dataclass(frozen=True, slots=True)
class Barrier:
    """Wait for the next message of every peer.

    `resend_after`: Steps of silence after which a waiting agent sends its last two messages again.
    """

    resend_after: int = 1

    def __post_init__(self) -> None:
        _check_resend(self.resend_after)


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """Wait for a fraction of fresh peers; use no message more than `max_age` times.

    Attributes
    ----------
    fraction : Share of the peers that must have fresh mail, 0 (free-running) to 1.
    max_age : Largest number of own rounds that may use the same message of a peer; None: no bound.
        Keep it well above the round trip in rounds, or a small `fraction` starves.
    resend_after : Steps of silence after which a waiting agent sends its last message again.
    """

    fraction: float = 0.5
    max_age: int | None = 50
    resend_after: int = 1

    def __post_init__(self) -> None:
        _check_resend(self.resend_after)
        if not 0.0 <= self.fraction <= 1.0:
            raise ControllerError(
                f"fraction is {self.fraction}", where="Asynchronous", expected="0 to 1"
            )
        if self.max_age is not None and self.max_age < 1:
            raise ControllerError(
                f"max_age is {self.max_age}", where="Asynchronous", expected="at least 1, or None"
            )


Waiting = Barrier | Asynchronous


def _check_resend(steps: int) -> None:
    if steps < 1:
        raise ControllerError(
            f"resend_after is {steps}", where="waiting policy", expected="at least 1 step"
        )


class Inbox:
    """The newest accepted mail of each peer, as `IterativeAgent.compute` sees it.

    Parameters
    ----------
    links : The agent's incoming links.
    values : (width,). One vector per link.
    fresh : Whether the agent has not yet computed with it, per link.
    """

    __slots__ = ("_at", "_fresh", "_links", "_values")

    def __init__(
        self, links: Sequence[Link], values: Sequence[FloatArray], fresh: Sequence[bool]
    ) -> None:
        self._links = links
        self._values = values
        self._fresh = fresh
        self._at = {(link.source, link.kind): i for i, link in enumerate(links)}

    def of(self, peer: str, kind: str = "state") -> FloatArray:
        """Return the values of one peer, shape (width,)."""
        return self._values[self._at[peer, kind]]

    def is_fresh(self, peer: str, kind: str = "state") -> bool:
        """Say whether this agent computes with the message for the first time.

        An agent that answers requests must not answer the same one twice, and one that asked must
        not use a reply again: under `Asynchronous` they look here.
        """
        return self._fresh[self._at[peer, kind]]

    def sources(self, kind: str = "state") -> tuple[str, ...]:
        """Return the peers that send `kind`, in the order of the agent's channels."""
        return tuple(link.source for link in self._links if link.kind == kind)

    def stack(self, kind: str = "state") -> FloatArray:
        """Return the values of every peer that sends `kind`, shape (peers, width)."""
        rows = [v for v, link in zip(self._values, self._links, strict=True) if link.kind == kind]
        return np.stack(rows) if rows else np.empty((0, 0))


class Mailbox(ABC):
    """Incoming mail of one agent. `newest[i]` is the highest message number seen on link i."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self.newest = [-1] * len(self.links)

    @abstractmethod
    def absorb(self, link: int, number: int, values: FloatArray) -> None:
        """Take in message `number` of a link; old and repeated ones change nothing."""

    @abstractmethod
    def ready(self) -> bool:
        """Say whether the agent may compute."""

    @abstractmethod
    def take(self) -> Inbox:
        """Return what to compute with and count it as used."""


class BarrierMailbox(Mailbox):
    """One buffer per round: message n of a link belongs to the n-th computation that awaits it.

    turns : Links that the first, second, ... computation awaits, over and over.
    """

    def __init__(self, links: Sequence[Link], turns: Sequence[Sequence[int]]) -> None:
        super().__init__(links)
        self._turns = turns
        self._turn = 0
        self._next = [0] * len(self.links)
        self._waiting: list[dict[int, FloatArray]] = [{} for _ in self.links]

    def absorb(self, link: int, number: int, values: FloatArray) -> None:
        """Buffer the message when its round is still to come."""
        self.newest[link] = max(self.newest[link], number)
        if number < self._next[link]:
            return
        buffer = self._waiting[link]
        buffer.setdefault(number, values)
        # Two peers that both wait are never further apart than one round, so a larger gap means a
        # free-running peer that will not repeat what we missed: go on with what it says now.
        if number > self._next[link] + 1:
            self._next[link] = number
            for old in [n for n in buffer if n < number]:
                del buffer[old]

    def ready(self) -> bool:
        """Say whether the next message of every awaited link is in."""
        return all(self._next[i] in self._waiting[i] for i in self._turns[self._turn])

    def take(self) -> Inbox:
        """Return this round's messages and free their buffers."""
        awaited = self._turns[self._turn]
        values = [self._waiting[i].pop(self._next[i]) for i in awaited]
        for i in awaited:
            self._next[i] += 1
        self._turn = (self._turn + 1) % len(self._turns)
        return Inbox([self.links[i] for i in awaited], values, [True] * len(values))


class LatestMailbox(Mailbox):
    """Only the newest message of every link; freshness and age are kept per peer."""

    def __init__(self, links: Sequence[Link], policy: Asynchronous) -> None:
        super().__init__(links)
        peers = list(dict.fromkeys(link.source for link in self.links))
        self._peer_of = [peers.index(link.source) for link in self.links]
        self._links_of = [
            [i for i, p in enumerate(self._peer_of) if p == k] for k in range(len(peers))
        ]
        self._values: list[FloatArray | None] = [None] * len(self.links)
        self._fresh = [False] * len(self.links)
        self._age = [0] * len(peers)
        self._needed = math.ceil(policy.fraction * len(peers) - 1e-9)
        self._max_age = math.inf if policy.max_age is None else policy.max_age

    def absorb(self, link: int, number: int, values: FloatArray) -> None:
        """Keep the message when it is newer than what the link said before."""
        if number <= self.newest[link]:
            return
        self.newest[link] = number
        self._values[link] = values
        self._fresh[link] = True
        self._age[self._peer_of[link]] = 0

    def ready(self) -> bool:
        """Say whether every peer has sent, enough are fresh and no message is too old."""
        if any(v is None for v in self._values) or any(a >= self._max_age for a in self._age):
            return False
        return sum(any(self._fresh[i] for i in mine) for mine in self._links_of) >= self._needed

    def take(self) -> Inbox:
        """Return the newest messages; from now on they are used."""
        inbox = Inbox(self.links, [v for v in self._values if v is not None], self._fresh)
        self._fresh = [False] * len(self.links)
        self._age = [a + 1 for a in self._age]
        return inbox


def mailbox(links: Sequence[Link], policy: Waiting, turns: Sequence[Sequence[int]] = ()) -> Mailbox:
    """Return the mailbox a policy needs; `turns`: of `BarrierMailbox`, by default all links."""
    if isinstance(policy, Asynchronous):
        return LatestMailbox(links, policy)
    return BarrierMailbox(links, turns or [range(len(links))])
