"""A scenario's feeder as Gymnasium knows it: one episode, or N with one batch of power flows.

M. Towers et al., "Gymnasium: A standard interface for reinforcement learning environments", 2024.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.environment.observations import Observation
from federates.environment.profile import drawn
from federates.environment.rewards import Outcome, RewardFunction
from federates.environment.world import World
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError

Action = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Result = tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]
RENDER_MODES = ("ansi",)


def spaces(world: World) -> tuple[Any, Any]:
    """Return the spaces of one episode's observations and actions."""
    limit = world.observer.limit
    return Box(-limit, limit), Box(-1.0, 1.0, (world.n_actions,))


def episode_generator(of_environment: np.random.Generator) -> np.random.Generator:
    """Return the generator of an environment's next episode."""
    return np.random.default_rng(of_environment.integers(2**63))


def refuse_options(options: dict[str, Any] | None) -> None:
    """Raise FeederateError where `reset` is given options: it has none."""
    if options:
        raise FeederateError(
            f"options {', '.join(options)}",
            where="reset",
            expected="no options; the scenario's section 'environment' says what an episode is",
        )


def _checked_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, *RENDER_MODES):
        raise FeederateError(
            f"found {render_mode!r}", where="render_mode", expected="'ansi' or None"
        )
    return render_mode


