"""The demo: its table, its picture, its words, its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from federates.cli import call
from federates.commands.demo import NAMES
from federates.commands.picture import Panel, voltage_picture
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
        timeout=120,
        check=True,
        cwd=folder.parent,
    )
    return folder, done.stdout, done.stderr


def test_the_demo_fits_a_terminal(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    lines = [line for line in out.splitlines() if str(folder) not in line]
    assert max(map(len, lines)) <= 80


def test_the_table_has_the_numbers_of_the_summaries(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    for name, label in NAMES.items():
        metrics = json.loads((folder / name / "summary.json").read_text())["metrics"]
        row = next(line for line in out.splitlines() if line.strip().startswith(label))
        cells = row.strip().removeprefix(label).split()
        assert cells[:5] == [
            f"{metrics['v_max_pu']:.4f}",
            f"{metrics['v_min_pu']:.4f}",
            f"{metrics['out_of_band_node_hours']:,.1f}",
            f"{metrics['losses_kwh']:,.1f}",
            f"{metrics['abs_q_kvarh']:,.1f}",
        ]


def test_the_demo_leaves_pages_and_pictures(shown: tuple[Path, str, str]) -> None:
    folder, out, _ = shown
    assert str(folder / "report.html") in out
    page = (folder / "report.html").read_text()
    for name in NAMES:
        assert f'href="{name}/report.html"' in page
        assert (folder / name / "report.html").is_file()
    assert (folder / "voltages.png").read_bytes().startswith(b"\x89PNG")
    assert "no control" in (folder / "voltages.svg").read_text()


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


def test_the_picture_fills_from_lowest_to_highest_and_reddens_what_is_outside() -> None:
    n = 40
    high = np.where(np.arange(n) < n // 2, 1.10, 1.04)
    spread = Spread(np.arange(n) * 60.0, np.full(n, 1.0), np.full(n, 1.02), high)

    lines = voltage_picture([Panel("one", spread)], (0.95, 1.05), width=46, height=16)

    assert lines[0].plain.strip() == "one"
    assert {len(line.plain) for line in lines[1:]} == {46}
    body = [line.plain[6:] for line in lines[1:-1]]
    # 1.10 at the top, 0.95 at the bottom: 16 rows of 0.15/16 pu.
    assert body[0] == "\u28ff" * 20 + " " * 20
    assert body[-1] == "\u2504" * 40
    red = [any("red" in str(span.style) for span in line.spans) for line in lines[1:-1]]
    row_of_limit = next(i for i, line in enumerate(lines[1:-1]) if line.plain.startswith("1.050"))
    assert row_of_limit == 5
    assert red == [i < row_of_limit for i in range(16)]
    assert lines[-1].plain.split() == ["00:00", "00:39"]
