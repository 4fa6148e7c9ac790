"""Options of the controller `rt-opf`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controllers.core.options import ControllerOptions, option, parse_options
from controllers.real_time_opf.gains import Gains, choose_gains
from controllers.real_time_opf.objectives import Weights

DUALS = ("plain", "regularised", "pi")


@dataclass(frozen=True, slots=True)
class RtOpfOptions(ControllerOptions):
    """Settings of the real-time optimal power flow."""

    areas: int = option(
        4, "Agents: connected areas of about equally many buses, at most one per bus.", low=1
    )
    dual: str = option(
        "pi",
        "Law of the multipliers: `plain` integrates violations, `regularised` forgets a little of "
        "them, `pi` adds a term in proportion to the violation.",
        choices=DUALS,
    )
    margin_pu: float = option(0.0, "Tightens the voltage band at both ends.", low=0.0, high=0.05)
    objective: Mapping[str, Any] | None = option(
        None, "Weights of the objective terms, see docs/real-time-opf.md.", shown="mapping"
    )
    measurement_delay_s: float = option(
        0.0,
        "Age of measured voltages and of the import, beyond the present step; what was commanded "
        "since is added to them.",
        low=0.0,
        high=600.0,
    )
    mail_delay_s: float = option(
        0.0,
        "How late mail can be, beyond the next step, or lost in a row; gains are chosen for it.",
        low=0.0,
        high=600.0,
    )
    gain_share: float = option(
        0.6, "Share of the gain at which the loop would oscillate.", above=0.0, high=1.0
    )
    ahead_s: float | None = option(
        None,
        "Time by which the dual law `pi` extrapolates violations: proportional over integral gain. "
        "Derived.",
        low=0.0,
        high=3600.0,
    )
    anticipation: float = option(
        2.0,
        "How many times the DERs' own coming move is added to the measured voltages (and at most "
        "once to the import); 0: feedback only.",
        low=0.0,
        high=10.0,
    )
    primal_step: float | None = option(
        None, "Share of the way to a DER's best response per step; derived.", above=0.0, high=1.0
    )
    regularisation: float = option(
        1e-6,
        "Of the dual law `regularised`, in squared voltage (or import) per unit of the multiplier.",
        low=0.0,
        high=1.0,
    )

    def check(self) -> None:
        """Check the weights."""
        self.weights()

    def weights(self) -> Weights:
        """Return the weights of the objective terms."""
        return parse_options(Weights, self.objective or {}, "option 'objective'")

    def measurement_delay_steps(self, period_s: float) -> int:
        """Return the age of measurements in steps."""
        return _steps(self.measurement_delay_s, period_s)

    def gains(self, period_s: float, areas: int, stiffness: float) -> Gains:
        """Return the gains for this dual law, period and number of areas; see `choose_gains`."""
        ahead = None if self.ahead_s is None else self.ahead_s / period_s
        return choose_gains(
            # Mail between areas takes one step more than measurements.
            _steps(self.mail_delay_s, period_s) + 1 if areas > 1 else 0,
            self.measurement_delay_steps(period_s),
            stiffness=stiffness,
            primal=self.primal_step,
            ahead=ahead if self.dual == "pi" else 0.0,
            share=self.gain_share,
            forget=self.regularisation if self.dual == "regularised" else 0.0,
        )


def _steps(time_s: float, period_s: float) -> int:
    return math.ceil(time_s / period_s - 1e-9)
