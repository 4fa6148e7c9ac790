"""Distributed clearing beside the central one: iterations, time and messages to an accuracy.

    python benchmarks/clearing.py [--json] [--buses 119 1000 5000] [--flat]

Cases at 119 buses are IEEE 123 at light load, with binding voltages, and before attack 2b of the
thesis; other sizes are grown feeders. Every method starts from the same point:

flat        no power, no price
warm        best responses to one broadcast price, flows by a sweep
priced      the same once more, with the marginal prices of those flows

and runs a fixed number of iterations. `gap` is the relative difference of its objective to the
central optimum. A row's `iterations` is the first after which gap < 0.1 % and every balance is
within 1 kW for good (null: not within the run); `seconds` is what it takes until then, with cutting
the problem into atoms and the start; `iterations_1pct` and `iterations_1e5` are the same at 1 % and
0.001 %; `certified` is when the method stops by its own rule at 0.1 %.

With --flat: cost and balances over the iterations from the flat start instead. The agents
themselves are measured in co-simulation:
`feederate attack run attack-2b-ieee123 --set federates.market.options.clearing=pac`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _market_cases import (  # noqa: E402
    attack_2b,
    grown_problem,
    light_load,
    voltage_binding,
)

from controllers.market.clearing import clear  # noqa: E402
from controllers.market.model.problem import ClearingProblem, Dispatch  # noqa: E402
from controllers.market.solvers.atoms import Atoms  # noqa: E402
from controllers.market.solvers.central import CentralMarket  # noqa: E402
from controllers.market.solvers.stopping import ClearingProgress  # noqa: E402
from controllers.market.solvers.tree_prices import priced_start  # noqa: E402
from controllers.market.solvers.warm_start import Start, flat_start, warm_start  # noqa: E402

Row = dict[str, Any]

STARTS: dict[str, Callable[[ClearingProblem], Dispatch | Start]] = {
    "flat": flat_start,
    "warm": warm_start,
    "priced": priced_start,
}
# Name: (clearing, options, share of the iterations: few where each takes a dozen times as long).
METHODS: dict[str, tuple[str, dict[str, Any], float]] = {
    "pac-printed": ("pac", {"private": False}, 1.0),
    "pac-private": ("pac", {}, 1.0),
    "pac": ("pac-anchored", {}, 1.0),
    "admm": ("admm", {}, 1.0),
    "nst-pac": ("nst-pac", {}, 0.25),
}


def distributed(name: str, problem: ClearingProblem, start: Any, **rule: Any) -> Any:
    """Clear by one of `METHODS`."""
    clearing, options, _ = METHODS[name]
    return clear(problem, clearing, start, **rule, **options)


def fastest(action: Callable[[], Any], times: int = 5) -> float:
    """Return the least of several wall times: other processes disturb that least."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return min(found)


def lasting(history: Sequence[ClearingProgress], best: float, gap: float) -> int | None:
    """Return the first iteration from which on gap and 1 kW hold to the end of the run."""
    since = None
    for p in history:
        if abs(p.cost / best - 1.0) < gap and p.infeasibility_kw < 1.0:
            since = p.iteration if since is None else since
        else:
            since = None
    return since


def central_row(case: str, problem: ClearingProblem) -> tuple[Row, Dispatch]:
    """Clear centrally: once from nothing, then with the workspace kept."""
    began = time.perf_counter()
    market = CentralMarket(problem.network)
    done = market.clear(problem)
    first = time.perf_counter() - began
    row: Row = {
        "case": case,
        "buses": problem.network.size,
        "depth": int(problem.network.depth.max()),
        "method": "central",
        "start": "workspace kept",
        "iterations": done.iterations,
        "seconds": fastest(lambda: market.clear(problem)),
        "seconds_first": first,
        "gap": 0.0,
    }
    return row, done.dispatch


