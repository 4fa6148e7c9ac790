"""The audit log is append-only, whole lines, and has room for numbers that JSON has not."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from hil.adapter.audit import AuditLog, read_audit
from hil.devices.errors import DeviceError


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    for by in ("adapter", "watchdog"):
        log = AuditLog(path, by=by)
        log.record("d", "p", verdict="refused", asked=math.nan, why="not finite")
        log.close()
        log.record("d", "p", verdict="refused", why="after close: nothing")
    first, second = read_audit(path)
    assert (first["by"], second["by"]) == ("adapter", "watchdog")
    assert first["asked"] == "nan"
    assert first["sent"] is None
    assert {"time_utc", "device", "point", "asked", "sent", "read_back", "why"} <= first.keys()


def test_writers_beside_each_other_do_not_tear_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def write(by: str) -> None:
        log = AuditLog(path, by=by)
        for i in range(300):
            log.record("d" * 50, "p", verdict="written", asked=float(i), why="x" * 200)
        log.close()

    threads = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_audit(path)) == 1200


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="audit log"):
        AuditLog(tmp_path / "file" / "audit.jsonl")
