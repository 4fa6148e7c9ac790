"""Append-only log of everything that was written, or refused, or should have been.

One JSON object per line: time_utc, device, point, asked, sent, read_back, verdict, why, by.
Lines are appended with a single write each, so that adapter and watchdog may share the file and a
process that dies never leaves half a line.
"""

from __future__ import annotations

import json
import math
import os
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
    """

    def __init__(self, path: Path, *, by: str = "adapter") -> None:
        self.path = Path(path)
        self.by = by
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
        verdict : 'written', 'clamped', 'limited', 'refused', 'failed', 'changed', 'safe', 'fault',
            'left'.
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
            os.write(self._fd, (json.dumps(line) + "\n").encode())

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
    """Return the records of an audit log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
