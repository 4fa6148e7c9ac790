"""A scenario as a PettingZoo environment: one agent per inverter, mail over the scenario's links.

J. K. Terry et al., "PettingZoo: Gym for multi-agent reinforcement learning", NeurIPS 2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from federates.environment.drawn import episode_of, refuse_what_cannot_be_drawn
from federates.environment.federation import SteppedFederation
from federates.environment.rewards import Outcome, RewardFunction, reward_of
from federates.errors import RunError
from federates.runs.data import live_voltages
from federates.scenario.environment import Environment
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError, PowerFlowError, listed, nearest_name

PerAgent = dict[str, Any]


class ParallelFeederEnv(ParallelEnv):  # type: ignore[misc]
    """The federation of a scenario, whose inverters are the agents.

    Everything else acts as in ``feederate run``: noise of connections, links, attacks, other
    federates. The agents stand in for the scenario's volt/var controller and have its timing
    (`federates.environment.federation`).

    Observation of an agent, float32 (4 + neighbours (1 + mail_width),): `Learner.observe`. Action,
    float (1 + mail_width,) in -1 to 1: the reactive power as a share of the present headroom, then
    the message to the neighbours. They read it at their next step at the earliest, as the links
    allow.

    An episode ends with the scenario, or after the section's ``episode_s`` (truncation); ``infos``
    then hold the metrics of the run. One whose power flow does not converge is terminated.

    Parameters
    ----------
    scenario : Scenario
        Its section ``environment`` says what an episode is (`federates.environment.drawn`).
    mail_width : Numbers in a message. Default: the section's; 1 where the scenario has links, else
        0.
    reward : In place of the scenario's: takes an `Outcome` of one episode, returns (1,).

    Raises ScenarioError: As `SteppedFederation`; or the section has keys that it cannot follow.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "feederate", "render_modes": []}

    def __init__(
        self,
        scenario: Scenario,
        mail_width: int | None = None,
        reward: RewardFunction | None = None,
    ) -> None:
        self._scenario = scenario
        spec = scenario.environment or Environment()
        refuse_what_cannot_be_drawn(scenario)
        if mail_width is None:
            mail_width = spec.mail_width
        self._mail_width = (1 if scenario.links else 0) if mail_width is None else mail_width
        self._penalty = spec.failure_penalty
        self._reward = reward_of(scenario, reward)
        federation = self._begun(scenario.seed)
        federation.close()
        for words in federation.warnings:
            warnings.warn(words, stacklevel=2)
        learner = federation.learner
        self.possible_agents = list(learner.agent_names)
        self.agents: list[str] = []
        bound, width = learner.observation_bound.astype(np.float32), 1 + self._mail_width
        self.observation_spaces = {a: Box(-bound, bound) for a in self.possible_agents}
        self.action_spaces = {a: Box(-1.0, 1.0, (width,)) for a in self.possible_agents}
        self._seeds: np.random.Generator | None = None
        self._federation: SteppedFederation | None = None

    def observation_space(self, agent: str) -> Box:
        """Return the space of an agent's observations; the same for all."""
        return self._of(self.observation_spaces, agent)

    def action_space(self, agent: str) -> Box:
        """Return the space of an agent's actions; the same for all."""
        return self._of(self.action_spaces, agent)

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[PerAgent, PerAgent]:
        """Begin an episode with the scenario's federation as it starts.

        Parameters
        ----------
        seed : Seed of the scenario in this episode: of its day, sensors, links and draws. Without
            one: the scenario's in the first episode, then drawn by a generator of the
            last seed that was given.
        options : Not used. They are not refused, as the tests of PettingZoo give some.

        Raises FeederateError: The seed is no whole number from 0.
        """
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise FeederateError(
                f"found seed {seed!r}", where="reset", expected="a whole number from 0"
            )
        self.close()
        if seed is None and self._seeds is not None:
            seed = int(self._seeds.integers(1 << 31))
        else:
            seed = self._scenario.seed if seed is None else int(seed)
            self._seeds = np.random.default_rng(seed)
        self._federation = self._begun(seed)
        self._federation.start()
        self._seen = self._federation.read().astype(np.float32)
        self.agents = list(self.possible_agents)
        return self._each(self._seen), self._infos(self._outcome().known())

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[PerAgent, PerAgent, PerAgent, PerAgent, PerAgent]:
        """Command and send, then step the federation until the agents have read again.

        Returns observations, rewards, terminations, truncations and infos by agent.

        Raises FeederateError: An action is missing, unknown, of another shape or not finite; no
            episode goes on.
        Raises RunError: A federate failed; it is named.
        """
        federation = self._federation
        if federation is None or not self.agents:
            raise _no_episode()
        federation.learner.act(self._checked(actions))
        outcome, reason = self._outcome(), None
        try:
            self._seen = federation.read().astype(np.float32)
        except RunError as error:
            if not isinstance(error.__cause__, PowerFlowError):
                raise
            reason, reward = str(error), -self._penalty
        else:
            outcome = self._outcome()
            reward = self._judged(outcome)
        known: dict[str, Any] = {**outcome.known()}
        ended = reason is None and federation.last
        if reason is not None:
            known["reason"] = reason
        elif ended:
            known["metrics"] = federation.finish()
        result = (
            self._each(self._seen),
            dict.fromkeys(self.agents, reward),
            dict.fromkeys(self.agents, reason is not None),
            dict.fromkeys(self.agents, ended),
            self._infos(known),
        )
        if ended or reason is not None:
            self.agents = []
            federation.close()
        return result

    def grid(self) -> dict[str, NDArray[np.float64]]:
        """Return the plant's last outputs: true values, without noise or attack.

        `v_pu` of its nodes, `p_kw` and `q_kvar` of its DERs, `losses_kw`.
        """
        if self._federation is None:
            raise _no_episode()
        return self._federation.grid()

    def close(self) -> None:
        """End the episode and release what its federates hold."""
        self.agents = []
        if self._federation is not None:
            self._federation.close()
            self._federation = None

    def _begun(self, seed: int) -> SteppedFederation:
        return SteppedFederation(episode_of(self._scenario, seed), self._mail_width)

    def _outcome(self) -> Outcome:
        """Return the true state of the grid, as one episode."""
        assert self._federation is not None
        band, grid = self._scenario.band, self._federation.grid()
        return Outcome(
            (band.v_min_pu, band.v_max_pu),
            np.array([self._federation.time_s]),
            live_voltages(grid["v_pu"])[None].copy(),
            grid["losses_kw"].copy(),
            grid["p_kw"][None].copy(),
            grid["q_kvar"][None].copy(),
        )

    def _judged(self, outcome: Outcome) -> float:
        reward = np.asarray(self._reward(outcome))
        if reward.shape != (1,) or reward.dtype.kind not in "fiu" or not np.isfinite(reward).all():
            name = getattr(self._reward, "__name__", type(self._reward).__name__)
            raise FeederateError(
                f"the reward '{name}' is {reward} at time_s={outcome.time_s[0]:g}",
                where=self._scenario.where("environment", "reward"),
                expected="one finite number, of shape (1,)",
            )
        return float(reward[0])

    def _infos(self, known: Mapping[str, Any]) -> PerAgent:
        plain = {k: float(v[0]) if isinstance(v, np.ndarray) else v for k, v in known.items()}
        return {agent: dict(plain) for agent in self.possible_agents}

    def _each(self, rows: NDArray[Any]) -> PerAgent:
        return dict(zip(self.possible_agents, rows, strict=True))

    def _of(self, spaces: Mapping[str, Box], agent: str) -> Box:
        if agent not in spaces:
            raise _no_agent(agent, self.possible_agents)
        return spaces[agent]

    def _checked(self, actions: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the actions as an array, (n, 1 + mail_width), within -1 to 1."""
        if not isinstance(actions, Mapping):
            raise FeederateError(
                f"actions of type {type(actions).__name__}",
                where="step",
                expected="a dict of an action for each agent",
            )
        for agent in actions:
            if agent not in self.action_spaces:
                raise _no_agent(agent, self.possible_agents)
        shape = (1 + self._mail_width,)
        out = np.empty((len(self.possible_agents), *shape))
        for row, agent in zip(out, self.possible_agents, strict=True):
            if agent not in actions:
                raise _bad_action("is missing", agent, "an action for each agent")
            try:
                action = np.asarray(actions[agent], dtype=np.float64)
            except (TypeError, ValueError):
                raise _bad_action("holds no numbers", agent, f"shape {shape}") from None
            if action.shape != shape:
                raise _bad_action(f"has shape {action.shape}", agent, f"shape {shape}")
            row[:] = action
        if not np.isfinite(out).all():
            agent = self.possible_agents[int(np.argmin(np.isfinite(out).all(axis=1)))]
            raise _bad_action("is not finite", agent, "numbers from -1 to 1")
        return np.clip(out, -1.0, 1.0)


def _no_episode() -> FeederateError:
    return FeederateError("no episode goes on", where="environment", expected="reset() before")


def _no_agent(name: str, agents: list[str]) -> FeederateError:
    return FeederateError(
        f"no agent is called '{name}'",
        where="environment",
        expected=f"one of {listed(agents)}",
        nearest=nearest_name(name, agents),
    )


def _bad_action(what: str, agent: str, expected: str) -> FeederateError:
    return FeederateError(what, where=f"step: action of '{agent}'", expected=expected)
