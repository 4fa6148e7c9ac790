"""The signal layer's part of an attack federate: channels of values, forged step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from federates.attacks.plan import PartPlan, SitePart, SitePlan
from federates.attacks.signal.action import Sample, SignalAction, StepDraws
from federates.attacks.signal.actions import Freeze, SetValue
from federates.attacks.signal.replay import ReplayValues
from federates.attacks.signal.trace_file import Trace
from federates.clock import to_ns
from federates.core.context import FederateContext
from federates.scenario.attack_schema import AttackSpec, Show
from grid_models.base import counter_rng

if TYPE_CHECKING:
    from federates.attacks.truth import TruthWriter


@dataclass(frozen=True)
class ForgedChannel:
    """Elements of one port on their way through an attack federate.

    Attributes
    ----------
    federate, port : Whose port it is, by the scenario's name of the federate; for the ground truth.
    source : Input port of the attack federate that brings the true values; empty for an input that
        nobody feeds, whose true value is `initial`.
    positions : Where the elements are in that input port.
    out : Output port of the attack federate that the readers now read.
    """

    federate: str
    port: str
    unit: str
    labels: tuple[str, ...]
    source: str
    positions: IntArray
    out: str
    initial: float = 0.0


@dataclass(frozen=True)
class ForgingStep:
    """What one step, or its concealment, does in one attack federate.

    Attributes
    ----------
    step : Position of the step in the attack.
    conceal : Position in its `conceal`; None for the action itself.
    elements : Positions in the concatenation of all channels, in the scenario's order of labels.
    """

    step: int
    conceal: int | None
    elements: IntArray


@dataclass(frozen=True)
class ForgePlan(PartPlan):
    """Channels that pass one attack federate, and the steps on them in the attack's order."""

    channels: tuple[ForgedChannel, ...]
    forging: tuple[ForgingStep, ...]

    def ports(self) -> tuple[Port, ...]:
        return tuple(
            Port(c.out, c.unit, c.labels, np.nan if np.isnan(c.initial) else 0.0)
            for c in self.channels
        )

    def books(self) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(c.federate, c.port, c.labels) for c in self.channels]

    def steps(self) -> set[int]:
        return {part.step for part in self.forging if part.conceal is None}

    def build(
        self, spec: AttackSpec, site: SitePlan, context: FederateContext, first_channel: int
    ) -> Forge:
        return Forge(self, spec, site, context.period_s, first_channel)


class Forge(SitePart):
    """Passes on the true values of its channels, forged where a step is active."""

    def __init__(
        self, plan: ForgePlan, spec: AttackSpec, site: SitePlan, period_s: float, first_channel: int
    ) -> None:
        self._plan, self._first_channel = plan, first_channel
        ends = np.cumsum([0, *(len(c.labels) for c in plan.channels)])
        self._slices = [slice(a, b) for a, b in pairwise(ends.tolist())]
        self._true = np.concatenate(
            [np.full(len(c.labels), c.initial) for c in plan.channels] or [np.empty(0)]
        )
        self._last_seen = self._true.copy()
        self._acted_by = np.zeros(self._true.size, dtype=np.int64)
        elements = [(c, label) for c in plan.channels for label in c.labels]
        self._forging = [
            _ActiveStep(spec, site, part, [elements[k] for k in part.elements.tolist()], period_s)
            for part in plan.forging
        ]

    @property
    def traces(self) -> list[tuple[int, Trace]]:
        """The trace files that it plays, each with the position of its step."""
        return [
            (forging.step, forging.action.trace)
            for forging in self._forging
            if isinstance(forging.action, ReplayValues) and forging.action.trace is not None
        ]

    def outputs(
        self,
        sample_s: float,
        elapsed_s: FloatArray,
        inputs: Mapping[str, FloatArray],
        truth: TruthWriter | None,
    ) -> dict[str, FloatArray]:
        true = self._true
        for channel, at in zip(self._plan.channels, self._slices, strict=True):
            if channel.source:
                true[at] = inputs[channel.source][channel.positions]
        seen = true.copy()
        active: set[int] = set()
        for forging in self._forging:
            elapsed = float(elapsed_s[forging.step])
            since = elapsed if elapsed == elapsed else None
            written = forging.run(sample_s, since, seen, self._last_seen, inputs)
            if since is not None:
                active.add(forging.step)
                self._acted_by[written] = forging.step
        self._last_seen = seen
        if active and truth is not None:
            # Bits, not values: -0.0 for 0.0 is a change, and NaN for the same NaN is none.
            changed = np.flatnonzero(seen.view(np.int64) != true.view(np.int64))
            step = next(iter(active)) if len(active) == 1 else self._acted_by[changed]
            truth.add(sample_s, self._first_channel, changed, true[changed], seen[changed], step)
        return {
            channel.out: seen[at]
            for channel, at in zip(self._plan.channels, self._slices, strict=True)
        }


class _ActiveStep:
    """One step, or its concealment, on the elements that pass one attack federate."""

    def __init__(
        self,
        spec: AttackSpec,
        site: SitePlan,
        part: ForgingStep,
        elements: list[tuple[ForgedChannel, str]],
        period_s: float,
    ) -> None:
        step = spec.steps[part.step]
        self.step, self._elements = part.step, part.elements
        targets = [(f"{c.federate}.{c.port}", label) for c, label in elements]
        streams = counter_rng.stream_ids(f"{port}/{label}" for port, label in targets)
        self._draws = StepDraws(spec.seed, streams, part.step)
        self._chance, self._sees = 1.0, dict[str, tuple[str, ...]]()
        action: SignalAction
        if part.conceal is not None:
            action = shown_instead(step.conceal[part.conceal].show)
        else:
            assert isinstance(step.action, SignalAction)
            action, self._chance = step.action, step.probability
            self._sees = dict(site.sees.get(part.step, {}))
        units = [c.unit for c, _ in elements]
        at = site.attack_site(spec, part.step, targets, units, period_s)
        self.action = action.begin(at, self._draws)

    def run(
        self,
        sample_s: float,
        elapsed_s: float | None,
        seen: FloatArray,
        last_seen: FloatArray,
        inputs: Mapping[str, FloatArray],
    ) -> IntArray:
        """Act on `seen`, which holds all channels' values; return the elements written to."""
        at = self._elements
        before = seen[at]
        sees = {port: np.concatenate([inputs[n] for n in ns]) for port, ns in self._sees.items()}
        sample = Sample(sample_s, to_ns(sample_s), elapsed_s, last_seen[at], sees)
        self.action.observe(sample, before)
        if elapsed_s is None:
            return at[:0]
        after = self.action.apply(sample, before)
        if self._chance < 1.0:
            hit = self._draws.chance(sample.time_ns) < self._chance
            at, after = at[hit], after[hit]
        seen[at] = after
        return at


def shown_instead(show: Show) -> SignalAction:
    """Return the action that shows something else than the truth."""
    if show.freeze:
        return Freeze(kind="freeze")
    if show.window is not None:
        return ReplayValues(kind="replay", window=show.window)
    assert show.value is not None
    return SetValue(kind="set", value=show.value)
