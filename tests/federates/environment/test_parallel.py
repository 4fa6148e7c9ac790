"""The PettingZoo environment: the run's own physics, links and attacks; clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import feederate
from federates.environment.parallel import ParallelFeederEnv
from federates.errors import RunError, ScenarioError
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError, PowerFlowError
from grid_models.ders.volt_var import VoltVarCurves
from grid_models.feeder.model import VoltVarCurve
from grid_models.opendss.circuit import Circuit

_NOON = ("time.start_s=43200", "time.duration_s=100")

_POLICY = """
import numpy as np

from federates.environment.learner import Learner


def law(seen):
    # A droop on the own voltage and on what the neighbours say of theirs, in float32.
    messages = seen[:, 4:].reshape(len(seen), -1, 3)
    heard = messages[:, :, 0].sum(axis=1)
    said = messages[:, :, 1].sum(axis=1) / np.maximum(heard, 1.0)
    v = 0.7 * seen[:, 0] + 0.3 * said
    return np.clip(np.stack([-v, v, np.tanh(seen[:, 1])], axis=1), -1.0, 1.0)


class Policy(Learner):
    def step(self, time_s, inputs, mail):
        self.act(law(self.observe(inputs, mail).astype(np.float32)).astype(np.float64))
        return super().step(time_s, inputs, mail)
"""

_SCENARIO = """
seed: 3
time: {{start_s: 43200, duration_s: 100, step_s: 5, warm_up_s: 10}}
grid:
  model: ieee13
  ders:
    - {{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1136}}
  profiles: {{kind: cloudy}}
federates:
  feeder: {{kind: feeder}}
  volt_var: {{kind: controller, controller: {controller}, options: {options}}}
connections:
  - {{source: feeder.v_pu, target: volt_var.v_pu, noise: 0.001}}
  - feeder.p_kw -> volt_var.p_kw
  - feeder.q_kvar -> volt_var.q_kvar
  - volt_var.q_set_kvar -> feeder.q_set_kvar
links:
  - {{source: "*", target: "*", loss: 0.3, jitter_s: 12, noise: 0.05}}
attack:
  id: noon
  seed: 5
  steps:
    - id: bias
      layer: signal
      trigger: {{at_s: 20}}
      duration_s: 60
      target: {{port: volt_var.v_pu, fraction: 0.3}}
      action: {{kind: bias, value: 0.05}}
    - id: lie
      layer: link
      trigger: {{at_s: 30}}
      duration_s: 40
      target: {{links: ["pv_671_1>*", "*>pv_634_1"]}}
      action: {{kind: tamper, bias: 0.5}}
"""


def _environment(name: str, *overrides: str, mail_width: int | None = None) -> ParallelFeederEnv:
    return ParallelFeederEnv(load_scenario(name, [*_NOON, *overrides]), mail_width)


def _rows(observations: dict[str, Any]) -> np.ndarray:
    return np.stack(list(observations.values()))


def _voltages(
    env: ParallelFeederEnv, policy: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what the feeder publishes in an episode, (steps, nodes), and its metrics."""
    observations, _ = env.reset()
    volts = [env.grid()["v_pu"].copy()]
    infos: dict[str, Any] = {}
    while env.agents:
        rows = policy(_rows(observations))
        actions = dict(zip(env.agents, rows, strict=True))
        observations, _, _, _, infos = env.step(actions)
        volts.append(env.grid()["v_pu"].copy())
    return np.stack(volts), infos[env.possible_agents[0]]["metrics"]


