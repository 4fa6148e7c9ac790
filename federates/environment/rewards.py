"""Rewards by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from controllers.core.named_classes import NamedClasses
from federates.core.federate import FloatArray
from federates.errors import ScenarioError
from federates.scenario.environment import Environment
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError
from grid_models.base.options import Options, option, parse_options


@dataclass(frozen=True)
class Outcome:
    """N episodes after a step; where a power flow did not converge, after the last that did.

    Attributes
    ----------
    band : Lower and upper end of the voltage band, pu.
    time_s : (N,). Since the start of the run.
    v_pu : (N, n_nodes). Node voltages; a node without supply is NaN.
    losses_kw : (N,)
    p_kw, q_kvar : (N, n_ders). What the DERs inject.
    """

    band: tuple[float, float]
    time_s: FloatArray
    v_pu: FloatArray
    losses_kw: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray

    def outside_pu(self) -> FloatArray:
        """Return by how much each voltage is outside the band, (N, n_nodes); 0 inside."""
        low, high = self.band
        return np.asarray(np.fmax(np.fmax(low - self.v_pu, self.v_pu - high), 0.0))

    def known(self) -> dict[str, FloatArray]:
        """Return what an environment's infos tell of each episode, (N,) each."""
        return {
            "time_s": self.time_s,
            "nodes_out": self.nodes_out(),
            "losses_kw": self.losses_kw,
            "v_min_pu": np.fmin.reduce(self.v_pu, axis=1),
            "v_max_pu": np.fmax.reduce(self.v_pu, axis=1),
        }

    def nodes_out(self) -> FloatArray:
        """Return how many nodes are outside the band, (N,), as in the metrics of a run."""
        low, high = self.band
        out = (self.v_pu < low) | (self.v_pu > high)
        return np.asarray(np.count_nonzero(out, axis=1), dtype=np.float64)


RewardFunction = Callable[[Outcome], ArrayLike]


class Reward(Protocol):
    """Judges a step of N episodes."""

    def __call__(self, outcome: Outcome) -> FloatArray:
        """Return the reward of each episode, (N,)."""


@dataclass(frozen=True)
class VoltageLosses(Options):
    """Minus the voltage outside the band, summed over all nodes, and minus the losses."""

    per_pu: float = option(10.0, "Cost of 1 pu outside the band at one node.", low=0.0)
    per_kw: float = option(0.01, "Cost of 1 kW of losses.", low=0.0)
    per_kvar: float = option(0.0, "Cost of 1 kvar of any DER.", low=0.0)

    def __call__(self, outcome: Outcome) -> FloatArray:
        """Return the reward of each episode, (N,)."""
        cost = self.per_pu * outcome.outside_pu().sum(axis=1) + self.per_kw * outcome.losses_kw
        if self.per_kvar:
            cost += self.per_kvar * np.abs(outcome.q_kvar).sum(axis=1)
        return np.asarray(-cost)


@dataclass(frozen=True)
class NodesOut(Options):
    """Minus the number of nodes outside the voltage band."""

    def __call__(self, outcome: Outcome) -> FloatArray:
        """Return the reward of each episode, (N,)."""
        return np.asarray(-outcome.nodes_out())


REWARDS: NamedClasses[Reward] = NamedClasses(
    what="reward",
    protocol="federates.environment.rewards.Reward",
    methods={"__call__": "outcome"},
    shipped={
        "voltage-losses": (
            f"{__name__}:{VoltageLosses.__name__}",
            "minus the voltage outside the band, over all nodes, and the losses",
        ),
        "nodes-out": (
            f"{__name__}:{NodesOut.__name__}",
            "minus the number of nodes outside the band",
        ),
    },
)


def reward_of(scenario: Scenario, given: RewardFunction | None) -> RewardFunction:
    """Return the reward that is given, else the one that a scenario names.

    Raises ScenarioError: There is no such reward, or its options are wrong.
    Raises FeederateError: What is given cannot be called.
    """
    if given is None:
        return _named_reward(scenario)
    if not callable(given):
        raise FeederateError(
            f"found {given!r}",
            where="reward",
            expected="a function of an Outcome; the scenario's key environment.reward takes names",
        )
    return given


def _named_reward(scenario: Scenario) -> RewardFunction:
    """Return the reward that a scenario names."""
    spec = scenario.environment or Environment()
    key = "reward"
    try:
        found = REWARDS.resolve(spec.reward)
        key = "reward_options"
        if issubclass(found, Options):
            return parse_options(found, spec.reward_options, spec.reward)
        return found(**spec.reward_options)
    except FeederateError as error:
        place = f"{scenario.where('environment', key)}: {error.where}"
        raise ScenarioError(
            error.what, where=place, expected=error.expected, nearest=error.nearest
        ) from None
    except TypeError as error:
        raise ScenarioError(
            f"'{spec.reward}' cannot be made: {error}", where=scenario.where("environment", key)
        ) from error