class FeederEnv(gymnasium.Env[Observation, Action]):
    """One episode of a scenario's feeder.

    Action, float (n_actions,) in -1 to 1: reactive power of each inverter as a share of its
    headroom, then active power of each battery as a share of its present limit. Observation: see
    `federates.environment.observations.Observer`.

    An episode is truncated at its end, and terminated where the power flow does not converge; the
    info then has a `reason`, and the reward is minus `failure_penalty`.

    Parameters
    ----------
    scenario : Its controllers are not used.
    seed : Of the first `reset` without a seed.
    reward : In place of the scenario's: takes an `Outcome` of one episode, returns (1,).
    render_mode : {None, 'ansi'}
    """

    metadata = {  # noqa: RUF012 - no ClassVar in the base class
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
    }

    def __init__(
        self,
        scenario: Scenario,
        seed: int | None = None,
        reward: RewardFunction | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = _checked_mode(render_mode)
        self.world = World(scenario, 1, reward)
        self.observation_space, self.action_space = spaces(self.world)
        self._seed, self._going = seed, False
        name = re.sub(r"[^\w.-]", "-", scenario.name)
        kwargs = {"scenario": scenario, "seed": seed, "reward": reward, "render_mode": render_mode}
        place = f"{__name__}:{type(self).__name__}"
        self.spec = EnvSpec(f"feederate/{name}-v0", entry_point=place, kwargs=kwargs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Raises PowerFlowError: Its first power flow does not converge.
        """
        refuse_options(options)
        super().reset(seed=self._seed if seed is None else seed)
        self._seed = None
        world, rows = self.world, np.arange(1)
        world.restart(rows, [episode_generator(self.np_random)])
        world.refuse_unsolved(rows[~world.solve()])
        self._going = True
        return world.observe()[0], _info(world.outcome())

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance by one step of the feeder.

        Raises FeederateError: The action has another shape or is no number, the reward is not
        finite, or the episode has ended.
        """
        if not self._going:
            raise FeederateError("no episode is going on", where="step", expected="reset() before")
        world = self.world
        world.act(world.of_shape(action, (world.n_actions,))[None])
        solved = world.solve()
        outcome = world.outcome()
        reward, info = float(world.rewards(outcome, solved)[0]), _info(outcome)
        terminated, truncated = not solved[0], bool(world.ended()[0])
        if terminated:
            info["reason"] = world.reason(0)
        self._going = not (terminated or truncated)
        return world.observe()[0], reward, bool(terminated), truncated, info

    def render(self) -> str | None:
        """Return the voltages as text."""
        if self.render_mode is None:
            return None
        return drawn(self.world.v_pu[0], self.world.band)


def _info(outcome: Outcome) -> dict[str, Any]:
    return {name: float(values[0]) for name, values in outcome.known().items()}


class FeederVectorEnv(VectorEnv[Observation, Action, NDArray[Any]]):
    """N episodes of a scenario's feeder, each as that of a `FeederEnv`.

    The step after the end of an episode begins the next one, with reward 0
    (`AutoresetMode.NEXT_STEP`), so that each step is one batch of power flows. Equal seeds give
    equal bytes for equal N.

    Parameters
    ----------
    scenario, reward, render_mode : As of `FeederEnv`; the reward returns (N,).
    num_envs : N.
    seed : Of the first `reset` without a seed: environment i has `seed` + i.
    """

    metadata = {  # noqa: RUF012 - no ClassVar in the base class
        **FeederEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        scenario: Scenario,
        num_envs: int,
        seed: int | None = None,
        reward: RewardFunction | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = _checked_mode(render_mode)
        self.world = World(scenario, num_envs, reward)
        self.num_envs, self._seed = self.world.n, seed
        self.single_observation_space, self.single_action_space = spaces(self.world)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._generators: list[np.random.Generator] = []
        self._over = np.zeros(self.num_envs, dtype=bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin N episodes; environment i has `seed` + i, or number i of a list.

        Raises PowerFlowError: A first power flow does not converge.
        """
        refuse_options(options)
        self._take_seed(self._seed if seed is None else seed)
        self._seed = None
        rows = np.arange(self.num_envs)
        self.restart(rows)
        self.world.refuse_unsolved(rows[~self.world.solve()])
        self._over = np.zeros(self.num_envs, dtype=bool)
        solved = np.ones(self.num_envs, dtype=bool)
        return self.world.observe(), self._infos(self.world.outcome(), solved)

    def _take_seed(self, seed: int | Sequence[int | None] | None) -> None:
        if seed is None:
            if not self._generators:
                self._generators = [np_random()[0] for _ in range(self.num_envs)]
            return
        n = self.num_envs
        seeds = list(seed) if isinstance(seed, Sequence) else [seed + i for i in range(n)]
        if len(seeds) != n:
            raise FeederateError(
                f"{len(seeds)} seeds", where="reset", expected=f"{n} seeds, or one"
            )
        self._generators = [np_random(one)[0] for one in seeds]

    def restart(self, rows: NDArray[np.intp]) -> None:
        """Begin the next episode of some environments; the power flow is yet to be solved."""
        self.world.restart(rows, [episode_generator(self._generators[i]) for i in rows.tolist()])

    def step(self, actions: Action) -> Result:
        """Advance all episodes by one step of the feeder; begin a new one where one had ended.

        Raises FeederateError: The actions have another shape or are no numbers, a reward is not
        finite, or `reset` was not called.
        Raises PowerFlowError: The first power flow of a new episode does not converge.
        """
        if not self._generators:
            raise FeederateError("no episode is going on", where="step", expected="reset() before")
        world, fresh = self.world, self._over
        world.act(actions)
        if fresh.any():
            self.restart(np.flatnonzero(fresh))
        solved = world.solve()
        world.refuse_unsolved(np.flatnonzero(fresh & ~solved))
        outcome = world.outcome()
        rewards = np.where(fresh, 0.0, world.rewards(outcome, solved))
        terminated, truncated = ~solved, world.ended()
        self._over = terminated | truncated
        return world.observe(), rewards, terminated, truncated, self._infos(outcome, solved)

    def _infos(self, outcome: Outcome, solved: BoolArray) -> dict[str, Any]:
        """Return the infos of all environments, with a mask each."""
        n = self.num_envs
        infos: dict[str, Any] = {}
        for name, values in outcome.known().items():
            infos |= {name: values, f"_{name}": np.ones(n, dtype=bool)}
        if not solved.all():
            reasons = np.full(n, None, dtype=object)
            for row in np.flatnonzero(~solved).tolist():
                reasons[row] = self.world.reason(row)
            infos |= {"reason": reasons, "_reason": ~solved}
        return infos

    def render(self) -> tuple[str, ...] | None:
        """Return the voltages of each episode as text."""
        if self.render_mode is None:
            return None
        return tuple(drawn(v_pu, self.world.band) for v_pu in self.world.v_pu)
