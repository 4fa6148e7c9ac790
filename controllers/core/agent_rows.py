"""Iterative agents of one kind as rows of arrays, for algorithms with hundreds of agents.

`controllers.core.agents.IterativeAgent` is one agent; `AgentRows` is all hosted agents of one kind
at once: `first` gives their opening messages, `compute` does one round of the rows that are ready.
`RowController` makes a `controllers.core.protocol.Controller` of one kind or several (members and
their coordinator). Waiting, resending and the meaning of a message's number are those of
`controllers.core.agents`; all agents of a `RowController` have the same waiting policy.

**Stopping** needs neighbours only. A message carries, beside the numbers of the algorithm, how many
rounds in a row the sender knows to be quiet: 0 where its residual is above the tolerance, else one
more than the least of its own and its neighbours' counts. An agent at distance d from one that is
not quiet counts no further than d, so a count above the graph's diameter shows that all have been
quiet; its agent stops, tells its neighbours, and they stop too.

The bits do not depend on who hosts whom, nor on which rows compute together: use operations by
element, sums by `Heard.total` (in the order of the links) and no products across rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, hosted_positions
from controllers.core.row_mailbox import row_mailbox
from controllers.core.waiting import Barrier, Waiting

BoolArray = NDArray[np.bool_]
_STOPPED = -1.0  # and asks for an answer, which a peer may have lost
_ALL_STOPPED = -2.0  # knows that all its peers have stopped


@dataclass(frozen=True)
class Heard:
    """What the computing rows heard, one entry per incoming link, ordered by row, then by link.

    Attributes
    ----------
    row : (links,). Position of the receiver among the rows that compute.
    link : (links,). The link, as a position among those that end at rows of this kind and host.
    source : (links,). The sender, as a position in the team's names.
    values : (links, width).
    fresh : (links,). Whether the receiver has not yet computed with it.
    rows : Number of computing rows.
    """

    row: IntArray
    link: IntArray
    source: IntArray
    values: FloatArray
    fresh: BoolArray
    rows: int

    def total(self, values: FloatArray | None = None) -> FloatArray:
        """Return the sum per row, (rows, width), added one by one in the order of the links.

        values : (links, width). Default: what was heard.
        """
        given = self.values if values is None else values
        columns = [np.bincount(self.row, column, self.rows) for column in given.T]
        return np.stack(columns, axis=1) if columns else np.empty((self.rows, 0))


class AgentRows(ABC):
    """All hosted agents of one kind. Arrays of the state have a row for each.

    Attributes
    ----------
    residual : (rows,). After `compute`: how far each agent is from agreement, relative; the agents
        stop when all are below the tolerance.
    by_link : Whether peers are told different things: messages are then (links, width), ordered by
        row, then by peer, as in `Heard`.
    """

    by_link: ClassVar[bool] = False
    residual: FloatArray

    @abstractmethod
    def first(self) -> FloatArray | None:
        """Return the opening messages, (rows, width); None: the agents wait to be asked."""

    @abstractmethod
    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Do one round of some rows; return what they tell their peers, (len(rows), width).

        Messages hold absolute state. Sets `residual` of these rows.
        """

    @abstractmethod
    def answer(self) -> Mapping[str, FloatArray]:
        """Return what the agents know of the solution by name, each (rows, ...)."""


@dataclass(frozen=True)
class Kind:
    """Agents that do the same: how many, and how many numbers a message of theirs has.

    build : Returns the rows of some of them, called with their positions within the kind.
    """

    count: int
    width: int
    build: Callable[[IntArray], AgentRows]


