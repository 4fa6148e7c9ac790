"""Runs side by side."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from federates.cli import call
from federates.commands.run import print_summary
from federates.reports.compare import metric_table, print_comparison, run_labels, write_comparison
from federates.runs.data import RunData
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario


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


def test_what_differs_and_what_cannot_be_compared_is_said(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    scenario = load_scenario("voltvar-ieee123-droop", ["grid.model=ieee13"], seed=7)
    run(scenario, out=again, placement="single", steps=4)
    page = tmp_path / "both.html"
    assert call(["compare", str(folders[1]), str(again), "--json", "--html", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["runs"]["again"]["changes"] == ["grid.model=ieee13", "seed=7", "steps=4"]
    assert data["differs"] == {
        "steps": ["10", "4"],
        "seed": ["1", "7"],
        "time.start_s": ["40000.0", "0.0"],
        "grid.model": ["ieee123", "ieee13"],
        "grid.taps.rg1": ["3", "-"],
    }
    (unequal,) = [words for words in data["remarks"] if "unequal times" in words]
    assert unequal.endswith("voltvar-ieee123-droop 50 s from 11:06:40; again 20 s from 00:00.")
    text = page.read_text()
    assert unequal in text
    assert "<h2>What differs</h2>" in text
    assert "a PV-rich day (grid.model=ieee13, seed=7, steps=4)" in text
    assert call(["compare", str(folders[1]), str(again)]) == 0
    printed = capsys.readouterr().out
    assert "What differs" in printed
    assert "grid.taps.rg1" in printed
    assert "unequal times" in printed


def test_runs_in_folders_of_their_own_are_called_by_what_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--seed", "5"], ["--set", "grid.ders.0.kw_per_load_kw=0.5"], []):
        short = ["--steps", "2", "--placement", "single"]
        assert call(["run", "voltvar-ieee13", *short, *words]) == 0
    printed = capsys.readouterr().out
    assert "OPTDIST-VC on IEEE 13, a PV-rich day (seed=5, steps=2)\n" in printed
    runs = [RunData(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    assert run_labels(runs) == ["kw_per_load_kw=0.5-steps=2", "seed=5-steps=2", "steps=2"]


def test_plants_are_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = load_scenario("two-feeders-ieee13-ieee123")
    folder = run(scenario, out=tmp_path / "two", placement="single", steps=3).folder
    data = RunData(folder)
    head, rows = metric_table([data], ["two"])
    assert head == ["Metric", "Unit", "two: upper", "two: lower"]
    (highest,) = [row for row in rows if row[0] == "Highest voltage"]
    values = [data.metrics[f"{plant}.v_max_pu"] for plant in ("upper", "lower")]
    assert highest[2:] == [f"{value:.4f}" for value in values]
    assert rows[0] == ["Status", "", "finished", ""]
    print_summary(RunResult(folder, data.summary), Console(width=80), has_report=False)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "Highest voltage" in line]
    assert line.split()[2:4] == highest[2:]
    assert any(line.split() == ["upper", "lower"] for line in lines)


@pytest.mark.parametrize("name", ["", "nowhere/both.html"])
def test_a_page_that_cannot_be_is_refused_and_leaves_nothing(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    target = tmp_path / "d"
    target.mkdir()

    assert call(["compare", *map(str, folders), "--html", str(target / name)]) == 2

    captured = capsys.readouterr()
    assert "is a folder" in captured.err or "there is no folder" in captured.err
    assert sorted(tmp_path.rglob("*")) == [target]


def many(folders: list[Path], n: int) -> list[RunData]:
    """Return runs with names of 22 letters."""
    out = []
    for i in range(n):
        run = RunData(folders[i % 2])
        run.manifest = run.manifest | {"name": f"voltvar-study-number-{i + 1}"}
        out.append(run)
    return out


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_no_number_and_no_name_is_broken(folders: list[Path], width: int, n: int) -> None:
    runs = many(folders, n)
    console = Console(width=width, file=io.StringIO(), color_system=None)

    print_comparison(runs, console)

    out = console.file.getvalue()
    assert max(map(len, out.splitlines())) <= width
    for words in (*run_labels(runs), "finished", "steps/s"):
        assert words in out
    for each in runs:
        assert f"{each.metrics['v_max_pu']:.4f}" in out
        assert f"{each.metrics['abs_q_kvarh']:,.1f}" in out
    # A run takes 22 letters and a gap of 3; names and units of the metrics at least 10 + 3 + 8.
    fit = max(1, (width - 21) // 25)
    assert out.count("Metric") == -(-n // fit)


def test_many_runs_are_rows_with_what_differs_and_small_charts(
    folders: list[Path], tmp_path: Path
) -> None:
    runs = many(folders, 6)
    for i, each in enumerate(runs):
        each.scenario = each.scenario | {"seed": 10 + i}

    text = write_comparison(runs, tmp_path / "six.html").read_text()

    table = text[text.index('class="table runs"') :].partition("</table>")[0]
    head = re.findall(r"<th[^>]*>([^<]*)</th>", table)
    rows = [re.findall(r"<td.*?</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table)]
    assert head[:2] == ["Run", "scenario file"]
    assert [row[head.index("seed")] for row in rows] == [f"<td>{10 + i}</td>" for i in range(6)]
    value = runs[3].metrics["losses_kwh"]
    assert rows[3][head.index("Losses, kWh")] == f'<td class="number">{value:,.1f}</td>'
    assert "voltvar-study-number-4</a>" in rows[3][0]
    assert '<div class="grid-5 small" data-shared-axis>' in text
    assert text.count("<figure") == 6
