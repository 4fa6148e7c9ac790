"""A few hundred malformed replies to the adapter; the full figures are in docs/hil.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "hil_fuzz_replies.py"


@pytest.mark.parametrize("framing", ["tcp", "rtu-over-tcp", "serial"])
def test_no_malformed_forged_or_late_reply_is_ever_good(framing: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--framing", framing, "--frames", "600", "--seed", "7",
         "--devices", "60"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["frames"] >= 600
    assert len(result["kinds"]) == (17 if framing == "tcp" else 18)
    assert result["good_polls"] > 10
    assert (result["wrong_values"], result["not_recovered"]) == (0, 0)
