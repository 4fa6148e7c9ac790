"""The secondary market: time of a batch, violations over random operators, optima beside cvxpy.

    python benchmarks/secondary.py [--json] [--operators 8500] [--compared 20]

batch_s             85 operators of 12 agents, four levels, CPU seconds on one core, the median
minute_s            the same of 85 operators of 3 to 12 agents
level_1_s           the same with epsilon 0: level 1 alone
violation_max       the largest violation of a limit over `operators` random operators
fallbacks           how many of them the batch did not solve
difference_f1 ...   largest relative difference of each level's optimum to cvxpy and clarabel
cvxpy_s             an operator of 12 agents by cvxpy and clarabel, CPU seconds, the median
ratio               85 operators by cvxpy over `batch_s`

Operators are loads, generation and agents that may change sign, with targets anywhere within reach;
epsilon is 0.05, over the random operators also 0.001 and 0.3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

# One core: the figures are of an algorithm, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _secondary_cases import random_market  # noqa: E402

from controllers.market.secondary.clearing import clear_secondary  # noqa: E402
from controllers.market.secondary.fallback import clear_by_cone  # noqa: E402
from controllers.market.secondary.first_level import prepare  # noqa: E402

OPERATORS = 85
EPSILONS = (0.05, 0.001, 0.3)


def cpu_s(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def batch_s(widths: tuple[int, int], epsilon: float = EPSILONS[0], repeats: int = 30) -> float:
    markets = [
        random_market(OPERATORS, seed, widths=widths, epsilon=epsilon) for seed in range(repeats)
    ]
    clear_secondary(markets[0])
    return statistics.median(cpu_s(lambda m=m: clear_secondary(m)) for m in markets)


def violations(operators: int) -> dict[str, float]:
    worst, fallbacks = 0.0, 0
    for seed, begin in enumerate(range(0, operators, OPERATORS)):
        count = min(OPERATORS, operators - begin)
        epsilon = EPSILONS[seed % len(EPSILONS)]
        found = clear_secondary(random_market(count, seed, widths=(1, 12), epsilon=epsilon))
        worst = max(worst, float(found.violation.max()))
        fallbacks += int(found.fallback.sum())
    return {"operators": operators, "violation_max": worst, "fallbacks": fallbacks}


def against_cvxpy(compared: int) -> dict[str, float]:
    problem = random_market(compared, 7, widths=(12, 12))
    ours = clear_secondary(problem).objectives
    ready, _, _ = prepare(problem)
    clear_by_cone(problem, ready, 0)  # cvxpy loads at its first use
    theirs, seconds = np.empty_like(ours), []
    for i in range(compared):
        began = time.process_time()
        theirs[i] = clear_by_cone(problem, ready, i)[1]
        seconds.append(time.process_time() - began)
    apart = (np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-3)).max(axis=0)
    differences = {f"difference_f{k + 1}": float(apart[k]) for k in range(4)}
    return differences | {"compared": compared, "cvxpy_s": statistics.median(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--operators", type=int, default=8500)
    parser.add_argument("--compared", type=int, default=20)
    arguments = parser.parse_args()
    row: dict[str, float] = {
        "batch_s": batch_s((12, 12)),
        "minute_s": batch_s((3, 12)),
        "level_1_s": batch_s((12, 12), epsilon=0.0),
    }
    row |= violations(arguments.operators)
    row |= against_cvxpy(arguments.compared)
    row["ratio"] = OPERATORS * row["cvxpy_s"] / row["batch_s"]
    if arguments.json:
        print(json.dumps(row, indent=2))
        return
    for name, value in row.items():
        print(f"{name:16s} {value:.3g}")


if __name__ == "__main__":
    main()
