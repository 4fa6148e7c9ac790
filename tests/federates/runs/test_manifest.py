"""Manifests of recorded runs, also of those from before each federate kind had its own section."""

from __future__ import annotations

import json
from pathlib import Path

from federates.runs.options import RunOptions
from federates.runs.replay import scenario_of_run
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

# What the flat section of version 0.1.0.dev wrote for every federate, used or not.
FLAT = {
    "controller": None,
    "detector": None,
    "ders": None,
    "split": 1,
    "areas": 4,
    "options": {},
    "inputs": {},
    "outputs": {},
    "devices": {},
    "not_good": "hold",
    "command": None,
}


def test_a_run_with_the_keys_of_all_kinds_can_be_replayed(tmp_path: Path) -> None:
    scenario = load_scenario("voltvar-ieee13")
    folder = run(scenario, RunOptions(out=tmp_path / "run", steps=1, placement="single")).folder
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    federates = manifest["scenario"]["federates"]
    for name, spec in federates.items():
        federates[name] = FLAT | spec
    path.write_text(json.dumps(manifest))
    again, _ = scenario_of_run(folder)
    assert again.resolved()["federates"] == scenario.resolved()["federates"]
