"""The power-flow residual on a feeder whose measurements are made by its own model, and not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_feeder
from controllers.detection.protocol import DetectionSite, Detector, Forecast, History
from controllers.detection.residual import CHI_SQUARE, PowerFlowResidual
from grid_models.feeder.model import Feeder

TIMES = 60.0 * np.arange(400)
FORECAST = Forecast(TIMES, 0.7 + 0.2 * np.sin(TIMES / 4000.0), np.abs(np.sin(TIMES / 7000.0)))
FEEDER = sample_feeder()
SITE = DetectionSite(FEEDER, 60.0, FORECAST)
Inputs = dict[str, np.ndarray]


def _measured(detector: PowerFlowResidual, seed: int) -> Inputs:
    """Return measurements (k, n) whose errors have exactly the covariances that it states."""
    forecast = detector._site.forecast
    rng = np.random.default_rng(seed)
    grid, o = detector._grid, detector.options
    k, d = len(TIMES), len(FEEDER.ders)
    p = forecast.irradiance_pu[:, None] * np.array([0.8 * der.p_max_kw for der in FEEDER.ders])
    q = 0.1 * p
    v2, import_kw, import_kvar = grid.expected(forecast.load_pu, p, q)
    n_loads = len(grid.load_kva)
    states = rng.normal(size=(k, 3 + n_loads + 2 * d)) * np.concatenate(
        [np.full(3, 2 * o.source_std_pu), o.load_std * grid.load_kva, np.zeros(2 * d)]
    )
    states[:, 3 : 3 + n_loads] *= (forecast.load_pu / forecast.load_pu.mean())[:, None]
    rows = detector._sensor_rows
    change = states @ grid.sensitivity(rows).T
    v2 = v2[:, rows] + change[:, :-2]
    v2 += 2 * np.hypot(o.v_std_pu, o.model_std_pu) * rng.normal(size=v2.shape)
    meter = o.import_std * grid.size_kva * rng.normal(size=(k, 2))
    telemetry = o.der_std * grid.der_kva * rng.normal(size=(2, k, d))
    return {
        "v_pu": np.sqrt(v2),
        "p_kw": p + telemetry[0],
        "q_kvar": q + telemetry[1],
        "import_kw": (import_kw + change[:, -2] + meter[:, 0])[:, None],
        "import_kvar": (import_kvar + change[:, -1] + meter[:, 1])[:, None],
    }


def _play(detector: PowerFlowResidual, inputs: Inputs) -> np.ndarray:
    return np.array(
        [
            detector.step(float(t), {name: values[i] for name, values in inputs.items()})
            for i, t in enumerate(TIMES)
        ]
    )


def _at(inputs: Inputs, row: int) -> Inputs:
    return {name: values[row].copy() for name, values in inputs.items()}


def test_it_follows_the_protocol() -> None:
    detector = PowerFlowResidual(SITE)
    assert isinstance(detector, Detector)
    assert detector.labels[0] == CHI_SQUARE
    assert {"v_pu:b3.2", "import_kw:source", "p_kw:pv_b2", "q_kvar:bat_b3"} <= set(detector.labels)


def test_with_the_stated_covariances_alarms_come_at_the_stated_rate() -> None:
    asked = 0.1
    detector = PowerFlowResidual(SITE, false_alarm_probability=asked)
    scores = np.concatenate([_play(detector, _measured(detector, seed)) for seed in range(5)])
    n = len(scores)
    chi_square = float((scores[:, 0] >= 1.0).mean())
    # Half of the probability is the chi-square test's; four deviations of a binomial share.
    assert abs(chi_square - asked / 2) < 4.0 * np.sqrt(asked / 2 / n)
    assert float((scores.max(axis=1) >= 1.0).mean()) < asked + 4.0 * np.sqrt(asked / n)
    assert float((scores[:, 1:].max(axis=1) >= 1.0).mean()) > asked / 8  # and the bound is not idle


def test_loads_deviate_in_proportion_to_what_they_draw() -> None:
    asked = 0.1
    evening = len(TIMES) // 2
    load_pu = np.where(np.arange(len(TIMES)) < evening, 0.3, 1.2)
    site = DetectionSite(FEEDER, 60.0, Forecast(TIMES, load_pu, FORECAST.irradiance_pu))
    # Loads that are all that is uncertain, but for sensors: else they hardly matter.
    options = {"load_std": 0.4, "source_std_pu": 0.0, "v_std_pu": 0.0, "model_std_pu": 0.0005}
    detector = PowerFlowResidual(site, false_alarm_probability=asked, **options)
    alarm = [_play(detector, _measured(detector, seed))[:, 0] >= 1.0 for seed in range(5)]
    share = np.array(alarm).reshape(5, 2, -1).mean(axis=(0, 2))
    slack = 4.0 * np.sqrt(asked / 2 / (5 * evening))
    np.testing.assert_allclose(share, asked / 2, atol=slack)


@pytest.mark.parametrize(
    ("port", "label", "forged"),
    [("v_pu", "b3.2", 0.03), ("p_kw", "pv_b4", 170.0), ("import_kw", "source", 200.0)],
)
def test_a_forged_measurement_is_found_and_named(port: str, label: str, forged: float) -> None:
    detector = PowerFlowResidual(SITE)
    inputs = _at(_measured(detector, 3), 200)
    assert detector.step(TIMES[200], inputs).max() < 1.0
    at = next(p for p in detector.inputs if p.name == port).labels.index(label)
    inputs[port][at] += forged
    scores = detector.step(TIMES[200], inputs)
    assert scores[0] >= 1.0
    assert detector.labels[1 + int(scores[1:].argmax())] == f"{port}:{label}"


def test_another_order_of_buses_and_ders_gives_the_same_scores_by_label() -> None:
    shuffled: Feeder = replace(
        FEEDER,
        buses=dict(reversed(list(FEEDER.buses.items()))),
        ders=tuple(reversed(FEEDER.ders)),
        loads=tuple(reversed(FEEDER.loads)),
    )
    one = PowerFlowResidual(SITE)
    other = PowerFlowResidual(DetectionSite(shuffled, 60.0, FORECAST))
    inputs = _at(_measured(one, 4), 100)
    value = {(p.name, x): inputs[p.name][i] for p in one.inputs for i, x in enumerate(p.labels)}
    reordered = {p.name: np.array([value[p.name, x] for x in p.labels]) for p in other.inputs}
    a = dict(zip(one.labels, one.step(TIMES[100], inputs), strict=True))
    b = dict(zip(other.labels, other.step(TIMES[100], reordered), strict=True))
    assert set(a) == set(b)
    for label, score in a.items():
        assert b[label] == pytest.approx(score, rel=1e-6, abs=1e-9)


def test_a_part_of_the_measurements_is_enough() -> None:
    detector = PowerFlowResidual(SITE)
    inputs = _measured(detector, 5)
    nothing = {name: np.full_like(values, np.nan) for name, values in inputs.items()}
    assert (detector.step(0.0, _at(nothing, 0)) == 0.0).all()
    only_v = nothing | {"v_pu": inputs["v_pu"], "p_kw": inputs["p_kw"]}
    only_v["v_pu"][:, 0] = np.nan
    scores = _play(detector, only_v)
    assert scores.max() < 1.0
    silent = [i for i, x in enumerate(detector.labels) if x.startswith(("import", "q_kvar"))]
    assert (scores[:, silent] == 0.0).all()
    assert scores[:, 1].max() == 0.0
    assert scores[:, 2].max() > 0.0


def test_calibration_takes_off_bias_and_follows_the_clean_deviation() -> None:
    plain = PowerFlowResidual(SITE)
    inputs = _measured(plain, 6)
    inputs["v_pu"] += 0.01  # a model or a sensor that is wrong, but always alike
    assert _play(plain, inputs).max() >= 1.0
    learnt = PowerFlowResidual(SITE)
    learnt.calibrate(History(TIMES, inputs, FORECAST))
    assert _play(learnt, inputs).max() <= 1.0 + 1e-9
    again = _measured(plain, 7)
    again["v_pu"] += 0.01
    scores = _play(learnt, again)
    assert float((scores.max(axis=1) >= 1.0).mean()) < 0.1
    again["v_pu"][:, 5] += 0.02
    assert (_play(learnt, again)[:, 0] >= 1.0).all()


def _biased(inputs: Inputs) -> Inputs:
    """Return measurements of a sensor that is always 0.008 pu too high: a bias to be learnt."""
    v_pu = inputs["v_pu"].copy()
    v_pu[:, 3] += 0.008
    return inputs | {"v_pu": v_pu}


def _lost(inputs: Inputs, port: str, rows: slice) -> Inputs:
    """Return measurements without the first label of a port at some of the steps."""
    values = inputs[port].copy()
    values[rows, 0] = np.nan
    return inputs | {port: values}


@pytest.mark.parametrize("port", ["v_pu", "p_kw", "q_kvar", "import_kw"])
@pytest.mark.parametrize("lost_in", ["run", "history", "nothing"])
def test_a_sensor_that_is_missing_does_not_cost_what_was_learnt(port: str, lost_in: str) -> None:
    detector = PowerFlowResidual(SITE)
    clean, run = _biased(_measured(detector, 1)), _biased(_measured(detector, 2))
    if lost_in == "history":
        clean = _lost(clean, port, slice(7, 8))
    if lost_in == "run":
        run = _lost(run, port, slice(None))
    detector.calibrate(History(TIMES, clean, FORECAST))
    assert float((_play(detector, run).max(axis=1) >= 1.0).mean()) < 0.01
    run["v_pu"][:, 3] += 0.02
    assert float((_play(detector, run).max(axis=1) >= 1.0).mean()) > 0.5
    assert detector.take_events() == []


def test_it_tells_when_nothing_was_learnt_for_the_sensors_there_are() -> None:
    detector, plain = PowerFlowResidual(SITE), PowerFlowResidual(SITE)
    clean, run = _measured(detector, 1), _measured(detector, 2)
    detector.calibrate(History(TIMES, _lost(clean, "v_pu", slice(20, None)), FORECAST))
    assert detector.take_events() == []
    # The stated thresholds hold, to the last bit; it is said once.
    np.testing.assert_array_equal(_play(detector, run), _play(plain, run))
    (event,) = detector.take_events()
    assert (event["event"], event["steps"], event["expected"]) == ("not_learnt", 20, 30)
    assert event["lacking"] == [f"v_pu:{detector.inputs[0].labels[0]}"]
    detector.step(0.0, _at(_lost(run, "v_pu", slice(None)), 0))
    assert detector.take_events() == []


def test_a_constant_noise_free_history_keeps_the_stated_thresholds() -> None:
    flat = Forecast(TIMES, np.full(len(TIMES), 0.7), np.full(len(TIMES), 0.5))
    site = DetectionSite(FEEDER, 60.0, flat)
    detector, plain = PowerFlowResidual(site), PowerFlowResidual(site)
    v2, import_kw, import_kvar = plain._grid.expected(
        flat.load_pu, *plain._grid.expected_der(TIMES, flat)
    )
    p, q = plain._grid.expected_der(TIMES, flat)
    # Just what the model expects, so that there is no bias to be learnt either.
    exact = {"v_pu": np.sqrt(v2[:, plain._sensor_rows]), "p_kw": p, "q_kvar": q}
    exact |= {"import_kw": import_kw[:, None], "import_kvar": import_kvar[:, None]}
    detector.calibrate(History(TIMES, exact, flat))
    noisy = _measured(plain, 5)
    np.testing.assert_allclose(_play(detector, noisy), _play(plain, noisy), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("port", ["v_pu", "p_kw", "q_kvar", "import_kw"])
def test_what_is_not_finite_is_not_measured(port: str, value: float) -> None:
    detector = PowerFlowResidual(SITE)
    inputs = _at(_measured(detector, 3), 200)
    inputs["v_pu"][4] += 0.03
    inputs[port][0] = np.nan
    without = detector.step(TIMES[200], inputs)
    inputs[port][0] = value
    np.testing.assert_array_equal(detector.step(TIMES[200], inputs), without)
    assert without[0] >= 1.0


@pytest.mark.parametrize("port", ["v_pu", "p_kw", "import_kw"])
@pytest.mark.parametrize("value", [1e150, 1e200, 1e300])
def test_absurd_values_are_an_alarm_and_their_scores_finite(port: str, value: float) -> None:
    detector = PowerFlowResidual(SITE)
    inputs = _at(_measured(detector, 3), 200)
    inputs[port][0] = value
    scores = detector.step(TIMES[200], inputs)
    assert np.isfinite(scores).all()
    assert scores[0] >= 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"false_alarm_probability": 0}, r"\(0, 0.5\]"),
        ({"v_labels": ["x9*"]}, "gives 0 voltage sensors"),
        ({"v_std": 0.1}, "did you mean 'v_std_pu'"),
        ({"model_std_pu": 0}, "model_std_pu"),
    ],
)
def test_bad_options_are_refused_with_what_would_do(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        PowerFlowResidual(SITE, **options)


def test_too_little_clean_data_is_refused() -> None:
    detector = PowerFlowResidual(SITE)
    few = {name: values[:5] for name, values in _measured(detector, 1).items()}
    with pytest.raises(ControllerError, match="at least 30"):
        detector.calibrate(History(TIMES[:5], few, FORECAST))
