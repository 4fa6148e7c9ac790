"""The averaging PI baseline: its law, and its agents against it."""

from __future__ import annotations

import numpy as np
import pytest
from _dmpc_planners import AveragingPiLaw
from _load_step import load_step, load_step_trial

from controllers.baselines.averaging_pi import AveragingPi, line_neighbours
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.sample_site import sample_site
from grid_models.circuits.dynamics import steady_state
from grid_models.circuits.feeder24 import feeder24


def test_first_steps_by_hand() -> None:
    # v = 0.98 everywhere, kp 1, ki 50, 2 ms: z = 50 * 0.002 * 0.02 = 0.002, u = 0.022.
    circuit, _ = feeder24()
    x = steady_state(circuit)
    x[circuit.n_lines :] = 0.98
    law = AveragingPiLaw(circuit, 2e-3, 1.0, 50.0, 1.0)
    assert law(x, np.zeros(12), np.zeros(24)) == pytest.approx(np.full(12, 0.022))
    # Equal integrals: averaging changes nothing.
    assert law(x, np.zeros(12), np.zeros(24)) == pytest.approx(np.full(12, 0.024))


def test_agents_follow_the_law_with_old_neighbours() -> None:
    circuit, _ = feeder24()
    site = sample_site(period_s=2e-3)
    names = AveragingPi.agents(site)
    agents = AveragingPi(site, names, kp=1.0, ki=50.0, ka=0.0)
    law = AveragingPiLaw(circuit, 2e-3, 1.0, 50.0, 0.0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        x = steady_state(circuit)
        x[circuit.n_lines :] += rng.normal(0.0, 0.01, 24)
        v = dict(zip(circuit.buses, x[circuit.n_lines :], strict=True))
        port = np.array([v[bus] for bus in agents.inputs[0].labels])
        done = agents.step(0.0, {"v_pu": port}, Mail.empty())
        expected = law(x, np.zeros(12), np.zeros(24))
        assert done.outputs["i_set_pu"] == pytest.approx(expected, abs=1e-12)


def test_published_gains_oscillate_and_hold() -> None:
    # Published with these gains: settling 107 ms, in band 24.8 ms, minimum 0.896 (another layout).
    circuit, _ = feeder24()
    law = AveragingPiLaw(circuit, 2e-3, 1.0, 50.0, 1.0)
    trial = load_step_trial(circuit, law, load_step(circuit))
    assert 50.0 < trial.settle_ms < 120.0
    assert 12.0 < trial.band_ms < 30.0
    assert trial.v_min == pytest.approx(0.896, abs=0.015)


def test_neighbours_are_a_chain() -> None:
    assert len(line_neighbours(feeder24()[0])) == 11


def test_errors() -> None:
    with pytest.raises(ControllerError, match="did you mean 'inv_c0_1'"):
        AveragingPi(sample_site(), ("inv_c0_11",))
    with pytest.raises(ControllerError, match="kp"):
        AveragingPi(sample_site(), ("inv_c0_1",), kp=-1.0)
