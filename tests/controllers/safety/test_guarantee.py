"""What the central form guarantees, against AC power flows of random cases on IEEE 123."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.safety.central import TOLERANCE, CentralFilter, Seen
from controllers.safety.model import SafetyModel
from federates.core.sites import GridSite
from federates.scenario.schema import load_scenario
from grid_models.batched.power_flow import BatchedFeeder

MARGIN_PU = 0.003
BAND = 0.95 + MARGIN_PU, 1.05 - MARGIN_PU


@cache
def ieee123() -> tuple[BatchedFeeder, SafetyModel]:
    grid = GridSite(load_scenario("voltvar-ieee123-safety"))
    site = ControlSite(grid.feeder, grid.feeder.ders, 5.0)
    return BatchedFeeder(grid.take_circuit()), SafetyModel.of(site)


def replayed(
    seed: int, load: float, sun: float, bias: float
) -> tuple[float, list[tuple[float, float, float]]]:
    """Return steps of the central form at constant injections, from where a policy was obeyed.

    The policy asks for random reactive powers around a bias. Returned is the distance from the band
    before the first step, and after each: slack of the programme, error of its model, distance from
    the band; negative in the band.
    """
    feeder, model = ieee123()
    p = sun * np.array([der.p_max_kw for der in model.ders]) / model.kva
    room = np.sqrt(1.0 - p * p)
    x0 = room * np.clip(np.random.default_rng(seed).uniform(-1.0, 1.0, p.size) + bias, -1.0, 1.0)
    at = [feeder.network.nodes.index(node) for node in model.nodes]

    def flow(x: FloatArray) -> tuple[FloatArray, float]:
        kva = (p + 1j * x) * model.kva
        v_pu = feeder.solve(load * feeder.nominal_kva, kva[None]).v_pu[0]
        return v_pu[at], float(np.maximum(v_pu - 1.05, 0.95 - v_pu).max())

    low, high = (0.5 * end**2 for end in BAND)
    form = CentralFilter(model.by_q, model.by_p, np.array([], dtype=np.int64), (low, high), 0.0)
    x, frozen, told = x0, np.zeros(p.size, dtype=bool), []
    v_pu, before = flow(x)
    for _ in range(4):
        found = form.step(x0, Seen(0.5 * v_pu**2, x, p, p, room, frozen))
        expected = np.sqrt(v_pu**2 + 2.0 * model.by_q @ (found.x - x))
        x = found.x
        v_pu, out = flow(x)
        told.append((found.slack_pu, float(np.abs(expected - v_pu).max()), out))
    return before, told


@settings(max_examples=15)
@given(st.integers(0, 999), st.floats(0.4, 1.1), st.floats(0.0, 0.98), st.floats(-1.0, 1.0))
def test_without_slack_and_with_a_small_model_error_all_nodes_are_in_band(
    seed: int, load: float, sun: float, bias: float
) -> None:
    _, told = replayed(seed, load, sun, bias)
    for slack, error, out in told:
        assert out <= 0.0 or slack > TOLERANCE or error > MARGIN_PU - 2.0 * TOLERANCE


def test_at_noon_the_guarantee_applies_to_every_case() -> None:
    cases = [replayed(seed, 1.0, 0.9, bias) for seed in range(6) for bias in (-0.5, 0.0, 0.5)]
    assert sum(before > 0.0 for before, _ in cases) >= 10
    for _, told in cases:
        slack, error, out = told[-1]
        assert slack <= TOLERANCE
        assert error < MARGIN_PU / 2.0
        assert out <= 0.0
