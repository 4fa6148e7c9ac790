"""Training of a local policy by Adam on the gradient of its closed-loop equilibrium.

Source of the update: D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR
2015, algorithm 1, with a step size that falls to 0 along half a cosine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from controllers.learned_droop.gradient import Cases, Goal, PolicyLoop
from controllers.learned_droop.policy import Policy, loop_gain, uniform_policy

_BETA = 0.9, 0.99
_EPSILON = 1e-8
_FIRST_K = 30.0
_LINEARISE_EVERY = 50


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    updates: int = 300
    batch: int = 64
    step: float = 0.04


class TrainedPolicy(NamedTuple):
    """A policy, the mean loss of each update, and how many updates were made."""

    policy: Policy
    losses: FloatArray


def train_policy(
    loop: PolicyLoop,
    cases: Cases,
    goal: Goal,
    schedule: Schedule,
    seed: int,
    time_share: Callable[[int], float] | None = None,
) -> TrainedPolicy:
    """Train the curves of the loop's DERs on random batches of the cases.

    `time_share`: Is told how many updates are done, and returns the share of the permitted time
    that is over: at 1 the training ends early, with a result that depends on it.

    Raises PowerFlowError: The cases have no equilibria.
    """
    rng = np.random.default_rng(seed)
    loop.linearise(cases)
    policy = uniform_policy(loop.ders, _FIRST_K, 1.0)
    n = len(loop.ders)
    mean, square = np.zeros((2, n, 5))
    losses: list[float] = []
    for i in range(schedule.updates):
        done = max(i / schedule.updates, 0.0 if time_share is None else time_share(i))
        if done >= 1.0:
            break
        if i and i % _LINEARISE_EVERY == 0:
            loop.linearise(cases)
        batch = cases.of(rng.choice(len(cases.source_pu), schedule.batch, replace=False))
        found = loop.gradient(policy, batch, goal)
        slope = np.column_stack([found.by_k * policy.k, found.by_b])
        mean = _BETA[0] * mean + (1.0 - _BETA[0]) * slope
        square = _BETA[1] * square + (1.0 - _BETA[1]) * slope**2
        m, s = mean / (1.0 - _BETA[0] ** (i + 1)), square / (1.0 - _BETA[1] ** (i + 1))
        size = schedule.step * 0.5 * (1.0 + np.cos(np.pi * done))
        move = -size * m / (np.sqrt(s) + _EPSILON)
        policy = replace(policy, k=policy.k * np.exp(move[:, 0]), b=policy.b + move[:, 1:])
        losses.append(found.loss)
    return TrainedPolicy(with_stable_filter(policy, loop), np.array(losses))


def with_stable_filter(policy: Policy, loop: PolicyLoop) -> Policy:
    """Return the policy with filter gain ``1 / (1 + L)``, half of the bound."""
    gain = loop_gain(policy.k, policy.kva, loop.j_pu_per_kvar)
    return replace(policy, filter_gain=1.0 / (1.0 + gain))
