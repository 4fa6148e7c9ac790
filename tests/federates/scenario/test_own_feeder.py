"""The example of docs/feeders.md runs as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from federates.cli import call
from federates.core.signals import read_signal

ROOT = Path(__file__).parents[3]
COMMANDS = re.search(
    r"## An example.*?```sh\n(.*?)```", (ROOT / "docs" / "feeders.md").read_text(), re.DOTALL
)


def _commands() -> list[list[str]]:
    assert COMMANDS is not None
    return [shlex.split(line)[1:] for line in COMMANDS[1].replace("\\\n", "").splitlines()]


def test_the_example_checks_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    check, run = _commands()
    assert check[0] == "check"
    assert call(check) == 0
    said = capsys.readouterr()
    assert "1 of 2 PVSystems have no load shape (roof)" in said.out + said.err
    folder = tmp_path / "run"
    noon = ["--set", "time.start_s=32400", "--steps", "120", "--placement", "single"]
    assert call([*run, *noon, "--out", str(folder)]) == 0
    time_s, labels, taps = read_signal(folder / "signals", "feeder.tap")
    assert labels == ("sub", "mid")
    moved = int(abs(taps[1:] - taps[:-1]).sum())
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["tap_changes"] == moved > 0
    assert len(time_s) == 120
    page = (folder / "report.html").read_text()
    assert "Map of the loadings" in page
    assert "Regulator positions" in page or "Regulator mid" in page
