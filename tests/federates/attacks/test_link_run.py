"""Attacks on mail in whole runs: OPTDIST-VC on IEEE 13 under every host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from federates.attacks.truth import read_truth
from federates.errors import WiringError
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario

SCENARIO = """\
seed: 3
time: {{start_s: 43200, duration_s: 300, step_s: 10}}
grid:
  model: ieee13
  ders:
    - {{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}}
  profiles: {{kind: cloudy}}
federates:
  feeder: {{kind: feeder}}
  volt_var: {{kind: controller, controller: optdist-vc, split: {split}}}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
links:
  - {{loss: 0.05, jitter_s: 12}}
"""
STORM = """\
id: storm
seed: 11
steps:
  - id: lies
    layer: link
    trigger: {at_s: 60}
    duration_s: 100
    target: {links: ["*:*.1"], count: 12}
    action: {kind: tamper, bias: 0.02, sigma: 0.01}
    probability: 0.7
  - id: jam
    layer: link
    trigger: {after: lies, delay_s: 20}
    target: {links: ["*:*.2"], fraction: 0.5}
    action: {kind: jam, loss: 0.3, delay_s: 25}
  - id: echo
    layer: link
    trigger: {when: {signal: feeder.v_pu, above: 1.0, for_s: 30}, delay_s: 5}
    duration_s: 60
    target: {links: ["*:*.3"], count: 9}
    action: {kind: replay, lag_s: 40}
"""
NOTHING = """\
id: nothing
steps:
  - id: one
    layer: link
    trigger: {at_s: 0}
    duration_s: 150
    target: {links: ["*"]}
    action: {kind: tamper}
  - id: two
    layer: link
    trigger: {after: one}
    target: {links: ["*"]}
    action: {kind: jam, loss: 0}
"""


def _run(folder: Path, attack: str | None, placement: Any = "single", split: int = 1) -> RunResult:
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(SCENARIO.format(split=split))
    if attack is not None:
        (folder / "attack.yaml").write_text(attack)
    given = str(folder / "attack.yaml") if attack is not None else None
    scenario = load_scenario(folder / "study.yaml", attack=given)
    return run(scenario, out=folder / "run", placement=placement)


def _signals(folder: Path, glob: str = "*") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "signals").glob(glob))}


def _truth(folder: Path) -> list[tuple[Any, ...]]:
    """Return the ground truth without the names of instances, which hosting decides."""
    rows = read_truth(folder).to_pylist()
    return sorted(tuple(v for k, v in row.items() if k != "federate") for row in rows)


def _events(folder: Path) -> list[tuple[str, float, str]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [(e["event"], e["time_s"], e["step"]) for e in events if e["event"][:6] == "attack"]


@pytest.mark.scenario
def test_an_attack_on_mail_is_the_same_under_every_host_and_split(tmp_path: Path) -> None:
    free = _run(tmp_path / "free", None).folder
    base = _run(tmp_path / "base", STORM).folder
    assert _signals(base, "feeder.*") != _signals(free, "feeder.*")
    steps = {row[-1] for row in _truth(base)}
    assert steps == {"lies", "jam", "echo"}
    for placement, split in (("thread", 1), ("process", 1), ("single", 3), ("thread", 3)):
        other = _run(tmp_path / f"{placement}-{split}", STORM, placement, split).folder
        glob = "*" if split == 1 else "feeder.*"
        assert _signals(other, glob) == _signals(base, glob)
        assert repr(_truth(other)) == repr(_truth(base))
        assert sorted(_events(other)) == sorted(_events(base))


@pytest.mark.scenario
def test_events_and_metrics_tell_of_an_attack_on_mail(tmp_path: Path) -> None:
    result = _run(tmp_path, STORM, split=2)
    events = _events(result.folder)
    assert ("attack_began", 60.0, "lies") in events
    assert ("attack_ended", 160.0, "lies") in events
    assert ("attack_began", 180.0, "jam") in events
    assert [e for e in events if e[0] == "attack_ended" and e[2] == "jam"] == []
    begins = [t for event, t, step in events if (event, step) == ("attack_began", "echo")]
    ends = [t for event, t, step in events if (event, step) == ("attack_ended", "echo")]
    assert len(begins) == len(ends) == 1
    assert ends[0] - begins[0] == pytest.approx(60.0)
    rows = _truth(result.folder)
    assert result.metrics["attacked_values_count"] == len(rows)
    in_window = [t for t, port, *_, step in rows if step == "lies" and port == "mail"]
    assert 60.0 <= min(in_window) <= max(in_window) < 160.0


@pytest.mark.scenario
def test_a_run_under_an_attack_of_nothing_equals_the_free_run(tmp_path: Path) -> None:
    free = _run(tmp_path / "free", None)
    none = _run(tmp_path / "none", NOTHING, placement="thread")
    assert _signals(none.folder) == _signals(free.folder)
    assert free.metrics["mail_lost_count"] == none.metrics["mail_lost_count"] > 0


def test_a_wrong_link_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(WiringError, match=r"no link matches 'pv_1>pv_2'; expected") as caught:
        _run(tmp_path, NOTHING.replace('links: ["*"]', 'links: ["pv_1>pv_2"]', 1))
    assert "attack.yaml" in str(caught.value)
    assert not (tmp_path / "run").exists()
