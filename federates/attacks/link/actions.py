"""The actions on mail that remember nothing: they lose, delay or change messages."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from controllers.core.mail import IntArray, Link
from federates.attacks.link.action import LATE, LOSS, NOISE, Batch, LinkAction, LinkDraws
from federates.attacks.link.targets import LinkTargets
from federates.clock import to_ns
from federates.scenario.attack_wording import formula, span
from grid_models.base.sections import Deviation, Duration, Period, Probability


class DropMail(LinkAction):
    """Never delivered."""

    words = "drops; nothing new arrives"
    kind: Literal["drop"]

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        batch.kept[at] = False
        return at


class Partition(LinkAction):
    """Cuts the targeted agents off from all others; among themselves they still talk."""

    words = "cuts the agents off from all others"
    kind: Literal["partition"]

    def links(self, targets: LinkTargets) -> list[Link]:
        return targets.between_agents_and_others()

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        batch.kept[at] = False
        return at


class DelayMail(LinkAction):
    """Delivers late."""

    words = "delivers {delay} late"
    kind: Literal["delay"]
    delay_s: Period = Field(description="By how much.")

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        batch.late_ns[at] += to_ns(self.delay_s)
        return at


class Jam(LinkAction):
    """Noise on the channel: messages are lost at random, those that pass come late."""

    kind: Literal["jam"]
    loss: Probability = Field(0.5, description="Probability that a message is lost.")
    delay_s: Duration = Field(0.0, description="Largest extra delay, uniform.")

    def describe(self, unit: str = "") -> str:
        late = f", up to {span(self.delay_s)} late" if self.delay_s else ""
        return f"jams: {self.loss:.0%} of messages lost{late}"

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        lost = draws.uniform(batch, at, LOSS) < self.loss
        batch.kept[at[lost]] = False
        if not self.delay_s:
            return at[lost]
        largest_ns = float(to_ns(self.delay_s))
        late_ns = (draws.uniform(batch, at, LATE) * largest_ns).astype(np.int64)
        batch.late_ns[at] += late_ns
        return at[lost | (late_ns > 0)]


class Tamper(LinkAction):
    """Changes the numbers in messages: ``factor * x + bias``, or `value` in their place."""

    kind: Literal["tamper"]
    bias: float = Field(0.0, description="What is added to each number.")
    factor: float = Field(1.0, description="What each number is multiplied by.")
    value: float | None = Field(None, description="In place of each number.")
    sigma: Deviation = Field(0.0, description="Standard deviation of normal noise on each number.")

    def describe(self, unit: str = "") -> str:
        return f"sends {formula(self.factor, self.bias, self.value, self.sigma)}"

    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        where = batch.numbers(at)
        x = batch.values[where]
        if self.value is not None:
            x[:] = self.value
        else:  # what changes nothing keeps the bits, those of -0.0 too
            if self.factor != 1.0:
                x *= self.factor
            if self.bias:
                x += self.bias
        if self.sigma:
            x += self.sigma * draws.normal(batch, at, NOISE)
        batch.write(where, x)
        return at
