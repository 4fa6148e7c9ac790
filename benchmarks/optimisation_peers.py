"""Distributed optimisation without a coordinator: rates beside theory, and bad links.

    python benchmarks/optimisation_peers.py [--json] [TABLE ...]

rates      rounds until gap and infeasibility are within 1e-6 and until the agents stop by their own
           rule, and the factor per round between errors of 1e-3 and 1e-6 beside that of theory
bad-links  steps to 1e-6 of a dispatch of 50 agents whose mail is lost and late, waiting for the
           mail of all neighbours, of half of them or of none
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

# One core, before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.core.agent_rows import RowController  # noqa: E402
from controllers.core.graph import Graph  # noqa: E402
from controllers.core.mail_loop import MailLoop, Post  # noqa: E402
from controllers.core.waiting import Asynchronous, Barrier, Waiting  # noqa: E402
from controllers.optimisation.algorithms.catalog import build  # noqa: E402
from controllers.optimisation.problems.catalog import load_problem  # noqa: E402
from controllers.optimisation.problems.dispatch import Dispatch  # noqa: E402
from federates.optimise.compare import compare  # noqa: E402
from federates.optimise.loop import Curve  # noqa: E402

TOLERANCE = 1e-6
MIXING = ("consensus", "consensus-metropolis", "consensus-momentum")
PEERS = (
    "extra", "gradient-tracking", "ratio-consensus", "ratio-consensus-momentum",
    "admm-consensus", "admm-consensus-over-relaxed", "dgd", "dgd-diminishing",
)  # fmt: skip
RATES = {
    "consensus-ring-100": (*MIXING, *PEERS),
    "consensus-grid-32x32": MIXING,
    "dispatch-50": ("gradient-tracking-plain", *PEERS),
    "dispatch-1000": PEERS,
}
LINKS = ((0.0, 0), (0.3, 0), (0.0, 10), (0.5, 10))
POLICIES: dict[str, Waiting] = {
    "barrier": Barrier(),
    "half": Asynchronous(),
    "free-running": Asynchronous(fraction=0.0, max_age=None),
}
ON_LINKS = ("admm-consensus", "ratio-consensus", "extra", "gradient-tracking")
NEED_ALL = ("extra", "gradient-tracking")
MOST_STEPS = 3000


def theory(algorithm: str, graph: Graph) -> float | None:
    """Return the factor per round that theory gives for agents of equal curvature.

    That of the consensus algorithms holds without a condition, that of the others for the default
    steps, where no limit of the step binds (docstrings of the algorithms).
    """
    w = float(graph.mixing_values("metropolis")[-2])
    rho = graph.rate("metropolis")
    degree = float(graph.degree.mean())
    part = float(graph.spectrum[1]) / (2.0 * degree)
    c = 2.0 * np.sqrt(part * (1.0 - part))
    best = graph.rate("optimal")
    found = {
        "consensus": best,
        "consensus-metropolis": rho,
        "consensus-momentum": (1.0 - np.sqrt(1.0 - best**2)) / best,
        "extra": 1.0 - np.sqrt(0.5 * (1.0 - w)),
        "gradient-tracking-plain": 1.0 - 0.5 * (1.0 - w),
        "ratio-consensus": rho,
        "admm-consensus": float(np.sqrt((1.0 - part) / (1.0 + c))),
    }
    return found.get(algorithm)


def rates() -> list[dict[str, Any]]:
    """Return rounds to 1e-6, rounds until the agents stop, and rates per round."""
    rows = []
    for problem, algorithms in RATES.items():
        graph = load_problem(problem).graph
        found = compare(problem, algorithms, tolerance=TOLERANCE, max_iterations=10_000)
        rows += [
            {
                "problem": problem,
                "algorithm": row.algorithm,
                "rounds": row.iterations_to_tolerance,
                "stopped": row.iterations if row.converged else None,
                "gap": row.gap,
                "rate": measured_rate(found.curves[row.algorithm]),
                "theory": theory(row.algorithm, graph),
            }
            for row in found.rows
        ]
    return rows


def measured_rate(curve: Curve) -> float | None:
    """Return the mean factor per round between errors of 1e-3 and 1e-6; None: not reached."""
    error = np.maximum(curve.gap, curve.infeasibility)
    first, last = curve.first_within(1e-3), curve.first_within(1e-6)
    if first is None or last is None or last <= first:
        return None
    ends = np.searchsorted(curve.iteration, [first, last])
    return float((error[ends[1]] / error[ends[0]]) ** (1.0 / (last - first)))


def bad_links() -> list[dict[str, Any]]:
    """Return steps to 1e-6 of 50 agents, one step of delay always; None: not in 3000."""
    problem = load_problem("dispatch-50")
    rows = []
    for loss, delay in LINKS:
        for policy, waiting in POLICIES.items():
            for algorithm in ON_LINKS:
                if policy != "barrier" and algorithm in NEED_ALL:
                    continue
                made = build(algorithm, problem, waiting=waiting, tolerance=0.0)
                steps, error = steps_to_tolerance(problem, made, Post(loss, delay))
                rows.append(
                    {
                        "loss": loss, "delay_steps": delay, "policy": policy,
                        "algorithm": algorithm, "steps": steps, "error": error,
                    }
                )  # fmt: skip
    return rows


def steps_to_tolerance(
    problem: Dispatch, made: RowController, post: Post
) -> tuple[int | None, float]:
    """Return after how many steps gap and infeasibility are within 1e-6, and the last of them.

    The opening messages are no step.
    """
    loop = MailLoop([made], post)
    error = np.inf
    while loop.steps <= MOST_STEPS:
        loop.step()
        measure = problem.measure(made.answer())
        error = max(measure.gap, measure.infeasibility)
        if error <= TOLERANCE:
            return loop.steps - 1, error
        if not np.isfinite(error) or error > 1e6:
            break
    return None, error


TABLES: dict[str, Callable[[], list[dict[str, Any]]]] = {"rates": rates, "bad-links": bad_links}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], metavar="TABLE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {name: TABLES[name]() for name in args.tables or TABLES}
    if args.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        print(f"\n{name}\n" + "  ".join(rows[0]))
        for row in rows:
            print("  ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
