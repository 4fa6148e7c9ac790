"""Kundur's two areas with 550 feeders: speed, and the error of the exchange.

    python benchmarks/kundur.py [--json] [--only speed|coupling]

* speed: steps per second and peak memory of `kundur-550` under attack, without and with the
  resilience manager, each in a process of its own.
* coupling: the largest deviation of frequency and tie flow from a monolithic run, in 15 s from the
  attack on, by the exchange step; and where feeders publish their power without slopes. None where
  the system has collapsed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from feeders import measured

from federates.core.signals import read_signal
from federates.scenario.schema import find_scenario, load_scenario
from federates.scenario.yaml_source import load_yaml
from grid_models.base.threads import use_one_thread

SCENARIO, ATTACK_S, UNTIL_S, STEP_S = "kundur-550", 60.0, 75.0, 0.01
START = "federates.grid.offset_s=55"
LIMIT_S = 1200.0
STATES = {"attacked": [], "mitigated": ["--defence", "mitigated"]}
RECORDED = ["feeders.p_kw", "feeders.q_kvar", "grid.coi_hz", "grid.tie_mw", "grid.v_pu"]


def ran(folder: Path, *words: str) -> tuple[dict[str, Any], float]:
    """Run the scenario in a process of its own; return its summary and peak memory, MB."""
    program = "from federates.cli import main; main()"
    command = [sys.executable, "-c", program, "run", SCENARIO, "--no-report", "--out", str(folder)]
    fault, _, mb, _ = measured([*command, *words], LIMIT_S)
    if fault:
        raise SystemExit(f"{' '.join(words)}: {fault}")
    return json.loads((folder / "summary.json").read_text("utf-8")), mb


def speed(base: Path) -> list[dict[str, Any]]:
    """Return steps per second and memory of each state."""
    rows = []
    for state, words in STATES.items():
        summary, mb = ran(base / f"speed-{state}", *words)
        rows.append(
            {
                "state": state,
                "steps": summary["steps"],
                "steps_per_s": summary["steps_per_s"],
                "peak_mb": round(mb, 1),
            }
        )
    return rows


def exchanges() -> dict[str, list[str]]:
    """Return the words of a run for each way of exchange."""
    wires = load_yaml(find_scenario(SCENARIO)).data["connections"]
    held = [wire for wire in wires if "_per_pu" not in str(wire)]
    words = {f"{step_s:g} s": _words(step_s) for step_s in (0.1, 0.5, 1.0)}
    return words | {"0.1 s, held": [*_words(0.1), "--set", f"connections={json.dumps(held)}"]}


def _words(step_s: float) -> list[str]:
    sets = (START, f"time.step_s={step_s}", f"record.ports={json.dumps(RECORDED)}")
    return ["--steps", str(round(UNTIL_S / step_s)), *(w for x in sets for w in ("--set", x))]


def coupling(base: Path) -> list[dict[str, Any]]:
    """Return the deviation of each way of exchange from the monolithic run."""
    from _monolithic import run_monolithic

    rows, reference = [], None
    for n, (name, words) in enumerate(exchanges().items()):
        folder = base / f"coupling-{n}"
        summary, _ = ran(folder, *words)
        if reference is None:
            reference = run_monolithic(load_scenario(SCENARIO, (START,)), folder, UNTIL_S, STEP_S)
        time_s, _, hz = read_signal(folder / "signals", "grid.coi_hz")
        mw = read_signal(folder / "signals", "grid.tie_mw")[2]
        rows_of = (time_s >= ATTACK_S) & (time_s < UNTIL_S)
        true = reference.at(time_s[rows_of])
        rows.append(
            {
                "exchange": name,
                "frequency_mhz": _worst(1e3 * (hz[rows_of, 0] - true.coi_hz)),
                "tie_mw": _worst(mw[rows_of, 0] - true.tie_mw),
                "collapsed_at_s": summary["metrics"].get("collapsed_at_s"),
            }
        )
    return rows


def _worst(error: np.ndarray) -> float | None:
    """Return the largest deviation; None where one side has no value."""
    return None if np.isnan(error).any() else round(float(np.abs(error).max()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--only", choices=("speed", "coupling"))
    args = parser.parse_args()
    use_one_thread()
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("speed", speed), ("coupling", coupling)):
            if args.only in (None, name):
                tables[name] = table(Path(folder))
    if args.json:
        print(json.dumps(tables, indent=2))
        return
    for rows in tables.values():
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + " --- |" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join("-" if x is None else str(x) for x in row.values()) + " |")
        print()


if __name__ == "__main__":
    main()
