"""AC optimal power flow of regions by the distributed interior point, beside the central one.

    python benchmarks/opf_regions.py [--json] [--pypower] [CASE ...]

Cases are shipped names or files (default: case39, case57, case118), each in 3 and 4 regions.

iterations     of the regions; those of the central solver are the same
gap            of the regions' cost to the central optimum
infeasibility  largest violation of a constraint, per unit
kb             kilobytes of all messages per iteration, over perfect links
central_ms     wall time of the central solver
agent_us       wall time of the regions' run per agent and iteration
steps          of mail until the end where 30 % of it is lost and it takes 0.5 to 5.5 periods
same_bits      whether that run ends with the bits of the one over perfect links
pypower_usd    objective of `runopf` of PYPOWER, which has these cases and must be installed
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.core.mail_loop import MailLoop, Post  # noqa: E402
from controllers.core.waiting import Barrier  # noqa: E402
from controllers.optimisation.algorithms.interior_point import build  # noqa: E402
from controllers.optimisation.interior_point import InteriorPoint  # noqa: E402
from controllers.optimisation.partition import partition  # noqa: E402
from controllers.optimisation.problems.opf_region_nlp import RegionNlp  # noqa: E402
from controllers.optimisation.problems.opf_regions import RegionOpf  # noqa: E402
from controllers.optimisation.region_method import RegionMethod  # noqa: E402
from grid_models.transmission.matpower import load_case  # noqa: E402
from grid_models.transmission.opf_case import OpfCase  # noqa: E402

_MOST_STEPS = 10_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=["case39", "case57", "case118"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pypower", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in args.cases:
        case = load_case(name)
        known = {"pypower_usd": pypower_objective(case.name)} if args.pypower else {}
        rows += [measure(case, k) | known for k in (3, 4)]
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def measure(case: OpfCase, regions: int) -> dict[str, Any]:
    """Return the figures of a case in so many regions."""
    solver = InteriorPoint(RegionNlp(case, np.arange(len(case.buses.names))))
    solver.solve()  # the first run loads what is imported late
    began = time.perf_counter()
    central = solver.solve()
    central_ms = 1e3 * (time.perf_counter() - began)
    problem = RegionOpf(case, partition(case, regions))
    # Answers take two steps, so that nothing is sent twice over perfect links.
    method = build(problem, waiting=Barrier(resend_after=3))
    began = time.perf_counter()
    _, sent = run(method, Post())
    agent_us = 1e6 * (time.perf_counter() - began) / max(method.rounds, 1) / (regions + 1)
    lossy = build(problem)
    steps, _ = run(lossy, Post(loss=0.3, max_delay_steps=5, seed=1))
    worth, bits = problem.measure(method.answer()), method.answer()["x"].tobytes()
    return {
        "case": case.name,
        "regions": regions,
        "status": method.status,
        "iterations": method.rounds,
        "central": central.iterations,
        "usd_per_h": round(worth.objective, 2),
        "gap": float(f"{worth.gap:.1e}"),
        "infeasibility": float(f"{worth.infeasibility:.1e}"),
        "kb": round(8e-3 * sent / max(method.rounds, 1), 2),
        "central_ms": round(central_ms, 1),
        "agent_us": round(agent_us),
        "steps": steps,
        "same_bits": lossy.answer()["x"].tobytes() == bits,
    }


def run(method: RegionMethod, post: Post) -> tuple[int, int]:
    """Step until the end; return steps and the count of numbers sent."""
    loop, sent = MailLoop([method], post), 0
    while not method.stopped and loop.steps < _MOST_STEPS:
        sent += sum(done.mail.values.size for done in loop.step())
    return loop.steps, sent


def pypower_objective(name: str) -> float:
    """Return the cost in USD/h of PYPOWER's optimum of one of its own cases."""
    from importlib import import_module

    from pypower.api import ppoption, runopf

    case = getattr(import_module(f"pypower.{name}"), name)()
    found = runopf(case, ppoption(VERBOSE=0, OUT_ALL=0, PDIPM_COSTTOL=1e-9))
    return round(float(found["f"]), 2)


if __name__ == "__main__":
    main()
