"""No volt/var control: every DER is told to keep its reactive power at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import parse_options
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names


@dataclass(frozen=True, slots=True)
class NoControlOptions:
    """There is nothing to set."""


class NoControl:
    """The baseline without control; it publishes zero set-points like any other controller."""

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        parse_options(NoControlOptions, options, "none")
        terminals = DerTerminals(site, hosted)
        self.inputs = terminals.inputs
        self.outputs = terminals.outputs
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        self._zero_kvar: FloatArray = np.zeros(len(hosted))

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return 0: nothing is controlled."""
        return 0.0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Return q = 0 for every hosted agent."""
        return ControllerStep({"q_set_kvar": self._zero_kvar.copy()})
