"""Inverters on their own volt-var curves: the point where curve and power flow agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_models.base.errors import PowerFlowError
from grid_models.ders.volt_var import VoltVarResponse
from grid_models.feeder.model import Der, VoltVarCurve

CURVE = VoltVarCurve((0.95, 0.99, 1.01, 1.05), (1.0, 0.0, 0.0, -1.0))


def der(name: str, curve: VoltVarCurve | None = CURVE) -> Der:
    return Der(name, "pv", name, (1,), 10.0, 8.0, volt_var=curve)


@given(
    v0=st.floats(0.93, 1.08),
    sensitivity=st.floats(0.0, 0.02),
    p=st.floats(0.0, 10.0),
    of_rating=st.booleans(),
)
def test_settled_power_lies_on_the_curve(
    v0: float, sensitivity: float, p: float, of_rating: bool
) -> None:
    curve = VoltVarCurve(CURVE.v_pu, CURVE.q_pu, of_rating)
    response = VoltVarResponse([der("a", curve)], ["a.1"])

    def solve(q_kvar: np.ndarray) -> np.ndarray:
        return np.array([v0 + sensitivity * q_kvar[0]])

    p_kw = np.array([p])
    q = response.settle(p_kw, np.zeros(1), np.array([False]), solve)
    room = np.sqrt(100.0 - p**2)
    base = 10.0 if of_rating else room
    on_curve = np.clip(base * np.interp(solve(q)[0], curve.v_pu, curve.q_pu), -room, room)
    assert abs(q[0] - on_curve) <= 1e-5 * 10.0 + 1e-12


def test_commanded_and_curveless_resources_keep_their_power() -> None:
    ders = [der("a"), der("b", None), der("c")]
    response = VoltVarResponse(ders, ["a.1", "b.1", "c.1"])
    commanded = np.array([False, False, True])
    q = response.settle(
        np.zeros(3), np.array([0.0, 2.0, 3.0]), commanded, lambda _: np.array([0.95, 0.95, 0.95])
    )
    assert q == pytest.approx([10.0, 2.0, 3.0], abs=1e-3)


def test_a_curve_that_cannot_be_met_is_said() -> None:
    response = VoltVarResponse([der("a")], ["a.1"])
    jumps = iter(range(1000))
    with pytest.raises(PowerFlowError, match="do not settle"):
        response.settle(
            np.zeros(1),
            np.zeros(1),
            np.array([False]),
            lambda _: np.array([0.9 if next(jumps) % 2 else 1.1]),
        )