def test_a_policy_gives_the_bytes_of_the_run_under_noise_loss_and_attack(tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    exec(_POLICY, space)
    (tmp_path / "droop_policy_of_a_test.py").write_text(_POLICY)
    own = tmp_path / "own.yaml"
    own.write_text(
        _SCENARIO.format(controller="droop_policy_of_a_test:Policy", options="{mail_width: 2}")
    )
    run = feederate.run(own, placement="single", out=tmp_path / "run", report=False)
    other = tmp_path / "other.yaml"
    other.write_text(_SCENARIO.format(controller="none", options="{}"))
    env = ParallelFeederEnv(load_scenario(other), mail_width=2)
    volts, metrics = _voltages(env, space["law"])
    recorded = run.signals["feeder.v_pu"].to_numpy()
    assert volts.tobytes() == np.ascontiguousarray(recorded).tobytes()
    assert metrics == run.metrics
    assert metrics["mail_lost_count"] > 0


def test_the_droop_law_as_policy_is_the_shipped_droop(tmp_path: Path) -> None:
    changes = {"federates.volt_var.options": {"response_time_s": 0}}
    run = feederate.run(
        "voltvar-ieee123-droop",
        set={"time.start_s": 43200, "time.duration_s": 100, **changes},
        placement="single",
        out=tmp_path / "run",
        report=False,
    )
    # IEEE Std 1547-2018, Table 8, category B.
    curve = VoltVarCurve((0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44), of_rating=True)
    env = _environment("voltvar-ieee123-droop")
    curves = VoltVarCurves([curve] * len(env.possible_agents))

    def droop(seen: np.ndarray) -> np.ndarray:
        return np.asarray(curves.q_pu(1.0 + seen[:, 0] / 20.0) / seen[:, 2])[:, None]

    volts, metrics = _voltages(env, droop)
    # Observations are float32, 3e-9 pu of the own voltage, times the gain of the loop.
    assert volts == pytest.approx(run.signals["feeder.v_pu"].to_numpy(), abs=1e-7)
    assert metrics["abs_q_kvarh"] == pytest.approx(run.metrics["abs_q_kvarh"], rel=1e-5)


def test_it_passes_the_tests_of_pettingzoo() -> None:
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    parallel_api_test(_environment("voltvar-ieee13", mail_width=2), num_cycles=30)
    parallel_seed_test(lambda: _environment("voltvar-ieee13", mail_width=1), num_cycles=1)


def test_episodes_repeat_by_seed_and_differ_without() -> None:
    env = _environment("voltvar-ieee13")
    first = _rows(env.reset(seed=7)[0])
    second = _rows(env.reset()[0])
    assert _rows(env.reset(seed=7)[0]).tobytes() == first.tobytes()
    assert _rows(env.reset()[0]).tobytes() == second.tobytes()
    assert (first != second).any()


def test_mail_arrives_a_step_later_at_the_neighbours_only() -> None:
    env = _environment("voltvar-ieee13", mail_width=1)
    seen, _ = env.reset()
    silent = _rows(seen)
    assert not silent[:, 4:].any()
    marks = np.linspace(-1.0, 1.0, len(env.agents))
    actions = {a: np.array([0.0, mark]) for a, mark in zip(env.agents, marks, strict=True)}
    seen, *_ = env.step(actions)
    messages = _rows(seen)[:, 4:].reshape(len(marks), -1, 2)
    # The electrical neighbours of phase 3 at the end of the feeder: bus 611 hangs on 684 and 671.
    at = env.possible_agents.index("pv_611_3")
    heard = messages[at, messages[at, :, 0] == 1.0, 1]
    assert 1 <= heard.size < len(marks) - 1
    assert set(heard) <= set(np.delete(marks, at).astype(np.float32))


def test_a_scenario_without_controller_gets_agents_at_its_inverters() -> None:
    env = _environment("voltvar-ieee123-none")
    env.reset()
    absorb = dict.fromkeys(env.agents, np.array([-1.0]))
    env.step(absorb)
    assert env.grid()["q_kvar"].max() < 0.0


def test_wrong_actions_are_refused() -> None:
    env = _environment("voltvar-ieee13")
    env.reset()
    good = {agent: np.zeros(1) for agent in env.agents}
    name = env.agents[2]
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "shape": ({**good, name: np.zeros(2)}, f"step: action of '{name}': has shape (2,)"),
        "nan": ({**good, name: np.array([np.nan])}, f"step: action of '{name}': is not finite"),
        "words": ({**good, name: ["low"]}, f"step: action of '{name}': holds no numbers"),
        "missing": ({a: v for a, v in good.items() if a != name}, "is missing"),
        "unknown": ({**good, "pv_611_33": np.zeros(1)}, "did you mean 'pv_611_3'?"),
    }
    for actions, words in wrong.values():
        with pytest.raises(FeederateError) as error:
            env.step(actions)
        assert words in str(error.value)
    with pytest.raises(FeederateError, match="actions of type ndarray; expected a dict"):
        env.step(np.zeros((len(good), 1)))  # type: ignore[arg-type]
    env.step(good)  # what was refused has changed nothing
    with pytest.raises(FeederateError, match="no agent is called 'pv'"):
        env.action_space("pv")


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    env = _environment("voltvar-ieee13")
    with pytest.raises(FeederateError, match=r"reset: found seed .*; expected a whole number"):
        env.reset(seed=seed)


