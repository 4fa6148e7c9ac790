"""Starts of a distributed volt/var programme: learned ones beside the instant before.

    python benchmarks/learned_start.py [--json] [TABLE ...]

starts     rounds of ADMM (`admm-least-squares`) to 1e-2 and 1e-3 from cold, k-nearest, ridge and
           the solution of the minute before, on held-out days: one load factor for all loads, loads
           that differ (diversity 0.3), and models trained at load 1 used at load 0.6
bound      rounds until all agents have residuals of 1e-4, by which they stop, with the start given
           up after 100 or 200 rounds or never (1200, where the count ends), and with a start that
           is wrong on purpose; `worse`: instants with more rounds than cold
penalty    rounds to 1e-3 of a cold start at several stiffnesses of the rows

The programme at an instant of ``voltvar-ieee123``: least sum of squared reactive powers over the
ratings that holds all 274 nodes 0.003 pu inside the band on the linear model, voltages at no
reactive power by the AC power flow. Trained on 4 days (seeds 1 to 4, every 15 minutes), used on 48
instants of days 101 to 104. A tolerance is reached when the largest error of any inverter, over
its rating, stays below it. Instants without a feasible point are left out and counted; so are
those without a binding limit, where every start but a learned one is at the optimum.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

# One core: the comparison is of starts, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.core.agent_rows import AgentRows, Heard, RowController  # noqa: E402
from controllers.core.errors import ControllerError  # noqa: E402
from controllers.core.graph import Graph  # noqa: E402
from controllers.core.mail import FloatArray  # noqa: E402
from controllers.optimisation.algorithms.catalog import build  # noqa: E402
from controllers.optimisation.problems.dispatch import Dispatch  # noqa: E402
from controllers.optimisation.starts import NearestStart, RidgeStart, Start  # noqa: E402
from federates.kinds.feeder.day import GridDay  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402
from grid_models.linear.lindistflow import LinDistFlow  # noqa: E402

Rows = list[dict[str, Any]]
SCENARIO = "voltvar-ieee123"
MARGIN_PU = 0.003
TRAINED, HELD_OUT = (1, 2, 3, 4), (101, 102, 103, 104)
CASES = {
    "one factor": ((), ()),
    "diversity 0.3": (("grid.load_diversity=0.3",), ("grid.load_diversity=0.3",)),
    "trained at load 1, used at 0.6": ((), ("grid.load_scale=0.6",)),
}
TOLERANCES = (1e-2, 1e-3)
MOST_ROUNDS = 600
RESTARTS_AFTER = (100, 200, 2 * MOST_ROUNDS)
STOPS = 1e-4
SOLVED = 1e-7


@dataclass(frozen=True)
class Instant:
    """A programme, its features, its solution, and the solution of the minute before."""

    problem: Dispatch
    features: FloatArray
    best: Start
    before: Start


@cache
def instants(
    seed: int, hours: tuple[float, ...], *overrides: str, before: bool = True
) -> list[Instant]:
    """Return the programmes of a day at some hours that have a solution.

    before : Whether the minute before is solved, too; else `before` is the solution itself.
    """
    scenario = load_scenario(SCENARIO, list(overrides), seed=seed)
    times_s = 3600.0 * np.array(hours)
    day = GridDay(scenario, np.concatenate([times_s - 60.0, times_s]))
    ders = day.site.feeder.ders
    kva = np.array([der.kva for der in ders])
    p_kw = day.der_kva(scenario.time.step_s).real
    flow = day.feeder.solve(day.load_kva, p_kw + 0j)
    linear = LinDistFlow.from_feeder(day.site.feeder)
    at = [day.feeder.network.nodes.index(node) for node in linear.nodes]
    x = linear.sensitivity(linear.nodes, ders)[1] * kva
    low, high = (scenario.band.v_min_pu + MARGIN_PU) ** 2, (scenario.band.v_max_pu - MARGIN_PU) ** 2
    rows = np.vstack([x, -x]) / (high - low)
    right = np.hstack([high - flow.v_pu[:, at] ** 2, flow.v_pu[:, at] ** 2 - low]) / (high - low)
    room = np.sqrt(np.maximum(kva**2 - p_kw**2, 0.0)) / kva
    names, graph = tuple(der.name for der in ders), Graph.star(len(ders))
    none, free = np.zeros(len(ders)), np.zeros(len(rows), dtype=np.bool_)

    def solved(i: int) -> tuple[Dispatch, Start] | None:
        made = none + 1.0, none, -room[i], room[i], rows, right[i], free, names, graph
        try:
            problem = Dispatch(*made)
        except ControllerError:  # a row that no set-points can hold
            return None
        for copies in agents(problem, 6 * MOST_ROUNDS):
            if copies.residual.max() < SOLVED:
                answer = copies.answer()
                return problem, Start(answer["x"], answer["price"])
        return None

    found = []
    for k in range(len(hours), 2 * len(hours)):
        now = solved(k)
        old = solved(k - len(hours)) if before and now is not None else now
        if now is not None and old is not None:
            features = np.concatenate([right[k], room[k]])
            found.append(Instant(now[0], features, now[1], old[1]))
    return found


def agents(problem: Dispatch, rounds: int, **options: Any) -> Iterator[AgentRows]:
    """Yield the agents with a copy after each round; without mail, which changes no bit."""
    made = build("admm-least-squares", problem, **options)
    assert isinstance(made, RowController)
    copies, join = (kind.build(np.arange(kind.count)) for kind in made.team.kinds)
    n = made.team.kinds[0].count
    every, one, fresh = np.arange(n), np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_)
    told = copies.first()
    assert told is not None
    for _ in range(rounds):
        joint = join.compute(one[:1], Heard(one, every, every, told, fresh, 1))
        told = copies.compute(every, Heard(every, every, one + n, joint, fresh, n))
        yield copies


def errors(instant: Instant, start: Start | None, restart_after: int, **options: Any) -> FloatArray:
    """Return the largest error of x after each round, (rounds,)."""
    if start is not None:
        options |= {"start": start, "restart_after": restart_after}
    out, least = [], min(TOLERANCES)
    for copies in agents(instant.problem, MOST_ROUNDS, **options):
        out.append(float(np.abs(copies.answer()["x"] - instant.best.x).max()))
        if out[-1] < 0.1 * least and float(copies.residual.max()) < 0.01 * least:
            break
    return np.array(out)


def reached(error: FloatArray, tolerance: float) -> int:
    """Return after how many rounds the error stays within a tolerance; 0: the first answer is."""
    beyond = np.flatnonzero(error > tolerance)
    return int(beyond[-1]) + 1 if beyond.size else 0


def _data(case: str, every_h: float = 0.25) -> tuple[list[Instant], list[Instant], int]:
    """Return the instants to train with, those to use the starts on, and how many are left out."""
    trained, used = CASES[case]
    hours = tuple(np.arange(5.5, 19.0, every_h).tolist())
    known = [i for seed in TRAINED for i in instants(seed, hours, *trained, before=False)]
    apart = tuple(np.linspace(6.0, 18.5, 48 // len(HELD_OUT)).tolist())
    solved = [i for seed in HELD_OUT for i in instants(seed, apart, *used)]
    new = [i for i in solved if (i.best.price > 1e-9).any()]
    return known, new, len(apart) * len(HELD_OUT) - len(new)


def _starts(known: list[Instant]) -> dict[str, Any]:
    """Return each way to start, called with an instant."""
    features, solved = np.array([i.features for i in known]), [i.best for i in known]
    nearest, ridge = NearestStart(features, solved), RidgeStart(features, solved)
    return {
        "cold": lambda _: None,
        "k-nearest": lambda i: nearest(i.features),
        "ridge": lambda i: ridge(i.features),
        "minute before": lambda i: i.before,
    }


def _medians(name: str, case: str, curves: list[FloatArray], left_out: int) -> dict[str, Any]:
    rounds = np.array([[reached(error, t) for t in TOLERANCES] for error in curves])
    row: dict[str, Any] = {"start": name, "case": case}
    row |= {f"to_{t:g}": float(np.median(r)) for t, r in zip(TOLERANCES, rounds.T, strict=True)}
    return row | {"most_to_0.001": int(rounds[:, 1].max()), "left_out": left_out}


def starts() -> Rows:
    """Medians of the rounds that each start needs."""
    out: Rows = []
    for case in CASES:
        known, new, left_out = _data(case)
        for name, start in _starts(known).items():
            curves = [errors(i, start(i), MOST_ROUNDS) for i in new]
            out.append(_medians(name, case, curves, left_out))
    return out


def stopped(instant: Instant, start: Start | None, restart_after: int) -> int:
    """Return after how many rounds no agent has a residual above `STOPS`, as they would stop."""
    options = {} if start is None else {"start": start, "restart_after": restart_after}
    for k, copies in enumerate(agents(instant.problem, 2 * MOST_ROUNDS, **options)):
        if copies.residual.max() <= STOPS:
            return k + 1
    return 2 * MOST_ROUNDS


def bound() -> Rows:
    """Starts that are given up, in the case of the largest shift."""
    _, new, left_out = data = _data("trained at load 1, used at 0.6")
    ways = _starts(data[0])
    rng = np.random.default_rng(1)
    n, m = new[0].problem.size, len(new[0].problem.right)
    ways["wrong on purpose"] = lambda _: Start(rng.choice([-1.0, 1.0], n), 1e4 * rng.random(m))
    cold = np.array([stopped(i, None, 1) for i in new])
    out: Rows = []
    for name, start in ways.items():
        for restart_after in RESTARTS_AFTER if name != "cold" else (0,):
            warm = np.array([stopped(i, start(i), restart_after) for i in new])
            out.append({
                "start": name, "restart_after": restart_after or None,
                "rounds": float(np.median(warm)), "most": int(warm.max()),
                "worse": int((warm > cold).sum()), "most_more": int((warm - cold).max()),
                "of": len(new), "left_out": left_out,
            })  # fmt: skip
    return out


def penalty() -> Rows:
    """Cold starts at several stiffnesses."""
    _, new, left_out = _data("one factor", 4.0)
    return [
        {"stiffness": s, "to_0.001": float(np.median(found)), "left_out": left_out}
        for s in (5.0, 20.0, 50.0, 100.0, 500.0)
        for found in ([reached(errors(i, None, 1, stiffness=s), 1e-3) for i in new],)
    ]


TABLES = {"starts": starts, "bound": bound, "penalty": penalty}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.tables:
        if name not in TABLES:
            parser.error(f"no table '{name}'; expected some of {', '.join(TABLES)}")
    results = {name: TABLES[name]() for name in arguments.tables or TABLES}
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for name, rows in results.items():
        print(name)
        for row in rows:
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
