"""How DERs answer a toll, within their limits and on the circle of their rating."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.real_time_opf.fleet import Fleet
from controllers.real_time_opf.objectives import S_BASE_KW, Weights
from grid_models.feeder.model import Der

_DER = Der("pv", "pv", "1", (1,), kva=100.0, p_max_kw=100.0)
_WEIGHTS = Weights(curtailment=3.0, reactive=1.0, energy=1.0)


def _settled(toll: np.ndarray) -> tuple[np.ndarray, Fleet]:
    fleet = Fleet([_DER], _WEIGHTS, 0.5, 1.0)
    p_high = np.array([_DER.p_max_kw / S_BASE_KW])
    for _ in range(200):
        fleet.command(toll, p_high)
    return fleet.set_point, fleet


@settings(max_examples=20)
@given(by_p=st.floats(1.2, 3.0), by_q=st.floats(-3.0, -1.2))
def test_on_the_circle_of_the_rating_p_and_q_answer_together(by_p: float, by_q: float) -> None:
    toll = np.array([[by_p], [by_q]])
    point, fleet = _settled(toll)
    response = np.array([_DER.kva / S_BASE_KW / c for c in _WEIGHTS.curvatures])
    on_circle = np.hypot(*point[:, 0]) > 0.1 - 1e-9 and point[0, 0] < 0.1 - 1e-6
    step, moved = 1e-5, np.empty((2, 2))
    for k in range(2):
        other = toll.copy()
        other[k] += step
        moved[:, k] = (_settled(other)[0] - point)[:, 0] / step
    root = np.sqrt(response)
    answer = -root[:, None] * fleet.free[:, :, 0] * root
    if on_circle:
        answer += 0.1 * np.diag(response)  # what a DER at a limit counts for
    np.testing.assert_allclose(moved, answer, atol=1e-4 * response.max())
