"""Iterative agents: write one agent, let the federation host any number of them anywhere.

An `IterativeAgent` holds the algorithm only: `first` gives its opening mail, `compute` reads the
newest accepted mail of its peers and answers. `AgentDesk` runs one agent (absorb, check whether it
is ready, compute, resend or stay silent); `AgentGroup` makes a
`controllers.core.protocol.Controller` of any set of agents. A coordinator is just another agent.

Messages carry *absolute* state, never increments, so a lost, repeated or late one does no harm. The
messages of a link are numbered 0, 1, 2, ... (`Mail.round`); where an agent writes to a peer every
round that number is its round. A waiting agent repeats its last two messages, which suffices: a
peer under `Barrier` lags by one round at most, because writing message s + 2 took s + 2
computations, the last of which used the peer's message s + 1, which the peer wrote after s + 1
computations, the last of which used our message s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.core.waiting import Barrier, Inbox, Waiting, mailbox
from grid_models.base.errors import nearest_name

Letters = Mapping[tuple[str, str], FloatArray]
"""Messages to write: (peer, kind) to values of shape (width,)."""
Direction = Literal["both", "out", "in"]


@dataclass(frozen=True, slots=True)
class Channel:
    """What an agent exchanges with a peer: vectors of `width` numbers, named `kind`.

    Both ends declare it: "both" matches "both", "out" matches "in". `counters`: See
    `controllers.core.mail.Link`.
    """

    peer: str
    kind: str = "state"
    width: int = 1
    direction: Direction = "both"
    counters: int = 0


class IterativeAgent(ABC):
    """One decision maker that iterates with its peers.

    Parameters
    ----------
    name : Its name, unique in the controller.
    channels : What it exchanges with whom; widths are declared here and nowhere else.
    waiting : When it computes.
    inputs, outputs : Its own measurements and set-points (its own labels only).
    turns : Kinds that its first, second, ... computation waits for, again from the first after the
        last. Default: every computation waits for all kinds. Only under `Barrier`.

    Raises ControllerError: A channel is declared twice or has no width, or a `Barrier` has a peer
    that cannot answer: such a peer would run ahead, and a lost message would never be repeated.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[Channel],
        *,
        waiting: Waiting | None = None,
        inputs: Sequence[Port] = (),
        outputs: Sequence[Port] = (),
        turns: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.waiting: Waiting = Barrier() if waiting is None else waiting
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.sends = tuple(
            Link(name, c.peer, c.kind, c.width, c.counters) for c in channels if c.direction != "in"
        )
        self.receives = tuple(
            Link(c.peer, name, c.kind, c.width, c.counters)
            for c in channels
            if c.direction != "out"
        )
        self.peers: tuple[str, ...] = tuple(dict.fromkeys(c.peer for c in channels))
        self.turns = tuple(
            [i for i, link in enumerate(self.receives) if link.kind == kind] for kind in turns
        ) or (list(range(len(self.receives))),)
        self._check_channels()

    def _check_channels(self) -> None:
        where = f"agent '{self.name}'"
        for links in (self.sends, self.receives):
            if len({link.key for link in links}) < len(links):
                raise ControllerError("a channel is declared twice", where=where)
        if any(link.width < 1 for link in self.sends + self.receives):
            raise ControllerError("a channel has no width", where=where, expected="width >= 1")
        if self.name in self.peers:
            raise ControllerError("the agent is its own peer", where=where)
        if any(not awaited for awaited in self.turns) and len(self.turns) > 1:
            raise ControllerError(
                "a turn waits for a kind that no channel brings",
                where=where,
                expected="one of " + ", ".join(sorted({k.kind for k in self.receives})),
            )
        if len(self.turns) > 1 and not isinstance(self.waiting, Barrier):
            raise ControllerError("it waits by turns", where=where, expected="Barrier waiting")
        one_way = {k.target for k in self.sends} ^ {k.source for k in self.receives}
        if isinstance(self.waiting, Barrier) and one_way:
            raise ControllerError(
                f"mail with '{min(one_way)}' goes one way only",
                where=where,
                expected="a channel in each direction under Barrier, or Asynchronous waiting",
            )

    def awaited(self, rounds: int) -> list[int]:
        """Return which of `receives` the computation after `rounds` others waits for."""
        return self.turns[rounds % len(self.turns)]

    def to_all(
        self, values: FloatArray | float, kind: str = "state"
    ) -> dict[tuple[str, str], FloatArray]:
        """Return the same message for every peer that `kind` is sent to."""
        row = np.atleast_1d(np.asarray(values, dtype=np.float64))
        return {(link.target, kind): row for link in self.sends if link.kind == kind}

    def observe(self, time_s: float, measured: Mapping[str, FloatArray]) -> None:  # noqa: B027
        """Take in the step's measurements, by port name; called every step, ready or not."""

    @abstractmethod
    def first(self) -> Letters:
        """Return the opening mail; nothing for an agent that waits to be asked."""

    @abstractmethod
    def compute(self, inbox: Inbox) -> Letters:
        """Do one round and return what to tell the peers (absolute state)."""

    def actuate(self) -> Mapping[str, FloatArray]:
        """Return the set-points, by port name, in the order of the port's labels."""
        return {}


