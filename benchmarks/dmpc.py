"""Distributed MPC of a circuit: time per step, cold start, and a load step in closed loop.

    python benchmarks/dmpc.py [--json] [--clusters 4] [--iterations 20] [--naive osqp]
                              [--all] [--tune 400]

Always: the time of one control step (all clusters, a fixed number of iterations, one core) beside
the naive form, which sets one QP up per cluster and iteration. With --all: growth to 64 clusters,
iterations of each scheme from a cold start, the cost gap per iteration, and the closed loop on the
24-bus feeder beside averaging PI with published and with the best of --tune random gains.
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
from _dmpc_planners import AveragingPiLaw, CentralMpc, EdgeWiseMpc, TrackingMpc, inputs_of, offsets  # noqa: E402
from _load_step import (  # noqa: E402
    Trial,
    load_step,
    load_step_trial,
)

from controllers.core.circuit_options import circuit_of  # noqa: E402
from controllers.dmpc.condensed import RHO_EDGE, CircuitProblem, circuit_problem  # noqa: E402
from grid_models.circuits.dynamics import TrapezoidalModel, steady_state  # noqa: E402

SAMPLE_S = 2e-3
Step = tuple[np.ndarray, np.ndarray, np.ndarray]


def after_load_step(problem: CircuitProblem) -> Step:
    """Return state, last input and load one sample after the load step."""
    circuit = problem.circuit
    w = load_step(circuit)
    u = np.zeros(circuit.n_inverters)
    return TrapezoidalModel(circuit, SAMPLE_S).step(steady_state(circuit), u, w), u, w


def states_along(problem: CircuitProblem, steps: int = 40) -> list[Step]:
    """Return what the controller meets in the closed loop over the load step."""
    model, central = TrapezoidalModel(problem.circuit, SAMPLE_S), CentralMpc(problem)
    x, u, w = after_load_step(problem)
    out = []
    for _ in range(steps):
        out.append((x, u, w))
        u = central.plan(x, u, w)[0]
        x = model.step(x, u, w)
    return out


def step_ms(problem: CircuitProblem, iterations: int, repeats: int = 5) -> list[float]:
    times = []
    along = states_along(problem) if len(problem.parts) <= 8 else [after_load_step(problem)] * 20
    for _ in range(repeats):
        planner = EdgeWiseMpc(problem, iterations)
        planner.plan(*along[0])
        for x, u, w in along:
            began = time.perf_counter()
            planner.plan(x, u, w)
            times.append(1e3 * (time.perf_counter() - began))
    return times


def naive_step_ms(
    problem: CircuitProblem, iterations: int, solver: str, steps: int = 3
) -> list[float]:
    """Time of edge-wise ADMM where every cluster and iteration sets a new QP up.

    A free bystander on purpose: the way the method is written down first, with the condensed
    matrices made beforehand, so that only setup and solution are counted.
    """
    solve = {"osqp": _osqp_once, "cvxpy": _cvxpy_once}[solver]
    times = []
    for x, u, w in states_along(problem, steps):
        thetas = problem.thetas(x, u, w)
        began = time.perf_counter()
        shape = problem.twin.shape
        mean, dual, now = np.ones(shape), np.zeros(shape), np.ones(shape)
        for _ in range(iterations):
            for c, part in enumerate(problem.parts):
                rows = len(part.s)
                offset = part.s0 @ thetas[c]
                h = part.h + RHO_EDGE * part.s.T @ part.s
                pull = dual[c, :rows] + RHO_EDGE * (offset - mean[c, :rows])
                z = solve(h, part.m @ thetas[c] + part.s.T @ pull, part.limit)
                now[c, :rows] = part.s @ z + offset
            other = now.ravel()[problem.twin.ravel()].reshape(shape)
            mean = 0.5 * (now + other)
            dual += RHO_EDGE * (now - mean)
        times.append(1e3 * (time.perf_counter() - began))
    return times


def _osqp_once(h: np.ndarray, linear: np.ndarray, limit: np.ndarray) -> np.ndarray:
    import osqp
    from scipy import sparse

    n, nu = len(h), len(limit)
    problem = osqp.OSQP()
    problem.setup(
        sparse.csc_matrix(np.triu(h)),
        linear,
        sparse.csc_matrix(np.eye(nu, n)),
        -limit,
        limit,
        verbose=False,
        eps_abs=1e-6,
        eps_rel=1e-6,
    )
    return problem.solve().x


def _cvxpy_once(h: np.ndarray, linear: np.ndarray, limit: np.ndarray) -> np.ndarray:
    import cvxpy as cp

    z = cp.Variable(len(h))
    cost = 0.5 * cp.quad_form(z, cp.psd_wrap(h)) + linear @ z
    cp.Problem(cp.Minimize(cost), [cp.abs(z[: len(limit)]) <= limit]).solve(solver="OSQP")
    return z.value


def cold_start(problem: CircuitProblem, planner: Any, iterations: int) -> np.ndarray:
    """Return the gap of the realised cost to the central one after each iteration."""
    x, u, w = after_load_step(problem)
    central = CentralMpc(problem)
    theta = central.theta(x, u, w)
    best = central.condensed.cost(central.plan(x, u, w).ravel(), theta)
    g0 = offsets(planner.splitting, problem.thetas(x, u, w))
    planner.iterations = 1
    plan, gaps = planner.plan(x, u, w), []
    for _ in range(iterations):
        gaps.append(abs(central.condensed.cost(plan.ravel(), theta) / best - 1.0))
        done = planner.solver.solve(g0, -planner.high, planner.high, 1)
        plan = inputs_of(problem, list(done.bounded))
    return np.array(gaps)


def until(gaps: np.ndarray, share: float) -> int | None:
    """Return the first iteration from which the gap stays below `share`."""
    bad = np.flatnonzero(gaps > share)
    if not bad.size:
        return 1
    return None if bad[-1] == len(gaps) - 1 else int(bad[-1]) + 2


def schemes(problem: CircuitProblem) -> dict[str, tuple[Any, int]]:
    """Return every scheme with the number of iterations it is watched for."""
    return {
        "edge-wise ADMM": (EdgeWiseMpc(problem), 200),
        "tracking, complete graph": (TrackingMpc(problem, c=500.0), 200),
        "tracking, 8 rounds of neighbours": (
            TrackingMpc(problem, mixing="multi-round", c=300.0),
            300,
        ),
        "tracking, neighbours": (TrackingMpc(problem, mixing="neighbours", c=100.0), 1500),
    }


def cold_starts(problem: CircuitProblem) -> dict[str, dict[str, Any]]:
    out = {}
    for name, (planner, iterations) in schemes(problem).items():
        gaps = cold_start(problem, planner, iterations)
        marks = {
            k: float(gaps[k - 1])
            for k in (1, 5, 10, 20, 50, 100, 120, 200, 300, 1500)
            if k <= len(gaps)
        }
        out[name] = {"to_1_pct": until(gaps, 0.01), "to_0.1_pct": until(gaps, 0.001), "gap": marks}
    return out


def numbers(trial: Trial) -> dict[str, float]:
    return {
        k: round(getattr(trial, k), 6)
        for k in ("settle_ms", "band_ms", "v_min", "v_max", "losses", "cost")
    }


def tuned_pi(problem: CircuitProblem, tries: int, seed: int = 7) -> tuple[tuple[float, ...], Trial]:
    """Return the best of random gains: the one that settles first and holds the band."""
    rng = np.random.default_rng(seed)
    circuit, w = problem.circuit, load_step(problem.circuit)
    best: tuple[tuple[float, ...], Trial] | None = None
    for _ in range(tries):
        gains = tuple(float(g) for g in 10.0 ** rng.uniform((-1, 0.5, -2), (1.5, 3.5, 1.5)))
        trial = load_step_trial(circuit, AveragingPiLaw(circuit, SAMPLE_S, *gains), w)
        if np.isfinite(trial.band_ms) and (best is None or trial.settle_ms < best[1].settle_ms):
            best = gains, trial
    assert best is not None
    return best


def closed_loop(problem: CircuitProblem, tries: int) -> dict[str, Any]:
    circuit, w = problem.circuit, load_step(problem.circuit)

    def of(planner: Any) -> dict[str, float]:
        return numbers(load_step_trial(circuit, lambda *now: planner.plan(*now)[0], w))

    law = AveragingPiLaw(circuit, SAMPLE_S, 1.0, 50.0, 1.0)
    out: dict[str, Any] = {
        "none": numbers(load_step_trial(circuit, lambda x, u, load: u, w)),
        "averaging PI 1, 50, 1": numbers(load_step_trial(circuit, law, w)),
    }
    gains, trial = tuned_pi(problem, tries)
    shown = ", ".join(f"{g:.3g}" for g in gains)
    out[f"averaging PI {shown} (best of {tries})"] = numbers(trial)
    out["central MPC"] = of(CentralMpc(problem))
    for n in (1, 5, 10, 20):
        out[f"edge-wise ADMM, {n} iterations"] = of(EdgeWiseMpc(problem, n))
    for n in (5, 20, 40):
        out[f"tracking, complete graph, {n} iterations"] = of(TrackingMpc(problem, n))
    return out


def growth(iterations: int) -> dict[int, float]:
    out = {}
    for k in (4, 8, 16, 32, 64):
        circuit, clusters = circuit_of(f"chain:{k}")
        problem = circuit_problem(circuit, clusters, SAMPLE_S)
        out[k] = float(np.median(step_ms(problem, iterations, repeats=2)))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--naive", choices=("osqp", "cvxpy"), default="osqp")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--tune", type=int, default=400)
    args = parser.parse_args()
    name = "feeder24" if args.clusters == 4 else f"chain:{args.clusters}"
    problem = circuit_problem(*circuit_of(name), SAMPLE_S)
    fast = step_ms(problem, args.iterations)
    naive = naive_step_ms(problem, args.iterations, args.naive)
    result: dict[str, Any] = {
        "step_ms_median": float(np.median(fast)),
        "step_ms_p95": float(np.percentile(fast, 95)),
        "naive_step_ms_median": float(np.median(naive)),
        "naive": args.naive,
        "clusters": len(problem.parts),
        "iterations": args.iterations,
    }
    if args.all:
        result["step_ms_by_clusters"] = growth(args.iterations)
        result["cold_start"] = cold_starts(problem)
        result["closed_loop"] = closed_loop(problem, args.tune)
    if args.json:
        print(json.dumps(result, indent=None if not args.all else 1))
        return
    _print(result)


def _print(result: dict[str, Any], say: Callable[[str], None] = print) -> None:
    ratio = result["naive_step_ms_median"] / result["step_ms_median"]
    say(
        f"{result['clusters']} clusters, {result['iterations']} iterations: "
        f"{result['step_ms_median']:.3f} ms (95 %: {result['step_ms_p95']:.3f}), "
        f"naive ({result['naive']}) {result['naive_step_ms_median']:.1f} ms, {ratio:.0f} times"
    )
    for k, ms in result.get("step_ms_by_clusters", {}).items():
        say(f"  {k:3d} clusters {ms:8.3f} ms")
    for name, row in result.get("cold_start", {}).items():
        marks = "  ".join(f"{k}: {gap:.1e}" for k, gap in row["gap"].items())
        say(f"  {name:34s} 1 %: {row['to_1_pct']}  0.1 %: {row['to_0.1_pct']}   {marks}")
    for name, row in result.get("closed_loop", {}).items():
        say(f"  {name:46s} " + "  ".join(f"{k} {value:g}" for k, value in row.items()))


if __name__ == "__main__":
    main()
