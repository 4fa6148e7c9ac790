"""Controller ``learned-droop``: the local policy of a file, checked against its feeder."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.core.terminals import DerTerminals, agent_names
from controllers.learned_droop.files import fitted, policy_of
from controllers.learned_droop.policy import Policy, loop_gain, p_max_kw
from grid_models.base.errors import GridModelError
from grid_models.feeder.model import Der, Feeder
from grid_models.linear.lindistflow import LinDistFlow

_WHERE = "learned-droop"


@dataclass(frozen=True, slots=True)
class LearnedDroopOptions(ControllerOptions):
    """Settings of the policy."""

    policy: str = option(..., "Policy file that `feederate train` wrote, beside the scenario.")


class LearnedDroop:
    """Agents of a policy file, one per DER; each reads its own voltage and active power only.

    A DER of several phases reads the mean of their voltages.

    Parameters
    ----------
    site : Feeder and DERs.
    hosted : Agents of this instance.
    **options : See `LearnedDroopOptions`.

    Raises ControllerError: The file does not fit the feeder and its DERs, or the loop that it makes
    there is not stable.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(LearnedDroopOptions, options, _WHERE)
        policy = _checked_policy(site, settings.policy)
        self._terminals = DerTerminals(site, hosted)
        voltage, power = self._terminals.inputs
        # The cubic needs the active power: without it the policy would act as at night.
        self.inputs = (voltage, Port("p_kw", power.unit, power.labels))
        self.outputs = self._terminals.outputs
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        self._policy = policy.of(hosted_positions(hosted, policy.names, _WHERE))
        self._p_max_kw = p_max_kw(self._terminals.ders)
        self._w_pu: FloatArray | None = None

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Filter the voltages and command; the filter begins at the first voltages."""
        reading = self._terminals.read(inputs)
        w_pu = reading.v_pu if self._w_pu is None else self._w_pu
        self._w_pu = self._policy.filtered(w_pu, reading.v_pu)
        p_pu = reading.p_kw / self._p_max_kw
        q_kvar = self._policy.q_kvar(self._w_pu, p_pu, reading.q_max_kvar)
        return ControllerStep({"q_set_kvar": q_kvar})


def _checked_policy(site: ControlSite, name: str) -> Policy:
    """Return the policy of a file for the site's DERs, in their order."""
    where = "option 'policy'"
    if site.text_of is None:
        raise ControllerError("there are no files here", where=where, expected="a scenario's site")
    try:
        text = site.text_of(name)
    except ControllerError as error:
        error.where, error.expected = where, "a file that 'feederate train' wrote"
        raise
    where = f"{where}: {name}"
    agent_names(site)
    policy = fitted(policy_of(text, where), site.feeder, site.ders, where)
    limit = 2.0 / (1.0 + loop_gain(policy.k, policy.kva, own_slopes(site.feeder, site.ders)))
    if policy.filter_gain >= limit:
        raise ControllerError(
            f"the loop is unstable on feeder '{site.feeder.name}': filter_gain is "
            f"{policy.filter_gain:.4g}",
            where=where,
            expected=f"below 2/(1 + L) = {limit:.4g}, or smaller k",
        )
    return policy


_SLOPES: dict[int, tuple[weakref.ref[Feeder], tuple[Der, ...], FloatArray]] = {}


def own_slopes(feeder: Feeder, ders: tuple[Der, ...]) -> FloatArray:
    """Return how the DERs' voltages answer to their reactive powers, (n, n), pu per kvar.

    On LinDistFlow without loads, at 1 pu: half of the slopes of the squared voltages. Instances of
    one feeder share it.

    Raises ControllerError: The feeder has no such model, as one that is not radial.
    """
    key = id(feeder)
    hit = _SLOPES.get(key)
    if hit is not None and hit[0]() is feeder and hit[1] == ders:
        return hit[2]
    try:
        model = LinDistFlow.from_feeder(feeder.with_ders(ders))
        slopes: FloatArray = np.asarray(0.5 * model.sensitivity(ders, ders)[1])
    except GridModelError as error:
        raise ControllerError(
            error.what, where=error.where, expected=error.expected, nearest=error.nearest
        ) from error
    _SLOPES[key] = weakref.ref(feeder, lambda _: _SLOPES.pop(key, None)), ders, slopes
    return slopes