def test_agents_of_a_plant_that_steps_with_them_begin_when_it_has_stepped() -> None:
    env = ParallelFeederEnv(load_scenario("kundur-feeder", ["time.duration_s=1", "attack=null"]))
    seen, infos = env.reset(seed=1)
    assert infos[env.agents[0]]["time_s"] == pytest.approx(0.15)
    assert all(own[0] for own in seen.values())
    steps = 0
    while env.agents:
        _, _, _, ends, infos = env.step({agent: np.zeros(1) for agent in env.agents})
        steps += 1
    assert all(ends.values())
    assert steps == 8
    assert infos[env.possible_agents[0]]["metrics"]["losses_kwh"] > 0.0


def test_a_grid_without_inverters_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"grid\.ders: there is no inverter to command"):
        _environment("line-outage-ieee123")


def test_no_step_without_an_episode() -> None:
    env = _environment("voltvar-ieee13")
    with pytest.raises(FeederateError, match="expected reset"):
        env.step({})


def test_a_power_flow_that_fails_names_the_federate() -> None:
    env = _environment("voltvar-ieee13", "grid.load_scale=60")
    with pytest.raises(RunError, match=r"'feeder'.*did not converge"):
        env.reset()
    env.close()


def test_a_power_flow_that_fails_in_an_episode_ends_it_with_the_penalty() -> None:
    env = _environment("voltvar-ieee13", "environment.failure_penalty=7")
    env.reset()
    zero = {agent: np.zeros(1) for agent in env.agents}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Circuit, "solve", _fail)
        _, rewards, terminated, truncated, infos = env.step(zero)
    assert set(rewards.values()) == {-7.0}
    assert all(terminated.values())
    assert not any(truncated.values())
    assert "federate 'feeder'" in infos["pv_611_3"]["reason"]
    assert not env.agents


def _fail(*_: Any, **__: Any) -> None:
    raise PowerFlowError("did not converge")


def test_the_section_environment_says_what_an_episode_is() -> None:
    section = (
        "time.start_s=36000",
        "time.duration_s=14400",
        "environment.episode_s=20",
        "environment.start_h=[11,13]",
        "environment.load_scale=[0.5,2]",
        "environment.source_v_pu=[0.99,1.01]",
        "environment.reward=nodes-out",
        "environment.mail_width=3",
    )
    env = _environment("voltvar-ieee13", *section)
    assert env.action_space("pv_611_3").shape == (4,)
    loads = set()
    for seed in range(3):
        env.reset(seed=seed)
        federation = env._federation
        assert federation is not None
        scenario = federation.scenario
        assert 39600 <= scenario.time.start_s <= 46800
        assert scenario.time.start_s % 5 == 0
        assert 0.99 <= scenario.grid.source_v_pu <= 1.01  # type: ignore[operator]
        assert 0.5 <= scenario.grid.load_scale <= 2.0
        loads.add(scenario.grid.load_scale)
    steps = 0
    reward: dict[str, float] = {}
    infos: dict[str, Any] = {}
    while env.agents:
        silent = {agent: np.zeros(4) for agent in env.agents}
        _, reward, _, _, infos = env.step(silent)
        steps += 1
    assert steps == 4
    assert len(loads) == 3
    out = infos["pv_611_3"]["nodes_out"]
    assert set(reward.values()) == {-out}
    v = infos["pv_611_3"]["v_max_pu"]
    assert (out > 0) == (v > 1.05 or infos["pv_611_3"]["v_min_pu"] < 0.95)


