"""Plans of reconfiguration against every configuration of the switches, in OpenDSS.

    python benchmarks/reconfiguration.py [--json] [--most 12]

Three-phase lines of IEEE 13 (with three ties) and IEEE 123 are lost in turn, at a share of the
nominal load. A row: ``case``, ``line``, ``dark_kw`` without reconfiguration, ``restored_kw`` by the
plan, ``gap_kw`` of restored load and ``gap_losses_kw`` against the best of all radial
configurations that hold the band in OpenDSS, ``losses_error_kw`` of the plan's power flow against
OpenDSS, ``operations``, ``bad_states`` (states on the way that are looped, lose supply, or leave
the band in OpenDSS), ``configurations`` that brute force solved, ``seconds`` of the plan.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

from _reconfiguration_cases import CASES, Outage

Row = dict[str, float | str]


def row_of(case: str, line: str) -> Row | None:
    """Return the row of an outage; None where no load is lost."""
    outage = Outage(CASES[case], line)
    circuit = outage.circuit()
    begun = time.perf_counter()
    planner = outage.planner()
    if planner.load_kw.sum() - planner.load_kw[sorted(planner.live)].sum() < 1e-6:
        return None
    plan = planner.best()
    seconds = time.perf_counter() - begun
    states, bad = dict(outage.states), 0
    for operation in plan.operations:
        before = outage.supply(states)
        states |= operation
        lost = (before & ~outage.supply(states)).any()
        bad += bool(lost or not outage.radial(states) or outage.solved(circuit, states)[2] > 0.0)
    losses_kw = outage.solved(circuit, states)[1]
    found = outage.brute_force(circuit)
    best_kw, best_losses_kw = found[0][:2] if found else (plan.supplied_kw, losses_kw)
    return {
        "case": case,
        "line": line,
        "dark_kw": plan.dark_kw + plan.restored_kw,
        "restored_kw": plan.restored_kw,
        "gap_kw": best_kw - plan.supplied_kw,
        "gap_losses_kw": losses_kw - best_losses_kw,
        "losses_error_kw": abs(plan.checked.losses_kw - losses_kw),
        "operations": len(plan.operations),
        "bad_states": bad,
        "configurations": len(found),
        "seconds": seconds,
    }


def measure(most: int) -> Iterator[Row]:
    """Yield the rows; at most so many lines of a feeder, evenly over its list."""
    for name, case in CASES.items():
        lines = [line.name for line in case.make().lines if len(line.phases) == 3]
        for line in lines[:: -(-len(lines) // most)]:
            row = row_of(name, line)
            if row is not None:
                yield row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    parser.add_argument("--most", type=int, default=12, help="lines of a feeder; default 12")
    args = parser.parse_args()
    rows = list(measure(args.most))
    if args.json:
        print(json.dumps(rows))
        return
    print("  ".join(f"{key:>16}" for key in rows[0]))
    for row in rows:
        cells = (f"{x:16.3f}" if isinstance(x, float) else f"{x:>16}" for x in row.values())
        print("  ".join(cells))


if __name__ == "__main__":
    main()
