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
from grid_models.base.errors import FeederateError
from grid_models.ders.volt_var import VoltVarCurves
from grid_models.feeder.model import VoltVarCurve

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
    env.step(good)  # what was refused has changed nothing
    with pytest.raises(FeederateError, match="no agent is called 'pv'"):
        env.action_space("pv")


def test_no_step_without_an_episode() -> None:
    env = _environment("voltvar-ieee13")
    with pytest.raises(FeederateError, match="expected reset"):
        env.step({})


def test_a_power_flow_that_fails_names_the_federate() -> None:
    env = _environment("voltvar-ieee13", "grid.load_scale=60")
    with pytest.raises(RunError, match=r"'feeder'.*did not converge"):
        env.reset()
    env.close()


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
