"""The director: the one federate that decides when steps begin that wait for a signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.ports import Port
from federates.attacks.layer import AttackCase
from federates.attacks.plan import BEGINS, DirectorPlan
from federates.attacks.selection import matching
from federates.attacks.view import Names
from federates.attacks.windows import Samples, acts, unrecorded
from federates.clock import Timing, to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate, Step
from federates.core.wiring import Feed
from federates.scenario.attack_schedule import LATE_S, AttackSchedule
from federates.scenario.attack_schema import AttackSpec, When
from grid_models.base.errors import nearest_hint, nothing_called

if TYPE_CHECKING:
    from federates.core.run_store import RunStore


class DirectorFederate(Federate):
    """Watches signals and decides when the steps that wait for them begin.

    Output ``attack_begin_s``: one element per directed step, NaN while it has not begun.
    """

    def __init__(
        self,
        context: FederateContext,
        spec: AttackSpec,
        plan: DirectorPlan,
        schedule: AttackSchedule,
    ) -> None:
        super().__init__(context)
        self._spec, self._plan, self._schedule = spec, plan, schedule
        self.inputs = plan.inputs
        ids = tuple(schedule.ids[i] for i in schedule.directed)
        self.outputs = (Port(BEGINS, "s", ids, np.nan),)
        self._begin = np.full(len(ids), np.nan)
        self._shift_s = to_s(plan.shift_ns)
        ports = {p.name: p for p in plan.inputs}
        self._columns = {
            i: [(name, _columns(ports[name].labels, self._when(i).label)) for name in names]
            for i, names in plan.watches.items()
        }
        self._horizon_ns = context.n_steps * context.scenario.step_ns
        self._since: dict[tuple[int, str], FloatArray] = {}
        self._store: RunStore | None = None

    def _when(self, i: int) -> When:
        when = self._spec.steps[i].trigger.when
        assert when is not None
        return when

    def start(self, store: RunStore) -> None:
        """See `Federate`; events are reported to the store."""
        self._store = store

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Decide from the signals which steps begin."""
        sample_s = time_s + self._shift_s
        for k, i in enumerate(self._schedule.directed):
            if np.isnan(self._begin[k]):
                self._begin[k] = self._decide(i, sample_s, inputs)
                if not np.isnan(self._begin[k]):
                    self._announce(i, sample_s, float(self._begin[k]))
        return Step({BEGINS: self._begin.copy()})

    def _decide(self, i: int, sample_s: float, inputs: Mapping[str, FloatArray]) -> float:
        trigger = self._spec.steps[i].trigger
        if trigger.after is not None:
            earlier = self._schedule.ids.index(trigger.after)
            begin = self._schedule.begin_s[earlier]
            if earlier in self._schedule.directed:
                begin = float(self._begin[self._schedule.directed.index(earlier)])
            return begin + self._schedule.length_s[earlier] + trigger.delay_s
        met = False
        for name, columns in self._columns[i]:
            values = inputs[name][columns]
            holds = _condition(self._when(i), values)
            since = self._since.setdefault((i, name), np.full(columns.size, np.nan))
            since[~holds] = np.nan
            since[holds & np.isnan(since)] = sample_s
            met |= bool((sample_s - since >= self._when(i).for_s - LATE_S).any())
        return sample_s + trigger.delay_s if met else np.nan

    def _announce(self, i: int, sample_s: float, begin_s: float) -> None:
        step = self._schedule.ids[i]
        self._event("attack_triggered", sample_s, step=step, begin_s=begin_s)
        window = unrecorded(self._spec, i, begin_s)
        if window is not None:
            text = (
                f"begins at {begin_s:g} s and plays what is recorded until {window.to_s:g} s; the "
                "truth passes until something is recorded"
            )
            self._event("attack_window_ahead", sample_s, step=step, text=text)

    def summary(self) -> dict[str, float]:
        """Return how many steps never began or never met a value, and leave an event for each."""
        never = 0
        for i, begin_s in zip(self._schedule.directed, self._begin.tolist(), strict=True):
            step = self._schedule.ids[i]
            if np.isnan(begin_s):
                self._event("attack_never_triggered", step=step)
            elif why := self._missed(i, begin_s):
                self._event("attack_never_acted", step=step, begin_s=begin_s, text=why)
            else:
                continue
            never += 1
        return {"attack_steps_never_triggered_count": float(never)}

    def _event(self, event: str, time_s: float | None = None, **fields: Any) -> None:
        if self._store is not None:
            self._store.event(self.name, event, time_s, **fields)

    def _missed(self, i: int, begin_s: float) -> str:
        """Say why a step that was triggered never acted; '' for one that did."""
        span_s, timings = self._schedule.span_s(i), self._plan.samples.get(i, ())
        if begin_s >= to_s(self._horizon_ns):
            return f"begins at {begin_s:g} s, the run ends at {to_s(self._horizon_ns):g} s"
        if acts(timings, begin_s, span_s, self._horizon_ns):
            return ""
        return f"no value comes from {begin_s:.10g} to {begin_s + span_s:.10g} s"


