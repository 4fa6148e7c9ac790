"""How far the balanced model's dispatch is from the unbalanced feeder: one OpenDSS solution each.

    python benchmarks/market_replay.py [--json]

Rows: the ready cases on IEEE 123, powers in kW. Columns: the import as cleared; as OpenDSS has it
with all taps at 1, with the taps as shipped, and with regulators that move; the voltage error with
taps at 1 (mean of a bus's phases less the model); nodes outside 0.95 to 1.05 pu.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, get_args

import numpy as np
from _branch_flow_replay import Expected, Taps, replay_injections
from _market_cases import ATTACKED, attack_2b, light_load, voltage_binding, without

from controllers.market.clearing import clear
from controllers.market.model.problem import ClearingProblem
from grid_models.catalog import load_feeder


def cases() -> dict[str, ClearingProblem]:
    """Return the ready problems by name."""
    problem = attack_2b().problem
    return {
        "light_load": light_load(),
        "voltage_binding": voltage_binding(),
        "attack_2b": problem,
        "attack_2b, operators silent": without(problem, ATTACKED),
    }


def measure(name: str, problem: ClearingProblem) -> dict[str, Any]:
    """Return one row: the clearing beside its replays."""
    network, kva = problem.network, problem.network.base_kva
    d = clear(problem).dispatch
    losses = kva * float((network.r_pu * d.l_line).sum())
    expected = Expected(np.sqrt(d.v_sq), kva * d.p_import, losses)
    row: dict[str, Any] = {"case": name, "import_kw": round(expected.p_import_kw, 1)}
    for taps in get_args(Taps):
        found = replay_injections(
            load_feeder("ieee123"),
            network,
            kva * (d.p_gen - d.p_load),
            kva * (d.q_gen - d.q_load),
            expected,
            taps=taps,
        )
        row[f"import_kw, {taps}"] = round(found.p_import_kw, 1)
        row[f"nodes outside, {taps}"] = len(found.outside)
        if taps == "neutral":
            row["v_error_low_pu"] = round(float(np.nanmin(found.v_error_pu)), 3)
            row["v_error_high_pu"] = round(float(np.nanmax(found.v_error_pu)), 3)
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    args = parser.parse_args()
    rows = [measure(name, problem) for name, problem in cases().items()]
    if args.json:
        print(json.dumps(rows))
        return
    columns = list(rows[0])
    print("  ".join([f"{columns[0]:28}", *columns[1:]]))
    for row in rows:
        print("  ".join([f"{row['case']:28}", *(f"{row[c]:>{len(c)}}" for c in columns[1:])]))


if __name__ == "__main__":
    main()
