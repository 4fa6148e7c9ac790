"""Steps per second of CPU time of environments: ours, OpenDSS one at a time, Grid2Op, gym-anm.

    python benchmarks/environment.py [--json] [--seconds 2] [--peers FOLDER]
    python benchmarks/environment.py --ppo STEPS [--policy FILE] [--json]

The feeder is IEEE 123 with 96 inverters (`voltvar-ieee123`), solved to 1e-8 pu by all rows of ours
and by OpenDSS; actions are random and drawn before, episodes of 600 s begin from 6 to 19 h. All
rows are measured in turn, several times, on one core; medians are given. CPU time, so that other
processes of the machine count little.

env_1, env_64, env_1024   environment steps per second of `feederate.env` and `feederate.vector_env`
opendss                   the same step (actions, DERs, observations, rewards) with OpenDSS in place
                          of the batch
parallel                  `feederate.parallel_env`, which steps the whole federation
ratio_64, ratio_1024      over OpenDSS
grid2op, gym_anm          smaller systems, 14 and 6 buses, without and with random actions; null
                          where not installed (here or in FOLDER, by `pip install --target`)

`--ppo` (extra `sb3`) trains PPO of Stable-Baselines3 by so many steps, with all voltages observed,
and gives the mean number of nodes outside the band at held-out instants beside no control, a steep
droop, and a local policy of `feederate train`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

import feederate  # noqa: E402
from controllers.learned_droop.files import policy_of  # noqa: E402
from controllers.learned_droop.policy import Policy, uniform_policy  # noqa: E402
from federates.core.sites import GridSite  # noqa: E402
from federates.environment.observations import V_GAIN  # noqa: E402
from federates.environment.world import World  # noqa: E402
from federates.scenario.schema import Scenario  # noqa: E402

SCENARIO, ROUNDS = "voltvar-ieee123", 3
EXACT = {"grid.tolerance_pu": 1e-8}
EPISODES = {"episode_s": 600.0, "start_h": [6.0, 19.0], "load_scale": [0.5, 1.35]}
Step = Callable[[], int]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--peers", type=Path, help="folder with Grid2Op and gym-anm")
    parser.add_argument("--ppo", type=int, metavar="STEPS")
    parser.add_argument("--policy", type=Path, help="file of a local policy, beside PPO")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = ppo(args.ppo, args.policy) if args.ppo else rates(args.seconds, args.peers)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:14} {value}")


def rates(seconds: float, peers: Path | None) -> dict[str, Any]:
    """Return steps per second of all environments."""
    scenario = feederate.load(SCENARIO, set={"environment": EPISODES, **EXACT})
    steps: dict[str, Step] = {
        "env_1": one(feederate.env(scenario, seed=0)),
        "env_64": many(scenario, 64),
        "env_1024": many(scenario, 1024),
        "opendss": by_opendss(scenario),
        "parallel": parallel(scenario),
    }
    measured: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            measured[name].append(rate(step, seconds))
    found: dict[str, Any] = {name: round(statistics.median(x), 1) for name, x in measured.items()}
    for name in ("env_64", "env_1024"):
        ratio = statistics.median(map(_over, measured[name], measured["opendss"]))
        found[name.replace("env", "ratio")] = round(ratio, 1)
    return found | by_peers(seconds, peers)


def _over(one: float, other: float) -> float:
    return one / other


def rate(step: Step, seconds: float) -> float:
    """Return environment steps per second of CPU; `step` returns how many it was."""
    step()
    begin, count = time.process_time(), 0
    while time.process_time() - begin < seconds:
        count += step()
    return count / (time.process_time() - begin)


def one(env: Any) -> Step:
    """Return a step of a Gymnasium environment."""
    actions = drawn(env.action_space)
    env.reset()

    def step() -> int:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()
        return 1

    return step


def many(scenario: Scenario, n: int) -> Step:
    """Return a step of a vector environment."""
    envs = feederate.vector_env(scenario, n, seed=0)
    actions = drawn(envs.action_space)
    envs.reset()

    def step() -> int:
        envs.step(next(actions))
        return n

    return step


def drawn(space: Any) -> Iterator[Any]:
    """Return random actions without end."""
    return itertools.cycle([space.sample() for _ in range(20)])


def parallel(scenario: Scenario) -> Step:
    """Return a step of the federation, one agent per inverter."""
    whole_day = {"time.duration_s": 86400, "environment": None}  # a start takes longer than steps
    env = feederate.parallel_env(scenario, set=whole_day)
    env.reset(seed=0)
    actions = {agent: drawn(env.action_space(agent)) for agent in env.possible_agents}

    def step() -> int:
        env.step({agent: next(own) for agent, own in actions.items()})
        if not env.agents:
            env.reset()
        return 1

    return step


class OneWorld(World):
    """An episode whose power flows are OpenDSS' own."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario, 1)
        self._circuit = GridSite(scenario).take_circuit()

    def solve(self, rows: Any = None) -> Any:
        """Solve the present step; the source's voltage is the scenario's."""
        load_kva, der_kva, _ = self.powers()
        circuit = self._circuit
        circuit.set_loads(load_kva[0].real, load_kva[0].imag)
        circuit.set_ders(der_kva[0].real, der_kva[0].imag)
        circuit.solve()
        self.v_pu, self._losses_kw = circuit.v_pu()[None], np.array([circuit.losses_kw()])
        return np.ones(1, dtype=bool)


