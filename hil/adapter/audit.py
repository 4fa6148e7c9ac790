"""Append-only log of everything that was written, or refused, or should have been.

One JSON object per line: time_utc, device, point, asked, sent, read_back, verdict, why, by.
Lines are appended with a single write each, so that adapter and watchdog may share the file and a
process that dies never leaves half a line. A full disk may: `read_audit` leaves such a line out.

A line that cannot be written is lost and no error: the writes to the devices matter more. The first
loss is said on the standard error and by `on_lost`; the first line that can be written again is
followed by one that counts the lost ones.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil.devices.errors import DeviceError


class AuditLog:
    """The audit log of an adapter or a watchdog.

    Parameters
    ----------
    path : File to append to; made with its folder where it is not there.
    by : Who writes: 'adapter' or 'watchdog'.
    on_lost : Called with the reason when a line is lost for the first time.

    Raises DeviceError: The file cannot be opened.
    """

    def __init__(
        self, path: Path, *, by: str = "adapter", on_lost: Callable[[str], None] | None = None
    ) -> None:
        self.path = Path(path)
        self.by = by
        self.on_lost = on_lost
        self._lost = 0
        self._told = self._torn = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise DeviceError(
                f"the audit log cannot be written: {error.strerror}", where=str(path)
            ) from None

    def record(
        self,
        device: str,
        point: str,
        *,
        verdict: str,
        why: str,
        asked: float | str | None = None,
        sent: float | None = None,
        read_back: float | None = None,
    ) -> None:
        """Append one line.

        Parameters
        ----------
        verdict : 'written', 'clamped', 'limited', 'refused', 'failed', 'changed', 'left', 'safe',
            'fault', 'killed', 'lost'.
        why : In words.
        """
        line: dict[str, Any] = {
            "time_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": self.by,
            "device": device,
            "point": point,
            "verdict": verdict,
            "asked": _plain(asked),
            "sent": _plain(sent),
            "read_back": _plain(read_back),
            "why": why,
        }
        if self._fd >= 0:
            self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        """Write a line; where that fails the line is lost, and the loss is said once."""
        data = (json.dumps(line) + "\n").encode()
        try:
            written = os.write(self._fd, b"\n" + data if self._torn else data)
            if written == len(data) + self._torn:
                self._torn = False
            else:
                self._torn = self._torn or written > 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._lost += 1
            self._tell_lost(f"the audit log cannot be written: {error.strerror}")
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.record("", "", verdict="lost", why=f"{lost} lines before could not be written")

    def _tell_lost(self, why: str) -> None:
        if self._told:
            return
        self._told = True
        with suppress(OSError, ValueError):  # it may be closed, or on the same disk
            print(f"{why}: {self.path}; devices are made safe without it", file=sys.stderr)
        if self.on_lost is not None:
            self.on_lost(why)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _plain(value: float | str | None) -> float | str | None:
    """Return a number as it is and nan or inf as text, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read_audit(path: Path) -> list[dict[str, Any]]:
    """Return the records of an audit log, without lines that a full disk cut off."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            record = json.loads(line)
            found += [record] if isinstance(record, dict) else []
    return found
