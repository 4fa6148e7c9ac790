"""``feederate device test``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from federates.cli import call

SHIPPED = "sunspec-inverter-1547"


def test_a_shipped_file_is_tested_on_an_emulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["device", "test", SHIPPED, "--procedure", "volt-watt", "--json", "--out", str(out)]
    assert call(command) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["passed"] is True
    assert done["failed"] == 0
    assert "emulated" in done["tested"]
    assert len(done["steps"]) == 11
    assert {c["what"] for s in done["steps"] for c in s["checks"]} == {"p_pu", "p_pu after 0.5 s"}
    rows = list(csv.DictReader((out / "steps.csv").read_text().splitlines()))
    assert {row["passed"] for row in rows} == {"True"}
    assert [float(r["value"]) for r in rows if r["what"] == "p_pu"] == pytest.approx(
        [s["p_pu"] for s in done["steps"]], abs=1e-5
    )
    page = (out / "report.html").read_text()
    assert "Type test of inverter" in page
    assert "characteristic 1, 100%, step 11" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([SHIPPED, "--procedure", "volt-vra"], "did you mean 'volt-var'"),
        (["sunspec-inverter", "--procedure", "frequency-watt"], "curves: 711"),
        ([SHIPPED, "--procedure", "volt-var", "--grid", "cmd {v_pu}"], "{f_hz}"),
        ([SHIPPED, "--procedure", "volt-var", "--grid", "cmd {v_pu} {f_hz}"], "--arm inverter"),
        (["no-such-file.yaml", "--procedure", "volt-var"], "no such device file"),
        ([SHIPPED, "--procedure", "volt-var", "--category", "C"], "expected A, B"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(["device", "test", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_of_ones_own_needs_a_grid_simulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsunspec: [701]\n")
    assert call(["device", "test", str(path), "--procedure", "volt-var"]) == 2
    assert "--grid" in capsys.readouterr().err


def test_a_grid_simulator_that_fails_ends_the_test_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hil.devices.file import shipped_devices
    from hil.emulators.background import background
    from hil.emulators.inverter_plant import inverters

    with background(inverters(1, 10.0)) as devices:
        text = shipped_devices()[SHIPPED].read_text()
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace("port: 1502", f"port: {devices.ports[0]}"))
        command = ["device", "test", str(path), "--procedure", "volt-var", "--arm", "inverter"]
        assert call([*command, "--grid", "false {v_pu} {f_hz}", "--out", str(tmp_path / "o")]) == 3
    assert "exit code 1" in capsys.readouterr().err
