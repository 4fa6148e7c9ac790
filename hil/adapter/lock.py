"""Only one run at a time may command a device: a lock per address and unit on this machine."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hil.devices.errors import DeviceError
from hil.devices.spec import ConnectionSpec, DeviceSpec

_PATIENCE_S = 1.0


class DeviceLock:
    """The lock of one armed device; readers need none.

    It is a lock on a file in the user's temporary directory, and ends with the last process that
    holds `fd`: the watchdog has it too, and keeps it until the device is safe.

    Parameters
    ----------
    run : Audit log of the run that takes the lock, for the message to others.

    Raises DeviceError: Another process holds the lock; its process id and run are in the message.
    """

    def __init__(self, spec: DeviceSpec, run: Path) -> None:
        self._owner = {"pid": os.getpid(), "run": str(run.resolve())}
        where = f"device '{spec.name}' at {spec.connection.address}"
        path = _folder() / f"device-{re.sub(r'[^A-Za-z0-9.]+', '-', _key(spec.connection))}.lock"
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DeviceError(f"no lock file: {error.strerror}: {path}", where=where) from None
        end_s = time.monotonic() + _PATIENCE_S  # the watchdog of an earlier run may just be ending
        while not self._try():
            if time.monotonic() > end_s:
                holder = self._holder()
                os.close(self.fd)
                raise DeviceError(
                    f"another run commands it: {holder}", where=where, expected="one run at a time"
                )
            time.sleep(0.05)
        self._write()

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def watched_by(self, pid: int) -> None:
        """Note the process id of the watchdog, which may hold the lock longer."""
        self._owner["watchdog"] = pid
        self._write()

    def _write(self) -> None:
        with suppress(OSError):  # the text is only for the message; the lock holds without it
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, json.dumps(self._owner).encode(), 0)

    def _holder(self) -> str:
        try:
            owner = json.loads(os.pread(self.fd, 4096, 0))
            pid, run, watchdog = owner["pid"], owner["run"], owner.get("watchdog")
        except (OSError, ValueError, KeyError, TypeError):
            return "a process that did not say its name"
        if Path(f"/proc/{pid}").exists() or not Path("/proc").is_dir():
            return f"process {pid}, run {run}"
        return f"process {watchdog}, which still makes it safe after run {run}"

    def close(self) -> None:
        """Give up this process's hold."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _folder() -> Path:
    """Return the folder of the lock files, one per user."""
    folder = Path(tempfile.gettempdir()) / f"feederate-locks-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
            raise DeviceError(f"the folder of the lock files is not yours: {folder}")
    except OSError as error:
        raise DeviceError(f"no folder for lock files: {error.strerror}: {folder}") from None
    return folder


def _key(connection: ConnectionSpec) -> str:
    """Return the same text for every way to write a device's address."""
    if connection.serial is not None:
        return f"{Path(connection.serial.port).resolve()}-{connection.unit}"
    host = connection.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        with suppress(OSError):
            found = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
            host = str(min(found)[4][0])
    return f"{host}-{connection.port}-{connection.unit}"
