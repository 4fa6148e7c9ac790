"""Change detection per signal: a two-sided CUSUM on the error of a prediction from the past.

For every signal by itself, with z the standardised prediction error,

    S+ <- max(0, S+ + z - k),   S- <- max(0, S- - z - k),   alarm at max(S+, S-) >= h

(E. S. Page, Continuous inspection schemes, Biometrika 41, 1954). k is half the shift to be found; h
follows from the accepted rate of false alarms, see `controllers.detection.run_length`. It uses no
grid model: it detects abrupt changes and drifts, but nothing as slow as its prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.detection.peak_threshold import BLOCKS, level, usual_peak
from controllers.detection.protocol import LEAST_HISTORY, DetectionSite, History
from controllers.detection.run_length import decision_interval

NAME = "cusum"
_DAY_S = 86400.0
# After an attack the sum must come down again: it never holds more than this many intervals.
_CAP = 2.0
_MAX_AUTOCORRELATION = 0.98
_MIN_GROUP = 5
_STILL = 1e-6
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class CusumOptions(ControllerOptions):
    """Options of the change detector."""

    signals: Sequence[str] = option(
        ("v_pu", "p_kw", "import_kw"), "Ports to watch; what nothing feeds is not watched."
    )
    labels: Sequence[str] = option(("*",), "Globs over their labels.")
    on: str = option(
        "ewma",
        "What is predicted: the exponentially weighted mean of the past, or the last value.",
        choices=("ewma", "increment"),
    )
    horizon_s: float = option(300.0, "Time constant of that mean.", above=0.0)
    common: str = option(
        "remove",
        "Whether the median of a port's scaled errors is taken off each of them, so that a cloud "
        "that all PV sees is no change of any one. It hides what moves most of a port at once.",
        choices=("remove", "keep"),
    )
    shift: float = option(
        2.0,
        "Change to be found, in standard deviations of the prediction error; k is half of it.",
        above=0.0,
    )
    false_alarms_per_day: float = option(
        1.0,
        "Target of the whole detector. Without clean data it holds for independent normal "
        "errors, which those of real signals are not, whitened or not.",
        above=0.0,
    )
    learn_s: float = option(
        900.0,
        "Time constant of the running deviation, which counts where it is above the clean one: a "
        "cloudy hour is no attack. Without calibration also the time before the first alarm.",
        above=0.0,
    )


class Cusum:
    """The detector ``cusum``; see the module's docstring. Labels: every signal as ``port:label``.

    Parameters
    ----------
    **options : See `CusumOptions`.
    """

    def __init__(self, site: DetectionSite, **options: Any) -> None:
        self.options = o = parse_options(CusumOptions, options, NAME)
        self.inputs: tuple[Port, ...] = tuple(site.port(name, o.labels) for name in o.signals)
        self.labels: tuple[str, ...] = tuple(
            f"{port.name}:{label}" for port in self.inputs for label in port.labels
        )
        if not self.labels:
            raise ControllerError("the grid has nothing to watch", where=f"{NAME}: signals")
        n = len(self.labels)
        run_length = n * _DAY_S / site.period_s / o.false_alarms_per_day
        self._k = 0.5 * o.shift
        try:
            self._h = np.full(n, decision_interval(run_length, self._k))
        except ControllerError as error:
            error.where = f"{NAME}: option 'false_alarms_per_day'"
            raise
        # False alarms accepted per step, of all signals together.
        self._rate = n / run_length
        self._prediction = _Prediction([len(p.labels) for p in self.inputs], site.period_s, o)
        self._plus, self._minus = np.zeros(n), np.zeros(n)
        self._reported = np.zeros(n, dtype=bool)
        self._events: list[dict[str, Any]] = []

    def step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the scores of one step: the larger sum over its decision interval."""
        values = np.concatenate([inputs[port.name] for port in self.inputs])
        z = self._prediction.error(self._judged(values))
        return np.asarray(self._sums(z, _CAP * self._h) / self._h)

    def take_events(self) -> list[dict[str, Any]]:
        """Return what there is to tell since the last call: signals that nothing was learnt of.

        Keys: ``event`` (``not_learnt``), ``signals``, how many, ``lacking``, up to five of them.
        """
        events, self._events = self._events, []
        return events

    @property
    def least_history(self) -> int:
        """Steps of clean data that are needed: those that a prediction is made of, and more."""
        return LEAST_HISTORY + self._prediction.first

    def calibrate(self, history: History) -> None:
        """Learn each signal's deviation, autocorrelation and tail from clean data.

        Prediction errors are whitened by their lag-one autocorrelation and scaled by the clean
        deviation. The decision interval of a signal is that of the requested run length, or its
        usual peak on clean data where that is higher; all intervals are then widened until the
        peaks of the largest sum give the requested rate of alarms
        (`controllers.detection.peak_threshold`). A signal with too few values in the history is not
        judged, which `take_events` reports.

        Raises ControllerError: The history is too short.
        """
        values = np.concatenate([history.inputs[port.name] for port in self.inputs], axis=1)
        if len(values) < self.least_history:
            raise ControllerError(
                f"{len(values)} steps of clean data",
                where=NAME,
                expected=f"at least {LEAST_HISTORY} more than the {self._prediction.first} "
                "of which the first prediction is made",
            )
        self._prediction.learn(values)
        self._plus[:] = self._minus[:] = 0.0
        peaks = np.zeros((BLOCKS, len(self.labels)))
        for i, row in enumerate(values):
            block = peaks[i * BLOCKS // len(values)]
            z = self._prediction.error(self._judged(row))
            np.maximum(block, self._sums(z, np.inf), out=block)
        own = np.maximum(self._h, usual_peak(peaks))
        accepted = self._rate * len(values) / BLOCKS
        self._h = own * max(1.0, level((peaks / own).max(axis=1), accepted))
        # What the history has little of is told when it is met again.
        self._reported[:] = False
        self._events.clear()
        self._prediction.forget()
        self._plus[:] = self._minus[:] = 0.0

    def _judged(self, values: FloatArray) -> FloatArray:
        """Take out the signals that nothing was learnt of; tell of those met for the first time."""
        unlearnt = self._prediction.unlearnt
        if not unlearnt.any():
            return values
        new = np.flatnonzero(unlearnt & ~self._reported & np.isfinite(values))
        if new.size:
            self._reported[new] = True
            names = [self.labels[i] for i in new[:5]]
            self._events.append({"event": "not_learnt", "signals": new.size, "lacking": names})
        return np.where(unlearnt, np.nan, values)

    def _sums(self, z: FloatArray, cap: FloatArray | float) -> FloatArray:
        self._plus = np.clip(self._plus + z - self._k, 0.0, cap)
        self._minus = np.clip(self._minus - z - self._k, 0.0, cap)
        return np.maximum(self._plus, self._minus)


class _Prediction:
    """Predicts every signal from its past and measures what it misses in deviations.

    `groups`: Number of signals of each port.
    """

    def __init__(self, groups: Sequence[int], period_s: float, options: CusumOptions) -> None:
        n = sum(groups)
        self._groups = [
            slice(end - size, end)
            for size, end in zip(groups, np.cumsum(groups).tolist(), strict=True)
            if size >= _MIN_GROUP and options.common == "remove"
        ]
        self._gain = 1.0 if options.on == "increment" else -np.expm1(-period_s / options.horizon_s)
        steps = max(2, int(np.ceil(options.learn_s / period_s)))
        self._mean = np.full(n, np.nan)
        self._count = np.zeros(n, dtype=np.int64)
        self._last = np.zeros(n)
        self._autocorrelation = np.zeros(n)
        self.unlearnt: BoolArray = np.zeros(n, dtype=bool)
        self._raw = _Deviation(n, steps)
        self._fresh = _Deviation(n, steps)

    @property
    def first(self) -> int:
        """Values that come before the first that is judged."""
        return int(np.floor(1.0 / self._gain))

    def error(self, values: FloatArray) -> FloatArray:
        """Return the standardised prediction error (n,); 0 for what is not measured."""
        own = self._own(self._raw.scaled(self._miss(values)))
        fresh = own - self._autocorrelation * self._last
        self._last = own
        return self._fresh.scaled(fresh) if self._raw.settled else fresh

    def learn(self, values: FloatArray) -> None:
        """Take deviations and autocorrelation from clean values (k, n), and start afresh."""
        misses = np.array([self._miss(row) for row in values])
        self.unlearnt = self._count - self.first < LEAST_HISTORY
        self._raw.fix(misses)
        own = np.array([self._own(self._raw.scaled(miss)) for miss in misses])
        power, lagged = (own**2).sum(axis=0), (own[1:] * own[:-1]).sum(axis=0)
        ratio = np.divide(lagged, power, out=np.zeros_like(power), where=power > 0.0)
        self._autocorrelation = np.clip(ratio, -_MAX_AUTOCORRELATION, _MAX_AUTOCORRELATION)
        self._fresh.fix(own[1:] - self._autocorrelation * own[:-1])
        self.forget()

    def forget(self) -> None:
        """Drop the past values; the next ones have no prediction."""
        self._mean[:] = np.nan
        self._count[:] = 0
        self._last[:] = 0.0

    def _miss(self, values: FloatArray) -> FloatArray:
        """Return value minus prediction, 0 where there is none yet, and take the value in."""
        known = np.isfinite(values)
        self._count += known
        self._mean = np.where(known & (self._count == 1), values, self._mean)
        miss = np.where(known, values - self._mean, 0.0)
        # At first the plain mean of what came: the first value alone would weigh for a horizon.
        gain = np.maximum(self._gain, 1.0 / np.maximum(self._count, 1))
        self._mean = self._mean + gain * miss
        # A prediction made of fewer values than its horizon holds is not judged by.
        return np.where(self._count * self._gain > 1.0, miss, 0.0)

    def _own(self, scaled: FloatArray) -> FloatArray:
        """Take off what the signals of a port have in common, from those that are measured."""
        known = np.isfinite(self._mean)
        own = scaled.copy()
        for group in self._groups:
            measured = known[group]
            if np.count_nonzero(measured) >= _MIN_GROUP:
                common = np.median(scaled[group][measured])
                own[group] = np.where(measured, scaled[group] - common, 0.0)
        return own


class _Deviation:
    """The standard deviation of errors of mean zero: a running one, at least that of clean data.

    The running deviation uses past values only; a value enters it clipped at three deviations.
    Without clean data every scaled error is zero until `steps` values are in it.
    """

    def __init__(self, n: int, steps: int) -> None:
        self._var = np.zeros(n)
        self._steps = steps
        self._seen = 0
        self._clean: FloatArray | None = None

    @property
    def settled(self) -> bool:
        """Whether there is a deviation to judge by."""
        return self._clean is not None or self._seen >= self._steps

    def fix(self, errors: FloatArray) -> None:
        """Take the deviation from clean errors (k, n), for good.

        An error of exactly zero was not judged, or nothing moved: it says nothing.
        """
        moved = np.maximum(np.count_nonzero(errors, axis=0), 1)
        std = np.sqrt((errors**2).sum(axis=0) / moved)
        # What never moved on clean data (a set-point of zero) has no deviation: any move counts.
        self._clean = np.where(std > 0.0, std, _STILL)

    def scaled(self, error: FloatArray) -> FloatArray:
        """Return the errors (n,) in deviations."""
        std = np.sqrt(self._var)
        if self._clean is not None:
            std = np.maximum(std, self._clean)
        settled = self.settled
        judged = (std > 0.0) & settled
        z = np.divide(error, std, out=np.zeros_like(error), where=judged)
        counted = np.where(judged, np.clip(error, -3.0 * std, 3.0 * std), error)
        self._seen += 1
        self._var = self._var + (counted**2 - self._var) / min(self._seen, self._steps)
        return z