def _columns(labels: Sequence[str], glob: str) -> IntArray:
    return np.array([k for k, x in enumerate(labels) if fnmatchcase(x, glob)], dtype=np.int64)


def _condition(when: When, values: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if when.above is not None:
        return values > when.above
    if when.below is not None:
        return values < when.below
    assert when.between is not None
    return (values >= when.between[0]) & (values <= when.between[1])


Watches = Mapping[int, Sequence[tuple[str, Port]]]
"""By step with a `when`: (instance, output port) that it looks at."""


def watches_of(case: AttackCase, problems: list[str]) -> Watches:
    """Return the outputs that each step with a `when` looks at; append what is wrong."""
    spec, outputs = case.spec, case.federation.ports("outputs")
    found: dict[int, list[tuple[str, Port]]] = {}
    for i in case.schedule.directed:
        when = spec.steps[i].trigger.when
        if when is None:
            continue
        where = ("steps", i, "trigger", "when")
        ports = [(name, port) for word, name, port in outputs if word == when.signal]
        if not ports:
            words = list(dict.fromkeys(word for word, _, _ in outputs))
            problems.append(
                f"{spec.where(*where, 'signal')}: no output matches '{when.signal}'; expected one "
                f"name, not a glob, of {', '.join(words)}{nearest_hint(when.signal, words)}"
            )
            continue
        labels = [label for _, port in ports for label in port.labels]
        if not matching(labels, [when.label]):
            at = spec.where(*where, "label")
            problems.append(nothing_called(at, f"label of {when.signal}", when.label, labels))
        found[i] = ports
    return found


def director_of(
    case: AttackCase, watches: Watches, samples: Samples, problems: list[str]
) -> DirectorPlan | None:
    """Return the federate that decides when steps begin that wait for a signal, if any does.

    Parameters
    ----------
    problems : What is wrong is appended.
    """
    if not case.schedule.directed:
        return None
    federation = case.federation
    ports: dict[str, Port] = {}
    feeds: dict[str, tuple[Feed, ...]] = {}
    inputs = Names()
    names: dict[int, tuple[str, ...]] = {}
    timings: set[Timing] = set()
    for i, found in watches.items():
        for instance, port in found:
            name = inputs.of((instance, port.name), f"{instance}-{port.name}")
            ports[name] = Port(name, port.unit, port.labels, port.initial)
            feeds[name] = (Feed(instance, port.name, len(port.labels), None, None),)
            names[i] = (*names.get(i, ()), name)
            timings.add(federation.by_name[instance].timing)
    timing = min(timings, key=lambda t: (t.period_ns, t.offset_ns))
    problem = federation.gap_problem(timing)
    if problem:
        where = case.spec.where("steps", min(names), "trigger", "when")
        problems.append(f"{where}: {problem}")
    # A quarter of the gap after the producer: before the attack federates, which step at a half.
    quarter = federation.gap_ns(timing) // 4
    own = Timing(timing.period_ns, timing.offset_ns + quarter)
    name = federation.names().of("director", "attack_director")
    return DirectorPlan(name, own, -quarter, tuple(ports.values()), feeds, names, samples)
