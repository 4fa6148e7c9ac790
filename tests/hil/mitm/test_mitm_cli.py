"""``feederate attack mitm``: on a bench, by the wall clock, and never at a stranger's device."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from pyModbusTCP.client import ModbusClient

from federates.commands.mitm import mitm_command
from federates.errors import ScenarioError
from grid_models.base.yaml_lines import yaml_text
from hil.devices.errors import ArmingError
from hil.emulators.background import background
from hil.emulators.inverter_plant import inverters

LIMIT = 40311  # 704.WMaxLimPct of the emulated inverter


def attack_file(folder: Path, **step: object) -> str:
    plain = {
        "id": "limit",
        "layer": "modbus",
        "trigger": {"at_s": 0.3},
        "target": {"devices": ["inv*"]},
        "action": {"kind": "write", "point": "w_limit_pct", "value": 20},
    }
    path = folder / "attack.yaml"
    path.write_text(yaml_text({"id": "bench", "steps": [plain | step]}))
    return str(path)


def test_a_bench_attack_keeps_its_hours_and_cleans_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_port: int
) -> None:
    with background(inverters(1, 10.0)) as devices:
        seen: list[float] = []
        client = ModbusClient("127.0.0.1", unused_port, auto_close=True)

        def watch() -> None:
            for _ in range(8):
                time.sleep(0.1)
                seen.append((client.read_holding_registers(LIMIT, 1) or [-1])[0] / 100.0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        mitm_command(
            attack_file(tmp_path),
            listen=f"127.0.0.1:{unused_port}",
            device="sunspec-inverter",
            target=f"127.0.0.1:{devices.ports[0]}",
            pcap=tmp_path / "a.pcapng",
            duration_s=1.0,
        )
        watcher.join()
        past = ModbusClient("127.0.0.1", devices.ports[0], auto_close=True)
        assert past.read_holding_registers(LIMIT, 1) == [10000]
    told = capsys.readouterr().out
    assert "limit begins" in told
    assert "w_limit_pct 100 -> 20" in told
    assert {100.0, 20.0} <= set(seen)
    assert (tmp_path / "a.pcapng").stat().st_size > 1000


@pytest.mark.parametrize(
    ("point", "asked", "written"), [("var_set_pct", 90.0, 44.0), ("p_limit_enable", 7.0, 1.0)]
)
def test_a_device_with_a_file_is_not_driven_beyond_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], point: str, asked: float, written: float
) -> None:
    """The attack may deceive the guard, not lift what the lab declared in the device file."""
    with background(inverters(1, 10.0)) as devices:
        mitm_command(
            attack_file(
                tmp_path,
                trigger={"at_s": 0},
                action={"kind": "write", "point": point, "value": asked},
            ),
            listen="127.0.0.1:0",
            device="sunspec-inverter",
            target=f"127.0.0.1:{devices.ports[0]}",
            duration_s=0.2,
        )
    assert f"{point} 0 -> {written:g}" in capsys.readouterr().out


def test_a_device_elsewhere_is_not_attacked_by_accident(tmp_path: Path) -> None:
    options = {"device": "sunspec-inverter", "target": "192.0.2.7:502", "listen": "127.0.0.1:0"}
    with pytest.raises(ArmingError, match="--arm inverter"):
        mitm_command(attack_file(tmp_path), **options)  # type: ignore[arg-type]
    with pytest.raises(ArmingError, match=r"no device 'invert' to arm.*did you mean 'inverter'"):
        mitm_command(attack_file(tmp_path), armed=["invert"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        ({"target": {"devices": ["pv_1"]}}, {}, "does nothing to 'inverter'.*--as"),
        ({"trigger": {"when": {"signal": "a.b", "above": 1}}}, {}, "waits for a signal"),
        ({"action": {"kind": "rewrite", "point": "w_limit"}}, {}, "did you mean 'w_limit_pct'"),
        (
            {"action": {"kind": "write", "point": "controller_heartbeat", "value": 1}},
            {},
            "has no limits for 'controller_heartbeat'.*expected min and max",
        ),
        ({}, {"listen": "502"}, "not an address.*HOST:PORT"),
        ({}, {"listen": "127.0.0.1:²"}, "not an address.*HOST:PORT"),
        ({}, {"device": "sunspec-invertor"}, "no such device file"),
        ({}, {"pcap": Path("a.txt")}, "ending in .pcapng"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_touched(
    tmp_path: Path, step: dict[str, object], options: dict[str, object], message: str
) -> None:
    words = {"device": "sunspec-inverter", "target": "127.0.0.1:1", "listen": "127.0.0.1:0"}
    with pytest.raises(ScenarioError, match=message):
        mitm_command(attack_file(tmp_path, **step), **(words | options))  # type: ignore[arg-type]