@dataclass(frozen=True)
class Team:
    """All agents of an algorithm and who writes to whom.

    Attributes
    ----------
    names : Of the agents, kind after kind.
    kinds : In the order of the names.
    source, target : (m,). Directed links, ordered by target, then source. All peers of a kind are
        of one kind.
    diameter : Largest number of hops between two agents.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    source: IntArray
    target: IntArray
    diameter: int

    @classmethod
    def peers(cls, names: Sequence[str], graph: Graph, kind: Kind) -> Team:
        """Return agents of one kind that write to their neighbours in a graph."""
        source, target = graph.arcs
        return cls(tuple(names), (kind,), source, target, graph.diameter)

    @classmethod
    def star(cls, names: Sequence[str], members: Kind, coordinator: Kind) -> Team:
        """Return members that write to a coordinator, the last of the names, and it to them."""
        n = members.count
        source = np.concatenate([np.full(n, n), np.arange(n)])
        target = np.concatenate([np.arange(n), np.full(n, n)])
        return cls(tuple(names), (members, coordinator), source, target, 2)

    def width_heard(self, source: IntArray) -> int:
        """Return how many numbers the messages of some agents of one kind have."""
        ends = np.cumsum([kind.count for kind in self.kinds])
        kinds = np.unique(np.searchsorted(ends, source, side="right"))
        return self.kinds[int(kinds[0]) if kinds.size else 0].width


class RowController:
    """A controller of agents in rows; hosts some of a team's agents.

    Parameters
    ----------
    team : All agents.
    hosted : Names of those that this instance hosts; default: all.
    waiting : When agents compute. Default: `Barrier`.
    tolerance : Residual below which an agent is quiet; 0: the agents never stop.

    Attributes
    ----------
    inputs, outputs : None: what the agents know is in `answer`.
    hosted : Names of the hosted agents, in the team's order.
    """

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def __init__(
        self,
        team: Team,
        hosted: Sequence[str] | None = None,
        *,
        waiting: Waiting | None = None,
        tolerance: float = 0.0,
    ) -> None:
        names = team.names if hosted is None else hosted
        at = np.array(hosted_positions(names, team.names, type(self).__name__), dtype=np.int64)
        policy: Waiting = Barrier() if waiting is None else waiting
        self.team = team
        self.hosted = tuple(team.names[i] for i in np.sort(at))
        self.desks: list[_Desk] = []
        begin = 0
        for kind in team.kinds:
            mine = np.sort(at[(at >= begin) & (at < begin + kind.count)])
            if mine.size:
                rows = kind.build(mine - begin)
                self.desks.append(_Desk(team, kind.width, rows, mine, policy, tolerance))
            begin += kind.count
        self._link_up(team)

    def _link_up(self, team: Team) -> None:
        widths: list[int] = []
        out: list[Link] = []
        into: list[Link] = []
        for desk in self.desks:
            desk.first_in, desk.first_out = len(into), len(out)
            for k in desk.links_in:
                source, target = team.names[team.source[k]], team.names[team.target[k]]
                into.append(Link(source, target, width=desk.width_in + 1, counters=1))
            for k in desk.links_out:
                source, target = team.names[team.source[k]], team.names[team.target[k]]
                out.append(Link(source, target, width=desk.width_out + 1, counters=1))
            widths += [desk.width_in + 1] * len(desk.links_in)
        self.links_in, self.links_out = tuple(into), tuple(out)
        self._width = np.array(widths, dtype=np.int64)

    @property
    def rounds(self) -> int:
        """Rounds of the hosted agent that has computed most often."""
        return max((int(desk.rounds.max()) for desk in self.desks), default=0)

    @property
    def stopped(self) -> bool:
        """Whether all hosted agents have stopped."""
        return all(bool(desk.stopped.all()) for desk in self.desks)

    def answer(self) -> dict[str, FloatArray]:
        """Return what the hosted agents know of the solution, by name."""
        return {name: row for desk in self.desks for name, row in desk.rows.answer().items()}

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Advance every hosted agent by one step; see `controllers.core.protocol.Controller`."""
        self._deliver(mail)
        parts = [part for desk in self.desks for part in desk.step()]
        if not parts:
            return ControllerStep({})
        link, number, values = zip(*parts, strict=True)
        sent = Mail(np.concatenate(link), np.concatenate(number), np.concatenate(values))
        return ControllerStep({}, sent)

    def _deliver(self, mail: Mail) -> None:
        if not len(mail):
            return
        least, most = int(mail.link.min()), int(mail.link.max())
        for desk in self.desks:
            start, end, w = desk.first_in, desk.first_in + len(desk.links_in), desk.width_in + 1
            if start <= least and most < end:
                desk.absorb(mail.link - start, mail.round, mail.values.reshape(-1, w))
                return
            mine = np.flatnonzero((mail.link >= start) & (mail.link < end))
            if mine.size:
                stop = np.cumsum(self._width[mail.link])[mine]
                values = mail.values[(stop - w)[:, None] + np.arange(w)]
                desk.absorb(mail.link[mine] - start, mail.round[mine], values)


