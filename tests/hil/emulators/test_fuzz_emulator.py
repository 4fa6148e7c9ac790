"""A few thousand malformed frames on an emulator; the full figure is in benchmarks/README.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "hil_fuzz.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_malformed_frames_do_not_stop_it_nor_make_it_grow() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--frames", "4000", "--seed", "7"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["frames"] == 4000
    assert min(result["kinds"].values()) > 300
    assert len(result["kinds"]) == 7
    assert result["good_questions"] > 80
    assert result["open_files"] < 20
