"""Distributed optimisation with a coordinator: rounds, lost and late mail, and time per agent.

    python benchmarks/optimisation.py [--json] [TABLE ...]

dispatch   1000 agents, curvatures over 1e4, one balance: algorithms with a coordinator
coupled    1000 agents, a balance and 20 inequality rows
penalty    sharing ADMM with a penalty ten times too small: 50 agents with 3 rows more, and 1000
mail       50 agents: steps with mail that is lost or 0 to 10 steps late
time       1000 agents of sharing ADMM on one core: CPU time per agent and round, beside a loop of
           the same equations over arrays without agents

`rounds` is the first round with gap and infeasibility within 1e-6, `stopped` the round in which the
agents stop by their own rule at 1e-6; None: not within 10,000 rounds. A step of `mail` is half a
round: members and the coordinator take turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.core.mail import Mail  # noqa: E402
from controllers.core.mail_loop import MailLoop, Post  # noqa: E402
from controllers.core.waiting import Asynchronous, Barrier, Waiting  # noqa: E402
from controllers.optimisation.algorithms.catalog import build  # noqa: E402
from controllers.optimisation.method import Method  # noqa: E402
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch  # noqa: E402
from federates.optimise.compare import compare  # noqa: E402

Rows = list[dict[str, Any]]
DUAL = (
    "dual-conservative", "dual-diminishing", "dual", "dual-preconditioned", "dual-nesterov",
)  # fmt: skip
ADMM = (
    "admm", "admm-over-relaxed", "admm-preconditioned", "admm-nesterov", "admm-anderson",
    "admm-adaptive", "admm-least-squares", "admm-proximal-jacobian",
)  # fmt: skip
TOLERANCE = 1e-6


def rounds_of(problem: Dispatch, algorithms: tuple[str, ...], **options: Any) -> Rows:
    """Return rounds and certificate of some algorithms."""
    given = dict.fromkeys(algorithms, options)
    found = compare(problem, algorithms, tolerance=TOLERANCE, options=given)
    longer = compare(problem, algorithms, tolerance=TOLERANCE / 10.0, options=given)
    return [
        {
            "algorithm": row.algorithm,
            "rounds": longer.curves[row.algorithm].first_within(TOLERANCE),
            "stopped": row.iterations if row.converged else None,
            "gap": row.gap,
            "infeasibility": row.infeasibility,
            "messages": row.messages,
            "kilobytes": None if row.bytes is None else round(row.bytes / 1e3),
        }
        for row in found.rows
    ]


def dispatch() -> Rows:
    """1000 agents and one balance."""
    return rounds_of(random_dispatch(1000), DUAL + ADMM)


def coupled() -> Rows:
    """1000 agents and 21 rows; the first two dual steps need far more rounds than 10,000."""
    return rounds_of(random_dispatch(1000, coupling=20), DUAL[2:] + ADMM)


def penalty() -> Rows:
    """Repair of a penalty that is ten times too small."""
    repaired = ("admm", "admm-nesterov", "admm-anderson", "admm-adaptive")
    problems = {"50, 4 rows": random_dispatch(50, coupling=3), "1000, 1 row": random_dispatch(1000)}
    return [
        {"agents": label} | row
        for label, problem in problems.items()
        for row in rounds_of(problem, repaired, penalty_factor=0.1)
    ]


def mail() -> Rows:
    """Barrier and repetition against agents that do not wait."""
    star: dict[str, tuple[str, Waiting]] = {
        "star, barrier": ("admm", Barrier()),
        "star, free": ("admm", Asynchronous(0.0, None)),
        "star, preconditioned, barrier": ("admm-preconditioned", Barrier()),
        "star, preconditioned, free": ("admm-preconditioned", Asynchronous(0.0, None)),
    }
    problem = random_dispatch(50)
    return [
        {"loss": loss, "delay_steps": delay}
        | {
            label: steps_to_tolerance(
                problem, build(name, problem, waiting=waiting), Post(loss, delay, seed=1)
            )
            for label, (name, waiting) in star.items()
        }
        for loss, delay in ((0.0, 0), (0.3, 0), (0.0, 10), (0.5, 10))
    ]


def steps_to_tolerance(problem: Dispatch, method: Method, post: Post) -> int | None:
    """Return the first step with gap and infeasibility within the tolerance; at most 3000."""
    loop = MailLoop([method], post)  # type: ignore[list-item]  # a loop needs no `agents`
    while loop.steps < 3000:
        loop.step()
        now = problem.measure(method.answer())
        if max(now.gap, now.infeasibility) <= TOLERANCE:
            return loop.steps
    return None


def time_per_agent() -> Rows:
    """CPU time of agents with their mail, and of the equations alone."""
    problem, n_rounds = random_dispatch(1000), 300
    alone = min(timed(lambda: equations(problem, n_rounds)) for _ in range(5)) / n_rounds
    found = []
    for name in ("dual", "admm", "admm-anderson"):
        made = [build(name, problem, tolerance=0.0, waiting=Barrier(3)) for _ in range(5)]
        each = min(timed(lambda m=m: carry(m, n_rounds)) for m in made) / n_rounds
        found.append(
            {
                "algorithm": name,
                "ns_per_agent_and_round": round(1e9 * each / problem.size),
                "ratio_to_admm_equations": round(each / alone, 2),
            }
        )
    return found


def timed(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def equations(p: Dispatch, n_rounds: int) -> np.ndarray:
    """Sharing ADMM with penalty n / (2 sum(1 / q)), as equations over arrays; returns x (n,)."""
    rho = np.full((p.size, 1), 0.5 * p.size / (1.0 / p.quadratic).sum())
    step, column = 1.0 / (1.0 / rho).sum(axis=0), p.rows.T
    x = np.clip(np.zeros(p.size), p.low, p.high)
    y = column * x[:, None]
    bend = p.quadratic + (rho * column**2).sum(axis=1)
    for _ in range(n_rounds):
        price = step * (y.sum(axis=0) - p.right)
        z = y - price / rho
        slope = p.linear + column @ price
        x = np.clip(((rho * column * z).sum(axis=1) - slope) / bend, p.low, p.high)
        y = column * x[:, None] + price / rho
    return x


def carry(method: Method, n_rounds: int) -> None:
    """Step agents over perfect links, with nothing but the mail."""
    place = {link.key: i for i, link in enumerate(method.links_in)}
    target = np.array([place[link.key] for link in method.links_out])
    inbox = Mail.empty()
    while method.rounds < n_rounds:
        sent = method.step(0.0, {}, inbox).mail
        inbox = Mail(target[sent.link], sent.round, sent.values)


TABLES: dict[str, Callable[[], Rows]] = {
    "dispatch": dispatch,
    "coupled": coupled,
    "penalty": penalty,
    "mail": mail,
    "time": time_per_agent,
}


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
            print("  ".join(f"{v:.2g}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