class _Desk:
    """Runs the hosted agents of one kind: ready, compute, stop, resend."""

    first_in: int
    first_out: int
    _NONE: ClassVar[list[tuple[IntArray, IntArray, FloatArray]]] = []

    def __init__(
        self,
        team: Team,
        width: int,
        rows: AgentRows,
        at: IntArray,
        policy: Waiting,
        tolerance: float,
    ) -> None:
        self.rows, self._policy, self._tolerance = rows, policy, tolerance
        n, self._n = len(team.names), len(at)
        place = np.full(n, -1)
        place[at] = np.arange(self._n)
        self.links_in = np.flatnonzero(place[team.target] >= 0)
        mine = np.flatnonzero(place[team.source] >= 0)
        self.links_out = mine[np.lexsort((team.target[mine], team.source[mine]))]
        self.in_row = place[team.target[self.links_in]]
        self.out_row = place[team.source[self.links_out]]
        self.source = team.source[self.links_in]
        arc = team.source[self.links_in] * n + team.target[self.links_in]
        back = team.target[self.links_out] * n + team.source[self.links_out]
        order = np.argsort(arc)
        # The link on which the receiver of a message answers; the graphs are undirected.
        self._reply = order[np.searchsorted(arc, back, sorter=order)]
        self.width_in, self.width_out = team.width_heard(self.source), width
        self._box = row_mailbox(self.in_row, self._n, self.width_in + 1, policy)
        self._last = [np.empty((len(self.links_out), width + 1)) for _ in range(2)]
        self._everyone, self._all_out = np.arange(self._n), np.arange(len(self.links_out))
        self._sent = np.zeros(self._n, dtype=np.int64)
        self._silent = np.zeros(self._n, dtype=np.int64)
        self._quiet = np.zeros(self._n)
        self._limit = float(team.diameter + 1)
        self.rounds = np.zeros(self._n, dtype=np.int64)
        self.stopped = np.zeros(self._n, dtype=np.bool_)
        self._told = np.zeros(len(self.links_in), dtype=np.bool_)
        self._asked = np.zeros(self._n, dtype=np.bool_)
        self._opened = False

    def absorb(self, link: IntArray, number: IntArray, values: FloatArray) -> None:
        """Take messages in."""
        stopped = values[:, -1] < 0.0
        if stopped.any():
            self._told[link] |= stopped
            self._asked[self.in_row[link[values[:, -1] == _STOPPED]]] = True
        self._box.absorb(link, number, values)

    def step(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """Advance one step; return messages as (outgoing links, numbers, values)."""
        if not self._opened:
            self._opened = True
            opening = self.rows.first()
            if opening is None:
                return self._NONE
            return [self._write(self._everyone, opening, np.zeros(self._n))]
        ready = self._box.ready() & ~self.stopped
        if ready.all():
            return [self._compute(self._everyone)]
        parts = []
        if ready.any():
            parts.append(self._compute(np.flatnonzero(ready)))
        return parts + self._again(ready)

    def _compute(self, rows: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
        link, values, fresh = self._box.take(rows)
        row = self.in_row if len(rows) == self._n else self._place(rows)[self.in_row[link]]
        heard = Heard(row, link, self.source[link], values[:, :-1], fresh, len(rows))
        told = self.rows.compute(rows, heard)
        self.rounds[rows] += 1
        count = values[:, -1]
        quiet = self._count(rows, row, count)
        self._quiet[rows] = quiet
        over = quiet >= self._limit
        over[row[count < 0.0]] = True
        self.stopped[rows] = over
        return self._write(rows, told, np.where(over, _STOPPED, quiet))

    def _place(self, rows: IntArray) -> IntArray:
        """Return the position of each row among some rows, -1 for the others."""
        place = np.full(self._n, -1)
        place[rows] = np.arange(len(rows))
        return place

    def _count(self, rows: IntArray, row: IntArray, count: FloatArray) -> FloatArray:
        """Return how many rounds in a row each agent knows to be quiet."""
        if self._tolerance <= 0.0:
            return np.zeros(len(rows))
        least = self._quiet[rows]
        np.minimum.at(least, row, np.where(count < 0.0, self._limit, np.rint(count)))
        quiet = np.minimum(least + 1.0, self._limit)
        return np.where(self.rows.residual[rows] <= self._tolerance, quiet, 0.0)

    def _write(
        self, rows: IntArray, told: FloatArray, quiet: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        everyone = len(rows) == self._n
        row = self.out_row if everyone else self._place(rows)[self.out_row]
        link = self._all_out if everyone else np.flatnonzero(row >= 0)
        row = row[link]
        values = np.empty((len(link), self.width_out + 1))
        values[:, :-1] = told if self.rows.by_link else told[row]
        values[:, -1] = quiet[row]
        if everyone:
            self._last = [self._last[1], values]
        else:
            self._last[0][link] = self._last[1][link]
            self._last[1][link] = values
        number = self._sent[self.out_row[link]]
        self._sent[rows] += 1
        self._silent[rows] = 0
        return self.first_out + link, number, values.ravel()

    def _again(self, ready: BoolArray) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """Repeat what peers may have missed; see `controllers.core.agents`."""
        waiting = ~ready & (self._sent > 0)
        self._silent[waiting] += 1
        due = waiting & (self._silent >= self._policy.resend_after)
        if not due.any():
            return self._NONE
        # Who knows that all its peers have stopped has nothing left to tell, unless one asks.
        unaware = np.bincount(self.in_row[~self._told], minlength=self._n) > 0
        due &= ~self.stopped | unaware | self._asked
        if not due.any():
            return self._NONE
        self._silent[due], self._asked[due] = 0, False
        link = np.flatnonzero(due[self.out_row])
        aware = (self.stopped & ~unaware)[self.out_row[link]]
        self._last[1][link[aware], -1] = _ALL_STOPPED
        number = self._sent[self.out_row[link]] - 1
        parts = []
        if isinstance(self._policy, Barrier):
            missed = link[(self._box.newest[self._reply[link]] < number) & (number > 0)]
            if missed.size:
                before = self._sent[self.out_row[missed]] - 2
                parts.append((self.first_out + missed, before, self._last[0][missed].ravel()))
        parts.append((self.first_out + link, number, self._last[1][link].ravel()))
        return parts
