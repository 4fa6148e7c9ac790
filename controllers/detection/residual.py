"""Power-flow residual: do the measurements fit the grid's equations, and which of them does not?

A linear state estimation on the three-phase tangent power-flow model
(`grid_models.lindistflow`) around the forecast's mean. States: every load's active and reactive
power, every DER's, and the source voltage of each phase. Loads are known by forecast only
(pseudo-measurements), DERs by telemetry. What is tested: the voltages and the feeder's import.
The tests are those of `controllers.detection.bad_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.detection.bad_data import BadDataTest, chi_square_threshold, normal_threshold
from controllers.detection.protocol import LEAST_HISTORY, DetectionSite, Forecast, History
from controllers.detection.residual_model import GridResponse
from controllers.errors import ControllerError
from controllers.mail import FloatArray, IntArray
from controllers.optdist_options import checked_globs, checked_number, parse_options
from controllers.ports import Port

NAME = "power-flow-residual"
CHI_SQUARE = "chi-square"
MAX_MEASUREMENTS = 4000
BoolArray = NDArray[np.bool_]
_ROWS = 512


@dataclass(frozen=True)
class ResidualOptions:
    """Options of the power-flow residual; all deviations are standard deviations.

    Attributes
    ----------
    false_alarm_probability : float
        Of the whole detector per step, when its covariances are right: half of it is the
        chi-square test's, half is shared by the normalised residuals.
    v_labels : sequence of str
        Globs over the nodes that have a voltage sensor.
    der_labels : sequence of str
        Globs over the DERs that have telemetry.
    v_std_pu : float
        Voltage sensors.
    model_std_pu : float
        Linear model against the AC power flow.
    source_std_pu : float
        Source voltage of each phase, and what the model's errors have in common.
    load_std : float
        Each load against the forecast, relative to its mean power.
    der_std : float
        DER telemetry, relative to the DER's rating.
    forecast_std : float
        DERs without telemetry against the forecast, relative to the DER's rating.
    import_std : float
        Import and what the loss model misses, relative to all loads and ratings together.
    """

    false_alarm_probability: float = 1e-4
    v_labels: Sequence[str] = ("*",)
    der_labels: Sequence[str] = ("*",)
    v_std_pu: float = 0.001
    model_std_pu: float = 0.001
    source_std_pu: float = 0.002
    load_std: float = 0.15
    der_std: float = 0.01
    forecast_std: float = 0.25
    import_std: float = 0.005

    def __post_init__(self) -> None:
        checked_number(
            "false_alarm_probability",
            self.false_alarm_probability,
            low=0.0,
            high=0.5,
            open_low=True,
        )
        for name in ("v_labels", "der_labels"):
            object.__setattr__(self, name, checked_globs(name, getattr(self, name)))
        for name in ("v_std_pu", "source_std_pu", "load_std", "der_std", "forecast_std"):
            checked_number(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("model_std_pu", "import_std"):
            checked_number(name, getattr(self, name), low=0.0, high=1.0, open_low=True)


class PowerFlowResidual:
    """The detector ``power-flow-residual``; see the module's docstring.

    Inputs, each optional: ``v_pu``, ``p_kw``, ``q_kvar``, ``import_kw``, ``import_kvar``. A DER
    whose telemetry is missing is expected at what the forecast says, give or take `forecast_std`.
    Labels: ``chi-square`` (all measurements together) and every measurement as ``port:label``.

    Parameters
    ----------
    site : DetectionSite
    **options
        See `ResidualOptions`.
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

    def step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the scores of one step."""
        rows = {name: np.asarray(values)[None, :] for name, values in inputs.items()}
        scores = np.zeros(len(self.labels))
        innovation, known = self._innovation(np.array([time_s]), rows, self._site.forecast)
        if not known[: innovation.shape[1]].any():
            return scores
        test = self._test_of(known)
        scores[0], scores[test.labels] = test.scores(innovation[0])
        return scores

    def calibrate(self, history: History) -> None:
        """Learn bias, deviation and tails of the residuals from clean data.

        The model's errors are neither normal nor without bias. So the mean innovation is taken
        off, each statistic is measured in its own clean deviation (the chi-square by fitting scale
        and degrees of freedom to mean and variance), and no threshold lies below the largest
        clean value; that of a normalised residual is extrapolated, as a normal tail, from the
        length of the history to the rate asked for.

        Raises
        ------
        ControllerError
            The history is too short.
        """
        if len(history.time_s) < LEAST_HISTORY:
            raise ControllerError(
                f"{len(history.time_s)} steps of clean data",
                where=NAME,
                expected=f"at least {LEAST_HISTORY}",
            )
        self._history = history
        self._tests.clear()
        # Now rather than in a step: whatever the history measured all along will be measured.
        self._test_of(self._innovation(history.time_s, history.inputs, history.forecast)[1])

    def _test_of(self, known: BoolArray) -> _Test:
        """Return the tests for a set of measurements; which set is known hardly ever changes."""
        key = known.tobytes()
        if key not in self._tests:
            if len(self._tests) >= 8:
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
            [
                np.full(3, 2.0 * o.source_std_pu),
                o.load_std * grid.load_kva,
                der_std * ratings,
            ]
        )
        v_var = 4.0 * (o.v_std_pu**2 + o.model_std_pu**2)  # of v^2, at 1 pu
        import_var = (o.import_std * grid.size_kva) ** 2
        noise_var = np.concatenate([np.full(m - 2, v_var), np.full(2, import_var)])[measured]
        test = BadDataTest(h, state_std**2, noise_var)
        first_der = len(state_std) - len(ratings)
        der_columns: IntArray = first_der + of_der.astype(np.int64)
        labels: IntArray = 1 + np.flatnonzero(known).astype(np.int64)
        out = _Test(test, measured, der_columns, labels, o.false_alarm_probability)
        if self._history is not None:
            self._learn(out, self._history, known)
        return out

    def _learn(self, test: _Test, history: History, known: BoolArray) -> None:
        kept = []
        for start in range(0, len(history.time_s), _ROWS):
            part = slice(start, start + _ROWS)
            rows = {name: values[part] for name, values in history.inputs.items()}
            innovation, there = self._innovation(history.time_s[part], rows, history.forecast)
            # Only steps of the history at which the same was measured say something.
            if bool((there == known).all()):
                kept.append(innovation[np.isfinite(innovation[:, test.measured]).all(axis=1)])
        clean = np.concatenate(kept) if kept else np.empty((0, 0))
        if len(clean) >= LEAST_HISTORY:
            test.learn(clean[:, test.measured])

    def _innovation(
        self, time_s: FloatArray, inputs: Mapping[str, FloatArray], forecast: Forecast
    ) -> tuple[FloatArray, BoolArray]:
        """Return measured minus expected (k, m), and which values are known at all the steps.

        The second is (m + DERs' p and q,), booleans.
        """
        expected_p, expected_q = self._grid.expected_der(time_s, forecast)
        p, q = inputs["p_kw"], inputs["q_kvar"]
        p_here, q_here, told = expected_p.copy(), expected_q.copy(), self._der_rows
        p_here[:, told] = np.where(np.isnan(p), expected_p[:, told], p)
        q_here[:, told] = np.where(np.isnan(q), expected_q[:, told], q)
        v2, import_kw, import_kvar = self._grid.expected(forecast.load_at(time_s), p_here, q_here)
        innovation = np.concatenate(
            [
                inputs["v_pu"] ** 2 - v2[:, self._sensor_rows],
                inputs["import_kw"] - import_kw[:, None],
                inputs["import_kvar"] - import_kvar[:, None],
            ],
            axis=1,
        )
        known = np.isfinite(np.concatenate([innovation, p, q], axis=1)).all(axis=0)
        return innovation, known


class _Test:
    """A bad-data test with its thresholds, stated or learnt."""

    def __init__(
        self,
        test: BadDataTest,
        measured: BoolArray,
        der_columns: IntArray,
        labels: IntArray,
        probability: float,
    ) -> None:
        self._test = test
        self.measured = measured
        self._der_columns = der_columns
        self.labels = labels
        self._probability = probability
        m = test.degrees_of_freedom
        self._bias = np.zeros(m)
        self._j_limit = chi_square_threshold(probability / 2.0, m)
        self._limit = np.full(len(labels), normal_threshold(probability / 2.0, len(labels)))

    def scores(self, innovation: FloatArray) -> tuple[float, FloatArray]:
        j, residuals = self._statistics(innovation[None, self.measured] - self._bias)
        return float(j[0]) / self._j_limit, np.abs(residuals[0]) / self._limit

    def learn(self, clean: FloatArray) -> None:
        self._bias = clean.mean(axis=0)
        j, residuals = self._statistics(clean - self._bias)
        mean, var = float(j.mean()), float(j.var())
        scale, dof = var / (2.0 * mean), 2.0 * mean**2 / var
        by_law = scale * chi_square_threshold(self._probability / 2.0, dof)
        self._j_limit = max(by_law, float(j.max()))
        asked = 2.0 * len(self._limit) / self._probability
        beyond = np.sqrt(max(np.log(asked) / np.log(len(clean)), 1.0))
        largest = beyond * np.abs(residuals).max(axis=0)
        self._limit = np.maximum(self._limit * residuals.std(axis=0), largest)
        self._limit = np.maximum(self._limit, np.finfo(np.float64).tiny)

    def _statistics(self, innovation: FloatArray) -> tuple[FloatArray, FloatArray]:
        j, measured, states = self._test.statistics(innovation)
        return j, np.concatenate([measured, states[:, self._der_columns]], axis=1)
