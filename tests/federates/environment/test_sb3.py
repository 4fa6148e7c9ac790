"""Episodes as Stable-Baselines3 wants them; of it only the base class's part is imitated."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import feederate

SPEC = {
    "time": {"start_s": 36000.0, "duration_s": 3600.0},
    "environment": {"episode_s": 15.0, "start_h": [10.0, 10.9], "load_scale": [0.5, 1.35]},
}


class VecEnv:
    """What `stable_baselines3.common.vec_env.VecEnv` has for its children."""

    def __init__(self, num_envs: int, observation_space: Any, action_space: Any) -> None:
        self.num_envs = num_envs
        self.observation_space, self.action_space = observation_space, action_space
        self._reset_seeds()

    def _reset_seeds(self) -> None:
        self._seeds: list[int | None] = [None] * self.num_envs

    def seed(self, seed: int) -> None:
        self._seeds = [seed + i for i in range(self.num_envs)]

    def _get_indices(self, indices: Any) -> Any:
        return range(self.num_envs) if indices is None else indices

    def step(self, actions: Any) -> Any:
        self.step_async(actions)  # type: ignore[attr-defined]
        return self.step_wait()  # type: ignore[attr-defined]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("stable_baselines3", "stable_baselines3.common"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("stable_baselines3.common.vec_env")
    module.VecEnv = VecEnv  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    name = "federates.environment.sb3"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name).FeederVecEnv
    sys.modules.pop(name, None)


def test_an_episode_begins_in_the_step_that_ends_another(made: Any) -> None:
    ours = made(feederate.vector_env("voltvar-ieee123", 2, set=SPEC))
    reference = feederate.vector_env("voltvar-ieee123", 2, set=SPEC)
    ours.seed(4)
    seen, expected = ours.reset(), reference.reset(seed=4)[0]
    assert np.array_equal(seen, expected)
    actions = np.full((2, 96), 0.3, dtype=np.float32)
    for k in range(8):
        seen, rewards, over, infos = ours.step(actions)
        expected, gained, _, truncated, _ = reference.step(actions)
        np.testing.assert_allclose(rewards, gained, rtol=1e-5)
        assert over.tolist() == truncated.tolist() == [k in (2, 5)] * 2
        if over.any():
            last = [info["terminal_observation"] for info in infos]
            assert np.array_equal(last, expected)
            assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
            expected, *_ = reference.step(actions)  # begins the next episode
        else:
            assert infos == [{}, {}]
        np.testing.assert_allclose(seen, expected, rtol=0.0, atol=1e-6)
    assert ours.get_attr("num_envs") == [2, 2]
    assert ours.env_is_wrapped(object) == [False, False]
