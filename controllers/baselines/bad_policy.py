"""Set-points that harm the grid: what a broken, untrained or hostile policy may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names
from grid_models.base.counter_rng import stream_ids, uniform

_WHERE = "bad-policy"


@dataclass(frozen=True, slots=True)
class BadPolicyOptions(ControllerOptions):
    """What is asked for."""

    policy: str = option(
        "malicious",
        "malicious: all reactive power a DER has, away from 1 pu. random: any share of it, drawn "
        "anew each step.",
        choices=("malicious", "random"),
    )


class BadPolicy:
    """Agents whose set-points are the worst for their own voltage, or random.

    Parameters
    ----------
    site : DERs to command, and the seed of what is random.
    hosted : Agents of this instance.
    **options : See `BadPolicyOptions`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._random = parse_options(BadPolicyOptions, options, _WHERE).policy == "random"
        self._terminals = DerTerminals(site, hosted)
        self.inputs = self._terminals.inputs
        self.outputs = self._terminals.outputs
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        self._seed, self._streams = site.seed, stream_ids(f"{_WHERE}:{name}" for name in hosted)
        self._count = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Return the step's set-points."""
        seen = self._terminals.read(inputs)
        share = np.where(seen.v_pu >= 1.0, 1.0, -1.0)
        if self._random:
            share = 2.0 * uniform(self._seed, self._streams, self._count, 0) - 1.0
        self._count += 1
        return ControllerStep({"q_set_kvar": share * seen.q_max_kvar})
