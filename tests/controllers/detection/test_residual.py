"""The power-flow residual on a feeder whose measurements are made by its own model, and not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.detection.protocol import DetectionSite, Detector, Forecast, History
from controllers.detection.residual import CHI_SQUARE, PowerFlowResidual
from controllers.errors import ControllerError
from controllers.sample_site import sample_feeder
from grid_models.feeder import Feeder

TIMES = 60.0 * np.arange(400)
FORECAST = Forecast(TIMES, 0.7 + 0.2 * np.sin(TIMES / 4000.0), np.abs(np.sin(TIMES / 7000.0)))
FEEDER = sample_feeder()
SITE = DetectionSite(FEEDER, 60.0, FORECAST)
Inputs = dict[str, np.ndarray]


def _measured(detector: PowerFlowResidual, seed: int) -> Inputs:
    """Return measurements (k, n) whose errors have exactly the covariances that it states."""
    rng = np.random.default_rng(seed)
    grid, o = detector._grid, detector.options
    k, d = len(TIMES), len(FEEDER.ders)
    p = FORECAST.irradiance_pu[:, None] * np.array([0.8 * der.p_max_kw for der in FEEDER.ders])
    q = 0.1 * p
    v2, import_kw, import_kvar = grid.expected(FORECAST.load_pu, p, q)
    n_loads = len(grid.load_kva)
    states = rng.normal(size=(k, 3 + n_loads + 2 * d)) * np.concatenate(
        [np.full(3, 2 * o.source_std_pu), o.load_std * grid.load_kva, np.zeros(2 * d)]
    )
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
