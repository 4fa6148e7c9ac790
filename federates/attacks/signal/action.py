"""What an action of the signal layer is: values of one moment in, values that readers see out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AttackSite
from federates.scenario.attack_actions import Action
from grid_models.base import counter_rng

# Channels of the random numbers: each step has four in a row. Noise takes two; 34 of the first
# step alone is the draw of targets.
_NOISE_CHANNEL, _CHANCE_CHANNEL, _CHANNELS_PER_STEP = 32, 35, 4


@dataclass(frozen=True)
class Sample:
    """One moment of the attacked signals.

    Attributes
    ----------
    time_s, time_ns
        When the true values were produced.
    elapsed_s : Time since the step began; None while it is not active.
    last_seen : (m,). What the readers got last.
    sees : The ports that `Action.reads` names.
    """

    time_s: float
    time_ns: int
    elapsed_s: float | None
    last_seen: FloatArray
    sees: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True)
class StepDraws:
    """Random numbers of one step: a stream for each target, independent of other steps.

    Attributes
    ----------
    seed : The attack's.
    streams : (m,)
    step : Position of the step in the attack.
    """

    seed: int
    streams: counter_rng.UIntArray
    step: int

    def normal(self, time_ns: int) -> FloatArray:
        """Return one standard normal number per target, (m,)."""
        channel = _NOISE_CHANNEL + _CHANNELS_PER_STEP * self.step
        return counter_rng.normal(self.seed, self.streams, time_ns, channel)

    def chance(self, time_ns: int) -> FloatArray:
        """Return one number in (0, 1) per target, (m,); decides whether the step acts on it."""
        channel = _CHANCE_CHANNEL + _CHANNELS_PER_STEP * self.step
        return counter_rng.uniform(self.seed, self.streams, time_ns, channel)


class SignalAction(Action):
    """Base of the actions on signals.

    A subclass declares its options as fields, its state as private attributes set in `prepare`,
    and implements `apply`. All targets of a step that pass one attack federate are one vector.
    """

    layer: ClassVar[str] = "signal"

    def begin(self, site: AttackSite, draws: StepDraws) -> Self:
        """Return a copy that acts on the targets of `site`."""
        active = self.model_copy()
        active.prepare(site, draws)
        return active

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        """Set the state up; called once, before the run."""

    def observe(self, sample: Sample, true: FloatArray) -> None:
        """Look at a sample, active or not, before `apply` is asked for it."""

    @abstractmethod
    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        """Return what the readers see, (m,); `true` must not be written to."""
