"""A user's own OpenDSS feeders: Feederate beside the engine alone.

    python benchmarks/feeders.py FOLDER [--masters LIST] [--json FILE] [--limit-s 300]

Every master file under FOLDER, or those that the text file LIST names (one a line, relative to
FOLDER), is run by itself in processes of its own: by OpenDSS alone, which compiles a copy of the
folder in which time series have no steps and nothing is shown or written, and by Feederate at the
same loads, sun and tolerance. Then three steps at noon of each scenario of `SCENARIOS`. The table:

* midnight, noon: the largest deviation of a node's voltage, per unit, with the taps held;
* acting: the same over midnight, noon and evening with the file's controls;
* day, tap changes: the same over a day of the file's own load shapes, and the tap changes in it;
* balance: the largest residual of import + DERs = loads + losses of a step, over the largest
  sum of their sizes; of the scenarios, which place DERs, as Feederate reports it;
* the median time of a step, over the engine's own solve; seconds until the first step; memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from _feeder_runs import copy_without_series

SCENARIOS = ("voltvar-ieee123-none", "voltvar-ieee123-droop", "voltvar-ieee123", "dmpc-ieee123")
MEMORY_LIMIT_GB = 8
_CIRCUIT = re.compile(rb"(?im)^[ \t]*new[ \t]+(?:object[ \t]*=[ \t]*)?\"?circuit\.")
_RUNS = str(Path(__file__).with_name("_feeder_runs.py"))


def measured(words: list[str], limit_s: float) -> tuple[str, float, float, str]:
    """Run a command; return its fault ('' for none), seconds, peak memory in MB and output."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        child = subprocess.Popen(
            words, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True
        )
        gb = MEMORY_LIMIT_GB * 2**30
        resource.prlimit(child.pid, resource.RLIMIT_AS, (gb, gb))
        pid = 0
        while not pid:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if not pid and time.perf_counter() - began > limit_s:
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.02)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        said = [x for x in err.read().splitlines() if x.strip() and not x.startswith("warning")]
        fault = ""
        if child.returncode:
            traceback = bool(said) and said[0].startswith("Traceback")
            said = [x for x in said if ": " in x] or ["killed"]
            fault = said[-1] if traceback else said[0]
            fault = f"over {limit_s:g} s" if seconds > limit_s else fault
        return fault, seconds, usage.ru_maxrss / 1024.0, out.read()


