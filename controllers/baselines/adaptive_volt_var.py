"""Re-tuning of volt-var curves against an oscillation that others cause.

An attacker steepens the curves of some inverters until the feeder's voltage oscillates. Each of
the others, by itself and without a model or messages, moves its own curve: its reactive power then
moves the voltage off the steep part of the attacked curves, and its own curve off its slope.

Source: the adaptive inverter controller in the simulator of Lawrence Berkeley National Laboratory,
https://github.com/lbnl-cybersecurity/ceds-cigar, `adaptive_inverter_controller.py` (of its work
on DERs under attack: D. Arnold, C. Roberts et al.). There the voltage passes a high-pass (1 rad/s),
a square and a low-pass (0.1 rad/s); while the result is above a threshold, all
breakpoints are shifted by the integral of the high-passed square times a gain (20). Here

* the high-pass is the deviation from an exponential average, discretised exactly as the low-pass;
* the low-passed square itself is integrated, less the threshold, and the shift decays;
* the shift is towards the nominal voltage, where theirs is always downwards;
* it is the reference voltage that moves, within the range of IEEE 1547-2018.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names

_WHERE = "volt-var-adaptive"
_SETTLED = 5.0
"""Time constants of the average after which it can be compared with."""


@dataclass(frozen=True, slots=True)
class AdaptiveVoltVarOptions(ControllerOptions):
    """Settings of the adaptation."""

    gain_per_pu_s: float = option(
        50.0,
        "Gain: shift of the curve, pu per second, per pu2 of oscillation; 0: no adaptation.",
        low=0.0,
        high=1e6,
    )
    leak_per_s: float = option(0.001, "Rate at which the shift decays.", low=0.0, high=10.0)
    average_s: float = option(
        2.0, "Time constant of the average that the deviation is from.", above=0.0, high=3600.0
    )
    smooth_s: float = option(
        10.0, "Time constant that the squared deviation is smoothed with.", above=0.0, high=3600.0
    )
    threshold_pu: float = option(
        0.002, "Oscillation (rms) below which nothing is adapted.", low=0.0, high=0.1
    )
    most_pu: float = option(
        0.05, "Largest shift of the reference; 0.05 is IEEE 1547-2018's.", low=0.0, high=0.05
    )
    resolution_pu: float = option(
        0.001,
        "Steps of the reference: a device is written to only when it moves by one.",
        above=0.0,
        high=0.05,
    )


class AdaptiveVoltVar:
    """Agents that each move the reference voltage of their own inverter's volt-var curve.

    With v the terminal voltage, sampled every h seconds, for each agent::

        m[k] = m[k-1] + (1 - exp(-h / average_s)) (v[k] - m[k-1])              average
        y[k] = y[k-1] + (1 - exp(-h / smooth_s)) ((v[k] - m[k])^2 - y[k-1])    oscillation, pu2
        s[k] = exp(-leak h) s[k-1] + d h gain max(y[k] - threshold^2, 0)       shift, pu
        V_ref[k] = 1 + s[k]

    y stays 0 for the first 5 `average_s`, in which the average settles. d = sign(1 - m), towards
    the nominal voltage, from when the oscillation first exceeds the threshold. s stays within
    `most_pu`.

    Parameters
    ----------
    site : DERs whose curves it may move: its own.
    hosted : Agents of this instance.
    **options : See `AdaptiveVoltVarOptions`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._set = parse_options(AdaptiveVoltVarOptions, options, _WHERE)
        self._terminals = DerTerminals(site, hosted)
        self.inputs = self._terminals.inputs
        self.outputs: tuple[Port, ...] = (
            Port("volt_var_ref_pu", "pu", self._terminals.names, initial=1.0),
        )
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        n = len(hosted)
        self._period_s = site.period_s
        self._average_pu: FloatArray = np.ones(n)
        self._oscillation_pu2: FloatArray = np.zeros(n)
        self._shift_pu: FloatArray = np.zeros(n)
        self._direction: FloatArray = np.zeros(n)
        self._age_s = 0.0
        self._last_s: float | None = None

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Estimate the oscillation, move each reference."""
        given, v_pu = self._set, self._terminals.read(inputs).v_pu
        if self._last_s is None:
            elapsed_s, self._average_pu = self._period_s, v_pu
        else:
            elapsed_s = max(time_s - self._last_s, 0.0)
        self._last_s = time_s
        share = -math.expm1(-elapsed_s / given.average_s)
        self._average_pu = self._average_pu + share * (v_pu - self._average_pu)
        squared = (v_pu - self._average_pu) ** 2
        self._age_s += elapsed_s
        settled = self._age_s > _SETTLED * given.average_s
        share = -math.expm1(-elapsed_s / given.smooth_s) if settled else 0.0
        self._oscillation_pu2 = self._oscillation_pu2 + share * (squared - self._oscillation_pu2)
        excess = np.maximum(self._oscillation_pu2 - given.threshold_pu**2, 0.0)
        towards = np.where(self._average_pu > 1.0, -1.0, 1.0)
        starts = (excess > 0.0) & (self._direction == 0.0)
        self._direction = np.where(starts, towards, self._direction)
        keep = math.exp(-given.leak_per_s * elapsed_s)
        rise = elapsed_s * given.gain_per_pu_s * excess
        shift = keep * self._shift_pu + self._direction * rise
        self._shift_pu = np.clip(shift, -given.most_pu, given.most_pu)
        steps = np.round(self._shift_pu / given.resolution_pu)
        moved = np.clip(steps * given.resolution_pu, -given.most_pu, given.most_pu)
        return ControllerStep({"volt_var_ref_pu": 1.0 + moved})
