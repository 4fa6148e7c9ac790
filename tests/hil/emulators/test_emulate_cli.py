"""`feederate emulate` as a process: what it prints, how it ends, and foreign programs on it."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., tuple["subprocess.Popen[bytes]", list[tuple[str, int, int]], int]]
LINE = re.compile(r"listening: (\S+) 127\.0\.0\.1:(\d+)(?: unit (\d+))?(?: \(tls\))?\n")


def readline(process: subprocess.Popen[bytes], timeout_s: float = 30.0) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    return process.stdout.readline().decode() if ready else ""


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str, lines: int = 1
    ) -> tuple[subprocess.Popen[bytes], list[tuple[str, int, int]], int]:
        command = [sys.executable, "-P", "-c", "from federates.cli import main; main()", "emulate"]
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that select() sees every line
        )
        running.append(process)
        devices, grid = [], 0
        for _ in range(lines):
            line = readline(process)
            match = LINE.fullmatch(line)
            assert match, (line, process.poll())
            if match[1] == "grid":
                grid = int(match[2])
            else:
                devices.append((match[1], int(match[2]), int(match[3])))
        return process, devices, grid

    yield begin
    for process in running:
        process.kill()
        process.communicate(timeout=10)


def test_ports_units_names_and_sigterm(start: Start) -> None:
    process, devices, grid = start("thermostat", "--names", "a,b", "--grid-port", "0", lines=3)
    assert [name for name, _, _ in devices] == ["a", "b"]
    assert [unit for _, _, unit in devices] == [1, 1]
    assert len({port for _, port, _ in devices}) == 2
    with socket.create_connection(("127.0.0.1", grid), timeout=10) as sock:
        sock.sendall(b'{"temp_out_c": 35}\n')
        answer = json.loads(sock.makefile().readline())
    assert len(answer["temp_in_c"]) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert process.communicate()[1] == b""


def test_many_units_behind_one_port(start: Start) -> None:
    _, devices, _ = start("battery", "--count", "3", "--unit", "5", "--one-port", lines=3)
    assert [unit for _, _, unit in devices] == [5, 6, 7]
    assert len({port for _, port, _ in devices}) == 1


def test_a_configuration_has_its_own_unit_and_name(start: Start) -> None:
    _, [(name, port, unit)], _ = start("daikin", "--unit", "9")
    assert (name, unit) == ("daikin_1", 9)
    request = bytes.fromhex("0001 00000006 09 04 0014 0002")  # input registers 20 and 21
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(request)
        assert sock.recv(64)[7:] == bytes.fromhex("04 04 0001 0000")


def test_the_leash_ends_it(start: Start) -> None:
    process, _, _ = start("inverter", "--leash")
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inverter", "--fault", "slient"), "did you mean 'silent'"),
        (("inverter", "--tls", "nowhere"), "no such file: nowhere/ca.pem"),
        (("inverter", "--time", "grid"), "needs --grid-port"),
        (("thermostat", "--names", "a,a"), "distinct names"),
        (("inverter", "--port", "65535", "--count", "2"), "no room for 2 devices"),
        (("inverter", "--phases", "2"), "1 or 3"),
        (("fronus",), "did you mean 'fronius'"),
        (("device",), "CONFIG"),
    ],
)
def test_wrong_options_are_explained(arguments: tuple[str, ...], message: str) -> None:
    code = "import sys; from federates.cli import call; sys.exit(call(['emulate', *sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


needs_mbpoll = pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is not installed")


def mbpoll(port: int, *arguments: str) -> list[int]:
    """Run mbpoll with zero-based addresses; return the values it read."""
    done = subprocess.run(
        ["mbpoll", "-0", "-1", "-p", str(port), "127.0.0.1", *arguments],
        check=False, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(v) for v in re.findall(r"^\[\d+\]: \t(-?\d+)", done.stdout, re.MULTILINE)]


@needs_mbpoll
def test_mbpoll_reads_and_writes(start: Start) -> None:
    _, [(_, inverter, _)], _ = start("inverter")
    assert mbpoll(inverter, "-r", "40000", "-c", "3") == [0x5375, 0x6E53, 1]
    _, [(_, thermostat, _)], _ = start("thermostat")
    old = mbpoll(thermostat, "-r", "0", "-c", "2")
    mbpoll(thermostat, "-r", "0", "--", str(old[0] + 5))
    assert mbpoll(thermostat, "-r", "0", "-c", "2") == [old[0] + 5, old[1]]
    assert mbpoll(thermostat, "-r", "15", "-c", "2", "-t", "3") == [50, 350]
    assert mbpoll(thermostat, "-r", "0", "-c", "1", "-t", "0") == [1]


@pytest.mark.skipif(
    shutil.which("tshark") is None or os.geteuid() != 0, reason="tshark cannot capture here"
)
def test_tshark_finds_no_malformed_frame(start: Start, tmp_path: Path) -> None:
    from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

    _, [(_, port, _)], _ = start("inverter")
    capture = tmp_path / "traffic.pcapng"
    sniffer = subprocess.Popen(
        ["tshark", "-i", "lo", "-f", f"tcp port {port}", "-w", str(capture), "-q"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert sniffer.stderr is not None
        while "Capturing" not in sniffer.stderr.readline():
            assert sniffer.poll() is None
        time.sleep(0.5)  # the kernel's filter is in place a little after the message
        device = SunSpecModbusClientDeviceTCP(1, "127.0.0.1", port, timeout=3)
        device.connect()
        device.scan(connect=False)
        device.DERCtlAC[0].WMaxLimPct.cvalue = 50.0
        device.DERCtlAC[0].write()
        device.disconnect()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            # No such address; then in one segment an unknown unit twice, once with function 99.
            for request in (
                "0001 00000006 01 03 0000 0001",
                "0002 00000002 09 63 0003 00000006 09 03 0000 0001",
            ):
                sock.sendall(bytes.fromhex(request))
                time.sleep(0.1)
            assert len(sock.recv(4096)) == 27  # three exceptions
        time.sleep(0.5)
    finally:
        sniffer.terminate()
        sniffer.communicate(timeout=20)
    read = ["tshark", "-r", str(capture), "-o", f"mbtcp.tcp.port:{port}"]

    def count(wanted: str) -> int:
        done = subprocess.run(
            [*read, "-Y", wanted], check=True, capture_output=True, text=True, timeout=60
        )
        return len(done.stdout.splitlines())

    assert count("modbus") > 40
    assert count("modbus.exception_code") >= 2
    assert count("_ws.malformed || _ws.expert.severity == error") == 0
