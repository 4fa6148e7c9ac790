"""Replay on the unbalanced feeder: exact where the model is, and telling where it is not."""

import numpy as np
import pytest
from _branch_flow_replay import Expected, Replay, replay_injections

from grid_models.base.errors import GridModelError
from grid_models.branch_flow.model import BranchNetwork, branch_network
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Feeder, Line, Source

IEEE123 = load_feeder("ieee123")


def sweep(network: BranchNetwork, p_pu: np.ndarray, q_pu: np.ndarray) -> tuple[np.ndarray, float]:
    """Solve the branch-flow equations by backward and forward sweeps: v (n,) and losses."""
    n = network.size
    v, l_line = np.full(n, network.v_root_pu**2), np.zeros(n)
    for _ in range(60):
        p, q = -p_pu + network.r_pu * l_line, -q_pu + network.x_pu * l_line - network.b_pu * v
        for j in range(n - 1, 0, -1):
            p[network.parent[j]] += p[j]
            q[network.parent[j]] += q[j]
        for j in range(1, n):
            i = network.parent[j]
            l_line[j] = (p[j] ** 2 + q[j] ** 2) / v[i]
            z_sq = network.r_pu[j] ** 2 + network.x_pu[j] ** 2
            v[j] = v[i] - 2 * (network.r_pu[j] * p[j] + network.x_pu[j] * q[j]) + z_sq * l_line[j]
    return np.sqrt(v), float(network.r_pu @ l_line)


def replayed(feeder: Feeder, p_kw: np.ndarray, q_kvar: np.ndarray, taps: str) -> Replay:
    network = branch_network(feeder)
    v, losses = sweep(network, p_kw / 1e3, q_kvar / 1e3)
    expected = Expected(v, -p_kw.sum() + 1e3 * losses, 1e3 * losses)
    return replay_injections(feeder, network, p_kw, q_kvar, expected, taps=taps)  # type: ignore[arg-type]


def test_a_balanced_feeder_replays_as_the_model_says() -> None:
    z = np.full((3, 3), 0.1 + 0.2j) + np.diag(np.full(3, 0.2 + 0.4j))
    buses = {name: Bus(name, (1, 2, 3), 2.4) for name in "abc"}
    lines = tuple(
        Line(f"{a}{b}", a, b, (1, 2, 3), z, np.zeros((3, 3))) for a, b in (("a", "b"), ("b", "c"))
    )
    feeder = Feeder("line", Source("a", float(2.4 * np.sqrt(3))), buses, lines=lines)
    found = replayed(
        feeder, np.array([0.0, -400.0, -300.0]), np.array([0.0, -100.0, 50.0]), "feeder"
    )
    # OpenDSS solves to 1e-6 pu or so.
    np.testing.assert_allclose(found.v_error_pu, 0.0, atol=1e-6)
    assert found.losses_error_kw == pytest.approx(0.0, abs=0.01)
    assert found.import_error_kw == pytest.approx(0.0, abs=0.01)
    assert found.outside == ()


def test_ieee_123_shows_what_balance_and_taps_are_worth() -> None:
    network = branch_network(IEEE123)
    p, q = np.zeros(network.size), np.zeros(network.size)
    for load in IEEE123.loads:
        p[network.row_of[load.bus]] -= 0.5 * load.kw
        q[network.row_of[load.bus]] -= 0.5 * load.kvar
    neutral = replayed(IEEE123, p, q, "neutral")
    assert 0 < abs(neutral.import_error_kw) < 5  # of 1745 kW
    assert 0.001 < np.nanmax(np.abs(neutral.v_error_pu)) < 0.02
    high = replayed(IEEE123, p, q, "feeder")
    assert len(high.outside) > 10  # taps for full load lift half of it above 1.05
    assert high.v_error_pu.max() > 0.05
    auto = replayed(IEEE123, p, q, "auto")
    assert auto.outside == ()


def test_der_ratings_share_a_row_without_loads() -> None:
    feeder = load_feeder("ieee123-der-rich")
    network = branch_network(feeder)
    p = np.full(network.size, -10.0)
    p[0] = 0.0
    found = replayed(feeder, p, np.zeros(network.size), "neutral")
    assert found.p_import_kw == pytest.approx(10.0 * (network.size - 1), rel=0.05)


def test_bad_injections_are_refused() -> None:
    network = branch_network(IEEE123)
    zero = np.zeros(network.size)
    fine = Expected(np.ones(network.size), 0.0, 0.0)
    with pytest.raises(GridModelError, match=r"p_kw.*expected 119 finite"):
        replay_injections(IEEE123, network, np.zeros(3), zero, fine)
    with pytest.raises(GridModelError, match="q_kvar"):
        replay_injections(IEEE123, network, zero, np.full(network.size, np.nan), fine)
    with pytest.raises(GridModelError, match=r"taps.*did you mean 'neutral'"):
        replay_injections(IEEE123, network, zero, zero, fine, taps="neutrl")  # type: ignore[arg-type]
