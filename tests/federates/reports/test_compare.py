"""Runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federates.cli import call
from federates.runner import run
from federates.scenario import load_scenario


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("runs")
    names = ("voltvar-ieee123-none", "voltvar-ieee123-droop")
    for name in names:
        scenario = load_scenario(name, ["time.start_s=40000"])
        run(scenario, out=base / name, placement="single", steps=10)
    return [base / name for name in names]


def test_json_holds_both_runs(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", *map(str, folders), "--json"]) == 0

    runs = json.loads(capsys.readouterr().out)["runs"]
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        assert runs[folder.name]["metrics"] == summary["metrics"]
        assert runs[folder.name]["steps"] == 10


def test_the_table_fits_a_terminal(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", *map(str, folders)]) == 0

    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    summary = json.loads((folders[0] / "summary.json").read_text())
    assert f"{summary['metrics']['v_max_pu']:.4f}" in out


def test_runs_of_one_scenario_are_told_apart_by_folder(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    run(load_scenario("voltvar-ieee123-none"), out=again, placement="single", steps=2)

    assert call(["compare", str(folders[0]), str(again), "--json"]) == 0

    runs = json.loads(capsys.readouterr().out)["runs"]
    assert list(runs) == ["voltvar-ieee123-none", "again"]
    assert runs["again"]["steps"] == 2


def test_the_page_links_to_the_runs(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folders[0].parent / "both.html"

    assert call(["compare", *map(str, folders), "--html", str(page)]) == 0

    text = page.read_text()
    assert 'href="voltvar-ieee123-droop/report.html"' in text
    assert text.count("<figure") == 2
