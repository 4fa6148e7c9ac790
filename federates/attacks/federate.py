"""The attack federate: forges what passes it, and acts on the grid before the grid steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.ports import Port
from federates.attacks.adaptive import Attacker, AttackSite, build, resolve
from federates.attacks.histories import Trace
from federates.attacks.plan import BEGINS, Part, SitePlan
from federates.attacks.signal_actions import (
    CHANCE_CHANNEL,
    CHANNELS_PER_STEP,
    Playing,
    Sample,
    SignalAction,
    build_action,
    build_picture,
)
from federates.attacks.truth import TruthWriter
from federates.clock import to_ns, to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate, Step
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import Adaptive, AttackSpec, SignalStep
from grid_models.base import counter_rng

if TYPE_CHECKING:
    from federates.attacks.physical import PhysicalPlan
    from federates.core.run_store import RunStore


class AttackFederate(Federate):
    """Stands between producers and readers, and before the grid's attack inputs.

    Parameters
    ----------
    context : FederateContext
        Its timing is the plan's.
    spec : AttackSpec
    plan : SitePlan
    schedule : Schedule
    """

    def __init__(
        self, context: FederateContext, spec: AttackSpec, plan: SitePlan, schedule: Schedule
    ) -> None:
        super().__init__(context)
        self._spec, self._plan, self._schedule = spec, plan, schedule
        self.inputs = plan.inputs
        self.outputs = tuple(
            Port(c.out, c.unit, c.labels, np.nan if np.isnan(c.initial) else 0.0)
            for c in plan.channels
        )
        if plan.physical is not None:
            self.outputs += tuple(plan.physical.ports())
        self._shift_s = to_s(plan.shift_ns)
        self._clock = schedule.clock()
        self._slices: list[slice] = []
        start = 0
        for channel in plan.channels:
            self._slices.append(slice(start, start + len(channel.labels)))
            start += len(channel.labels)
        self._true = np.concatenate(
            [np.full(len(c.labels), c.initial) for c in plan.channels] or [np.empty(0)]
        )
        self._last_seen = self._true.copy()
        self._acted_by = np.zeros(self._true.size, dtype=np.int64)
        self._deciders = _deciders(spec, plan, context)
        self._acts = [_Act(spec, plan, part, context) for part in plan.parts]
        self._active = [False] * len(spec.steps)
        self._truth: TruthWriter | None = None
        self._store: RunStore | None = None

    def start(self, store: RunStore) -> None:
        """Open the ground truth."""
        self._store = store
        channels = [(c.federate, c.port, c.labels) for c in self._plan.channels]
        self._first_physical = len(channels)
        if self._plan.physical is not None:
            grid = self._plan.grid
            channels += [(grid, p.name, p.labels) for p in self._plan.physical.ports()]
        self._truth = TruthWriter(store.folder, self.name, channels, self._schedule.ids)
        self.first_values()

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Pass on what came in, forged where a step is active."""
        if BEGINS in inputs:
            self._clock.hear(inputs[BEGINS])
        return Step(self._outputs(time_s + self._shift_s, inputs))

    def first_values(self) -> dict[str, FloatArray]:
        """Return what the readers' first step shall see, where this federate comes before them.

        Nobody has published anything by then, so these become the initial values of the inputs.
        """
        if self._plan.shift_ns <= 0:
            return {}
        first_ns = self.timing.offset_ns + self._plan.shift_ns - self.timing.period_ns
        inputs = {p.name: np.full(len(p.labels), p.initial) for p in self.inputs}
        return self._outputs(to_s(first_ns), inputs)

    def _outputs(self, sample_s: float, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        elapsed_s = self._clock.elapsed(sample_s)
        self._announce(elapsed_s, sample_s)
        outputs = self._forge(sample_s, elapsed_s, inputs)
        if self._plan.physical is not None:
            outputs |= self._act_on_grid(self._plan.physical, sample_s, elapsed_s, inputs)
        return outputs

    def _forge(
        self, sample_s: float, elapsed_s: FloatArray, inputs: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        true = self._true
        for channel, at in zip(self._plan.channels, self._slices, strict=True):
            if channel.source:
                true[at] = inputs[channel.source][channel.positions]
        seen = true.copy()
        active: set[int] = set()
        for act in self._acts:
            elapsed = float(elapsed_s[act.step])
            since = elapsed if elapsed == elapsed else None
            written = act.run(sample_s, since, seen, self._last_seen, inputs)
            if since is not None:
                active.add(act.step)
                self._acted_by[written] = act.step
        self._last_seen = seen
        if active:
            self._note(sample_s, seen, active)
        return {
            channel.out: seen[at]
            for channel, at in zip(self._plan.channels, self._slices, strict=True)
        }

    def _act_on_grid(
        self,
        plan: PhysicalPlan,
        sample_s: float,
        elapsed_s: FloatArray,
        inputs: Mapping[str, FloatArray],
    ) -> dict[str, FloatArray]:
        decided = {
            d.step: d.decide(sample_s, float(elapsed_s[d.step]), inputs) for d in self._deciders
        }
        values = plan.values(elapsed_s, sample_s, decided)
        if self._truth is not None:
            for port, element, true, seen, step in plan.affected(values, elapsed_s, decided):
                self._truth.add(sample_s, self._first_physical + port, element, true, seen, step)
        return values

    def _note(self, sample_s: float, seen: FloatArray, active: set[int]) -> None:
        """Write into the ground truth where the readers see another value, down to a bit."""
        if self._truth is None:
            return
        at = np.flatnonzero(seen.view(np.int64) != self._true.view(np.int64))
        step = next(iter(active)) if len(active) == 1 else self._acted_by[at]
        self._truth.add_flat(sample_s, at, self._true[at], seen[at], step)

    def _announce(self, elapsed_s: FloatArray, sample_s: float) -> None:
        active = [since == since for since in elapsed_s.tolist()]  # NaN is not itself
        if self._store is None or active == self._active:
            return
        for i in self._plan.announces:
            if active[i] != self._active[i]:
                kind = "attack_began" if active[i] else "attack_ended"
                self._store.event(self.name, kind, sample_s, step=self._schedule.ids[i])
        self._active = active

    @property
    def traces(self) -> list[tuple[int, Trace]]:
        """The traces it plays, each with the position of its step."""
        return [(act.step, act.trace) for act in self._acts if act.trace is not None]

    def summary(self) -> dict[str, float]:
        """Return how much was forged."""
        return {"attacked_values_count": float(self._truth.count if self._truth else 0)}

    def close(self) -> None:
        """Close the ground truth."""
        if self._truth is not None:
            self._truth.close()


class _Decider:
    """An adaptive attacker on the grid."""

    def __init__(self, step: int, attacker: Attacker, kw: FloatArray, plan: SitePlan) -> None:
        self.step, self._attacker, self._kw = step, attacker, kw
        self._sees = dict(plan.sees.get(step, {}))

    def decide(
        self, sample_s: float, elapsed_s: float, inputs: Mapping[str, FloatArray]
    ) -> FloatArray:
        """Return the demand that the attacker adds to each element, kW."""
        seen = {port: np.concatenate([inputs[n] for n in ns]) for port, ns in self._sees.items()}
        active = elapsed_s if elapsed_s == elapsed_s else None
        wanted = np.asarray(self._attacker.decide(sample_s, active, self._kw, seen), np.float64)
        if wanted.shape != self._kw.shape:
            raise ValueError(f"decide gave shape {wanted.shape}, expected {self._kw.shape}")
        return wanted.copy()


def _deciders(spec: AttackSpec, plan: SitePlan, context: FederateContext) -> list[_Decider]:
    """Build the adaptive attackers of the physical layer."""
    found: list[_Decider] = []
    physical = plan.physical
    if physical is None:
        return found
    for action in physical.actions:
        does = spec.steps[action.step].action
        if not isinstance(does, Adaptive):
            continue
        labels = {p.name: p.labels for p in plan.inputs}
        sees = plan.sees.get(action.step, {})
        site = AttackSite(
            tuple((f"{plan.grid}.{action.port}", label) for label in action.labels),
            ("kW",) * len(action.labels),
            {port: tuple(x for n in names for x in labels[n]) for port, names in sees.items()},
            context.period_s,
            spec.seed,
            places=physical.places[action.step],
        )
        where = spec.where("steps", action.step, "action")
        attacker = build(resolve(does.attacker, where), site, does.options, where)
        nominal_kw = physical.nominal_kw[action.step]
        found.append(_Decider(action.step, attacker, nominal_kw, plan))
    return found


class _Act:
    """One part of the plan at work."""

    def __init__(
        self, spec: AttackSpec, plan: SitePlan, part: Part, context: FederateContext
    ) -> None:
        step = spec.steps[part.step]
        assert isinstance(step, SignalStep) or part.conceal is not None
        self.step, self._elements = part.step, part.elements
        owner = np.concatenate(
            [np.full(len(c.labels), i) for i, c in enumerate(plan.channels)]
        ).astype(np.int64)
        first = np.cumsum([0, *(len(c.labels) for c in plan.channels)])
        channel = owner[part.elements]
        within = part.elements - first[channel]
        targets = tuple(
            (f"{plan.channels[c].federate}.{plan.channels[c].port}", plan.channels[c].labels[k])
            for c, k in zip(channel.tolist(), within.tolist(), strict=True)
        )
        self._seed = spec.seed
        self._streams = counter_rng.stream_ids(f"{port}/{label}" for port, label in targets)
        self._chance = 1.0 if part.conceal is not None else step.probability
        self._channel = CHANCE_CHANNEL + CHANNELS_PER_STEP * part.step
        self._sees = {} if part.conceal is not None else dict(plan.sees.get(part.step, {}))
        self._action = self._build(spec, plan, part, context, targets, channel)
        self.trace = self._action.trace if isinstance(self._action, Playing) else None

    def _build(
        self,
        spec: AttackSpec,
        plan: SitePlan,
        part: Part,
        context: FederateContext,
        targets: tuple[tuple[str, str], ...],
        channel: IntArray,
    ) -> SignalAction:
        step = spec.steps[part.step]
        if part.conceal is not None:
            return build_picture(step.conceal[part.conceal].show)
        labels = {p.name: p.labels for p in plan.inputs}
        site = AttackSite(
            targets,
            tuple(plan.channels[c].unit for c in channel.tolist()),
            {
                port: tuple(x for n in names for x in labels[n])
                for port, names in self._sees.items()
            },
            context.period_s,
            spec.seed,
            step.target.port or "",
        )
        where = spec.where("steps", part.step, "action")
        return build_action(step.action, spec.seed, self._streams, part.step, site, where)

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
        sample = Sample(
            sample_s,
            to_ns(sample_s),
            elapsed_s,
            last_seen[at],
            {
                port: np.concatenate([inputs[n] for n in names])
                for port, names in self._sees.items()
            },
        )
        self._action.observe(sample, before)
        if elapsed_s is None:
            return at[:0]
        after = self._action.apply(sample, before)
        if self._chance < 1.0:
            draw = counter_rng.uniform(self._seed, self._streams, sample.time_ns, self._channel)
            hit = draw < self._chance
            at, after = at[hit], after[hit]
        seen[at] = after
        return at
