"""The independent watchdog: a process of its own that outlives the adapter.

``python -m hil.adapter.watchdog FD AUDIT`` listens on a socket that it shares with the adapter.
The adapter sends one plan per armed device (the raw writes that make it safe) and then beats.
When the beats stop for a device's heartbeat, or the socket closes before the device was released,
the watchdog opens its own connection and writes the plan until the device has confirmed it.

It shares no code with the adapter's client on purpose: what broke the adapter must not break it.

Messages, one JSON object per line. Adapter to watchdog: ``{"plan": {...}}``, ``{"beat": 1}``,
``{"release": NAME}``. Watchdog to adapter: ``{"ready": 1}``, ``{"fired": [NAME, ...]}``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid_models.base.errors import reason_of
from hil.adapter.audit import AuditLog
from hil.modbus.tls import client_context

_RETRY_S = 0.1
_GIVE_UP_S = 300.0


@dataclass
class SafeWrites:
    """How one device is made safe.

    Parameters
    ----------
    tls : ca, cert, key, server_name.
    writes : In the order of writing, as `hil.adapter.safe.SafeState.plan` gives them.
    """

    name: str
    host: str
    port: int
    unit: int
    tls: dict[str, Any] | None
    timeout_s: float
    heartbeat_s: float
    writes: list[Any]
    fired: bool = False

    @property
    def endpoint(self) -> tuple[str, int]:
        """Address; devices that share it share one connection."""
        return self.host, self.port


class Watchdog:
    """Waits for beats and makes devices safe when they stop.

    Parameters
    ----------
    sock : Connected to the adapter.
    now : Monotonic clock of the beats, s.
    """

    def __init__(
        self, sock: socket.socket, audit: AuditLog, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._sock, self._audit, self._now = sock, audit, now
        self._plans: dict[str, SafeWrites] = {}
        self._last_beat_s = now()
        self._over = asyncio.Event()

    async def run(self) -> int:
        """Serve until the adapter is gone and every device is safe; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._over.set)
        reader, writer = await asyncio.open_connection(sock=self._sock)
        self._writer = writer
        self._say({"ready": 1})
        listening = asyncio.create_task(self._listen(reader))
        tasks: set[asyncio.Task[list[str]]] = set()
        while not self._over.is_set():
            limit = min((p.heartbeat_s for p in self._plans.values()), default=1.0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), min(limit / 10, 0.25))
            late = await self._late()
            if late:
                self._say({"fired": [p.name for p in late]})
                tasks |= self._fire(late, "no beat from the adapter")
        listening.cancel()
        left = [p for p in self._plans.values() if not p.fired]
        tasks |= self._fire(left, "the adapter is gone")
        failed = [name for names in await asyncio.gather(*tasks) for name in names]
        self._writer.transport.abort()
        await asyncio.sleep(0)
        return 1 if failed else 0

    async def _late(self) -> list[SafeWrites]:
        """Return the devices whose heartbeat has passed without a beat."""
        if not self._silent():
            return []
        # This process may itself have been suspended: read what has already arrived.
        await asyncio.sleep(0.01)
        return self._silent()

    def _silent(self) -> list[SafeWrites]:
        silence_s = self._now() - self._last_beat_s
        return [p for p in self._plans.values() if not p.fired and silence_s > p.heartbeat_s]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        self._over.set()

    def _hear(self, message: dict[str, Any]) -> None:
        self._last_beat_s = self._now()
        if "plan" in message:
            plan = SafeWrites(**message["plan"])
            self._plans[plan.name] = plan
        elif "release" in message:
            self._plans.pop(message["release"], None)

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(ConnectionError, RuntimeError):
            self._writer.write((json.dumps(message) + "\n").encode())

    def _fire(self, plans: list[SafeWrites], why: str) -> set[asyncio.Task[list[str]]]:
        """Start one task per address; each returns the devices it could not make safe."""
        groups: dict[tuple[str, int], list[SafeWrites]] = {}
        for plan in plans:
            plan.fired = True
            groups.setdefault(plan.endpoint, []).append(plan)
        return {asyncio.create_task(self._make_safe(group, why)) for group in groups.values()}

    async def _make_safe(self, plans: list[SafeWrites], why: str) -> list[str]:
        left = list(plans)
        give_up_s = time.monotonic() + _GIVE_UP_S
        while left and time.monotonic() < give_up_s:
            try:
                reader, writer = await _connect(left[0])
            except (OSError, TimeoutError, ssl.SSLError) as error:
                failure = reason_of(error) or "no connection in time"
                self._record(left[0], "failed", f"{why}: {failure}")
                await asyncio.sleep(_RETRY_S)
                continue
            for plan in list(left):
                failure = await self._write_plan(plan, reader, writer, why)
                if failure:
                    self._record(plan, "failed", f"{why}: {failure}")
                    left.append(left.pop(left.index(plan)))
                    break  # what follows on this connection cannot be trusted
                left.remove(plan)
            writer.transport.abort()
            if left:
                await asyncio.sleep(_RETRY_S)
        for plan in left:
            self._record(plan, "failed", f"given up after {_GIVE_UP_S:g} s")
        return [p.name for p in left]

    async def _write_plan(
        self, plan: SafeWrites, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, why: str
    ) -> str:
        """Write the plan and check every echo; return what went wrong, '' for nothing."""
        for tid, write in enumerate(plan.writes, start=1):
            point, value = write["point"], write["value"]
            try:
                failure = await asyncio.wait_for(
                    _write(
                        reader,
                        writer,
                        tid,
                        plan.unit,
                        write["function"],
                        write["address"],
                        write["registers"],
                    ),
                    plan.timeout_s,
                )
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError) as error:
                failure = reason_of(error) or "no answer in time"
            if failure:
                return f"{point}: {failure}"
            self._audit.record(
                plan.name, point, verdict="safe", asked=value, sent=value, why=f"watchdog: {why}"
            )
        return ""

    def _record(self, plan: SafeWrites, verdict: str, why: str) -> None:
        self._audit.record(plan.name, "", verdict=verdict, why=f"watchdog: {why}")


