"""In-process transport of controllers' mail, for tests and prototypes without a federation.

`MailLoop` carries the mail between the instances of a controller with loss, delay and duplication.
Every random draw is keyed by (seed, link, step), as in the federation, so the partition of the
agents does not change what happens to a message.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, Team
from controllers.core.agents import IterativeAgent, Letters
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import Controller, ControllerStep
from controllers.core.waiting import Inbox

Measure = Callable[[Port, int], FloatArray]
"""Gives the values of an input port at a step."""


@dataclass(frozen=True, slots=True)
class Post:
    """Imperfections of the transport: each message may be lost, kept for 0 to `max_delay_steps`, or
    delivered twice.
    """

    loss: float = 0.0
    max_delay_steps: int = 0
    duplication: float = 0.0
    seed: int = 0

    def draw(self, link_key: str, step: int, number: int) -> tuple[float, ...]:
        """Return four numbers in [0, 1) that depend on nothing but the arguments and the seed."""
        text = f"{self.seed}|{link_key}|{step}|{number}".encode()
        digest = hashlib.blake2b(text, digest_size=32).digest()
        return tuple(int.from_bytes(digest[i : i + 8], "big") / 2.0**64 for i in range(0, 32, 8))

    @property
    def perfect(self) -> bool:
        """Whether mail passes at once, once and always."""
        return not (self.loss or self.max_delay_steps or self.duplication)


class MailLoop:
    """Steps controller instances together and carries their mail.

    Parameters
    ----------
    hosts : Instances that together host agents of one controller.
    post : What happens to mail on its way; the default is perfect.
    measure : Gives the values of an input port at a step; the ports' initial values otherwise.
    period_s : Time between two steps.
    """

    def __init__(
        self,
        hosts: Sequence[Controller],
        post: Post | None = None,
        measure: Measure | None = None,
        period_s: float = 1.0,
    ) -> None:
        self.hosts = tuple(hosts)
        self.post = Post() if post is None else post
        self.steps = 0
        self._measure: Measure = measure or (
            lambda port, _: np.full(len(port.labels), port.initial)
        )
        self._period_s = period_s
        self._inbound = {
            link.key: (h, i) for h, host in enumerate(hosts) for i, link in enumerate(host.links_in)
        }
        self._due: dict[tuple[int, int], list[tuple[int, int, FloatArray]]] = defaultdict(list)

    def step(self) -> list[ControllerStep]:
        """Step every instance once; mail written now is read at the next step at the earliest."""
        k = self.steps
        done = []
        for h, host in enumerate(self.hosts):
            inputs = {port.name: self._measure(port, k) for port in host.inputs}
            done.append(host.step(k * self._period_s, inputs, self._mail_for(h, k)))
        for host, result in zip(self.hosts, done, strict=True):
            self._send(host, result.mail, k)
        self.steps += 1
        return done

    def outputs(self, done: Sequence[ControllerStep]) -> dict[tuple[str, str], float]:
        """Return the outputs of a step by (port, label), independent of the hosting."""
        return {
            (port.name, label): float(value)
            for host, result in zip(self.hosts, done, strict=True)
            for port in host.outputs
            for label, value in zip(port.labels, result.outputs[port.name], strict=True)
        }

    def _mail_for(self, host: int, step: int) -> Mail:
        # Sorted by link, so that an inbox does not depend on who was stepped first.
        due = sorted(self._due.pop((host, step), []), key=lambda m: m[0])
        if not due:
            return Mail.empty()
        link, number, values = zip(*due, strict=True)
        return Mail(np.array(link, np.int64), np.array(number, np.int64), np.concatenate(values))

    def _send(self, host: Controller, mail: Mail, step: int) -> None:
        widths = [host.links_out[i].width for i in mail.link]
        rows = np.split(mail.values, np.cumsum(widths)[:-1]) if widths else []
        for link, number, row in zip(mail.link, mail.round, rows, strict=True):
            key = host.links_out[link].key
            target, at = self._inbound[key]
            message = (at, int(number), row.copy())
            if self.post.perfect:
                self._due[target, step + 1].append(message)
                continue
            lost, twice, *delays = self.post.draw(key, step, int(number))
            if lost < self.post.loss:
                continue
            for share in delays[: 1 + (twice < self.post.duplication)]:
                due = step + 1 + int(share * (self.post.max_delay_steps + 1))
                self._due[target, due].append(message)


def plain_loop(agents: Sequence[IterativeAgent], rounds: int) -> None:
    """Run agents in a plain loop, without links: what the federated run must reproduce.

    All agents whose mail is complete compute at the same time, with perfect delivery; waiting
    policies do not matter. Ends when every agent has computed `rounds` times.

    Raises ControllerError: No agent can compute: a peer is missing or all wait for a request.
    """
    queues: dict[tuple[str, str, str], list[FloatArray]] = defaultdict(list)

    def write(source: str, letters: Letters) -> None:
        for (peer, kind), values in letters.items():
            queues[source, peer, kind].append(np.array(values, dtype=np.float64).reshape(-1))

    for agent in agents:
        write(agent.name, agent.first())
    done = {agent.name: 0 for agent in agents}

    def awaited(agent: IterativeAgent) -> list[Link]:
        return [agent.receives[i] for i in agent.awaited(done[agent.name])]

    while min(done.values()) < rounds:
        ready = [
            a
            for a in agents
            if done[a.name] < rounds
            and all(queues[link.source, a.name, link.kind] for link in awaited(a))
        ]
        if not ready:
            raise ControllerError(
                "no agent can compute", where="plain_loop", expected="an agent that opens"
            )
        answers = []
        for agent in ready:
            links = awaited(agent)
            rows = [queues[link.source, agent.name, link.kind].pop(0) for link in links]
            answers.append((agent.name, agent.compute(Inbox(links, rows, [True] * len(rows)))))
            done[agent.name] += 1
        for name, letters in answers:
            write(name, letters)


def plain_rows(team: Team, rounds: int) -> list[AgentRows]:
    """Run agents in rows in a plain loop, as `plain_loop` does; return the rows of each kind.

    Raises ControllerError: No kind opens.
    """
    built = [kind.build(np.arange(kind.count)) for kind in team.kinds]
    stop = np.cumsum([kind.count for kind in team.kinds])
    start = stop - [kind.count for kind in team.kinds]
    links = [
        np.flatnonzero((team.target >= a) & (team.target < b))
        for a, b in zip(start, stop, strict=True)
    ]
    # All peers of a kind are of one kind.
    peer = [int(np.searchsorted(stop, team.source[k[0]], side="right")) for k in links]
    told_at = [
        _order(team.target[k], team.source[k]) if built[p].by_link else team.source[k] - start[p]
        for k, p in zip(links, peer, strict=True)
    ]
    opening = [rows.first() for rows in built]
    told = [[] if first is None else [first.copy()] for first in opening]
    done = [0] * len(built)
    while min(done) < rounds:
        ready = [k for k in range(len(built)) if done[k] < min(rounds, len(told[peer[k]]))]
        if not ready:
            raise ControllerError(
                "no agent can compute", where="plain_rows", expected="a kind of agent that opens"
            )
        for k in ready:
            source = team.source[links[k]]
            values = told[peer[k]][done[k]][told_at[k]]
            fresh = np.ones(len(source), dtype=np.bool_)
            at = np.arange(len(source))
            heard = Heard(
                team.target[links[k]] - start[k], at, source, values, fresh, team.kinds[k].count
            )
            told[k].append(built[k].compute(np.arange(team.kinds[k].count), heard).copy())
            done[k] += 1
    return built


def _order(minor: IntArray, major: IntArray) -> IntArray:
    """Return the position of each entry in the order by `major`, then `minor`."""
    order = np.lexsort((minor, major))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place
