"""The Raspberry Pi agent on gpiozero's mock pins and a fake 1-wire tree."""

from __future__ import annotations

import asyncio
import configparser
import itertools
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hil.rpi
from hil.rpi.agent import Agent, _parser, notify
from hil.rpi.relay import RelayControl, RelayTiming, Use
from hil.rpi.sensor import RoomTemperature, SensorLimits, W1Sensor, parse_w1_slave
from hil.servers.pdu import Table
from hil.servers.thermostat import Targets
from hil.servers.thermostat_map import Status, Verb

# The kernel's own example (Documentation/w1/slaves/w1_therm.rst shows the same two lines).
GOOD = "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t={}\n"


@pytest.mark.parametrize(
    ("text", "temp_c"),
    [
        (GOOD.format(21312), 21.312),
        (GOOD.format(-1062), -1.062),
        (GOOD.replace("YES", "NO").format(21312), None),
        (GOOD.format(85000), None),
        (GOOD.format(127937), None),
        ("00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0\n", None),
        ("00 00 4b 46 7f ff 10 10 c1 : crc=c1 YES\n00 00 4b 46 7f ff 10 10 c1 t=0\n", 0.0),
        (GOOD.format(""), None),
        (GOOD.split("\n")[0], None),
        ("", None),
        ("\0" * 80, None),
    ],
)
def test_sensor_file(text: str, temp_c: float | None) -> None:
    assert parse_w1_slave(text) == temp_c


@given(st.text())
def test_sensor_file_never_raises(text: str) -> None:
    parse_w1_slave(text)


def one_wire(root: Path, temp_c: float) -> Path:
    file = root / "28-000005e2fdc3" / "w1_slave"
    file.parent.mkdir(exist_ok=True)
    file.write_text(GOOD.format(round(1000 * temp_c)))
    return file


def test_the_first_sensor_is_found_and_a_missing_one_is_no_error(tmp_path: Path) -> None:
    sensor = W1Sensor(str(tmp_path / "28-*" / "w1_slave"))
    assert sensor.read_c() is None
    one_wire(tmp_path, 22.5)
    assert sensor.read_c() == 22.5


COOL_AT_24 = Targets(24.0, 20.0, True)


def test_least_times_and_hysteresis() -> None:
    control = RelayControl(RelayTiming(1.0, least_on_s=60, least_off_s=180), 0.0)
    history = []
    for now_s, temp_c in (
        (0, 26), (179, 26), (180, 26), (200, 23.0), (239, 23.0), (240, 23.6), (300, 23.4),
        (310, 25), (480, 25),
    ):  # fmt: skip
        history.append((now_s, control.step(now_s, temp_c, COOL_AT_24).value, control.waiting))
    assert history == [
        (0, "none", True),  # may have run until just now
        (179, "none", True),
        (180, "cooling", False),
        (200, "cooling", True),  # cold enough, but on for 20 s only
        (239, "cooling", True),
        (240, "cooling", False),  # inside the band again
        (300, "none", False),
        (310, "none", True),
        (480, "cooling", False),
    ]


def test_overrides_open_at_once() -> None:
    for temp_c, targets in ((None, COOL_AT_24), (26.0, Targets(24.0, 20.0, False))):
        control = RelayControl(RelayTiming(), -1000.0)
        assert control.step(0.0, 26.0, COOL_AT_24) is Use.cooling
        assert control.step(1.0, temp_c, targets) is Use.none


@given(st.lists(st.tuples(st.floats(1, 120), st.floats(15, 30), st.booleans()), max_size=60))
def test_it_never_restarts_early_nor_swaps_without_rest(
    steps: list[tuple[float, float, bool]],
) -> None:
    control = RelayControl(RelayTiming(), 0.0)
    now_s, use, off_since_s = 0.0, Use.none, 0.0
    for dt_s, temp_c, may_run in steps:
        now_s += dt_s
        new = control.step(now_s, temp_c, Targets(24.0, 20.0, may_run))
        if use is Use.none and new is not Use.none:
            assert now_s - off_since_s >= 180.0
        if use is not Use.none and new is not use:
            assert new is Use.none
            off_since_s = now_s
        use = new


class Bench:
    """An agent with a clock of its own on mock pins."""

    def __init__(self, root: Path) -> None:
        gpiozero = pytest.importorskip("gpiozero")
        from gpiozero.pins.mock import MockFactory

        from hil.rpi.relay import Relays

        assert gpiozero
        self.root, self.now_s = root, 0.0
        self.factory = MockFactory()
        self.relays = Relays(17, 27, pin_factory=self.factory)
        sensor = W1Sensor(str(root / "28-*" / "w1_slave"))
        self.agent = Agent(sensor, self.relays, power_w=1200.0, now=lambda: self.now_s)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now_s += 1.0
            self.agent.room.take(self.agent.sensor.read_c())
            self.agent.step()

    @property
    def pins(self) -> tuple[int, int]:
        return self.factory.pin(17).state, self.factory.pin(27).state

    def input(self, address: int) -> int:
        return self.agent.thermostat.bank.read(Table.input, address, 1)[0]