class AgentDesk:
    """Runs one agent: absorb, decide whether it is ready, compute, resend or stay silent."""

    def __init__(self, agent: IterativeAgent) -> None:
        self.agent = agent
        self.rounds = 0
        self._box = mailbox(agent.receives, agent.waiting, agent.turns)
        self._at = {(link.target, link.kind): i for i, link in enumerate(agent.sends)}
        self._heard_on = [
            [i for i, r in enumerate(agent.receives) if r.source == link.target]
            for link in agent.sends
        ]
        self._count = [0] * len(agent.sends)
        self._last: list[FloatArray | None] = [None] * len(agent.sends)
        self._before: list[FloatArray | None] = [None] * len(agent.sends)
        self._opened = False
        self._silent_steps = 0

    def absorb(self, link: int, number: int, values: FloatArray) -> None:
        """Take in message `number` of the agent's incoming link."""
        self._box.absorb(link, number, values)

    def step(self) -> list[tuple[int, int, FloatArray]]:
        """Advance one step; return messages to send as (outgoing link, number, values)."""
        if not self._opened:
            self._opened = True
            return self._write(self.agent.first())
        if self.agent.receives and self._box.ready():
            self.rounds += 1
            return self._write(self.agent.compute(self._box.take()))
        self._silent_steps += 1
        if self._silent_steps < self.agent.waiting.resend_after:
            return []
        self._silent_steps = 0
        return self._again()

    def _write(self, letters: Letters) -> list[tuple[int, int, FloatArray]]:
        self._silent_steps = 0
        sent = []
        for to, values in letters.items():
            i = self._link(to)
            row = np.array(values, dtype=np.float64).reshape(-1)
            if row.size != self.agent.sends[i].width:
                raise ControllerError(
                    f"message '{to[1]}' to '{to[0]}' has {row.size} numbers",
                    where=f"agent '{self.agent.name}'",
                    expected=f"{self.agent.sends[i].width}",
                )
            self._before[i], self._last[i] = self._last[i], row
            sent.append((i, self._count[i], row))
            self._count[i] += 1
        return sent

    def _link(self, to: tuple[str, str]) -> int:
        found = self._at.get(to)
        if found is None:
            known = {f"{peer}:{kind}" for peer, kind in self._at}
            raise ControllerError(
                f"it has no channel '{to[1]}' to '{to[0]}'",
                where=f"agent '{self.agent.name}'",
                nearest=nearest_name(f"{to[0]}:{to[1]}", known),
            )
        return found

    def _again(self) -> list[tuple[int, int, FloatArray]]:
        """Repeat what a peer may have missed."""
        barrier = isinstance(self.agent.waiting, Barrier)
        sent = []
        for i, (last, before) in enumerate(zip(self._last, self._before, strict=True)):
            number = self._count[i] - 1
            if last is None:
                continue
            # A peer under Barrier that wrote its message n has computed n times on our 0 to n - 1;
            # for an asynchronous peer the older message is of no use anyway.
            heard = max((self._box.newest[k] for k in self._heard_on[i]), default=-1)
            if barrier and before is not None and heard < number:
                sent.append((i, number - 1, before))
            sent.append((i, number, last))
        return sent


