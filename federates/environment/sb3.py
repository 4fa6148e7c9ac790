"""N episodes of a feeder as Stable-Baselines3 knows them (extra ``sb3``).

A. Raffin et al., "Stable-Baselines3: Reliable reinforcement learning implementations", JMLR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from federates.environment.gymnasium_env import FeederVectorEnv


class FeederVecEnv(VecEnv):  # type: ignore[misc]
    """Episodes of a `FeederVectorEnv`; a new one begins in the step that ends another.

    >>> FeederVecEnv(feederate.vector_env("voltvar-ieee123", num_envs=64))   # doctest: +SKIP
    """

    def __init__(self, env: FeederVectorEnv) -> None:
        self.env, self.render_mode = env, env.render_mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin N episodes with the seeds of `seed`."""
        seeds = self._seeds if self._seeds[0] is not None else None
        self._reset_seeds()
        return self.env.reset(seed=seeds)[0]

    def step_async(self, actions: Any) -> None:
        """Keep the actions of the next `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Return observations, rewards, ends and a dict for each episode."""
        world = self.env.world
        world.act(self._actions)
        solved = world.solve()
        rewards = world.rewards(world.outcome(), solved)
        seen, truncated = world.observe(), world.ended()
        over = ~solved | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        rows = np.flatnonzero(over)
        for row in rows.tolist():
            infos[row] = {
                "terminal_observation": seen[row].copy(),
                "TimeLimit.truncated": bool(truncated[row] and solved[row]),
            } | ({} if solved[row] else {"reason": world.reason(row)})
        if rows.size:
            self.env.restart(rows)
            world.refuse_unsolved(rows[~world.solve(rows)])
            seen[rows] = world.observe(rows)
        return seen, rewards.astype(np.float32), over, infos

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environment, for each episode."""
        return [getattr(self.env, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment, which all episodes share."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the environment once; return its result for each episode."""
        return [getattr(self.env, method_name)(*args, **kwargs)] * len(self._rows(indices))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that no episode is wrapped."""
        return [False] * len(self._rows(indices))

    def get_images(self) -> Sequence[Any]:
        """Return no pictures: rendering is text."""
        return [None] * self.num_envs

    def _rows(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))
