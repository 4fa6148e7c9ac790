"""Cost and pace of the device adapter.

``python benchmarks/hil_adapter.py --devices 200 --duration 600 --json`` polls emulated thermostats
once per second from one adapter and prints the CPU of the adapter (all threads of its process),
the lateness of the polls and how many were lost; then the latency of one read of 60 registers
beside the bare pymodbus client, in turns, on the same server, as Modbus/TCP and as RTU over TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient

from hil.adapter.adapter import Adapter
from hil.devices.file import load_device_file
from hil.devices.points import Quality
from hil.devices.spec import ConnectionSpec, DeviceSpec
from hil.modbus.client import ModbusClient

READ_COUNT = 60
SERVER = """
import asyncio, struct, sys
from hil.modbus.rtu import rtu_frame
async def client(reader, writer):
    while True:
        if sys.argv[1] == "tcp":
            head = await reader.readexactly(7)
            tid, _, length, unit = struct.unpack(">HHHB", head)
            pdu = await reader.readexactly(length - 1)
        else:
            unit, *pdu = await reader.readexactly(8)
        n = struct.unpack(">BHH", bytes(pdu[:5]))[2]
        body = bytes([pdu[0], 2 * n]) + bytes(2 * n)
        if sys.argv[1] == "tcp":
            writer.write(struct.pack(">HHHB", tid, 0, len(body) + 1, unit) + body)
        else:
            writer.write(rtu_frame(unit, body))
async def main():
    server = await asyncio.start_server(client, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def free_ports(n: int) -> int:
    """Return the first of `n` free ports in a row."""
    for first in range(20000, 60000, 211):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + n):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for s in held:
                s.close()
    raise SystemExit("no free ports")


def emulate(n: int) -> tuple[subprocess.Popen[str], list[tuple[int, int]]]:
    """Start `n` emulated thermostats; return their process and (port, unit) of each."""
    program = subprocess.Popen(
        [
            *(sys.executable, "-P", "-c", "from federates.cli import main; main()"),
            *("emulate", "thermostat"),
            *("--port", str(free_ports(n)), "--count", str(n)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    found: list[tuple[int, int]] = []
    while len(found) < n:
        line = program.stdout.readline()
        if not line:
            raise SystemExit("the emulator did not start")
        match = re.search(r":(\d+) unit (\d+)", line)
        if match:
            found.append((int(match[1]), int(match[2])))
    return program, found


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_pace(n: int, duration_s: float, *, command: bool) -> dict[str, Any]:
    program, places = emulate(n)
    try:
        base = load_device_file("thermostat")
        specs = [
            base.at(name=f"t{i}", port=port, unit=unit) for i, (port, unit) in enumerate(places)
        ]
        return _pace(specs, duration_s, command=command)
    finally:
        program.terminate()
        program.wait(20)


def _pace(specs: list[DeviceSpec], duration_s: float, *, command: bool) -> dict[str, Any]:
    names = [s.name for s in specs]
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder) / "audit.jsonl"
        with Adapter(specs, armed=names if command else (), audit=audit) as adapter:
            time.sleep(3.0)  # connections are made, first polls done
            adapter.poll()
            before, cpu_before, start_s = dict(adapter.stats), cpu_s(), time.monotonic()
            steps = 0
            while time.monotonic() - start_s < duration_s:
                adapter.heartbeat()
                if command:
                    for i, name in enumerate(names):
                        adapter.command(name, "cool_set_c", 24.0 + 0.1 * ((steps + i) % 20))
                steps += 1
                time.sleep(max(0.0, start_s + steps - time.monotonic()))
            cpu, wall_s = cpu_s() - cpu_before, time.monotonic() - start_s
            stats, view = dict(adapter.stats), adapter.snapshot()
            events = [e for e in adapter.events() if e.kind != "quality"]
        writes = len(audit.read_text().splitlines())
    return {
        "devices": len(specs),
        "duration_s": round(wall_s, 1),
        "commanded": command,
        "cpu_percent_of_a_core": round(100 * cpu / wall_s, 2),
        "requests_per_s": round((stats["requests"] - before["requests"]) / wall_s, 1),
        "polls": stats["polls"] - before["polls"],
        "lost_polls": stats["lost_polls"] - before["lost_polls"],
        "timeouts": stats["timeouts"] - before["timeouts"],
        "lateness_ms": {k: round(1e3 * v, 3) for k, v in stats["lateness_s"].items()},
        "points_good": int(np.count_nonzero(view.quality == Quality.GOOD)),
        "points": len(view.values),
        "audit_lines": writes,
        "events": len(events),
    }


async def measure_latency(
    rounds: int, per_round: int = 100, *, framing: Literal["tcp", "rtu-over-tcp"] = "tcp"
) -> dict[str, Any]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, framing, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    link = ModbusClient(ConnectionSpec(port=port, timeout_s=1.0, framing=framing))
    bare = AsyncModbusTcpClient(
        "127.0.0.1", port=port, timeout=1.0, retries=0,
        framer=FramerType.SOCKET if framing == "tcp" else FramerType.RTU,
    )  # fmt: skip
    await bare.connect()
    times: dict[str, list[float]] = {"adapter": [], "pymodbus": []}

    async def ours() -> None:
        data = await link.read(1, "holding", 0, READ_COUNT)
        assert len(struct.unpack(f">{READ_COUNT}H", data)) == READ_COUNT

    async def theirs() -> None:
        reply = await bare.read_holding_registers(0, count=READ_COUNT, device_id=1)
        assert len(reply.registers) == READ_COUNT

    for i in range(rounds + 1):
        for name, call in (("adapter", ours), ("pymodbus", theirs)):
            for _ in range(per_round):
                start = time.perf_counter()
                await call()
                if i:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
    link.close()
    bare.close()
    server.terminate()
    await server.wait()
    out: dict[str, Any] = {"reads_each": rounds * per_round, "registers": READ_COUNT}
    for name, values in times.items():
        p50, p99 = np.percentile(values, (50, 99)) * 1e6
        out[name] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
    out["ratio_p50"] = round(out["adapter"]["p50_us"] / out["pymodbus"]["p50_us"], 3)
    out["ratio_mean"] = round(float(np.mean(times["adapter"]) / np.mean(times["pymodbus"])), 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--duration", type=float, default=600.0, help="seconds")
    parser.add_argument("--command", action="store_true", help="also one set-point each, every 1 s")
    parser.add_argument("--rounds", type=int, default=30, help="of 100 reads each, for the latency")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = {
        "latency": asyncio.run(measure_latency(options.rounds)),
        "latency_rtu": asyncio.run(measure_latency(options.rounds, framing="rtu-over-tcp")),
        "pace": measure_pace(options.devices, options.duration, command=options.command),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for part, values in result.items():
        print(part)
        for key, value in values.items():
            print(f"  {key:22} {value}")


if __name__ == "__main__":
    main()
