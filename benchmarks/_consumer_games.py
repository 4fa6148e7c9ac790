"""Random consumer markets, and what a home gains in them by another injection or another bid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.consumer.game import ConsumerClearing, Policy, clear_consumer


@dataclass(frozen=True)
class Games:
    """Bids of h homes under n operators, their targets and the price of the grid."""

    owner: IntArray
    p0: FloatArray
    p_min: FloatArray
    p_max: FloatArray
    gamma: FloatArray
    p_target: FloatArray
    price: FloatArray

    def clear(self, policy: Policy = "allow", plan_price: FloatArray | float = 0.0) -> Any:
        return clear_consumer(
            self.owner, self.p0, self.p_min, self.p_max, self.gamma, self.p_target, self.price,
            policy, plan_price=plan_price,
        )  # fmt: skip

    def sums(self, values: FloatArray) -> FloatArray:
        return np.bincount(self.owner, values, len(self.p_target))


def random_games(n: int, seed: int, homes: tuple[int, int] = (2, 12), part: float = 1.0) -> Games:
    """Draw n operators of `homes` homes each; mostly net loads, asked for up to `part` of their
    flexibility in both directions.
    """
    rng = np.random.default_rng(seed)
    count = rng.integers(homes[0], homes[1] + 1, n)
    owner = np.repeat(np.arange(n), count)
    h = len(owner)
    p0 = rng.uniform(-6.0, 1.5, h)
    p_min, p_max = p0 - rng.uniform(0.0, 3.0, h), p0 + rng.uniform(0.0, 3.0, h)
    at = part * rng.uniform(-1.0, 1.0, n)
    one = Games(owner, p0, p_min, p_max, rng.uniform(0.01, 0.2, h), at, rng.uniform(0.03, 0.4, n))
    room = np.where(at > 0.0, one.sums(p_max - p0), one.sums(p0 - p_min))
    return replace(one, p_target=one.sums(p0) + at * room)


def utility(
    games: Games, found: ConsumerClearing, p: FloatArray, plan_price: FloatArray | float = 0.0
) -> FloatArray:
    """Return what each home gains by injecting `p` at the prices of a clearing, money per h."""
    mu, flex = found.mu[games.owner], found.mu_flex[games.owner]
    paid_plan = np.broadcast_to(plan_price, found.mu.shape)[games.owner]
    moved = p - games.p0
    return mu * p + (flex - paid_plan) * moved - games.gamma * moved**2


def deviation_gain(
    games: Games,
    found: ConsumerClearing,
    plan_price: FloatArray | float = 0.0,
    points: int = 201,
) -> FloatArray:
    """Return the most each home gains by another injection at the same prices, money per h."""
    own = utility(games, found, found.p, plan_price)
    best = np.full(len(own), -np.inf)
    for share in np.linspace(0.0, 1.0, points):
        other = games.p_min + share * (games.p_max - games.p_min)
        best = np.maximum(best, utility(games, found, other, plan_price))
    return best - own


def misreport_gain(games: Games, factors: tuple[float, ...]) -> FloatArray:
    """Return the most that one home of each game gains by a false gamma, money per h, (n,).

    It tells `factor` times its gamma, the market clears with that, and it delivers what it was
    cleared for, at its true disutility.
    """
    found = games.clear()
    honest = utility(games, found, found.p)
    first = np.searchsorted(games.owner, np.arange(len(games.p_target)))
    most = np.full(len(games.p_target), -np.inf)
    for k in range(int(np.bincount(games.owner).max())):
        liar = np.arange(len(games.owner)) == (first + k)[games.owner]
        for factor in factors:
            told = replace(games, gamma=np.where(liar, factor * games.gamma, games.gamma)).clear()
            gain = np.where(liar, utility(games, told, told.p) - honest, -np.inf)
            np.maximum.at(most, games.owner, gain)
    return most
