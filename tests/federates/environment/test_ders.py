"""DERs of many episodes: laws of a step, against the plant of a run."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from federates.environment.ders import BatchedDers
from grid_models.ders.plant import DerFleet
from grid_models.feeder.model import Der

DERS = (
    Der("pv", "pv", "1", (1,), 11.0, 10.0),
    Der("battery", "battery", "1", (1, 2, 3), 6.0, 5.0, -4.0, energy_kwh=0.05),
    Der("statcom", "inverter", "1", (2,), 8.0, 3.0, -9.0),
    Der("flex", "flexible_load", "1", (3,), 2.0, 0.0, -2.0),
)
DT_S, STEPS = 5.0, 6
SUN = np.linspace(0.0, 1.1, STEPS)
Array = NDArray[np.float64]


def free_kva() -> NDArray[np.complex128]:
    fleet = DerFleet(DERS)
    rows = [fleet.step(DT_S, sun, 20.0) for sun in SUN]
    return np.array([p + 1j * q for p, q in rows])


FREE_KVA = free_kva()
shares = st.lists(st.floats(-1.0, 1.0), min_size=5, max_size=5)


@settings(max_examples=60)
@given(st.lists(shares, min_size=STEPS - 1, max_size=STEPS - 1))
def test_a_step_is_that_of_the_plant_with_the_same_set_points(actions: list[list[float]]) -> None:
    fleet, batch = DerFleet(DERS), BatchedDers(DERS, FREE_KVA, 2, DT_S)
    assert (batch.inverters.tolist(), batch.storage.tolist()) == ([0, 1, 2], [1, 2])
    batch.restart(np.arange(2), np.zeros(2, dtype=np.intp))
    fleet.step(DT_S, SUN[0], 20.0)
    q_set, p_set = np.zeros(4), np.full(4, np.nan)
    for k, action in enumerate(actions, start=1):
        a = np.array(action)
        q_set[:3] = a[:3] * fleet.headroom_kvar[:3]
        low, high = fleet.batteries.limits(DT_S)
        for i, x, least, most in ((1, a[3], low[0], high[0]), (2, a[4], -9.0, 3.0)):
            p_set[i] = x * most if x >= 0.0 else -x * least
        both = np.stack([a, a])
        p_kw, q_kvar = fleet.step(DT_S, SUN[k], 20.0, p_set, q_set)
        batch.step(np.full(2, k), both[:, :3], both[:, 3:])
        np.testing.assert_allclose(batch.p_kw, [p_kw] * 2, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(batch.q_kvar, [q_kvar] * 2, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(batch.soc_pu, [fleet.soc_kwh / 0.05] * 2, rtol=0.0, atol=1e-12)
        # Whatever the action, ratings and energies hold.
        kva = np.array([d.kva for d in DERS[:3]])
        assert (np.hypot(p_kw, q_kvar)[:3] <= kva * (1.0 + 1e-12)).all()
        assert ((batch.soc_pu >= 0.1 - 1e-12) & (batch.soc_pu <= 1.0)).all()