def test_noise_of_the_section_joins_that_of_the_connection() -> None:
    clean, noisy = (
        _rows(_environment("voltvar-ieee123-imperfect", key).reset(seed=2)[0])
        for key in ("environment.voltage_noise_pu=0", "environment.voltage_noise_pu=0.01")
    )
    spread = np.std(noisy[:, 0] - clean[:, 0]) / 20.0
    # One draw, scaled by the root of 0.001^2 + 0.01^2 in place of 0.001.
    assert 0.006 < spread < 0.013


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("environment.observation=joint", "environment.observation"),
        ("environment.load_diversity=0.2", "environment.load_diversity"),
        ("environment.forged={share: 0.1, bias_pu: 0.1}", "environment.forged"),
        ("environment.start_h=[1,2]", "environment.start_h"),
        ("environment.episode_s=90000", "environment.episode_s"),
        ("environment.reward=nodes_out", "did you mean 'nodes-out'"),
    ],
)
def test_a_section_that_a_federation_cannot_follow_is_refused(key: str, words: str) -> None:
    with pytest.raises(ScenarioError) as error:
        _environment("voltvar-ieee13", key)
    assert words in str(error.value)


def test_a_reward_that_is_not_finite_is_refused() -> None:
    scenario = load_scenario("voltvar-ieee13", _NOON)
    env = ParallelFeederEnv(scenario, reward=lambda outcome: outcome.losses_kw * np.nan)
    env.reset()
    with pytest.raises(FeederateError, match=r"the reward '<lambda>' is \[nan\] at time_s=7.5"):
        env.step({agent: np.zeros(1) for agent in env.agents})


def test_the_facade_reads_a_scenario_with_an_attack() -> None:
    noon = {"time.start_s": 43200, "time.duration_s": 30, "attack.steps.0.trigger.at_s": 0}
    env = feederate.parallel_env("voltvar-ieee123", set=noon, attack="false-voltage")
    seen = _rows(env.reset()[0])
    clean = feederate.parallel_env("voltvar-ieee123", set=dict(list(noon.items())[:2]))
    forged = seen - _rows(clean.reset()[0])
    # A tenth of the 96 inverters reads 0.05 pu more.
    assert np.count_nonzero(forged[:, 0] > 0.99) in (9, 10)
    assert not forged[:, 1:].any()
    env.close()
    clean.close()


def test_two_controllers_of_reactive_power_are_refused(tmp_path: Path) -> None:
    text = _SCENARIO.format(controller="none", options="{}")
    text = text.replace(
        "connections:\n",
        "  second: {kind: controller, controller: none, ders: [pv_611_3]}\n"
        "connections:\n  - second.q_set_kvar -> feeder.q_set_kvar\n",
    )
    path = tmp_path / "two.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="volt_var and second command reactive power"):
        ParallelFeederEnv(load_scenario(path))


def test_unused_connections_of_the_controller_are_said() -> None:
    with pytest.warns(UserWarning, match="is not used") as found:
        _environment("curtailment-ieee123")
    words = [str(warning.message) for warning in found]
    assert any("opf.p_set_kw -> feeder.p_set_kw is not used" in text for text in words)
    assert any("feeder.p_avail_kw -> opf.p_avail_kw is not used" in text for text in words)


def test_a_safety_layer_stays_around_the_agents() -> None:
    keys = {"federates.volt_var.safety": {"kind": "price"}}
    env = feederate.parallel_env("voltvar-ieee13", set=keys)
    env.reset(seed=1)
    for _ in range(4):
        env.step({agent: np.ones(1, dtype=np.float32) for agent in env.agents})
    assert env.grid()["v_pu"].max() < 1.2
    env.close()
