"""The attack federate: passes values on to readers, forged, and feeds a plant's attack inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.core.mail import FloatArray, Mail
from federates.attacks.plan import BEGINS, SitePlan
from federates.attacks.truth import TruthWriter
from federates.clock import to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate, Step
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec

if TYPE_CHECKING:
    from federates.core.run_store import RunStore


class AttackFederate(Federate):
    """Carries out the parts of one site.

    Parameters
    ----------
    context : Its timing is the plan's.
    """

    def __init__(
        self, context: FederateContext, spec: AttackSpec, plan: SitePlan, schedule: AttackSchedule
    ) -> None:
        super().__init__(context)
        self._plan, self._schedule = plan, schedule
        self.inputs, self.outputs = plan.inputs, plan.outputs
        self._shift_s = to_s(plan.shift_ns)
        self._clock = schedule.clock()
        firsts = np.cumsum([0, *(len(part.books()) for part in plan.parts)]).tolist()
        self._parts = [
            part.build(spec, plan, context, first)
            for part, first in zip(plan.parts, firsts[:-1], strict=True)
        ]
        self._active = [False] * len(spec.steps)
        self._truth: TruthWriter | None = None
        self._store: RunStore | None = None

    def start(self, store: RunStore) -> None:
        """Open the ground truth."""
        self._store = store
        self._truth = TruthWriter(store.folder, self.name, self._plan.books, self._schedule.ids)
        self.first_values()

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Pass on what came in, changed where a step is active."""
        if BEGINS in inputs:
            self._clock.set_begins(inputs[BEGINS])
        return Step(self._outputs(time_s + self._shift_s, inputs))

    def first_values(self) -> dict[str, FloatArray]:
        """Return the values for the readers' first step, where this federate steps before them.

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
        outputs: dict[str, FloatArray] = {}
        for part in self._parts:
            outputs |= part.outputs(sample_s, elapsed_s, inputs, self._truth)
        return outputs

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
    def traces(self) -> list[tuple[int, Any]]:
        """The trace files that it plays, each with the position of its step."""
        return [trace for part in self._parts for trace in getattr(part, "traces", ())]

    def summary(self) -> dict[str, float]:
        """Return how many values were changed."""
        return {"attacked_values_count": float(self._truth.count if self._truth else 0)}

    def close(self) -> None:
        """Close the ground truth."""
        if self._truth is not None:
            self._truth.close()
