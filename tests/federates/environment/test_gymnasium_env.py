"""The Gymnasium environments: checks of the library, seeds, ends of episodes, errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import feederate
from federates.environment.rewards import Outcome
from federates.environment.world import World
from feederate import FeederateError, ScenarioError

VARIED = {
    "time": {"start_s": 36000.0, "duration_s": 7200.0},
    "environment": {
        "observation": "joint",
        "episode_s": 20.0,
        "start_h": [10.0, 11.5],
        "load_scale": [0.5, 1.35],
        "load_diversity": 0.25,
        "source_v_pu": [0.987, 1.0065],
        "voltage_noise_pu": 0.001,
        "forged": {"share": 0.1, "bias_pu": 0.03},
    },
}
SHORT = {"time": {"start_s": 36000.0, "duration_s": 60.0}}


def rolled(env: Any, steps: int, seed: int | None) -> list[Any]:
    """Return all that an environment gives under actions drawn by its space."""
    env.action_space.seed(0)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(steps))]


def assert_same(a: Any, b: Any, atol: float = 0.0) -> None:
    for one, other in zip(a, b, strict=True):
        if isinstance(one, tuple):
            assert_same(one, other, atol)
        elif isinstance(one, dict):
            assert one.keys() == other.keys()
            assert_same(one.values(), other.values(), atol)
        else:
            np.testing.assert_allclose(one, other, rtol=0.0, atol=atol)


@pytest.mark.parametrize("changes", [SHORT, VARIED])
def test_gymnasiums_check(changes: dict[str, Any]) -> None:
    env = feederate.env("voltvar-ieee123", set=changes, render_mode="ansi")
    check_env(env)
    assert env.observation_space.dtype == np.float32


def test_a_vector_is_as_many_single_environments() -> None:
    given = feederate.load("voltvar-ieee123", set=VARIED)
    ours = feederate.vector_env(given, num_envs=3)
    theirs = SyncVectorEnv(
        [lambda: feederate.env(given)] * 3, autoreset_mode=ours.metadata["autoreset_mode"]
    )
    assert ours.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    # Episodes of four steps: two of them end. Batches of other sizes agree to 1e-10 pu.
    assert_same(rolled(ours, 11, seed=5), rolled(theirs, 11, seed=5), atol=1e-5)


def test_equal_seeds_give_equal_bytes() -> None:
    env = feederate.vector_env("voltvar-ieee123", num_envs=4, set=VARIED, seed=3)
    first = rolled(env, 6, seed=None)
    assert_same(first, rolled(env, 6, seed=3))
    other = feederate.vector_env("voltvar-ieee123", num_envs=4, set=VARIED)
    assert_same(first, rolled(other, 6, seed=3))
    seen = other.reset(seed=[3, 3, 4, 9])[0]
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    assert np.array_equal(seen[2], first[0][0][1])


def test_an_episode_is_truncated_and_the_next_begins() -> None:
    env = feederate.vector_env("voltvar-ieee123", num_envs=2, set=VARIED, seed=0)
    results = rolled(env, 10, seed=0)[1:]
    ends = [result[3].tolist() for result in results]
    assert ends == [[k in (3, 8)] * 2 for k in range(10)]
    assert not any(result[2].any() for result in results)
    assert [result[1].any() for result in results] == [k not in (4, 9) for k in range(10)]
    assert results[4][4]["time_s"].tolist() != (results[3][4]["time_s"] + 5.0).tolist()


def test_shares_of_a_float_and_beyond_1_are_the_limits() -> None:
    env = feederate.env("voltvar-ieee123", set=SHORT)
    env.reset()
    seen = env.step(np.full(96, 5.0))[0].reshape(96, 4)
    np.testing.assert_allclose(seen[:, 3], seen[:, 2], atol=0.02)  # q is the headroom
    assert (seen[:, 3] <= seen[:, 2] + 1e-6).all()


def overload(world: World, row: int) -> Any:
    """Let each inverter of an episode inject 3 MW; return what gives the powers otherwise."""
    own = world.powers

    def powers(rows: Any = slice(None)) -> Any:
        load_kva, der_kva, source_pu = own(rows)
        der_kva[row] = 3000.0
        return load_kva, der_kva, source_pu

    world.powers = powers  # type: ignore[method-assign]
    return own


def test_a_voltage_collapse_ends_the_episode_with_a_reason() -> None:
    changes = {**SHORT, "environment.failure_penalty": 777.0}
    env = feederate.env("voltvar-ieee123", set=changes)
    env.reset(seed=1)
    overload(env.world, 0)
    seen, reward, terminated, truncated, info = env.step(np.zeros(96))
    assert (reward, terminated, truncated) == (-777.0, True, False)
    assert info["reason"] == "the power flow did not converge at time_s=5"
    assert np.isfinite(seen).all()
    with pytest.raises(FeederateError, match=r"no episode is going on; expected reset\(\)"):
        env.step(np.zeros(96))

    vector = feederate.vector_env("voltvar-ieee123", num_envs=2, set=changes, seed=1)
    vector.reset()
    given = overload(vector.world, 1)
    seen, rewards, ends, _, infos = vector.step(np.zeros((2, 96)))
    assert ends.tolist() == [False, True]
    assert rewards[1] == -777.0
    assert rewards[0] > -777.0
    assert infos["_reason"].tolist() == [False, True]
    assert infos["reason"][1] == info["reason"]
    assert np.isfinite(seen).all()
    vector.world.powers = given  # type: ignore[method-assign]
    seen, rewards, ends, _, infos = vector.step(np.zeros((2, 96)))
    assert not ends.any()
    assert (rewards[1], infos["time_s"].tolist()) == (0.0, [10.0, 0.0])


def test_an_episode_that_cannot_begin_is_an_error() -> None:
    env = feederate.env("voltvar-ieee123", set={**SHORT, "grid.ders.0.kw_per_load_kw": 300})
    with pytest.raises(FeederateError, match="did not converge at the begin of 1 of 1 episodes"):
        env.reset(seed=1)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.zeros(95), r"shape \(95,\); expected numbers from -1 to 1 of shape \(96,\)"),
        ([[0.0], [0.0, 0.0]], "type object"),
        (np.full(96, np.nan), r"the action of 'pv_1_1' is nan; expected a number from -1 to 1"),
        (np.full(96, np.inf), "the action of 'pv_1_1' is inf"),
        (np.full(96, "x"), "numbers from -1 to 1"),
    ],
)
def test_actions_that_are_none(action: Any, words: str) -> None:
    env = feederate.env("voltvar-ieee123", set=SHORT)
    env.reset()
    with pytest.raises(FeederateError, match=words):
        env.step(action)


def nothing(outcome: Outcome) -> Any:
    return outcome.losses_kw * np.nan


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (nothing, r"the reward 'nothing' is nan in episode 0 at time_s=5; expected finite numbers"),
        (lambda outcome: 1.0, r"shape \(\); expected finite numbers of shape \(1,\)"),
    ],
)
def test_rewards_that_are_none(reward: Any, words: str) -> None:
    env = feederate.env("voltvar-ieee123", set=SHORT, reward=reward)
    env.reset()
    with pytest.raises(FeederateError, match=words):
        env.step(np.zeros(96))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid.regulators": "auto"}, "expected grid.regulators: fixed"),
        ({"grid.grid_forming": {"p_max_kw": 1e4}}, "expected no island"),
        ({"grid.ders": []}, "DERs to command, of kind pv, battery, inverter"),
        ({"federates.feeder.offset_s": 1.0}, "without settle_s, period_s and offset_s"),
        ({"environment.reward": "voltage-loses"}, "did you mean 'voltage-losses'"),
        (
            {"environment": {"reward": "nodes-out", "reward_options": {"per_pu": 1}}},
            "unknown option 'per_pu'; expected no options",
        ),
        ({"environment.reward_options": {"per_kv": 1}}, "did you mean 'per_k"),
        ({"environment.start_h": [0, 1]}, r"environment.start_h.*inside the run, 10 h to"),
        ({"environment.episode_s": 100.0}, "an episode of 100 s .* does not fit into the run"),
        ({"attack": "false-voltage"}, "no attack"),
    ],
)
def test_scenarios_without_episodes(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        feederate.env("voltvar-ieee123", set={**SHORT, **changes})


def test_numbers_of_environments_seeds_and_options() -> None:
    with pytest.raises(FeederateError, match="num_envs: found 0; expected a whole number from 1"):
        feederate.vector_env("voltvar-ieee123", num_envs=0)
    env = feederate.vector_env("voltvar-ieee123", num_envs=2, set=SHORT)
    with pytest.raises(FeederateError, match="3 seeds; expected 2 seeds, or one"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(FeederateError, match="options hour; expected no options"):
        env.reset(options={"hour": 3})
    with pytest.raises(FeederateError, match="'human'; expected 'ansi' or None"):
        feederate.env("voltvar-ieee123", render_mode="human")
    with pytest.raises(FeederateError, match="reward: found 'nodes-out'; expected a function"):
        feederate.env("voltvar-ieee123", reward="nodes-out")  # type: ignore[arg-type]


def test_a_copy_goes_on_as_the_environment_itself() -> None:
    env = feederate.env("voltvar-ieee13", set=VARIED)
    env.reset(seed=3)
    rows = [env.step(np.full(env.world.n_actions, 0.5)), env.step(np.ones(env.world.n_actions))]
    env.reset(seed=3)
    env.step(np.full(env.world.n_actions, 0.5))
    for copy in (deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert_same(copy.step(np.ones(env.world.n_actions)), rows[1])


def test_a_reward_of_ones_own(tmp_path: Path) -> None:
    text = (
        "class Peak:\n    def __call__(self, outcome):\n        return -outcome.v_pu.max(axis=1)\n"
    )
    (tmp_path / "own_rewards.py").write_text(text)
    found = feederate.load("voltvar-ieee123")
    path = tmp_path / "own.yaml"
    path.write_text(Path(found.given.path).read_text())
    env = feederate.env(path, set={**SHORT, "environment.reward": "own_rewards:Peak"})
    env.reset()
    _, reward, _, _, info = env.step(np.zeros(96))
    assert reward == -info["v_max_pu"]


def test_rendering() -> None:
    env = feederate.env("voltvar-ieee123", set=SHORT, render_mode="ansi")
    _, info = env.reset()
    text = env.render()
    assert text is not None
    assert text.endswith(
        f"274 nodes, {info['nodes_out']:.0f} outside 0.95 to 1.05 pu; lowest "
        f"{info['v_min_pu']:.4f}, highest {info['v_max_pu']:.4f}"
    )


def test_without_gymnasium_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, feederate\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'gymnasium': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "for make in (feederate.env, lambda name: feederate.vector_env(name, 2)):\n"
        "    try: make('voltvar-ieee123')\n"
        "    except feederate.FeederateError as error: print(error)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = "gymnasium is not installed; expected pip install 'feederate[rl]' before"
    assert done.stdout.splitlines() == [expected] * 2