def test_relay_follows_registers_and_sensor(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one_wire(tmp_path, 26.0)
    bench.run(170)
    assert bench.pins == (0, 0)
    assert bench.input(7) & Status.waiting
    bench.run(20)
    assert bench.pins == (1, 0)
    assert (bench.input(0), bench.input(1), bench.input(2)) == (260, 1200, 1)
    bench.agent.thermostat.bank.write(Table.holding, 3, [Verb.grid_emergency])
    bench.run(1)
    assert bench.pins == (0, 0)
    bench.agent.thermostat.bank.write(Table.holding, 3, [Verb.end_shed])
    for temp_c in (24.0, 22.0, 20.0, 18.5, 17.0, 15.0):
        one_wire(tmp_path, temp_c)
        bench.run(40)
    assert bench.pins == (0, 1)


def test_a_dead_sensor_opens_the_relay(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    file = one_wire(tmp_path, 26.0)
    bench.run(200)
    assert bench.pins == (1, 0)
    file.write_text(GOOD.replace("YES", "NO").format(26000))
    bench.run(29)
    assert bench.pins == (1, 0)
    bench.run(3)
    assert bench.pins == (0, 0)
    assert bench.input(7) & Status.sensor_fault
    assert bench.input(0) == 0x10000 - 999


@pytest.mark.parametrize(
    ("temp_c", "within_s", "words"),
    [
        (-30.0, 1, "-30 degC is no room (-10 to 50)"),
        (70.0, 1, "70 degC is no room (-10 to 50)"),
        (29.0, 1, "it jumped"),
        (26.0, 3601, "stuck at 26 degC"),
    ],
)
def test_what_no_room_does_opens_the_relay(
    tmp_path: Path, temp_c: float, within_s: int, words: str, capsys: Any
) -> None:
    bench = Bench(tmp_path)
    one_wire(tmp_path, 26.0)
    bench.run(181)
    assert bench.pins == (1, 0)
    one_wire(tmp_path, temp_c)
    bench.run(within_s)
    assert bench.pins == (0, 0)
    assert bench.input(7) & Status.sensor_fault
    assert words in capsys.readouterr().err
    for k in range(18):  # the sensor lives again: near the old value, and it moves
        one_wire(tmp_path, 26.0 + 0.0625 * (k % 2 + 1))
        bench.run(45)
    assert bench.pins == (1, 0)
    assert "sensor: good again" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(-55, 125) | st.none()), max_size=80))
def test_a_believed_temperature_is_fresh_and_follows_from_the_last_ones(
    readings: list[tuple[int, float | None]],
) -> None:
    now_s, limits = 0.0, SensorLimits()
    room = RoomTemperature(lambda: now_s, limits)
    taken: list[tuple[float, float]] = []
    for dt_s, temp_c in readings:
        now_s += dt_s
        room.take(temp_c)
        if temp_c is not None:
            taken.append((now_s, temp_c))
        believed = room.temp_c
        assert (believed is None) == bool(room.fault)
        if believed is None:
            continue
        at_s, last_c = taken[-1]
        assert (believed, now_s - at_s <= limits.stale_s) == (last_c, True)
        assert limits.low_c <= last_c <= limits.high_c
        recent = [p for p in taken if p[0] > now_s - limits.settle_s]
        for (t0, c0), (t1, c1) in itertools.pairwise(recent):
            assert abs(c1 - c0) <= limits.jump_k + limits.rate_k_s * (t1 - t0)


def test_any_end_opens_the_relays(tmp_path: Path) -> None:
    from hil.servers.tcp import ModbusTcpServer

    bench = Bench(tmp_path)
    one_wire(tmp_path, 26.0)
    bench.run(200)
    assert bench.pins == (1, 0)

    def fail() -> Any:
        raise RuntimeError("a defect")

    bench.agent.step = fail  # type: ignore[method-assign]
    server = ModbusTcpServer({1: bench.agent.thermostat.bank})

    async def main() -> None:
        await bench.agent.run(server, asyncio.Event())

    with pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(main())
    assert bench.pins == (0, 0)


PROBE = """
import sys
from hil.rpi.agent import main
code = main(sys.argv[1:])
heavy = {"numpy", "scipy", "helics", "cvxpy", "opendssdirect", "dss", "pymodbus", "pydantic",
         "typer", "matplotlib", "pyarrow", "federates", "controllers"} & set(sys.modules)
print("heavy:", sorted(heavy))
raise SystemExit(code)
"""


def test_the_agent_as_a_process(tmp_path: Path) -> None:
    """Ready and alive signals, registers over TCP, SIGTERM; and nothing heavy was imported."""
    pytest.importorskip("gpiozero")
    one_wire(tmp_path, 26.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        arguments = ["--port", "0", "--cool-pin", "17", "--power", "900", "--least-off", "0"]
        arguments += ["--sensor", str(tmp_path / "28-*" / "w1_slave")]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROBE, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"GPIOZERO_PIN_FACTORY": "mock", "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        try:
            assert process.stdout is not None
            select.select([process.stdout], [], [], 20)
            line = process.stdout.readline()
            match = re.fullmatch(r"listening: thermostat 127\.0\.0\.1:(\d+) unit 1\n", line)
            assert match, line
            states = [systemd.recv(100) for _ in range(3)]
            assert states == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            with socket.create_connection(("127.0.0.1", int(match[1])), timeout=5) as sock:
                sock.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 4, 0, 3))
                answer = sock.recv(100)
            assert struct.unpack(">HHHBBBHHH", answer)[6:] == (260, 900, 1)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out == "heavy: []\n"


def test_notify_without_systemd_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    "arguments", [[], ["--cool-pin", "4", "--heat-pin", "4"], ["--cool-pin", "4", "--band", "0"]]
)
def test_wrong_options_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from hil.rpi.agent import main

    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_the_unit_file_starts_what_exists() -> None:
    path = Path(hil.rpi.__file__).parent / "feederate-thermostat.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text())
    service = unit["Service"]
    for key in ("ExecStart", "ExecStopPost"):
        assert "-P -m hil.rpi" in service[key]
    assert service["Type"] == "notify"
    assert math.isclose(float(service["WatchdogSec"]), 10.0)
    given_options = re.search(r"OPTIONS=(.*)", path.read_text())
    assert given_options is not None
    assert _parser().parse_args([*given_options[1].split(), "--off"]).cool_pin == 17
