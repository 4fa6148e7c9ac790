"""The demo: its table, its bars, its words, its page, its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from federates.cli import call
from federates.commands.demo import NAMES, highest_voltages
from federates.runs.data import Spread


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Run a short demo; return its folder, standard output and standard error."""
    folder = tmp_path_factory.mktemp("demo") / "d"
    command = "from federates.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", command, "demo", "--steps", "12", "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        cwd=folder.parent,
        # A terminal that knows ASCII only is served as well.
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    return folder, done.stdout, done.stderr


def test_the_demo_fits_a_terminal(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    lines = [line for line in out.splitlines() if str(folder) not in line]
    assert max(map(len, lines)) <= 80


def test_a_finished_demo_does_not_fail_where_only_ascii_can_be_shown(
    shown: tuple[Path, str, str],
) -> None:
    _, out, _ = shown
    assert out.isascii()
    bars = [line.split()[-1] for line in out.splitlines() if line.startswith("no control   ")]
    assert any(set(bar) <= set("_.-:=+*#") for bar in bars)


def test_the_table_has_the_numbers_of_the_summaries(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    for name, label in NAMES.items():
        metrics = json.loads((folder / name / "summary.json").read_text())["metrics"]
        lines = (line.replace("|", " ").strip() for line in out.splitlines())
        row = next(line for line in lines if line.startswith(label))
        cells = row.removeprefix(label).split()
        assert cells[:5] == [
            f"{metrics['v_max_pu']:.4f}",
            f"{metrics['v_min_pu']:.4f}",
            f"{metrics['out_of_band_node_hours']:,.1f}",
            f"{metrics['losses_kwh']:,.1f}",
            f"{metrics['abs_q_kvarh']:,.1f}",
        ]


def test_the_demo_leaves_pages_and_no_pictures(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    assert str(folder / "report.html") in out
    page = (folder / "report.html").read_text()
    for name in NAMES:
        assert f'href="{name}/report.html"' in page
        assert (folder / name / "report.html").is_file()
    assert {path.name for path in folder.iterdir()} == {"report.html", *NAMES}


def test_five_lines_say_what_was_seen(shown: tuple[Path, str, str]) -> None:
    _, out, _ = shown
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if "the whole feeder solved every" in line)
    five = lines[first : first + 5]
    assert all(five)
    assert [line.split(":")[0] for line in five[1:4]] == ["No control", "Droop", "OPTDIST-VC"]


def test_json_is_alone_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert call(["demo", "--json", "--steps", "2"]) == 0

    runs = json.loads(capfd.readouterr().out)["runs"]
    assert list(runs) == list(NAMES)
    assert all(summary["status"] == "finished" for summary in runs.values())
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("demo-")


def test_a_folder_with_something_in_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("x")
    assert call(["demo", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_bars_show_the_highest_voltage_and_redden_above_the_band() -> None:
    def demo_run(label: str, high: np.ndarray) -> Any:
        total = Spread(np.arange(len(high)) * 60.0, high - 0.1, high - 0.05, high)
        voltages = SimpleNamespace(total=total)
        plants = (SimpleNamespace(voltages=voltages),)
        return SimpleNamespace(
            label=label, data=SimpleNamespace(plants=plants, band=(0.95, 1.05), start_s=3600.0)
        )

    rising = np.repeat([1.00, 1.05, 1.06, 1.07], 30)
    head, one, other, time_row = highest_voltages(
        [demo_run("rising", rising), demo_run("flat", np.full(120, 1.0))]
    )

    assert head.plain == "Highest node voltage, 1.000 to 1.070 pu; red: above 1.05 pu"
    # 60 columns from 1.00 to 1.07 in eight heights: 1.05 is 5/7 of the way, 1.06 is 6/7.
    assert one.plain == f"{'rising':<15}" + "▁" * 15 + "▆" * 15 + "▇" * 15 + "█" * 15
    assert other.plain == f"{'flat':<15}" + "▁" * 60
    assert [str(span.style) for span in one.spans] == ["cyan"] * 30 + ["red"] * 30
    assert time_row.plain.split() == ["01:00", "02:59"]