def distributed_row(
    case: str, problem: ClearingProblem, name: str, start: str, best: Dispatch, iterations: int
) -> Row:
    """Run one method from one start for a fixed number of iterations."""
    share = METHODS[name][2]
    starting = fastest(lambda: STARTS[start](problem))
    at = STARTS[start](problem)
    cutting = fastest(lambda: Atoms.of(problem).norm())
    ready = starting + cutting
    few = max(20, int(80 * share))

    def run(count: int) -> float:
        return fastest(lambda: distributed(name, problem, at, max_iterations=count, tolerance=0.0))

    # The difference: what comes before and after the iterations is the same in both.
    each = (run(4 * few) - run(few)) / (3 * few)
    count = max(100, int(share * iterations))
    done = distributed(name, problem, at, max_iterations=count, tolerance=0.0)
    found = lasting(done.history, best.cost, 1e-3)
    there = next((p for p in done.history if p.iteration == found), done.history[-1])
    stopped = distributed(name, problem, at, max_iterations=count, tolerance=1e-3)
    n = problem.network.size
    per_iteration = done.messages // done.iterations
    return {
        "case": case,
        "buses": n,
        "depth": int(problem.network.depth.max()),
        "method": name,
        "start": start,
        "iterations": found,
        "seconds": None if found is None else ready + found * each,
        "gap": abs(there.cost / best.cost - 1.0),
        "infeasibility_kw": there.infeasibility_kw,
        "iterations_1pct": lasting(done.history, best.cost, 1e-2),
        "iterations_1e5": lasting(done.history, best.cost, 1e-5),
        "certified": stopped.iterations if stopped.converged else None,
        "run": done.iterations,
        "final_gap": abs(done.history[-1].cost / best.cost - 1.0),
        "price_error": float(np.abs(done.dispatch.lmp_p - best.lmp_p).max()),
        "us_iteration": 1e6 * each,
        "ready_ms": 1e3 * ready,
        "messages": None if found is None else found * per_iteration,
    }


def sizes(buses: int) -> dict[str, ClearingProblem]:
    """Return the cases of a size."""
    if buses == 119:
        return {
            "light": light_load(),
            "voltage": voltage_binding(),
            "attack-2b": attack_2b().problem,
            "grown": grown_problem(119),
        }
    return {"grown": grown_problem(buses)}


def flat_rows() -> list[Row]:
    """Return gap and balances from the flat start, at some iterations."""
    rows = []
    for case, problem in sizes(119).items():
        best = clear(problem).dispatch.cost
        for name, (_, _, share) in METHODS.items():
            done = distributed(
                name, problem, flat_start(problem), max_iterations=round(2000 * share),
                tolerance=0.0,
            )  # fmt: skip
            rows += [
                {
                    "case": case, "buses": problem.network.size, "method": name, "start": "flat",
                    "run": p.iteration, "gap": p.cost / best - 1.0,
                    "infeasibility_kw": p.infeasibility_kw,
                }
                for p in done.history if p.iteration in (50, 100, 250, 500, 1000, 2000)
            ]  # fmt: skip
    return rows


# --- command line ---------------------------------------------------------------------------------


def measure(buses: Sequence[int], runs: int) -> list[Row]:
    rows = []
    for size in buses:
        for case, problem in sizes(size).items():
            row, best = central_row(case, problem)
            rows.append(row)
            for name in METHODS:
                for start in STARTS:
                    count = runs if size < 2000 else max(300, runs // 4)
                    rows.append(distributed_row(case, problem, name, start, best, count))
    return rows


_COLUMNS = (
    ("case", "{}"),
    ("buses", "{}"),
    ("method", "{}"),
    ("start", "{}"),
    ("iterations_1pct", "{}"),
    ("iterations", "{}"),
    ("iterations_1e5", "{}"),
    ("certified", "{}"),
    ("run", "{}"),
    ("seconds", "{:.4f}"),
    ("gap", "{:.1e}"),
    ("final_gap", "{:.1e}"),
    ("price_error", "{:.2g}"),
    ("us_iteration", "{:.0f}"),
    ("messages", "{}"),
)


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows, a column for each figure."""
    cells = [[name for name, _ in _COLUMNS]]
    for row in rows:
        known = [(row.get(name), style) for name, style in _COLUMNS]
        cells.append(["-" if v is None else style.format(v) for v, style in known])
    widths = [max(len(line[k]) for line in cells) for k in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--buses", type=int, nargs="+", default=[119, 1000, 5000])
    parser.add_argument("--iterations", type=int, default=4000, help="of each run")
    parser.add_argument(
        "--flat", action="store_true", help="from the flat start, over the iterations"
    )
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    args = parser.parse_args()
    rows = flat_rows() if args.flat else measure(args.buses, args.iterations)
    if args.json:
        print(json.dumps(rows))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
