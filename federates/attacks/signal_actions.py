"""What a signal step does to the values that pass it: one small class per kind of action.

All of them work on one step's targets as one vector, in an order that does not depend on how the
federation is hosted. `observe` is called at every sample, active or not; `apply` when active.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.attacks import adaptive
from federates.attacks.adaptive import AttackSite
from federates.attacks.histories import DelayLine, RecordedWindow, Trace
from federates.scenario import attack_schema as schema
from grid_models.base import counter_rng
from grid_models.base.counter_rng import UIntArray

# Of the random numbers: each step has four in a row, from these on. Noise takes two, and 34, of
# the first step alone, is the draw of targets.
_NOISE_CHANNEL, CHANCE_CHANNEL = 32, 35
CHANNELS_PER_STEP = 4


@dataclass(frozen=True)
class Sample:
    """One moment of the attacked signals.

    Attributes
    ----------
    time_s, time_ns
        When the true values were produced.
    elapsed_s : float or None
        Time since the step began; None while it is not active.
    last_seen : float64 (m,)
        What the readers got last.
    sees : mapping of ``federate.port`` to float64
        For adaptive attackers.
    """

    time_s: float
    time_ns: int
    elapsed_s: float | None
    last_seen: FloatArray
    sees: Mapping[str, FloatArray] = field(default_factory=dict)


class SignalAction(ABC):
    """One step's action on its targets."""

    def observe(self, sample: Sample, true: FloatArray) -> None:  # noqa: B027 - most keep nothing
        """Look at a sample, before `apply` is asked for it."""

    @abstractmethod
    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        """Return what the readers shall see; `true` must not be written to."""


class _Formula(SignalAction):
    """An action without memory."""

    def __init__(self, formula: Callable[[Sample, FloatArray], FloatArray]) -> None:
        self._formula = formula

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return self._formula(sample, true)


class _Freeze(SignalAction):
    def __init__(self) -> None:
        self._held: FloatArray | None = None

    def observe(self, sample: Sample, true: FloatArray) -> None:
        if sample.elapsed_s is None or self._held is None:
            self._held = true.copy()

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true if self._held is None else self._held


class _Delay(SignalAction):
    def __init__(self, delay_s: float) -> None:
        self._line = DelayLine(delay_s)
        self._late: FloatArray | None = None

    def observe(self, sample: Sample, true: FloatArray) -> None:
        self._late = self._line.take(sample.time_s, true)

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true if self._late is None else self._late


class _Window(SignalAction):
    def __init__(self, window: schema.Window) -> None:
        self._recorded = RecordedWindow(window.from_s, window.to_s)

    def observe(self, sample: Sample, true: FloatArray) -> None:
        self._recorded.take(sample.time_s, true)

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        played = self._recorded.play(sample.elapsed_s or 0.0)
        return true if played is None else played


class Playing(SignalAction):
    """A trace in place of the true values."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        """Return the trace's values where it has any by now."""
        return self.trace.play(sample.elapsed_s or 0.0, true)


class _Adaptive(SignalAction):
    def __init__(self, attacker: adaptive.Attacker) -> None:
        self._attacker = attacker
        self._decided: FloatArray | None = None

    def observe(self, sample: Sample, true: FloatArray) -> None:
        wanted = self._attacker.decide(sample.time_s, sample.elapsed_s, true, sample.sees)
        wanted = np.asarray(wanted, dtype=np.float64)
        if wanted.shape != true.shape:
            raise ValueError(f"decide gave shape {wanted.shape}, expected {true.shape}")
        self._decided = wanted.copy()

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true if self._decided is None else self._decided


def _adding(value: float) -> Callable[[Sample, FloatArray], FloatArray]:
    # An attack of no size must not even turn -0.0 into 0.0.
    return lambda _, true: true + value if value else true


def _ramp(action: schema.Ramp) -> SignalAction:
    def formula(sample: Sample, true: FloatArray) -> FloatArray:
        added = action.rate_per_s * (sample.elapsed_s or 0.0)
        if action.limit is not None:
            added = float(np.clip(added, -action.limit, action.limit))
        return true + added if added else true

    return _Formula(formula)


def _noise(action: schema.Noise, seed: int, streams: UIntArray, number: int) -> SignalAction:
    def formula(sample: Sample, true: FloatArray) -> FloatArray:
        if not action.sigma:
            return true
        channel = _NOISE_CHANNEL + CHANNELS_PER_STEP * number
        return true + action.sigma * counter_rng.normal(seed, streams, sample.time_ns, channel)

    return _Formula(formula)


def build_action(
    action: Any, seed: int, streams: UIntArray, number: int, site: AttackSite, where: str
) -> SignalAction:
    """Return what carries out an action of the schema.

    Parameters
    ----------
    action : schema.SignalAction
    seed : int
        The attack's.
    streams : uint64 (m,)
        Random stream of each target.
    number : int
        The step's position, so that two steps on one target draw apart.
    site : AttackSite
        The targets, in the order of every vector.
    where : str
        Place of the action in the user's file.
    """
    match action:
        case schema.Bias():
            return _Formula(_adding(action.value))
        case schema.Scale():
            return _Formula(lambda _, true: true * action.factor)
        case schema.Set():
            return _Formula(lambda _, true: np.full(true.size, action.value))
        case schema.Ramp():
            return _ramp(action)
        case schema.Freeze():
            return _Freeze()
        case schema.Noise():
            return _noise(action, seed, streams, number)
        case schema.Drop():
            return _Formula(lambda sample, _: sample.last_seen)
        case schema.Delay():
            return _Delay(action.delay_s)
        case schema.Swap():
            return _Formula(lambda _, true: true[::-1])
        case schema.Replay(window=schema.Window() as window):
            return _Window(window)
        case schema.Replay():
            assert action.file is not None
            file = Path(action.file)
            return Playing(Trace(file, site.targets, action.offset_s, action.speed, site.aim))
        case schema.Adaptive():
            cls = adaptive.resolve(action.attacker, where)
            return _Adaptive(adaptive.build(cls, site, action.options, where))
    raise AssertionError(action)


def build_picture(show: schema.Show) -> SignalAction:
    """Return what shows the operator something else than the truth."""
    if show.freeze:
        return _Freeze()
    if show.window is not None:
        return _Window(show.window)
    value = show.value
    assert value is not None
    return _Formula(lambda _, true: np.full(true.size, value))
