"""The director: the one federate that decides when steps begin that wait for a signal."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from controllers.mail import FloatArray, Mail
from controllers.ports import Port
from federates.attacks.plan import BEGINS, DirectorPlan
from federates.attacks.schedule import LATE_S, Schedule
from federates.attacks.schema import AttackSpec, When
from federates.clock import to_s
from federates.context import FederateContext
from federates.federate import Federate, Step

if TYPE_CHECKING:
    from federates.run_store import RunStore


class DirectorFederate(Federate):
    """Watches signals and says when the steps that wait for them begin.

    Output ``attack_begin_s``: one element per directed step, NaN while it has not begun.
    """

    def __init__(
        self, context: FederateContext, spec: AttackSpec, plan: DirectorPlan, schedule: Schedule
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
            i: [
                (
                    name,
                    np.array(
                        [
                            k
                            for k, label in enumerate(ports[name].labels)
                            if fnmatchcase(label, self._when(i).label)
                        ],
                        dtype=np.intp,
                    ),
                )
                for name in names
            ]
            for i, names in plan.watches.items()
        }
        self._since: dict[tuple[int, str], FloatArray] = {}
        self._store: RunStore | None = None

    def _when(self, i: int) -> When:
        when = self._spec.steps[i].trigger.when
        assert when is not None
        return when

    def start(self, store: RunStore) -> None:
        """Keep the list of events at hand."""
        self._store = store

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Look at the signals."""
        sample_s = time_s + self._shift_s
        for k, i in enumerate(self._schedule.directed):
            if np.isnan(self._begin[k]):
                self._begin[k] = self._decide(i, sample_s, inputs)
                if self._store is not None and not np.isnan(self._begin[k]):
                    self._store.event(
                        self.name,
                        "attack_triggered",
                        sample_s,
                        step=self._schedule.ids[i],
                        begin_s=float(self._begin[k]),
                    )
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

    def summary(self) -> dict[str, float]:
        """Return how many steps never began, and leave an event for each."""
        never = [
            self._schedule.ids[i]
            for i, b in zip(self._schedule.directed, self._begin, strict=True)
            if np.isnan(b)
        ]
        if self._store is not None:
            for step in never:
                self._store.event(self.name, "attack_never_triggered", step=step)
        return {"attack_steps_never_triggered_count": float(len(never))}


def _condition(when: When, values: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if when.above is not None:
        return values > when.above
    if when.below is not None:
        return values < when.below
    assert when.between is not None
    return (values >= when.between[0]) & (values <= when.between[1])
