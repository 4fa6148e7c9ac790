"""Load shed in an island over the size of its grid-forming unit, after attack 3.

    python benchmarks/island.py [--json] [--runs 1300 1000 700] [--seeds 8] [--switches]

The first rows are the exact three-phase market of ``attack-3-ieee123`` without the attacked
generators: critical load shed, and flexible load that is not used (above 0 beside shed load would
be the wrong way round). `--runs`: sizes as whole runs of the attack, without a defence (`attacked`:
the unit's relay alone) and with it (`mitigated`), and the highest and lowest power of the unit over
all steps; `--seeds`: the shipped size, with other draws of costs and of what devices do.
`--switches`: the market's dispatch after the attack and before it in every radial configuration of
the feeder's switches that supplies all buses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _island_cases import island_market, island_problem  # noqa: E402

from controllers.market.three_phase.exact import ThreePhaseMarket  # noqa: E402
from controllers.reconfiguration.sections import Sections  # noqa: E402
from federates.core.signals import read_signal  # noqa: E402
from federates.core.sites import GridSite  # noqa: E402
from federates.reports.market_states import metered_states  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402

SCENARIO, LOST = "attack-3-ieee123", "gen_large"
BEGIN_S, STEP_S = 480.0, 4.0
WRONG_KW = 1e-6  # more critical load shed than this beside more flexible load left
LATE_STEPS = 45  # three market periods
SIZES_KW = (2500.0, 1300.0, 1238.0, 1100.0, 1000.0, 850.0, 700.0, 550.0, 400.0, 200.0)


def curve(sizes_kw: tuple[float, ...] = SIZES_KW) -> list[dict[str, Any]]:
    """Return a row per size of the unit: the market's dispatch."""
    table, terms = island_market(load_scenario(SCENARIO))
    market = ThreePhaseMarket(terms.network)
    rows = []
    for unit_kw in sizes_kw:
        problem = island_problem(table, terms, unit_kw, lost=LOST)
        began = time.perf_counter()
        d = market.clear(problem).dispatch
        seconds = time.perf_counter() - began
        least = problem.bids.p_load_min
        shed_kw = 1e3 * float(np.maximum(least - d.p_load, 0.0).sum())
        rows.append(
            {
                "method": "market",
                "p_max_kw": unit_kw,
                "unit_kw": round(1e3 * d.p_import, 3),
                "load_kw": round(1e3 * float(d.p_load.sum()), 2),
                "shed_kw": round(shed_kw, 2),
                "shed_pct": round(0.1 * shed_kw / float(problem.bids.p_load0.sum()), 2),
                "flexible_left_kw": round(1e3 * float(np.maximum(d.p_load - least, 0.0).sum()), 3),
                "seconds": round(seconds, 2),
            }
        )
    return rows


def whole_runs(unit_kw: float, seed: int = 1) -> list[dict[str, Any]]:
    """Return a row without and with the defence: what was metered in whole runs."""
    changes = [
        f"seed={seed}",
        f"grid.grid_forming.p_max_kw={unit_kw:g}",
        f"federates.market.options.import_max_kw={unit_kw:g}",
        "time.duration_s=1020",
    ]
    with tempfile.TemporaryDirectory() as base:
        folders: dict[str, Path] = {}
        ended: dict[str, dict[str, float]] = {}
        for name, defence in (("attacked", None), ("mitigated", "mitigated")):
            folders[name] = Path(base) / name
            scenario = load_scenario(SCENARIO, changes, defence=defence)
            ended[name] = run(scenario, out=folders[name], placement="single").metrics
        states = metered_states(folders["attacked"], folders["mitigated"])
        table = island_market(load_scenario(SCENARIO))[0]
        demand_kw = 1e3 * float(table.demand_mw.sum())
        rows = []
        for name, folder in folders.items():
            unit = read_signal(folder / "signals", "feeder.unit_kw")[2]
            time_s, _, shed = read_signal(folder / "signals", "feeder.shed_kw")
            last = time_s[shed[:, 2] > 0.0][-1]
            restored = bool(last < time_s[-1])
            found = states[name]
            labels, p_kw = read_signal(folder / "signals", "feeder.p_kw")[1:]
            at = [labels.index(der.name) for der in table.ders if der.kind == "flexible_load"]
            spare_kw = -p_kw[:, at] - 1e3 * table.least_mw[table.is_load]
            left_kw = np.maximum(spare_kw, 0.0).sum(axis=1)
            wrong = (left_kw > WRONG_KW) & (np.maximum(-spare_kw, 0.0).sum(axis=1) > WRONG_KW)
            rows.append(
                {
                    "method": name,
                    "p_max_kw": unit_kw,
                    "seed": seed,
                    "unit_kw": round(found["unit_kw"], 2),
                    "load_kw": round(found["load_kw"], 2),
                    "shed_kw": round(found["shed_kw"], 2),
                    "shed_pct": round(100.0 * found["shed_kw"] / demand_kw, 2),
                    "flexible_left_kw": round(float(left_kw[-LATE_STEPS:].mean()), 3),
                    "wrong_way_steps": int(wrong.sum()),
                    "unit_highest_kw": round(float(unit.max()), 3),
                    "unit_lowest_kw": round(float(unit.min()), 3),
                    "steps": len(unit),
                    "restored_s": float(last + STEP_S - BEGIN_S) if restored else None,
                    "clearings": int(ended[name]["market_clearings_count"]),
                    "clearings_failed": int(ended[name]["market_clearings_failed_count"]),
                    "v_min_pu": round(found["v_min_pu"], 4),
                    "v_max_pu": round(found["v_max_pu"], 4),
                }
            )
    return rows


def configurations(unit_kw: float, lost: str) -> list[dict[str, Any]]:
    """Return a row per radial configuration of the switches: the market's dispatch there."""
    scenario = load_scenario(SCENARIO)
    table, terms = island_market(scenario)
    grid = GridSite(scenario, scenario.plant_of("market"))
    normal = {switch.name: switch.closed for switch in grid.feeder.switches}
    sections = Sections.of(grid.feeder, {}, list(normal))
    needed = {sections.of_bus[der.bus] for der in grid.feeder.ders}
    rows = []
    for state, live in sections.trees():
        closed = {name: k in state for k, name in enumerate(sections.switches)}
        network = grid.ports(closed)
        if not needed <= live or not network.live.all():
            continue
        problem = island_problem(table, replace(terms, network=network), unit_kw, lost=lost)
        d = ThreePhaseMarket(network).clear(problem).dispatch
        rows.append(
            {
                "method": "configuration",
                "p_max_kw": unit_kw,
                "lost": lost or "nothing",
                "operated": [name for name in closed if closed[name] != normal[name]],
                "shed_kw": round(
                    1e3 * float(np.maximum(problem.bids.p_load_min - d.p_load, 0.0).sum()), 3
                ),
                "losses_kw": round(1e3 * d.losses, 3),
                "cost": round(d.cost, 3),
            }
        )
    return sorted(rows, key=lambda row: row["cost"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    parser.add_argument("--runs", type=float, nargs="*", default=[], metavar="KW")
    parser.add_argument("--seeds", type=int, default=0, metavar="N")
    parser.add_argument("--switches", action="store_true")
    args = parser.parse_args()
    rows = curve() + [row for unit_kw in args.runs for row in whole_runs(unit_kw)]
    rows += [row for seed in range(1, args.seeds + 1) for row in whole_runs(1300.0, seed)]
    if args.switches:
        rows += configurations(1000.0, LOST) + configurations(1300.0, "")
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
