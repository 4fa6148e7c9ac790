"""The audit log is append-only, whole lines, and has room for numbers that JSON has not."""

from __future__ import annotations

import math
import subprocess
import sys
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


def test_a_full_disk_loses_lines_and_says_so_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    log = AuditLog(Path("/dev/full"), on_lost=told.append)
    for _ in range(3):
        log.record("d", "p", verdict="written", why="command")
    assert told == ["the audit log cannot be written: No space left on device"]
    assert capfd.readouterr().err.count("/dev/full") == 1
    log.close()


def test_a_line_that_a_full_disk_cut_off_is_left_out_and_the_lost_ones_are_counted(
    tmp_path: Path,
) -> None:
    program = """
import resource, sys
from pathlib import Path
from hil.adapter.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
for size in (1000, 1000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for i in range(5):
        log.record("d", f"p{i}", verdict="written", why="command")
"""
    path = tmp_path / "audit.jsonl"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
    records = read_audit(path)
    lost = next(r for r in records if r["verdict"] == "lost")
    whole = len(records) - 1
    assert lost["why"] == f"{15 - whole} lines before could not be written"
    assert [r["point"] for r in records[-4:]] == ["p1", "p2", "p3", "p4"]
    assert len(path.read_text().splitlines()) == len(records) + 1  # the line that was cut off
