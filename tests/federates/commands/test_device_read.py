"""``feederate device read``: every digit, texts, units, reasons, exit codes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from federates.cli import call
from hil.emulators.background import background
from hil.emulators.options import EmulatorOptions, EmulatorRole
from hil.emulators.register_config import load_emulator_config
from hil.emulators.register_plant import RegisterPlant

CONFIG = """
name: meter
device: meter.yaml
registers:
  energy: {table: holding, address: 0, type: uint64, value: 9876543210123}
  ratio: {table: holding, address: 4, type: float32, value: 0.1}
  temp: {table: holding, address: 6, type: int16, scale: 0.1, value: 19.8}
  serial: {table: holding, address: 7, type: string, length: 3, value: SN-042}
  set_w: {table: holding, address: 11, type: int16, access: rw}
  mode: {table: holding, address: 12, type: uint16, access: rw}
physics: {kind: inverter}
"""
FILE = """
name: meter
connection: {{port: {port}, timeout_s: 0.3}}
points:
  energy_wh: {{table: holding, address: 0, type: uint64, unit: Wh}}
  ratio: {{table: holding, address: 4, type: float32}}
  temp_c: {{table: holding, address: 6, type: int16, scale: 0.1, unit: degC, plausible: [-40, 15]}}
  serial: {{table: holding, address: 7, type: string, length: 3}}
  absent: {{table: holding, address: 10, type: uint16}}
  lost: {{table: holding, address: 20, type: string, length: 2}}
  set_w: {{table: holding, address: 11, type: int16, unit: W, access: rw, min: -1000, max: 0,
           safe_value: 0}}
  mode: {{table: holding, address: 12, type: uint16, access: rw, enum: {{auto: 0, hand: 1}},
          safe_value: 0}}
"""


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("meter")
    (folder / "config.yaml").write_text(CONFIG)
    plant = RegisterPlant(load_emulator_config(folder / "config.yaml"))
    options = EmulatorOptions(EmulatorRole.device, str(folder / "config.yaml"))
    with background(plant, options) as devices:
        (folder / "meter.yaml").write_text(FILE.format(port=devices.ports[0]))
        yield str(folder / "meter.yaml")


def test_digits_texts_units_and_reasons(meter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["device", "read", meter]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["energy_wh"][:3] == ["9876543210123", "Wh", "good"]
    assert rows["ratio"][:2] == ["0.1", "good"]
    assert rows["serial"][:2] == ["SN-042", "good"]
    order = ["energy_wh", "ratio", "temp_c", "serial", "absent", "lost", "set_w"]
    assert [name for name in rows if name in order] == order
    assert call(["device", "read", meter, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["temp_c"] == {
        "value": None, "unit": "degC", "quality": "bad",
        "reason": "19.8 is not plausible (-40 to 15)",
    }  # fmt: skip
    for name in ("absent", "lost"):
        assert read[name]["reason"] == "the device refused with exception 2 (illegal data address)"
    assert "reason" not in read["serial"]


def test_nothing_that_can_be_read_is_exit_code_3(
    meter: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(["device", "read", meter, "absent", "--json"]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out)["absent"]["quality"] == "bad"
    assert "no point could be read: the device refused with exception 2" in shown.err
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        _nothing_answers(taken.getsockname()[1], capsys, tmp_path)


def _nothing_answers(port: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    away = tmp_path / "away.yaml"
    away.write_text(FILE.format(port=port))
    for target in (str(away), f"127.0.0.1:{port}/1"):
        assert call(["device", "read", target]) == 3
        said = capsys.readouterr().err
        assert f"nothing answered at 127.0.0.1:{port}, unit 1: " in said
        assert "Connection refused" in said
    assert call(["device", "watch", str(away), "--count", "1"]) == 3
    assert "no point could be read: not connected" in capsys.readouterr().err


def test_a_negative_value_is_no_option(meter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["device", "write", meter, "set_w", "-500", "--arm", "meter"]) == 0
    assert "-500" in capsys.readouterr().out


def test_wrong_names_and_values_name_what_is_there(
    meter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        ("check", "victorn"): "did you mean 'victron'?",
        ("read", meter, "nosuch"): "expected energy_wh, ratio,",
        ("write", meter, "set_w", "nan", "--arm", "meter"): "nan: not a finite number; expected",
        ("write", meter, "mode", "7", "--arm", "meter"): "not written; expected mode auto, hand",
        ("read", "127.0.0.1:1502/300"): "a unit of 0 to 255",
    }
    for words, told in wrong.items():
        assert call(["device", *words]) == 2
        assert told in capsys.readouterr().err
