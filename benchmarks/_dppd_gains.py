"""Spectral radius of DPPD's iteration away from all limits, with late messages; see `dppd.py`."""

from __future__ import annotations

import numpy as np

from controllers.frequency.network import ControlNetwork

#: k_phi, k_mu, lead_mu, k_d
Gains = tuple[float, float, float, float]


def radius(network: ControlNetwork, gains: Gains, late: int) -> float:
    """Return the spectral radius when every message is `late` steps late.

    All flexible loads are in motion: their tracked sub-gradient is constant. The virtual angles of
    all buses may rise together, which moves no flow: the eigenvalue 1 of that is left out.
    """
    k_phi, k_mu, lead, k_d = gains
    n, flexible = len(network.buses), np.flatnonzero(network.limit_pu > 0.0)
    f = len(flexible)
    heard = 2 * n * (late + 1)
    x = np.eye(2 * n + f + heard)
    phi, mu, d = x[:n], x[n : 2 * n], x[2 * n : 2 * n + f]
    messages = x[2 * n + f :].reshape(late + 1, 2, n, -1)
    theirs = messages[-1, 0] + k_phi * late * messages[-1, 1]
    adjacency = np.zeros((n, n))
    adjacency[network.target, network.source] = network.weight
    imbalance = adjacency @ theirs - adjacency.sum(axis=1)[:, None] * phi
    imbalance[flexible] -= d
    ahead = mu + lead * imbalance
    slope = 2.0 * network.quadratic[flexible, None] * d
    after_phi = phi + k_phi * ahead
    after = np.concatenate(
        [
            after_phi,
            mu + k_mu * imbalance,
            d - k_d * (slope - ahead[flexible]),
            after_phi,
            ahead,
            messages[:-1].reshape(-1, x.shape[1]),
        ]
    )
    values = np.linalg.eigvals(after)
    return float(np.abs(np.delete(values, np.argmin(np.abs(values - 1.0)))).max())


def tuned(network: ControlNetwork, start: Gains, latest: int) -> tuple[Gains, list[float]]:
    """Return the gains of the smallest radius over messages 0 to `latest` steps late."""
    from scipy.optimize import minimize

    def worst(logarithms: np.ndarray) -> float:
        gains = tuple(np.exp(logarithms))
        return max(radius(network, gains, late) for late in range(latest + 1))

    found = minimize(worst, np.log(start), method="Nelder-Mead", options={"maxiter": 250})
    gains: Gains = tuple(float(g) for g in np.exp(found.x))  # type: ignore[assignment]
    return gains, [radius(network, gains, late) for late in range(latest + 1)]
