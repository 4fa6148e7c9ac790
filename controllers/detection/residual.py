"""Power-flow residual: whether the measurements fit the grid's equations, and which do not.

A linear state estimation on the three-phase tangent power-flow model
(`grid_models.linear.lindistflow`) around the forecast's mean. States: active and reactive power of
every load and DER, and the source voltage of each phase. Loads are known by forecast only
(pseudo-measurements), DERs by telemetry. Tested are the voltages and the feeder's import, by
`controllers.detection.bad_data`; a load's deviation is proportional to its forecast at the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.detection.bad_data import BadDataTest, chi_square_threshold, normal_threshold
from controllers.detection.peak_threshold import BLOCKS, block_maxima, level
from controllers.detection.protocol import LEAST_HISTORY, DetectionSite, Forecast, History
from controllers.detection.residual_model import GridResponse

NAME = "power-flow-residual"
CHI_SQUARE = "chi-square"
MAX_MEASUREMENTS = 4000
BoolArray = NDArray[np.bool_]
_ROWS = 512
# Sets of known measurements whose tests are kept; and how many of them are spoken of in events.
_SETS = 8
# Relative to the stated deviation: below it a statistic counts as constant on clean data.
_STILL = 1e-6
# Telemetry of 1e300 kW is finite, what follows from it is not.
_MAX_SCORE = 1e12


@dataclass(frozen=True)
class ResidualOptions(ControllerOptions):
    """Options of the power-flow residual; all deviations are standard deviations."""

    false_alarm_probability: float = option(
        1e-4,
        "Of the whole detector per step, when its covariances are right: half of it is the "
        "chi-square test's, half is shared by the normalised residuals.",
        above=0.0,
        high=0.5,
    )
    v_labels: Sequence[str] = option(("*",), "Globs over the nodes that have a voltage sensor.")
    der_labels: Sequence[str] = option(("*",), "Globs over the DERs that have telemetry.")
    v_std_pu: float = option(0.001, "Voltage sensors.", low=0.0, high=1.0)
    model_std_pu: float = option(
        0.001, "Linear model against the AC power flow.", above=0.0, high=1.0
    )
    source_std_pu: float = option(
        0.002,
        "Source voltage of each phase, and what the model's errors have in common.",
        low=0.0,
        high=1.0,
    )
    load_std: float = option(
        0.15,
        "Each load against the forecast, relative to its power by forecast at the time.",
        low=0.0,
        high=1.0,
    )
    der_std: float = option(0.01, "DER telemetry, relative to the DER's rating.", low=0.0, high=1.0)
    forecast_std: float = option(
        0.25,
        "DERs without telemetry against the forecast, relative to the DER's rating.",
        low=0.0,
        high=1.0,
    )
    import_std: float = option(
        0.005,
        "Import and what the loss model misses, relative to all loads and ratings together.",
        above=0.0,
        high=1.0,
    )


class PowerFlowResidual:
    """The detector ``power-flow-residual``; see the module's docstring.

    Inputs, each optional: ``v_pu``, ``p_kw``, ``q_kvar``, ``import_kw``, ``import_kvar``. A DER
    whose telemetry is missing is expected at what the forecast says, give or take `forecast_std`.
    Labels: ``chi-square`` (all measurements together) and every measurement as ``port:label``.

    Parameters
    ----------
    **options : See `ResidualOptions`.
    """

    def __init__(self, site: DetectionSite, **options: Any) -> None:
        self.options = parse_options(ResidualOptions, options, NAME)
        self._site = site
        self._grid = GridResponse(site.feeder, site.forecast)
        globs = self.options.v_labels
        sensors = tuple(x for x in self._grid.nodes if any(fnmatchcase(x, g) for g in globs))
        if not sensors or len(sensors) > MAX_MEASUREMENTS:
            raise ControllerError(
                f"{', '.join(globs)} gives {len(sensors)} voltage sensors",
                where=f"{NAME}: option 'v_labels'",
                expected=f"globs that match 1 to {MAX_MEASUREMENTS} nodes of the feeder",
            )
        v = Port("v_pu", "pu", sensors, initial=np.nan, required=False)
        telemetry = [site.port(name, self.options.der_labels) for name in ("p_kw", "q_kvar")]
        imports = [site.port(name) for name in ("import_kw", "import_kvar")]
        self.inputs: tuple[Port, ...] = (v, *telemetry, *imports)
        # Tested directly: voltages and import. Tested as what they do to those: the DERs.
        order = (v, *imports, *telemetry)
        self.labels: tuple[str, ...] = (
            CHI_SQUARE,
            *(f"{port.name}:{label}" for port in order for label in port.labels),
        )
        self._sensor_rows = np.array([self._grid.index[x] for x in sensors], dtype=np.int64)
        der_at = {der.name: i for i, der in enumerate(site.feeder.ders)}
        self._der_rows = np.array([der_at[x] for x in telemetry[0].labels], dtype=np.int64)
        self._tests: dict[bytes, _Test] = {}
        self._history: History | None = None
        self._events: list[dict[str, Any]] = []
        self._reported: set[bytes] = set()

    def step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the scores of one step."""
        rows = {name: np.asarray(values)[None, :] for name, values in inputs.items()}
        scores = np.zeros(len(self.labels))
        innovation, there = self._innovation(np.array([time_s]), rows, self._site.forecast)
        known = there[0]
        if not known[: innovation.shape[1]].any():
            return scores
        test = self._test_of(known)
        if self._history is not None and not test.learnt:
            self._report(test, known)
        load_pu = self._site.forecast.load_at(np.array([time_s]))
        factor = self._grid.load_variance(load_pu)
        scores[0], scores[test.labels] = test.scores(innovation, factor)
        return scores

    def take_events(self) -> list[dict[str, Any]]:
        """Return the sensor sets for which nothing was learnt, since the last call.

        Keys: ``event`` (``not_learnt``), ``steps`` of clean data with all present measurements,
        ``expected``, ``lacking`` (up to five labels that the clean data lack most often),
        ``thresholds``.
        """
        events, self._events = self._events, []
        return events

    def calibrate(self, history: History) -> None:
        """Learn bias, deviation and tails of the residuals from clean data.

        The mean innovation is subtracted, and each statistic is measured in its own clean deviation
        (the chi-square by fitting scale and degrees of freedom to mean and variance). No threshold
        lies below what the peaks of the history give (`controllers.detection.peak_threshold`), nor
        that of a normalised residual below its largest clean value, extrapolated as a normal tail
        from the length of the history to the requested rate. A statistic that did not move keeps
        its stated threshold.

        A set of sensors learns from the steps at which the history has all of them. With too few
        such steps the stated thresholds hold, which `take_events` reports.

        Raises ControllerError: The history is too short.
        """
        if len(history.time_s) < LEAST_HISTORY:
            raise ControllerError(
                f"{len(history.time_s)} steps of clean data",
                where=NAME,
                expected=f"at least {LEAST_HISTORY}",
            )
        self._history = history
        self._tests.clear()
        # Now rather than in a step: whatever the history measured most of the time will be.
        _, there = self._innovation(history.time_s, history.inputs, history.forecast)
        usual = there.mean(axis=0) >= 0.5
        if usual[: len(self._sensor_rows) + 2].any():
            self._test_of(usual)

    def _test_of(self, known: BoolArray) -> _Test:
        """Return the tests for a set of measurements; the set rarely changes."""
        key = known.tobytes()
        if key not in self._tests:
            if len(self._tests) >= _SETS:
                self._tests.clear()
            self._tests[key] = self._make_test(known)
        return self._tests[key]

    def _make_test(self, known: BoolArray) -> _Test:
        o, grid = self.options, self._grid
        m = len(self._sensor_rows) + 2
        measured = known[:m]
        # Positions of the telemetered values among the states' p, then q of all DERs.
        of_der = np.concatenate([self._der_rows, len(grid.der_kva) + self._der_rows])[known[m:]]
        der_std = np.full(2 * len(grid.der_kva), o.forecast_std)
        der_std[of_der] = o.der_std
        h = grid.sensitivity(self._sensor_rows)[measured]
        ratings = np.tile(grid.der_kva, 2)
        state_std = np.concatenate(
            [np.full(3, 2.0 * o.source_std_pu), o.load_std * grid.load_kva, der_std * ratings]
        )
        v_var = 4.0 * (o.v_std_pu**2 + o.model_std_pu**2)  # of v^2, at 1 pu
        import_var = (o.import_std * grid.size_kva) ** 2
        noise_var = np.concatenate([np.full(m - 2, v_var), np.full(2, import_var)])[measured]
        first_der = len(state_std) - len(ratings)
        der_columns: IntArray = first_der + of_der.astype(np.int64)
        loads = np.zeros(len(state_std), dtype=bool)
        loads[3:first_der] = True
        test = BadDataTest(h, state_std**2, noise_var, loads, der_columns)
        labels: IntArray = 1 + np.flatnonzero(known).astype(np.int64)
        out = _Test(test, measured, labels, o.false_alarm_probability)
        if self._history is not None:
            self._learn(out, self._history, known)
        return out

    def _learn(self, test: _Test, history: History, known: BoolArray) -> None:
        kept, factors = [], []
        p, q = np.split(known[len(test.measured) :], 2)
        for start in range(0, len(history.time_s), _ROWS):
            part = slice(start, start + _ROWS)
            rows = {name: values[part] for name, values in history.inputs.items()}
            # What is not told now was not told then: the forecast stands for it in both.
            rows["p_kw"] = np.where(p, rows["p_kw"], np.nan)
            rows["q_kvar"] = np.where(q, rows["q_kvar"], np.nan)
            time_s = history.time_s[part]
            innovation, there = self._innovation(time_s, rows, history.forecast)
            whole = there[:, known].all(axis=1)
            whole &= np.isfinite(innovation[:, test.measured]).all(axis=1)
            kept.append(innovation[np.ix_(whole, test.measured)])
            factors.append(self._grid.load_variance(history.forecast.load_at(time_s[whole])))
        test.clean_steps = sum(len(rows) for rows in kept)
        if test.clean_steps >= LEAST_HISTORY:
            test.learn(np.concatenate(kept), np.concatenate(factors))

    def _report(self, test: _Test, known: BoolArray) -> None:
        key = known.tobytes()
        if self._history is None or key in self._reported or len(self._reported) >= _SETS:
            return
        self._reported.add(key)
        _, there = self._innovation(
            self._history.time_s, self._history.inputs, self._history.forecast
        )
        missed = np.count_nonzero(~there[:, known], axis=0)
        worst = np.argsort(-missed, kind="stable")[:5]
        self._events.append(
            {
                "event": "not_learnt",
                "steps": test.clean_steps,
                "expected": LEAST_HISTORY,
                "lacking": [self.labels[test.labels[i]] for i in worst if missed[i]],
                "thresholds": "as stated, not learnt",
            }
        )

    def _innovation(
        self, time_s: FloatArray, inputs: Mapping[str, FloatArray], forecast: Forecast
    ) -> tuple[FloatArray, BoolArray]:
        """Return measured minus expected (k, m), and which values are known at each step.

        The second is (k, m + DERs' p and q), booleans, in the order of `labels[1:]`.
        """
        expected_p, expected_q = self._grid.expected_der(time_s, forecast)
        p, q = inputs["p_kw"], inputs["q_kvar"]
        p_here, q_here, told = expected_p.copy(), expected_q.copy(), self._der_rows
        p_here[:, told] = np.where(np.isfinite(p), p, expected_p[:, told])
        q_here[:, told] = np.where(np.isfinite(q), q, expected_q[:, told])
        v, kw, kvar = (inputs[name] for name in ("v_pu", "import_kw", "import_kvar"))
        # A forged 1e200 is finite, its square is not.
        with np.errstate(over="ignore", invalid="ignore"):
            v2, to_kw, to_kvar = self._grid.expected(forecast.load_at(time_s), p_here, q_here)
            parts = [v**2 - v2[:, self._sensor_rows], kw - to_kw[:, None], kvar - to_kvar[:, None]]
        return (
            np.concatenate(parts, axis=1),
            np.isfinite(np.concatenate([v, kw, kvar, p, q], axis=1)),
        )


