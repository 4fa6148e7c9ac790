"""The documented examples work as the documentation says: checked, and doing their job."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.registry import resolve
from controllers.core.sample_site import sample_site
from grid_models.base.yaml_lines import parse_yaml, yaml_text

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
GUIDE = (ROOT / "docs" / "controllers.md").read_text()
SITE = sample_site()
NAMES = {"my-droop": "my_droop:MyDroop", "my-fair-share": "my_fair_share:FairShare"}


@pytest.fixture(autouse=True)
def beside_the_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def volts(port: Port, step: int) -> Any:
    """1.04 pu at bus b3, 1.01 pu at b1, 1.02 pu elsewhere, for ever."""
    at = {"b3": 1.04, "b1": 1.01}
    return np.array([at.get(label.split(".")[0], 1.02) for label in port.labels])


def settle(name: str, parts: int, steps: int, post: Post, **options: float) -> dict[str, float]:
    cls = resolve(name)
    agents = np.array(cls.agents(SITE))
    hosts = [cls(SITE, part.tolist(), **options) for part in np.array_split(agents, parts)]
    loop = MailLoop(hosts, post, volts)
    for _ in range(steps):
        done = loop.step()
    return {label: q for (_, label), q in loop.outputs(done).items()}


@pytest.mark.parametrize("scenario", NAMES)
def test_examples_pass_the_compliance_check_with_the_scenarios_options(scenario: str) -> None:
    text = (EXAMPLES / f"{scenario}.yaml").read_text()
    volt_var = parse_yaml(text)[0]["federates"]["volt_var"]
    assert volt_var["controller"] == NAMES[scenario]
    check_controller(volt_var["controller"], **volt_var["options"])


@pytest.mark.parametrize("parts", [1, 5])
def test_my_droop_settles_at_the_average_of_neighbouring_wants(parts: int) -> None:
    """By hand, gain 5: wants are -5 (v - 1) = -.05, -.1, -.2, -.2, -.1 in the order b1, b2, b3,
    b3, b4; each averages itself with its neighbours; times kVA 110, 330, 220, 100, 190."""
    got = settle(NAMES["my-droop"], parts, 80, Post(loss=0.2, seed=1), gain=5.0)
    fraction = {
        "pv_b1": -0.15 / 2,
        "pv_b2": -0.35 / 3,
        "pv_b3": -0.5 / 3,
        "bat_b3": -0.5 / 3,
        "pv_b4": -0.3 / 2,
    }
    kva = {der.name: der.kva for der in SITE.ders}
    # 80 steps of 0.7 each: 0.7^70 = 1e-11 of the way is left.
    assert got == pytest.approx({n: f * kva[n] for n, f in fraction.items()}, rel=1e-9)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_fair_share_agrees_on_one_fraction_of_the_rating(parts: int) -> None:
    """Mean error -(.01 + .02 + .04 + .04 + .02)/5 = -0.026 pu, gain 5: -0.13 of every rating.
    Ring of five, weight 1/3: rate 1 - (2 - 2 cos 72 deg)/3 = 0.54 a round, 30 rounds: 1e-8."""
    post = Post(loss=0.3, max_delay_steps=2, seed=3)
    got = settle(NAMES["my-fair-share"], parts, 500, post, gain=5.0)
    assert got == pytest.approx({der.name: -0.13 * der.kva for der in SITE.ders}, rel=1e-7)


def test_the_guide_shows_what_the_command_prints() -> None:
    shown = re.search(r"```console\n\$ (python .*?)\n(.*?)```", GUIDE, re.S)
    assert shown
    command = [sys.executable, *shown[1].split()[1:]]
    done = subprocess.run(
        command,
        cwd=EXAMPLES,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown[2]


def test_the_guides_scenario_is_the_shipped_one() -> None:
    """The guide shows a part of my-droop.yaml; what it shows must be in it."""
    shown = re.search(r"```yaml\n(.*?)```", GUIDE, re.S)
    assert shown
    part = parse_yaml(shown[1])[0]
    whole = parse_yaml((EXAMPLES / "my-droop.yaml").read_text())[0]
    assert {key: whole[key] for key in part} == part


@pytest.mark.scenario
@pytest.mark.parametrize("name", NAMES)
def test_examples_run_from_their_scenarios_whatever_the_split(name: str, tmp_path: Path) -> None:
    """The whole federation without HELICS: 20 minutes around noon; the class is found beside the
    file, four federates give the bits of one, and control lowers the highest voltage."""
    from federates.runs.runner import run
    from federates.scenario.schema import load_scenario

    raw = parse_yaml((EXAMPLES / f"{name}.yaml").read_text())[0]
    module, _, cls = NAMES[name].partition(":")
    (tmp_path / f"beside_{module}.py").write_text((EXAMPLES / f"{module}.py").read_text())
    raw["federates"]["volt_var"]["controller"] = f"beside_{module}:{cls}"

    def last_voltages(case: str, **changes: Any) -> Any:
        import pyarrow.parquet as pq

        scenario = dict(raw, federates={**raw["federates"]})
        scenario["federates"]["volt_var"] = {**raw["federates"]["volt_var"], **changes}
        file = tmp_path / f"{case}.yaml"
        file.write_text(yaml_text(scenario))
        run(load_scenario(file), out=tmp_path / case, placement="single", steps=20)
        table = pq.read_table(tmp_path / case / "signals" / "feeder.v_pu.parquet")
        return np.array([table[c][-1].as_py() for c in table.column_names if c != "time_s"])

    four = last_voltages("four")
    one = last_voltages("one", split=1)
    none = last_voltages("none", controller="none", options={}, split=1)
    assert four.tobytes() == one.tobytes()
    assert four.max() < none.max() - 0.01
