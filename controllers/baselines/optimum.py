"""The centralised optimum as a running controller: the benchmark of the distributed forms.

Every step it takes all measurements, corrects the model's offset (``v0 = v^2 - X q`` with the last
commanded q), solves the quadratic programme and sends the set-points. The offset makes the voltages
exact at rest, whatever the error of X.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.baselines.optimum_qp import VoltageQp
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names
from controllers.optdist.network import MODELS, Q_BASE_KVAR, linear_model

AGENT = "optimum"
_WHERE = "optimum"


@dataclass(frozen=True, slots=True)
class OptimumOptions(ControllerOptions):
    """Settings of the optimum."""

    model: str = option("three_phase", "The linear model that gives X.", choices=MODELS)
    margin_pu: float = option(0.0, "Tightens the voltage band at both ends.", low=0.0, high=0.05)
    relaxation: float = option(
        1.0,
        "Share of the way to the new solution that is taken at each step, 0 < relaxation <= 1.",
        above=0.0,
        high=1.0,
    )


class Optimum:
    """The centralised optimum: one agent with all measurements and all set-points.

    While the band cannot be held it applies the set-points of the smallest violation.

    Attributes
    ----------
    infeasible_steps : Steps in which the band could not be held.
    violation_pu : Smallest reachable violation at the last step, by the linear model.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(OptimumOptions, options, _WHERE)
        if tuple(hosted) != (AGENT,):
            raise ControllerError(
                f"cannot host {', '.join(hosted) or 'no agent'}",
                where=_WHERE,
                expected=f"its one agent, '{AGENT}'",
            )
        self._terminals = DerTerminals(site, agent_names(site))
        self.inputs = self._terminals.inputs
        self.outputs = self._terminals.outputs
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        # Three phases: every measured node keeps the band; otherwise each DER's mean voltage.
        self._per_node = settings.model == "three_phase"
        rows = self.inputs[0].labels if self._per_node else site.ders
        _, x_per_kvar = linear_model(site, settings.model).sensitivity(rows, site.ders)
        self._x: FloatArray = x_per_kvar * Q_BASE_KVAR
        self._qp = VoltageQp(self._x)
        self._v_min = site.v_min_pu + settings.margin_pu
        self._v_max = site.v_max_pu - settings.margin_pu
        if self._v_min >= self._v_max:
            raise ControllerError("margin_pu leaves no band", where=_WHERE, expected="a band")
        self._relaxation = settings.relaxation
        self._q_pu: FloatArray = np.zeros(len(site.ders))
        self.infeasible_steps = 0
        self.violation_pu = 0.0
        self._worst_violation_pu = 0.0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the one agent there is: it sees and commands every DER."""
        return (AGENT,)

    def summary(self) -> dict[str, float]:
        """Return how often, and by how much at worst, no set-points could hold the band."""
        return {
            "infeasible_step_count": float(self.infeasible_steps),
            "worst_reachable_violation_pu": self._worst_violation_pu,
        }

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Solve for the measured state."""
        reading = self._terminals.read(inputs)
        v_pu = reading.node_v_pu if self._per_node else reading.v_pu
        v0_sq = v_pu**2 - self._x @ self._q_pu
        q_max = reading.q_max_kvar / Q_BASE_KVAR
        result = self._qp.solve(v0_sq, -q_max, q_max, self._v_min, self._v_max)
        self.violation_pu = result.violation_pu
        self._worst_violation_pu = max(self._worst_violation_pu, result.violation_pu)
        self.infeasible_steps += not result.feasible
        q_pu = self._q_pu + self._relaxation * (result.q - self._q_pu)
        self._q_pu = np.clip(q_pu, -q_max, q_max)
        return ControllerStep({"q_set_kvar": self._q_pu * Q_BASE_KVAR})