def survey(master: Path, copy: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return every figure of one feeder."""
    row: dict[str, Any] = {"faults": {}, "balance": 0.0}
    for what in options.what.split(","):
        steps, step_s = options.steps, 60
        if what == "day":
            steps, step_s = options.day_steps, 86400 // options.day_steps
        pair: dict[str, Any] = {}
        for who, path in (("ours", master), ("engine", copy)):
            with tempfile.TemporaryDirectory() as folder:
                words = [sys.executable, _RUNS, who, what, steps, step_s, path, f"{folder}/v.npy"]
                fault, _, mb, text = measured([str(word) for word in words], options.limit_s)
                if fault:
                    row["faults"][f"{who}, {what}"] = fault
                    if "no load shapes" in fault:
                        break
                    continue
                pair[who] = json.loads(text.splitlines()[-1])
                pair[who]["v"] = np.load(f"{folder}/v.npy")
            kept = {k: v for k, v in pair[who].items() if k not in ("v", "labels", "taps")}
            row[f"{who}, {what}"] = kept | {"peak_mb": mb}
        if "ours" in pair:
            row["nodes"] = len(pair["ours"]["labels"])
            row["balance"] = max(row["balance"], pair["ours"]["balance"])
        if len(pair) == 2:
            row[what] = compared(pair["ours"], pair["engine"])
    for name in SCENARIOS if options.scenarios else ():
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-c", "from federates.cli import main; main()", "run", name]
            words += ["--steps", "3", "--no-report", "--set", f"grid.model={master}"]
            words += ["--set", "time.start_s=43200"]
            fault, seconds, mb, _ = measured([*words, "--out", f"{folder}/run"], options.limit_s)
            row[name] = {"fault": fault, "seconds": seconds, "peak_mb": mb}
            if not fault:
                summary = json.loads(Path(folder, "run", "summary.json").read_text())
                error_ppm = next(v for k, v in summary["metrics"].items() if "balance_error" in k)
                row["balance"] = max(row["balance"], 1e-6 * error_ppm)
    return row


def compared(ours: dict[str, Any], engine: dict[str, Any]) -> dict[str, Any]:
    """Return the largest deviation of each of the first steps and over all, and of the taps."""
    place = {label: i for i, label in enumerate(engine["labels"])}
    v = engine["v"][:, [place[label] for label in ours["labels"]]]
    bases: dict[str, float] = {}
    for label, volts in zip(engine["labels"], engine["v"].max(axis=0), strict=True):
        bus = label.rpartition(".")[0]
        bases[bus] = max(volts, bases.get(bus, 0.0))
    base = np.array([bases[label.rpartition(".")[0]] for label in ours["labels"]])
    error = np.abs(ours["v"] - v) / base
    step, worst = np.unravel_index(int(error.argmax()), error.shape)
    live = {label for label, x in zip(engine["labels"], engine["v"][0], strict=True) if x > 1.0}
    missing = sorted(live - set(ours["labels"]))
    taps = engine["taps"]
    return {
        "steps": error.max(axis=1)[:3].tolist(),
        "worst": float(error.max()),
        "at": f"{ours['labels'][worst]}, step {step}",
        "missing": missing[:5],
        "n_missing": len(missing),
        "ratio": ours["step_ms"] / engine["step_ms"],
        "tap_changes": sum(
            round(abs(b - a) / 0.00625) for x in pairwise(taps) for a, b in zip(*x, strict=True)
        ),
        "taps_differ": sum(a != b for a, b in zip(ours["taps"], taps, strict=True)),
    }


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table."""
    figures = (
        ("nodes", ("nodes",), "d"),
        ("loads", ("engine, fixed", "loads"), "d"),
        ("DERs", ("engine, fixed", "ders"), "d"),
        ("midnight", ("fixed", "steps", 0), ".0e"),
        ("noon", ("fixed", "steps", 1), ".0e"),
        ("acting", ("auto", "worst"), ".0e"),
        ("day", ("day", "worst"), ".0e"),
        ("tap changes", ("day", "tap_changes"), "d"),
        ("others", ("day", "taps_differ"), "d"),
        ("balance", ("balance",), ".0e"),
        ("step ms", ("ours, fixed", "step_ms"), ".3g"),
        ("ratio", ("fixed", "ratio"), ".2f"),
        ("first step s", ("ours, fixed", "first_step_s"), ".1f"),
        ("MB", ("ours, fixed", "peak_mb"), ".0f"),
    )
    head = ["feeder", *(name for name, _, _ in figures), "none", "droop", "OPTDIST-VC", "DMPC"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for name, row in rows.items():
        cells = [name]
        for _, path, form in figures:
            value: Any = row
            for key in path:
                value = value[key] if isinstance(key, int) else value.get(key, {})
                if value == {}:
                    break
            cells.append("-" if value == {} else format(value, form))
        for scenario in SCENARIOS:
            one = row.get(scenario, {"fault": "-"})
            fault = one["fault"].replace("|", "/")
            cells.append(fault[:80] or f"{one['seconds']:.1f} s, {one['peak_mb']:.0f} MB")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masters", type=Path, help="names of master files, one a line")
    parser.add_argument("--json", type=Path, help="figures so far, after each feeder")
    parser.add_argument("--limit-s", type=float, default=300.0, help="of each process")
    parser.add_argument("--steps", type=int, default=60, help="with a profile of three loads")
    parser.add_argument("--day-steps", type=int, default=96, help="of a day of the file's shapes")
    parser.add_argument("--what", default="fixed,auto,day", help="some of fixed,auto,day")
    parser.add_argument("--scenarios", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    if options.masters:
        names = [x.strip() for x in options.masters.read_text().splitlines() if x.strip()]
    else:
        files = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() == ".dss")
        names = [str(p.relative_to(folder)) for p in files if _CIRCUIT.search(p.read_bytes())]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        copy_without_series(folder, copy)
        for name in names:
            before = set((folder / name).parent.rglob("*"))
            rows[name] = survey(folder / name, copy / name, options)
            written = set((folder / name).parent.rglob("*")) - before
            rows[name]["written"] = sorted(str(p.relative_to(folder)) for p in written)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    print(markdown(rows))


if __name__ == "__main__":
    main()