async def _connect(plan: SafeWrites) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = name = None
    if plan.tls:
        paths = (Path(plan.tls[k]) for k in ("ca", "cert", "key"))
        context = client_context(*paths)
        name = plan.tls.get("server_name") or plan.host
    return await asyncio.wait_for(
        asyncio.open_connection(plan.host, plan.port, ssl=context, server_hostname=name),
        max(plan.timeout_s, 0.2),
    )


async def _write(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tid: int,
    unit: int,
    function: int,
    address: int,
    registers: list[int],
) -> str:
    """Write registers or bits; return what was wrong with the reply, '' for nothing."""
    pdu = _pdu(function, address, registers)
    writer.write(struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu)
    head = await reader.readexactly(7)
    got_tid, protocol, length, got_unit = struct.unpack(">HHHB", head)
    if protocol != 0 or not 3 <= length <= 254:
        return f"not a Modbus/TCP header: {head.hex(' ')}"
    reply = await reader.readexactly(length - 1)
    if (got_tid, got_unit) != (tid, unit):
        return f"transaction {got_tid}, unit {got_unit} answered"
    if reply[0] == function | 0x80:
        return f"refused with exception {reply[1]}"
    return "" if reply == pdu[:5] else f"echo {reply[:5].hex(' ')}, sent {pdu[:5].hex(' ')}"


def _pdu(function: int, address: int, values: list[int]) -> bytes:
    if function == 5:
        return struct.pack(">BHH", 5, address, 0xFF00 if values[0] else 0)
    if function == 6:
        return struct.pack(">BHH", 6, address, values[0])
    n = len(values)
    if function == 15:
        packed = sum(1 << i for i, v in enumerate(values) if v).to_bytes((n + 7) // 8, "little")
        return struct.pack(">BHHB", 15, address, n, len(packed)) + packed
    return struct.pack(f">BHHB{n}H", 16, address, n, 2 * n, *values)


def main(argv: list[str]) -> int:
    """Run the watchdog on a file descriptor."""
    sock = socket.socket(fileno=int(argv[1]))
    audit = AuditLog(Path(argv[2]), by="watchdog")
    try:
        return asyncio.run(_run(sock, audit))
    finally:
        audit.close()


async def _run(sock: socket.socket, audit: AuditLog) -> int:
    sock.setblocking(False)
    return await Watchdog(sock, audit).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
