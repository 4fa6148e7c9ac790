"""Seconds until every device has its safe value after something died; seen from the devices.

``python benchmarks/hil_safe_state.py [--devices 20] [--json]``: one adapter in a process of its own
commands the devices (registers behind real sockets in this process); then it is killed with -9,
stopped, told to exit, its federation falls silent, or a set-point is not a number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HEARTBEAT_S = 1.0
SAFE = 200
ADAPTER = """
import sys, time
from pathlib import Path
from hil.adapter.adapter import Adapter
from hil.devices.spec import DeviceSpec
how, heartbeat_s, audit, *ports = sys.argv[1:]
point = {"table": "holding", "address": 0, "type": "int16", "scale": 0.1, "access": "rw",
         "min": 10, "max": 30, "safe_value": 20}
specs = [DeviceSpec.model_validate({
    "name": f"d{p}", "connection": {"port": int(p)}, "guard": {"heartbeat_s": float(heartbeat_s)},
    "points": {"set_c": point}}) for p in ports]
adapter = Adapter(specs, armed=[s.name for s in specs], audit=Path(audit))
adapter.start(wait_s=5)
adapter.heartbeat()
for spec in specs:
    adapter.command(spec.name, "set_c", 26.0)
assert adapter.flush()
print("ready", flush=True)
silent = False
while True:
    if sys.stdin in __import__("select").select([sys.stdin], [], [], 0.05)[0]:
        sys.stdin.readline()
        if how == "exit":
            sys.exit()
        silent = how == "silent federation"
        if how == "not a number":
            for spec in specs:
                adapter.command(spec.name, "set_c", float("nan"))
    if not silent:
        adapter.heartbeat()
"""
CASES = {
    "kill -9": signal.SIGKILL,
    "stopped (hang)": signal.SIGSTOP,
    "SIGTERM": signal.SIGTERM,
    "exit": None,
    "silent federation": None,
    "not a number": None,
}


class Devices:
    """Registers behind sockets; remembers when each came to its safe value."""

    def __init__(self, n: int) -> None:
        self.value = [SAFE] * n
        self.safe_s = [0.0] * n
        self.ports: list[int] = []
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(n, ready)), daemon=True).start()
        ready.wait()

    async def _serve(self, n: int, ready: threading.Event) -> None:
        servers = []
        for i in range(n):

            async def client(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, i: int = i
            ) -> None:
                await self._client(i, reader, writer)

            servers.append(await asyncio.start_server(client, "127.0.0.1", 0))
            self.ports.append(servers[-1].sockets[0].getsockname()[1])
        ready.set()
        await asyncio.Event().wait()

    async def _client(
        self, i: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                pdu = await reader.readexactly(length - 1)
                reply = pdu[:5]
                if pdu[0] == 3:
                    reply = struct.pack(">BBH", 3, 2, self.value[i])
                else:
                    self.value[i] = struct.unpack(">H", pdu[3:5])[0]
                    if self.value[i] == SAFE:
                        self.safe_s[i] = time.monotonic()
                writer.write(struct.pack(">HHHB", tid, 0, len(reply) + 1, unit) + reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def measure(case: str, n: int) -> dict[str, float]:
    devices = Devices(n)
    with tempfile.TemporaryDirectory() as folder:
        audit = str(Path(folder) / "audit.jsonl")
        ports = [str(p) for p in devices.ports]
        program = subprocess.Popen(
            [sys.executable, "-c", ADAPTER, case, str(HEARTBEAT_S), audit, *ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "ready\n"
        assert set(devices.value) == {260}
        time.sleep(0.3)
        start_s = time.monotonic()
        number = CASES[case]
        if number is not None:
            os.kill(program.pid, number)
        else:
            program.stdin.write("now\n")
            program.stdin.flush()
        while set(devices.value) != {SAFE} and time.monotonic() - start_s < 20:
            time.sleep(0.002)
        safe = set(devices.value) == {SAFE}
        program.kill()
        program.communicate()
        time.sleep(0.3)
    seconds = max(devices.safe_s) - start_s if safe else float("inf")
    return {"seconds": round(seconds, 3), "heartbeats": round(seconds / HEARTBEAT_S, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {case: measure(case, options.devices) for case in CASES}
    if options.json:
        print(json.dumps({"devices": options.devices, "heartbeat_s": HEARTBEAT_S, **found}))
        return
    print(f"{options.devices} devices, heartbeat {HEARTBEAT_S:g} s")
    for case, row in found.items():
        print(f"  {case:20} {row['seconds']:6.3f} s = {row['heartbeats']:.2f} heartbeats")


if __name__ == "__main__":
    main()
