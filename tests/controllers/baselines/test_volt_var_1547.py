"""IEEE 1547-2018 volt/var droop: the standard's curve, its response time, its limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.baselines.volt_var_1547 import VoltVar1547, VoltVarOptions
from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Mail
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from grid_models.ders.volt_var import VoltVarCurves
from grid_models.feeder.model import VoltVarCurve


def settled_q_pu(v_pu: float, **options: Any) -> float:
    """Reactive power of pv_b4 (190 kVA, at rest) at a constant voltage, per unit of its rating."""
    site = replace(sample_site(), period_s=1.0)
    agents = VoltVar1547(site, ["pv_b4"], **options)
    for k in range(200):
        done = agents.step(float(k), {"v_pu": np.array([v_pu])}, Mail.empty())
    return float(done.outputs["q_set_kvar"][0]) / 190.0


@pytest.mark.parametrize(
    ("category", "v_pu", "q_pu"),
    [
        # IEEE 1547-2018 Table 8, default settings, points and half-way between them.
        ("A", 0.90, 0.25), ("A", 0.95, 0.125), ("A", 1.00, 0.0), ("A", 1.05, -0.125),
        ("A", 1.10, -0.25), ("A", 1.15, -0.25),
        ("B", 0.85, 0.44), ("B", 0.92, 0.44), ("B", 0.95, 0.22), ("B", 0.98, 0.0),
        ("B", 1.00, 0.0), ("B", 1.02, 0.0), ("B", 1.05, -0.22), ("B", 1.08, -0.44),
        ("B", 1.20, -0.44),
    ],
)  # fmt: skip
def test_settles_on_the_standards_curve(category: str, v_pu: float, q_pu: float) -> None:
    assert settled_q_pu(v_pu, category=category) == pytest.approx(q_pu, abs=1e-9)


@pytest.mark.parametrize(("category", "response_s"), [("A", 10.0), ("B", 5.0)])
@pytest.mark.parametrize("period_s", [0.5, 1.0, 5.0])
def test_reaches_90_percent_in_the_response_time(
    category: str, response_s: float, period_s: float
) -> None:
    site = replace(sample_site(), period_s=period_s)
    agents = VoltVar1547(site, ["pv_b4"], category=category)
    target = 190.0 * (-0.125 if category == "A" else -0.22)
    steps = round(response_s / period_s)
    for k in range(steps):
        done = agents.step(k * period_s, {"v_pu": np.array([1.05])}, Mail.empty())
    assert done.outputs["q_set_kvar"][0] == pytest.approx(0.9 * target, rel=1e-12)


@given(
    v=st.floats(0.7, 1.3),
    rise=st.floats(0.0, 0.3),
    category=st.sampled_from(["A", "B"]),
    v_ref=st.floats(0.95, 1.05),
)
def test_curve_is_monotone_and_odd_about_the_reference(
    v: float, rise: float, category: str, v_ref: float
) -> None:
    v_pu, q_pu = VoltVarOptions(category=category, v_ref_pu=v_ref).points()
    curves = VoltVarCurves([VoltVarCurve(tuple(v_pu), tuple(q_pu))])

    def q(voltage: float) -> float:
        return float(curves.q_pu(np.array([voltage]))[0])

    assert q(v + rise) <= q(v) + 1e-12
    assert q(2 * v_ref - v) == pytest.approx(-q(v), abs=1e-9)


@given(period_s=st.floats(0.01, 1e4), response_s=st.floats(0.0, 100.0))
def test_no_step_passes_the_curve_however_long(period_s: float, response_s: float) -> None:
    site = ControlSite(sample_site().feeder, sample_site().ders, period_s)
    agents = VoltVar1547(site, ["pv_b4"], response_time_s=response_s)
    target, last = -0.22 * 190.0, 0.0
    for k in range(5):
        done = agents.step(k * period_s, {"v_pu": np.array([1.05])}, Mail.empty())
        q = float(done.outputs["q_set_kvar"][0])
        assert target - 1e-9 <= q <= last + 1e-9
        last = q


def test_headroom_bounds_the_answer_at_once() -> None:
    site = sample_site()
    agents = VoltVar1547(site, ["pv_b4"], response_time_s=0.0)
    for p_kw, bound in ((0.0, 0.44 * 190.0), (188.0, np.sqrt(190.0**2 - 188.0**2)), (250.0, 0.0)):
        inputs = {"v_pu": np.array([1.2]), "p_kw": np.array([p_kw])}
        q = agents.step(0.0, inputs, Mail.empty()).outputs["q_set_kvar"][0]
        # Time does not move here: the answer with headroom 27 kvar is cut although no lag runs.
        assert abs(q) <= bound + 1e-9


def test_a_user_curve_replaces_the_standards() -> None:
    curve = [[0.95, 0.3], [1.0, 0.1], [1.05, -0.3]]
    assert settled_q_pu(0.975, curve=curve) == pytest.approx(0.2)
    assert settled_q_pu(1.2, curve=curve) == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"category": "C"}, "one of A, B"),
        ({"v_ref_pu": 1.2}, "not accepted"),
        ({"curve": [[1.0, 0.1]]}, "two or more"),
        ({"curve": [[1.0, -0.1], [1.1, 0.1]]}, "not monotone"),
        ({"curve": [[0.9, float("nan")], [1.1, 0.0]]}, "not finite"),
        ({"curve": [[0.9, 2.0], [1.1, -2.0]]}, "beyond the rating"),
        ({"volt_watt": [[1.06, 1.0], [1.1, -0.1]]}, "'volt_watt': power beyond"),
        ({"volt_watt": [[1.06, 0.2], [1.1, 1.0]]}, "not monotone"),
        ({"response_time": 3.0}, "did you mean 'response_time_s'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ControllerError, match=match):
        VoltVar1547(sample_site(), ["pv_b4"], **options)


def test_mean_of_phases_is_what_counts() -> None:
    site = sample_site()
    agents = VoltVar1547(site, ["pv_b3"], response_time_s=0.0)
    v: FloatArray = np.array([1.05, 1.10, 0.90])  # mean 1.01666: inside the dead band
    assert agents.step(0.0, {"v_pu": v}, Mail.empty()).outputs["q_set_kvar"][0] == 0.0


# Table 10 of IEEE 1547-2018 with P2 = 0; rated power is p_max, in kW, not kVA.
@pytest.mark.parametrize(("v_pu", "p_pu"), [(1.06, 1.0), (1.07, 0.75), (1.09, 0.25), (1.2, 0.0)])
def test_volt_watt_limits_pv_behind_its_response_time(v_pu: float, p_pu: float) -> None:
    site = replace(sample_site(), period_s=1.0)
    ders = {der.name: der for der in site.ders}
    pv = [name for name, der in ders.items() if der.kind == "pv"]
    agents = VoltVar1547(site, list(ders), volt_watt=[[1.06, 1.0], [1.1, 0.0]])
    assert [port.labels for port in agents.outputs] == [tuple(ders), tuple(pv)]
    v = np.full(len(agents.inputs[0].labels), v_pu)
    rated = np.array([ders[name].p_max_kw for name in pv])
    for k in range(10):
        limit = agents.step(float(k), {"v_pu": v}, Mail.empty()).outputs["p_set_kw"]
    assert limit == pytest.approx(rated * (1.0 - 0.9 * (1.0 - p_pu)))
    assert not VoltVar1547(site, list(ders)).outputs[1:], "without the option q only"


def test_compliance() -> None:
    check_controller(VoltVar1547, category="A")
    check_controller(VoltVar1547, volt_watt=[[1.0, 1.0], [1.05, 0.0]])
