"""What a sweep costs beside its steps.

    python benchmarks/sweep.py [--json] [--runs N] [--steps N] [--workers N]

IEEE 123 with OPTDIST-VC, five load scales with the same seeds, by `feederate sweep` in a process of
its own. The wall time of the whole command (interpreter, plan, workers, tables, page) is set
against the stepping time of all runs, as their hosts measured it, over the number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SCALES = (0.8, 0.9, 1.0, 1.1, 1.2)


def measure(runs: int, steps: int, workers: int, folder: Path) -> dict[str, Any]:
    """Make one sweep; return its figures."""
    words = ["sweep", "voltvar-ieee123", "--set", f"grid.load_scale={','.join(map(str, SCALES))}"]
    words += ["--seeds", str(max(1, runs // len(SCALES))), "--steps", str(steps)]
    words += ["--workers", str(workers), "--out", str(folder), "--json"]
    program = "from federates.cli import main; main()"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
    wall_s = time.perf_counter() - began
    times = pq.read_table(folder / "timings.parquet").to_pydict()
    stepping_s, in_runs_s = sum(times["stepping_s"]), sum(times["wall_s"])
    ideal_s = stepping_s / workers
    return {
        "runs": len(times["run"]),
        "steps": steps,
        "workers": workers,
        "wall_s": round(wall_s, 3),
        "stepping_s": round(stepping_s, 3),
        "ideal_s": round(ideal_s, 3),
        "wall_over_ideal": round(wall_s / ideal_s, 3),
        "outside_steps_ms_per_run": round(1e3 * (in_runs_s - stepping_s) / len(times["run"]), 1),
        "disk_kb_per_run": round(_bytes(folder / "runs") / 1e3 / len(times["run"]), 1),
    }


def _bytes(folder: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=720)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(options.runs, options.steps, options.workers, Path(place) / "sweep")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