def by_opendss(scenario: Scenario) -> Step:
    """Return a step of the same environment with one power flow of OpenDSS."""
    env = feederate.env(scenario, seed=0)
    env.world = OneWorld(scenario)
    return one(env)


def by_peers(seconds: float, folder: Path | None) -> dict[str, Any]:
    """Return what other environments make, in a process of their own."""
    script = Path(__file__).with_name("_environment_peers.py")
    path = {} if folder is None else {"PYTHONPATH": str(folder.absolute())}
    done = subprocess.run(
        [sys.executable, script, str(seconds)],
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


# ---------------------------------------------------------------------- PPO

VARIED = {
    **EPISODES,
    "observation": "joint",
    "load_diversity": 0.25,
    "source_v_pu": [0.987, 1.0065],
    "reward_options": {"per_pu": 10.0, "per_kw": 0.002},
}
SHIFTS: dict[str, dict[str, Any]] = {
    "base": {},
    "load x0.5": {"environment.load_scale": [0.5, 0.5]},
    "tap 4": {"grid.taps.rg1": 4},
}
HELD_OUT_SEED, INSTANTS, STEPS = 101, 64, 120
STEEP, STEEP_GAIN = 20.0, 0.02
"""All reactive power at 0.95 and 1.05 pu, behind a filter slow enough that it settles."""


def ppo(steps: int, file: Path | None) -> dict[str, Any]:
    """Return nodes outside the band with PPO and beside it, and its steps and CPU seconds."""
    import stable_baselines3

    import federates.environment.sb3 as ours

    envs = feederate.vector_env(SCENARIO, 64, seed=0, set={"environment": VARIED})
    model = stable_baselines3.PPO(
        "MlpPolicy",
        ours.FeederVecEnv(envs),
        n_steps=32,
        batch_size=512,
        gamma=0.0,  # a set-point acts in the next step and is forgotten after it
        learning_rate=3e-4,
        policy_kwargs={"log_std_init": -1.5},
        seed=0,
        device="cpu",
    )
    begin = time.process_time()
    model.learn(steps)
    found: dict[str, Any] = {"ppo_steps": model.num_timesteps}
    found["ppo_seconds"] = round(time.process_time() - begin, 1)
    inverters = GridSite(feederate.load(SCENARIO)).feeder.ders
    local = {"steep droop": uniform_policy(inverters, STEEP, STEEP_GAIN)}
    if file is not None:
        local["local policy"] = policy_of(file.read_text(encoding="utf-8"), str(file))
    for shift, changes in SHIFTS.items():
        policies: dict[str, Any] = {name: Filtered(one) for name, one in local.items()}
        policies["none"] = lambda seen: np.zeros((INSTANTS, 96))
        policies["ppo"] = lambda seen: model.predict(seen, deterministic=True)[0]
        found[shift] = {name: nodes_out(one, changes) for name, one in policies.items()}
    return found


class Filtered:
    """A local policy in a batch of episodes: it acts on filtered voltages of its own."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._w_pu: Any = None

    def __call__(self, seen: Any) -> Any:
        """Return the shares of headroom, (N, n_inverters)."""
        own = seen[:, : 4 * 96].reshape(-1, 96, 4).astype(np.float64)
        v_pu = 1.0 + own[..., 0] / V_GAIN
        w_pu = v_pu if self._w_pu is None else self._w_pu
        self._w_pu = self._policy.filtered(w_pu, v_pu)
        return np.clip(self._policy.wanted_pu(self._w_pu, own[..., 1]), -1.0, 1.0)


def nodes_out(policy: Callable[[Any], Any], changes: dict[str, Any]) -> float:
    """Return the mean number of nodes outside the band, over instants of a held-out day."""
    spec = {**VARIED, "load_scale": [1.0, 1.0], "load_diversity": 0.0, "source_v_pu": None}
    spec["episode_s"] = 5.0 * STEPS
    envs = feederate.vector_env(
        SCENARIO, INSTANTS, seed=1, set={"environment": spec, "seed": HELD_OUT_SEED, **changes}
    )
    seen, _ = envs.reset()
    counts = []
    for k in range(STEPS):
        seen, _, _, _, infos = envs.step(policy(seen))
        if k >= STEPS // 2:  # after the first set-points have settled
            counts.append(infos["nodes_out"])
    return round(float(np.mean(counts)), 2)


if __name__ == "__main__":
    main()
