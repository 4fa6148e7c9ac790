"""Completion in a shell: asked as bash asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from federates.cli import app

SCENARIO = """\
seed: 1
grid: {model: ieee13}
federates: {feeder: {kind: feeder}, c: {kind: controller, controller: none}}
defences: {late: {patch: {seed: 2}}, other: {patch: {seed: 3}}}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-study.yaml").write_text(SCENARIO)
    Path("broken.yaml").write_text("a: [")
    for run in ("runs/one", "here"):
        Path(run).mkdir(parents=True)
        Path(run, "manifest.json").write_text("{}")
    Path("runs/pair/baseline").mkdir(parents=True)
    Path("runs/pair/baseline/manifest.json").write_text("{}")
    Path("nowhere").mkdir()


def completed(line: str) -> list[str]:
    words = {"COMP_WORDS": f"feederate {line}", "COMP_CWORD": str(len(f"x {line}".split(" ")) - 1)}
    env = {"_FEEDERATE_COMPLETE": "complete_bash", **words}
    result = CliRunner().invoke(app, [], prog_name="feederate", env=env)
    assert result.exit_code == 0
    return result.output.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("run voltvar-ieee13", ["voltvar-ieee13"]),
        ("run my", ["my-study.yaml"]),
        ("check now", ["nowhere/"]),
        ("run my-study.yaml --defence ", ["late", "other"]),
        ("run --defence o", []),
        ("run my-study.yaml --placement s", ["shared", "single"]),
        ("run my-study.yaml --attack link-p", ["link-partition"]),
        ("run my-study.yaml --set grid.m", ["grid.model="]),
        ("run my-study.yaml --set federates.c.controller=op", [
            "federates.c.controller=optdist-vc", "federates.c.controller=optimisation",
            "federates.c.controller=optimum"]),
        ("run my-study.yaml --set grid.model=ieee13", ["grid.model=ieee13"]),
        ("run broken.yaml --defence ", []),
        ("run no-such.yaml --set g", []),
        ("attack explain link-j", ["link-jamming"]),
        ("attack run my", ["my-study.yaml"]),
        ("attack run my-study.yaml link-j", ["link-jamming"]),
        ("attack run my-study.yaml --defence l", ["late"]),
        ("report ", ["here", "runs/one", "runs/pair"]),
        ("compare runs/o", ["runs/one"]),
        ("replay he", ["here"]),
        ("replay here --into my", ["my-study.yaml"]),
        ("device read sunspec-b", ["sunspec-battery"]),
    ],
)  # fmt: skip
def test_names_are_completed(line: str, names: list[str]) -> None:
    assert completed(line) == names