class _Test:
    """A bad-data test with its thresholds, stated or learnt."""

    def __init__(
        self, test: BadDataTest, measured: BoolArray, labels: IntArray, probability: float
    ) -> None:
        self._test = test
        self.measured = measured
        self.labels = labels
        self.learnt = False
        self.clean_steps = 0
        self._probability = probability
        m = test.degrees_of_freedom
        self._bias = np.zeros(m)
        self._j_limit = chi_square_threshold(probability / 2.0, m)
        self._limit = np.full(len(labels), normal_threshold(probability / 2.0, len(labels)))

    def scores(self, innovation: FloatArray, factor: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(over="ignore", invalid="ignore"):
            j, residuals = self._statistics(innovation[:, self.measured] - self._bias, factor)
            found = np.concatenate([j / self._j_limit, np.abs(residuals[0]) / self._limit])
        # An overflow is the largest possible score.
        found = np.minimum(np.nan_to_num(found, nan=_MAX_SCORE), _MAX_SCORE)
        return float(found[0]), found[1:]

    def learn(self, clean: FloatArray, factor: FloatArray) -> None:
        self.learnt = True
        self._bias = clean.mean(axis=0)
        j, residuals = self._statistics(clean - self._bias, factor)
        residuals = np.abs(residuals)
        # Alarms that half of the detector may raise in one of the blocks the history is cut into.
        expected = 0.5 * self._probability * len(clean) / BLOCKS
        tiny = float(np.finfo(np.float64).tiny)
        self._j_limit = max(self._j_limit_of(j), level(block_maxima(j), expected), tiny)
        std = np.sqrt((residuals**2).mean(axis=0))
        std = np.where(std < _STILL, 1.0, std)
        by_law = self._limit * std
        peaks = level(block_maxima((residuals / by_law).max(axis=1)), expected)
        asked = 2.0 * len(self._limit) / self._probability
        beyond = np.sqrt(max(np.log(asked) / np.log(len(clean)), 1.0))
        self._limit = np.maximum(by_law * max(peaks, 1.0), beyond * residuals.max(axis=0))

    def _j_limit_of(self, j: FloatArray) -> float:
        """Return the threshold of a chi-square law with the mean and variance of clean values."""
        mean, var = float(j.mean()), float(j.var())
        # Of a noise-free, constant history rounding is left: there is no law to be fitted to it.
        if mean < _STILL or var < (_STILL * mean) ** 2:
            return self._j_limit
        scale, dof = var / (2.0 * mean), 2.0 * mean**2 / var
        return scale * chi_square_threshold(self._probability / 2.0, dof)

    def _statistics(
        self, innovation: FloatArray, factor: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        j, measured, states = self._test.statistics(innovation, factor)
        return j, np.concatenate([measured, states], axis=1)
