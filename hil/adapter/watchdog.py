"""The independent watchdog: a process of its own that outlives the adapter.

``python -m hil.adapter.watchdog FD AUDIT`` listens on a socket that it shares with the adapter.
The adapter sends one plan per armed device (the raw writes that make it safe) and then beats.
When the beats stop for a device's heartbeat, or the socket closes before the device was released,
the watchdog opens its own connection and writes the plan until the device has confirmed it.

An adapter that hangs may hold the only connection that a device takes. When the device cannot be
reached beside it, the watchdog ends its process by SIGKILL: at once where the device file says
`one_connection`, else after a second without a sign of life.

It shares no code with the adapter's client on purpose: what broke the adapter must not break it.

Messages, one JSON object per line. Adapter to watchdog: ``{"plan": {...}}``, ``{"beat": 1}``,
``{"release": NAME}``. Watchdog to adapter: ``{"ready": 1}``, ``{"fired": [NAME, ...]}``,
``{"log_lost": WHY}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import syslog
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hil.adapter.audit import AuditLog
from hil.adapter.watchdog_rescue import NotSafe, Rescue
from hil.adapter.watchdog_wire import SafeWrites

_TAKE_OVER_S = 1.0


class Watchdog:
    """Waits for beats and makes devices safe when they stop.

    Parameters
    ----------
    sock : Connected to the adapter.
    now : Monotonic clock of the beats, s.
    may_kill : Whether an adapter that hangs may be ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        audit: AuditLog,
        now: Callable[[], float] = time.monotonic,
        *,
        may_kill: bool = False,
    ) -> None:
        self._sock, self._audit, self._now = sock, audit, now
        self._adapter_pid = os.getppid() if may_kill else -1
        self._plans: dict[str, SafeWrites] = {}
        self._last_beat_s = now()
        self._over = asyncio.Event()
        self._rescues: dict[tuple[str, int], tuple[Rescue, asyncio.Task[list[NotSafe]]]] = {}
        self._locks: dict[str, int] = {}

    async def run(self) -> int:
        """Serve until the adapter is gone and every device is safe; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._over.set)
        reader, writer = await asyncio.open_connection(sock=self._sock)
        self._writer = writer
        self._audit.on_lost = lambda why: self._say({"log_lost": why})
        self._say({"ready": 1})
        listening = asyncio.create_task(self._listen(reader))
        while not self._over.is_set():
            limit = min((p.heartbeat_s for p in self._plans.values()), default=1.0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), min(limit / 10, 0.25))
            late = await self._late()
            if late:
                self._say({"fired": [p.name for p in late]})
                self._fire(late, "no beat from the adapter")
        listening.cancel()
        failed = await self._finish()
        self._writer.transport.abort()
        await asyncio.sleep(0)
        return 1 if failed else 0

    async def _finish(self) -> list[NotSafe]:
        """Make safe what was not released, and say what could not be made safe."""
        for name in self._locks.keys() - self._plans.keys():
            self._unlock(name)
        # By a signal to this process, the adapter may still be there, and must stop commanding.
        self._say({"fired": list(self._plans)})
        for rescue, _ in self._rescues.values():
            rescue.hurry()
        self._fire(list(self._plans.values()), "the adapter is gone")
        tasks = [task for _, task in self._rescues.values()]
        failed = [entry for found in await asyncio.gather(*tasks) for entry in found]
        for device, point, value in failed:
            text = f"feederate: {device} is not safe: {point} should be {value:g}; given up"
            syslog.syslog(syslog.LOG_CRIT, text)
        return failed

    def _unlock(self, name: str) -> None:
        """Let other runs use a device that is safe, once the adapter is gone."""
        if self._over.is_set() and (fd := self._locks.pop(name, -1)) >= 0:
            os.close(fd)

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
            if plan.lock_fd >= 0:
                self._locks[plan.name] = plan.lock_fd
        elif "release" in message:
            self._plans.pop(message["release"], None)
            for rescue, _ in self._rescues.values():
                rescue.drop(message["release"])

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(ConnectionError, RuntimeError):
            self._writer.write((json.dumps(message) + "\n").encode())

    def _fire(self, plans: list[SafeWrites], why: str) -> None:
        """Make devices safe, in one task per address."""
        groups: dict[tuple[str, int], list[SafeWrites]] = {}
        for plan in plans:
            plan.fired = True
            groups.setdefault(plan.endpoint, []).append(plan)
        for endpoint, group in groups.items():
            if endpoint in self._rescues and not self._rescues[endpoint][1].done():
                self._rescues[endpoint][0].add(group)
                continue
            after_s = 0.0 if any(p.one_connection for p in group) else _TAKE_OVER_S
            take_over = partial(self._take_over, self._now(), group, after_s)
            rescue = Rescue(why, self._audit.record, take_over, self._unlock)
            rescue.add(group)
            self._rescues[endpoint] = rescue, asyncio.create_task(rescue.run())

    def _take_over(self, fired_s: float, plans: list[SafeWrites], after_s: float) -> bool:
        """End an adapter that hangs, since it may hold the only connection to the devices.

        The parent of this process is the adapter's as long as it exists, so no other is hit.
        """
        silent = self._last_beat_s <= fired_s and self._now() - fired_s >= after_s
        if self._over.is_set() or not silent or os.getppid() != self._adapter_pid:
            return False
        names = ", ".join(p.name for p in plans)
        why = f"watchdog: the adapter hangs and may hold the only connection to {names}: "
        why += f"process {self._adapter_pid} is ended"
        for plan in plans:
            self._audit.record(plan.name, "", verdict="killed", why=why)
        with suppress(ProcessLookupError):
            os.kill(self._adapter_pid, signal.SIGKILL)
        self._adapter_pid = -1
        return True


def main(argv: list[str]) -> int:
    """Run the watchdog on a file descriptor."""
    sock = socket.socket(fileno=int(argv[1]))
    audit = AuditLog(Path(argv[2]), by="watchdog")
    try:
        return asyncio.run(_run(sock, audit, may_kill="may-kill" in argv[3:]))
    finally:
        audit.close()


async def _run(sock: socket.socket, audit: AuditLog, may_kill: bool) -> int:
    sock.setblocking(False)
    return await Watchdog(sock, audit, may_kill=may_kill).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
