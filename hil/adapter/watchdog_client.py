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

from hil.devices.errors import DeviceError
from hil.devices.spec import DeviceSpec

_START_S = 10.0


class WatchdogClient:
    """Starts the watchdog process and talks to it without ever waiting for it.

    Parameters
    ----------
    audit : Audit log that the watchdog appends to as well.
    on_fired : Called with the names of the devices that the watchdog took over.
    on_lost : Called when the watchdog is gone.
    """

    def __init__(
        self, audit: Path, on_fired: Callable[[Sequence[str]], None], on_lost: Callable[[], None]
    ) -> None:
        self._audit = audit
        self._on_fired = on_fired
        self._on_lost = on_lost
        self._closing = False
        self.process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises DeviceError: It did not start; nothing may be written then.
        """
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            arguments = [str(theirs.fileno()), str(self._audit.resolve())]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hil.adapter.watchdog", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
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
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                if "fired" in message:
                    self._on_fired(message["fired"])
        if not self._closing:
            self._on_lost()

    def plan(self, spec: DeviceSpec, writes: list[dict[str, Any]]) -> None:
        """Tell how a device is made safe."""
        connection = spec.connection
        tls = connection.tls.model_dump(mode="json") if connection.tls else None
        if tls:
            tls |= {k: str(Path(tls[k]).resolve()) for k in ("ca", "cert", "key")}
        plan = connection.model_dump(include={"host", "port", "unit", "timeout_s"})
        plan |= {"name": spec.name, "tls": tls, "heartbeat_s": spec.guard.heartbeat_s}
        self._send({"plan": plan | {"writes": writes}})

    def beat(self) -> None:
        """Say that the adapter is alive."""
        self._send({"beat": 1})

    def release(self, name: str) -> None:
        """Say that a device is at its safe values and needs no watching any more."""
        self._send({"release": name})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write((json.dumps(message) + "\n").encode())

    async def close(self) -> None:
        """Disconnect; the watchdog makes safe what was not released, then ends by itself."""
        self._closing = True
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()
        if self._listening is not None:
            self._listening.cancel()
        if self.process is not None:
            for _ in range(100):
                if self.process.poll() is not None:
                    return
                await asyncio.sleep(0.02)
            # It is still making a device safe, and goes on after this process.
