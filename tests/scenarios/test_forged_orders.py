"""Attack 2b while the mail between the manager and the market operator is forged or noisy, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_dir
from grid_models.base.yaml_lines import parse_yaml

pytestmark = pytest.mark.scenario

BEGIN, PERIOD, STEPS = 480.0, 60.0, 165


def mitigated(base: Path, *overrides: str, forged: dict[str, Any] | None = None) -> Path:
    """Run attack 2b with the manager, with a step more in the attack where one is given."""
    text = (shipped_dir() / "attacks" / "generator-shutdown-2b.yaml").read_text("utf-8")
    attack = parse_yaml(text)[0]
    attack["steps"] += [forged] if forged else []
    file = base / "forged.yaml"
    file.write_text(json.dumps(attack), "utf-8")
    scenario = load_scenario("attack-2b-ieee123", overrides, attack=str(file), defence="mitigated")
    run(scenario, out=base / "run", placement="single", steps=STEPS)
    return base / "run"


def told(out: Path) -> list[str]:
    lines = (out / "events.jsonl").read_text("utf-8").splitlines()
    return [event["event"] for event in map(json.loads, lines)]


def restored_after_s(out: Path) -> float:
    time_s, _, values = read_signal(out / "signals", "feeder.import_kw")
    kw = values[:, 0]
    pre = kw[(time_s >= BEGIN - 2 * PERIOD) & (time_s < BEGIN)].mean()
    off = (np.abs(kw / pre - 1.0) > 0.01) & (time_s >= BEGIN)
    return float(time_s[off].max() - BEGIN)


# The search begins 18 s after the attack; what is forged lasts until 20 s later.
@pytest.mark.parametrize("link", ["resilience>operator:weights", "operator>resilience:answer"])
@pytest.mark.parametrize("action", [{"value": 50.0}, {"factor": 1000.0}, {"value": 1.0}])
def test_forged_mail_with_the_operator_holds_mitigation_up_and_does_not_end_it(
    tmp_path: Path, link: str, action: dict[str, float]
) -> None:
    forged = {
        "id": "forge", "layer": "link", "trigger": {"at_s": BEGIN + 16.0}, "duration_s": 22.0,
        "target": {"links": [link]}, "action": {"kind": "tamper", **action},
    }  # fmt: skip
    out = mitigated(tmp_path, forged=forged)
    assert restored_after_s(out) <= 3 * PERIOD
    assert told(out).count("import_off_schedule") == 1
    assert "recovered" not in told(out)


def test_noise_on_the_links_with_the_operator_is_borne(tmp_path: Path) -> None:
    noisy = "[{source: resilience, target: operator, noise: 0.01}, " \
        "{source: operator, target: resilience, noise: 0.001}]"  # fmt: skip
    out = mitigated(tmp_path, f"links={noisy}")
    assert restored_after_s(out) <= 3 * PERIOD
    assert "weights_refused" not in told(out)
