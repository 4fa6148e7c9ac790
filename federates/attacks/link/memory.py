"""The actions on mail that use numbers of other messages: earlier ones, or another agent's."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from controllers.core.mail import FloatArray, IntArray, Link
from federates.attacks.link.action import Batch, LinkAction, LinkDraws, LinkTable
from federates.attacks.link.targets import LinkTargets
from federates.clock import to_ns
from federates.core.links import BoolArray
from grid_models.base.sections import Period


class NewestNumbers:
    """The newest numbers of each link of a federate."""

    def __init__(self, table: LinkTable) -> None:
        self._table = table
        self._values: FloatArray = np.zeros(table.size)
        self._known: BoolArray = np.zeros(len(table.keys), dtype=np.bool_)

    def keep(self, link: IntArray, values: FloatArray) -> None:
        """Remember messages; of several of one link the last stays."""
        self._values[self._table.elements(link)] = values
        self._known[link] = True

    def put(self, batch: Batch, at: IntArray, source: IntArray) -> IntArray:
        """Write the numbers of links `source` into the messages `at`, where there are any."""
        known = self._known[source]
        at, source = at[known], source[known]
        batch.write(batch.numbers(at), self._values[self._table.elements(source)])
        return at


class ReplayMail(LinkAction):
    """Puts the numbers of a message `lag_s` ago into each message.

    Before there are any, the sender's own numbers pass.
    """

    listens = True
    words = "plays what was sent {lag} ago"
    kind: Literal["replay"]
    lag_s: Period = Field(description="How old the numbers are.")
    _attacked: BoolArray = PrivateAttr()
    _recent: deque[tuple[int, IntArray, FloatArray]] = PrivateAttr()
    _old: NewestNumbers = PrivateAttr()

    def prepare(self, table: LinkTable, links: Sequence[str], donors: Mapping[str, str]) -> None:
        self._attacked = table.mask(links)
        self._recent, self._old = deque(), NewestNumbers(table)

    def observe(self, batch: Batch) -> None:
        at = np.flatnonzero(self._attacked[batch.link])
        if at.size:
            entry = (batch.sent_ns, batch.link[at], batch.values[batch.numbers(at)])
            self._recent.append(entry)
        while self._recent and self._recent[0][0] <= batch.sent_ns - to_ns(self.lag_s):
            _, link, values = self._recent.popleft()
            self._old.keep(link, values)

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        return self._old.put(batch, at, batch.link[at])


class Impersonate(LinkAction):
    """Writes in a sender's name: the numbers of another agent's messages, or a constant."""

    listens = True
    kind: Literal["impersonate"]
    agent: str | None = Field(None, description="Agent whose numbers are sent in its place.")
    value: float | None = Field(None, description="Sent in place of every number.")
    _donor: IntArray = PrivateAttr()
    _observed: BoolArray = PrivateAttr()
    _newest: NewestNumbers = PrivateAttr()

    @model_validator(mode="after")
    def _one_source(self) -> Impersonate:
        if (self.agent is None) == (self.value is None):
            raise ValueError("exactly one of agent, value")
        return self

    def describe(self, unit: str = "") -> str:
        whose = f"the numbers of {self.agent}" if self.agent else f"{self.value:g}"
        return f"sends {whose} in the sender's name"

    def links(self, targets: LinkTargets) -> list[Link]:
        found = targets.matched()
        if self.agent is None:
            return found
        others = [link for link in found if link.source != self.agent]
        if found and not others:
            what = f"'{self.agent}' is the only sender in the target, and writes in its own name"
            targets.problem(what, "action", "agent", expected="another agent, or another target")
        return others

    def donors(self, targets: LinkTargets, chosen: Sequence[Link]) -> dict[str, str]:
        return {} if self.agent is None else targets.mail_of(self.agent, chosen)

    def prepare(self, table: LinkTable, links: Sequence[str], donors: Mapping[str, str]) -> None:
        self._observed = table.mask(list(donors.values()))
        self._donor = np.full(len(table.keys), -1, dtype=np.int64)
        for key, donor in donors.items():
            self._donor[table.position[key]] = table.position[donor]
        self._newest = NewestNumbers(table)

    def observe(self, batch: Batch) -> None:
        at = np.flatnonzero(self._observed[batch.link])
        if at.size:
            self._newest.keep(batch.link[at], batch.values[batch.numbers(at)])

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        if self.value is not None:
            batch.write(batch.numbers(at), self.value)
            return at
        return self._newest.put(batch, at, self._donor[batch.link[at]])
