"""Central clearing: time of a repeated clearing beside the solver's own, by number of buses.

    python benchmarks/market_central.py [--json] [--buses 119 1000 5000] [--clearings 20]

119 buses are IEEE 123 before attack 2b of the thesis, other sizes are grown feeders. Every clearing
has other loads (by up to 5 %), as in operation. In milliseconds, the median:

first       the first clearing: pattern, set-up, solution, prices
warm        a later one, all of `CentralMarket.clear`: checks, new numbers, solution, prices
bare        the time around `solve()` alone, of a clarabel set up anew for the same numbers
ratio       warm over bare, the least of each: other processes disturb that least
afresh      what that clarabel reports as its solve time, its set-up included
cvxpy       the reference, built and solved; only at 119 buses
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _market_cases import attack_2b, draw, grown_problem  # noqa: E402
from _market_reference import clear_reference  # noqa: E402

from controllers.market.model.problem import ClearingProblem  # noqa: E402
from controllers.market.solvers.central import TOLERANCE, CentralMarket, new_solver  # noqa: E402
from controllers.market.solvers.central_form import ConeForm, Freedom, typical_flow  # noqa: E402

LOADS = ("p_load0", "q_load0", "p_load_min", "p_load_max")


def next_interval(problem: ClearingProblem, k: int) -> ClearingProblem:
    """Return `problem` with loads that differ by up to 5 %."""
    factor = draw(k, "interval", problem.network.buses, 0.95, 1.05)
    bids = replace(problem.bids, **{name: factor * getattr(problem.bids, name) for name in LOADS})
    return replace(problem, bids=bids)


def bare_s(problem: ClearingProblem) -> tuple[float, float]:
    """Time of `solve()` by a solver that has seen no other numbers, and the time it reports."""
    flow = typical_flow(problem.network, problem.bids)
    form = ConeForm(problem.network, Freedom.of(problem.bids), flow)
    solver = new_solver(form, form.data(problem), TOLERANCE)
    began = time.perf_counter()
    solution = solver.solve()
    return time.perf_counter() - began, float(solution.solve_time)


def reference_s(problem: ClearingProblem) -> float:
    clear_reference(problem)  # cvxpy loads at its first use
    began = time.perf_counter()
    clear_reference(problem)
    return time.perf_counter() - began


def measure(n: int, clearings: int) -> dict[str, Any]:
    problem = attack_2b().problem if n == 119 else grown_problem(n)
    began = time.perf_counter()
    market = CentralMarket(problem.network)
    market.clear(problem)
    first = time.perf_counter() - began
    warm, bare, gaps, mismatch = [], [], [], []
    for k in range(clearings):
        interval = next_interval(problem, k)
        began = time.perf_counter()
        found = market.clear(interval)
        warm.append(time.perf_counter() - began)
        gaps.append(found.cone_gap_pu)
        mismatch.append(found.price_mismatch)
        bare.append(bare_s(interval))
    return {
        "buses": n,
        "depth": int(problem.network.depth.max()),
        "first_ms": 1e3 * first,
        "warm_ms": 1e3 * statistics.median(warm),
        "bare_ms": 1e3 * statistics.median(alone for alone, _ in bare),
        "ratio": min(warm) / min(alone for alone, _ in bare),
        "afresh_ms": 1e3 * statistics.median(told for _, told in bare),
        "cvxpy_ms": 1e3 * reference_s(problem) if n == 119 else None,
        "cone_gap_pu": float(np.max(gaps)),
        "price_mismatch": float(np.max(mismatch)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--buses", type=int, nargs="+", default=[119, 1000, 5000])
    parser.add_argument("--clearings", type=int, default=20)
    arguments = parser.parse_args()
    rows = [measure(n, arguments.clearings) for n in arguments.buses]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print("buses depth    first     warm     bare  ratio   afresh    cvxpy  largest cone gap")
    for row in rows:
        cvxpy = f"{row['cvxpy_ms']:8.1f}" if row["cvxpy_ms"] else "       -"
        print(
            f"{row['buses']:5d} {row['depth']:5d} {row['first_ms']:8.1f} {row['warm_ms']:8.1f} "
            f"{row['bare_ms']:8.1f} {row['ratio']:6.2f} {row['afresh_ms']:8.1f} {cvxpy}  "
            f"{row['cone_gap_pu']:.1e} pu"
        )


if __name__ == "__main__":
    main()