class AgentHost:
    """Runs iterative agents: what a `Controller` made of them has in common.

    It gathers the agents' ports and links, hands out measurements and mail, and collects
    set-points. A measurement that is NaN is held at its last finite value (the port's `initial`
    before the first), so agents never see one.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    links_in: tuple[Link, ...]
    links_out: tuple[Link, ...]

    def __init__(self, agents: Sequence[IterativeAgent]) -> None:
        self.hosted = tuple(agents)
        built = tuple(agent.name for agent in self.hosted)
        self.desks = tuple(AgentDesk(agent) for agent in self.hosted)
        self._gather_links()
        self.inputs, self._reads = _merge([a.inputs for a in self.hosted], built, shared=True)
        self.outputs, self._writes = _merge([a.outputs for a in self.hosted], built, shared=False)
        self._held = {p.name: np.full(len(p.labels), p.initial) for p in self.inputs}

    def _gather_links(self) -> None:
        self.links_in = tuple(link for a in self.hosted for link in a.receives)
        self.links_out = tuple(link for a in self.hosted for link in a.sends)
        self._owner = [(d, i) for d in self.desks for i in range(len(d.agent.receives))]
        self._width_in = np.array([link.width for link in self.links_in], dtype=np.int64)
        counts = [len(a.sends) for a in self.hosted]
        self._first_out = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64).tolist()

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Advance every hosted agent by one step; see `controllers.core.protocol.Controller`."""
        self._deliver(mail)
        for name, held in self._held.items():
            given = inputs.get(name, held)  # a port that is not required may be left out
            held[:] = np.where(np.isfinite(given), given, held)
        outputs = {port.name: np.empty(len(port.labels)) for port in self.outputs}
        links: list[int] = []
        rounds: list[int] = []
        values: list[FloatArray] = []
        for k, desk in enumerate(self.desks):
            desk.agent.observe(time_s, {n: self._held[n][at] for n, at in self._reads[k].items()})
            for link, number, row in desk.step():
                links.append(self._first_out[k] + link)
                rounds.append(number)
                values.append(row)
            self._collect(k, outputs)
        if not links:
            return ControllerStep(outputs)
        sent = Mail(np.array(links, np.int64), np.array(rounds, np.int64), np.concatenate(values))
        return ControllerStep(outputs, sent)

    def _deliver(self, mail: Mail) -> None:
        if not len(mail):
            return
        stop = np.cumsum(self._width_in[mail.link]).tolist()
        # One copy, because the host may reuse its arrays and mailboxes keep slices of it.
        values = mail.values.copy()
        start = 0
        for link, number, end in zip(mail.link.tolist(), mail.round.tolist(), stop, strict=True):
            desk, local = self._owner[link]
            desk.absorb(local, number, values[start:end])
            start = end

    def _collect(self, k: int, outputs: dict[str, FloatArray]) -> None:
        agent = self.hosted[k]
        if not agent.outputs:
            return
        given = agent.actuate()
        for port in agent.outputs:
            row = given.get(port.name)
            if row is None or np.shape(row) != (len(port.labels),):
                found = "nothing" if row is None else f"shape {np.shape(row)}"
                raise ControllerError(
                    f"actuate gives {found} for '{port.name}'",
                    where=f"agent '{agent.name}'",
                    expected=f"shape ({len(port.labels)},)",
                )
            outputs[port.name][self._writes[k][port.name]] = row


class AgentGroup(AgentHost, ABC):
    """A `Controller` made of iterative agents; subclass it and write `agents` and `build`."""

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        hosted_positions(hosted, self.agents(site, **options), type(self).__name__)
        agents = self.build(site, hosted, **options)
        built = tuple(agent.name for agent in agents)
        if built != tuple(hosted):
            raise ControllerError(
                f"build returned the agents {built}",
                where=type(self).__name__,
                expected=f"{tuple(hosted)}, in that order",
            )
        super().__init__(agents)

    @classmethod
    @abstractmethod
    def agents(cls, site: ControlSite, *args: Any, **options: Any) -> tuple[str, ...]:
        """Return the names of all agents, hosted anywhere.

        (`args` and `options` only let type checkers accept a subclass that names its options.)
        """

    @classmethod
    @abstractmethod
    def build(
        cls, site: ControlSite, hosted: Sequence[str], *args: Any, **options: Any
    ) -> Sequence[IterativeAgent]:
        """Return the agents named in `hosted`, in that order, from what the site says."""


def _merge(
    of_agents: Sequence[tuple[Port, ...]], names: Sequence[str], *, shared: bool
) -> tuple[tuple[Port, ...], list[dict[str, Any]]]:
    """Join the agents' ports by name; also return where each agent's labels are in them."""
    ports: dict[str, Port] = {}
    labels: dict[str, dict[str, int]] = {}
    where: list[dict[str, Any]] = []
    for agent, mine in zip(names, of_agents, strict=True):
        at: dict[str, Any] = {}
        for port in mine:
            known = ports.setdefault(port.name, port)
            place = labels.setdefault(port.name, {})
            if (known.unit, known.initial, known.required) != (
                port.unit,
                port.initial,
                port.required,
            ):
                raise ControllerError(
                    f"port '{port.name}' differs from that of other agents",
                    where=f"agent '{agent}'",
                    expected=f"unit {known.unit}, initial {known.initial}, "
                    f"required {known.required}",
                )
            taken = [label for label in port.labels if label in place]
            if taken and not shared:
                raise ControllerError(
                    f"label '{taken[0]}' of port '{port.name}' is set by another agent too",
                    where=f"agent '{agent}'",
                )
            at[port.name] = np.array(
                [place.setdefault(label, len(place)) for label in port.labels], dtype=np.int64
            )
        where.append(at)
    merged = tuple(
        Port(p.name, p.unit, tuple(labels[p.name]), p.initial, p.required) for p in ports.values()
    )
    return merged, where
