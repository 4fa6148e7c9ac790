"""The adapter's side of the watchdog: starts it, sends beats, learns when it took over."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hil.adapter.lock import DeviceLock
from hil.devices.errors import DeviceError
from hil.devices.spec import DeviceSpec

_START_S = 10.0
_CONNECTION = {
    "host", "port", "unit", "timeout_s", "connect_timeout_s", "connect_delay_s", "pause_s",
    "framing", "serial", "one_connection", "reply_unit",
}  # fmt: skip


class WatchdogClient:
    """Starts the watchdog process and talks to it without ever waiting for it.

    Parameters
    ----------
    audit : Audit log that the watchdog appends to as well.
    on_fired : Called with the names of the devices that the watchdog took over.
    on_lost : Called when the watchdog is gone.
    on_log_lost : Called with the reason when the watchdog cannot write the audit log.
    may_kill : Whether the watchdog may end this process when it hangs and holds the only
        connection to a device.
    """

    def __init__(
        self,
        audit: Path,
        on_fired: Callable[[Sequence[str]], None],
        on_lost: Callable[[], None],
        on_log_lost: Callable[[str], None],
        *,
        may_kill: bool = True,
    ) -> None:
        self._audit = audit
        self._on_fired = on_fired
        self._on_lost = on_lost
        self._on_log_lost = on_log_lost
        self._may_kill = may_kill
        self._locks: dict[str, DeviceLock] = {}
        self._closing = False
        self.process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self, specs: Sequence[DeviceSpec]) -> None:
        """Lock the devices, start the process and wait until it is ready.

        Raises DeviceError: Another run commands a device, or the watchdog did not start; nothing
        may be written then.
        """
        try:
            for spec in specs:
                self._locks[spec.name] = DeviceLock(spec, self._audit)
            await self._start()
        except DeviceError:
            self._unlock()
            raise

    def _unlock(self) -> None:
        for lock in self._locks.values():
            lock.close()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            arguments = [str(theirs.fileno()), str(self._audit.resolve())]
            arguments += ["may-kill"] if self._may_kill else []
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hil.adapter.watchdog", *arguments],
                pass_fds=[theirs.fileno(), *(lock.fd for lock in self._locks.values())],
                # What reads this process's output must not wait for a watchdog that outlives it.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal must not end the watchdog
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        ours.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            line = await asyncio.wait_for(reader.readline(), _START_S)
        except TimeoutError:
            line = b""
        if b"ready" not in line:
            raise DeviceError(
                "the watchdog did not start", expected="python -m hil.adapter.watchdog"
            )
        for lock in self._locks.values():
            lock.watched_by(self.process.pid)
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                if "fired" in message:
                    self._on_fired(message["fired"])
                elif "log_lost" in message:
                    self._on_log_lost(message["log_lost"])
        if not self._closing:
            self._on_lost()

    def plan(self, spec: DeviceSpec, writes: list[dict[str, Any]]) -> None:
        """Tell how a device is made safe."""
        connection = spec.connection
        tls = connection.tls.model_dump(mode="json") if connection.tls else None
        if tls:
            tls |= {k: str(Path(tls[k]).resolve()) for k in ("ca", "cert", "key")}
        plan = connection.model_dump(mode="json", include=_CONNECTION)
        plan |= {"name": spec.name, "tls": tls, "heartbeat_s": spec.guard.heartbeat_s}
        lock = self._locks.get(spec.name)
        self._send({"plan": plan | {"writes": writes, "lock_fd": lock.fd if lock else -1}})

    def beat(self) -> None:
        """Say that the adapter is alive."""
        self._send({"beat": 1})

    def release(self, name: str) -> None:
        """Say that a device is at its safe values and needs no watching any more."""
        self._send({"release": name})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write((json.dumps(message) + "\n").encode())

    async def close(self) -> bool:
        """Disconnect; the watchdog makes safe what was not released, then ends by itself.

        Returns
        -------
        safe : bool
            Whether it ended by now and made safe what was not released.
        """
        self._closing = True
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()
        if self._listening is not None:
            self._listening.cancel()
        self._unlock()
        if self.process is None:
            return False
        for _ in range(100):
            if self.process.poll() is not None:
                return self.process.returncode == 0
            await asyncio.sleep(0.02)
        return False  # it is still making a device safe, and goes on after this process
