"""Algorithms of regions on AC optimal power flow, and PowerModelsADA's own case.

    python benchmarks/region_opf.py [--json] [--ada CASE]

The first table has the shipped cases in 3 and 4 regions, until the own stopping rule:

iterations     local solutions of a region
gap            of the regions' cost to the central optimum
infeasibility  largest violation of a constraint, per unit and rad
dual           largest entry of the Lagrangian's gradient, relative to 1 + the largest multiplier
kb             kilobytes of all messages per iteration, over perfect links
seconds        wall time of all regions on one core

The second one has a case of 39 buses in its three areas until the rule of the comparison of
PowerModelsADA 0.1.1: the 2-norm of each area's mismatches with its neighbours (angle and magnitude
at the ends of ties, active and reactive flows of the ties; of ADMM and ATC to the mean of both
areas) is below 0.01. CASE is ``case39`` (default) or the path of PGLib's
``pglib_opf_case39_epri.m``, the file of that comparison: the same network with other costs and
ratings. The `published` numbers are of its polar AC optimal power flow, on 16 cores, each with the
best parameter of a search, and with a gap below 1 %
(https://mkhraijah.github.io/PowerModelsADA.jl/stable/comparison/).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.core.mail import FloatArray  # noqa: E402
from controllers.core.mail_loop import MailLoop  # noqa: E402
from controllers.core.waiting import Barrier  # noqa: E402
from controllers.optimisation.algorithms.catalog import build  # noqa: E402
from controllers.optimisation.partition import areas_of, partition  # noqa: E402
from controllers.optimisation.problems.opf_regions import RegionOpf  # noqa: E402
from controllers.optimisation.region_method import RegionMethod  # noqa: E402
from grid_models.transmission.matpower import load_case  # noqa: E402

_ALGORITHMS = ("interior-point", "aladin", "admm", "admm-fixed", "atc", "app")
_PUBLISHED = {"admm": (89, 20.14), "atc": (1261, 239.80), "app": (873, 179.63)}
_ADA_TOLERANCE = 0.01
_MOST = 1000
# Answers take two steps, so that nothing is sent twice over perfect links.
_PATIENT = Barrier(resend_after=3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ada", default="case39", metavar="CASE")
    args = parser.parse_args()
    rows = [
        measure(problem, name)
        for case in map(load_case, ("case39", "case57", "case118"))
        for problem in (RegionOpf(case, partition(case, k)) for k in (3, 4))
        for name in _ALGORITHMS
    ]
    case = load_case(args.ada)
    ada = RegionOpf(case, areas_of(case, allow_disconnected=True))
    rows += [until_they_agree(ada, name) for name in ("aladin", "admm", "atc", "app")]
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def _built(name: str, problem: RegionOpf, **options: float) -> RegionMethod:
    method = build(name, problem, waiting=_PATIENT, **options)
    assert isinstance(method, RegionMethod)
    return method


def measure(problem: RegionOpf, name: str) -> dict[str, Any]:
    """Return the figures of an algorithm that ends by its own rule."""
    _ = problem.reference
    method = _built(name, problem)
    loop, sent, seconds = MailLoop([method]), 0, 0.0
    while not method.stopped and method.rounds < _MOST:
        began = time.perf_counter()
        sent += sum(done.mail.values.size for done in loop.step())
        seconds += time.perf_counter() - began
    worth = problem.measure(method.answer())
    return {
        "case": problem.case.name,
        "regions": len(problem.names),
        "algorithm": name,
        "status": method.status,
        "iterations": method.rounds,
        "gap": float(f"{worth.gap:.1e}"),
        "infeasibility": float(f"{worth.infeasibility:.1e}"),
        "dual": float(f"{worth.dual:.1e}"),
        "kb": round(8e-3 * sent / max(method.rounds, 1), 2),
        "seconds": round(seconds, 2),
    }


def until_they_agree(problem: RegionOpf, name: str) -> dict[str, Any]:
    """Return the figures of an algorithm until PowerModelsADA's rule holds."""
    optimum = problem.reference.objective
    sizes = [region.n for region in problem.regions]
    ties = Ties(problem)
    method = _built(name, problem, tolerance=1e-7)  # not to end before by its own rule
    share = 1.0 if name == "app" else 0.5
    loop, seconds, seen = MailLoop([method]), 0.0, 0
    gap = mismatch = np.nan
    while not method.stopped and method.rounds < _MOST:
        began = time.perf_counter()
        loop.step()
        seconds += time.perf_counter() - began
        if method.rounds == seen:
            continue
        seen = method.rounds
        x = method.answer()["x"]
        mismatch = share * ties.mismatch(problem.split(x, sizes))
        gap = abs(problem.objective(x) / optimum - 1.0)
        if mismatch < _ADA_TOLERANCE:
            break
    iterations, published_s = _PUBLISHED.get(name, (None, None))
    return {
        "case": problem.case.name,
        "areas": len(problem.names),
        "algorithm": name,
        "iterations": seen,
        "seconds": round(seconds, 2),
        "gap": float(f"{gap:.1e}"),
        "mismatch": float(f"{mismatch:.1e}"),
        "published_iterations": iterations,
        "published_s": published_s,
    }


class Ties:
    """What each pair of regions shares in PowerModelsADA."""

    def __init__(self, problem: RegionOpf) -> None:
        branches = problem.case.branches
        number = {name: k for k, name in enumerate(problem.names)}
        region = np.array([number[name] for name in problem.region_of])
        between = np.flatnonzero(region[branches.from_bus] != region[branches.to_bus])
        self._ends = branches.from_bus[between], branches.to_bus[between]
        self._sides = np.sort(np.stack([region[end] for end in self._ends]), axis=0)
        self._admittances = [y[between] for y in branches.admittances()]
        self._problem = problem

    def mismatch(self, parts: Sequence[FloatArray]) -> float:
        """Return the largest 2-norm of a region's differences to its neighbours."""
        total = np.zeros(len(parts))
        seen = [self._copies(k, x) for k, x in enumerate(parts)]
        for a, b in np.unique(self._sides, axis=1).T:
            mine = np.flatnonzero((self._sides[0] == a) & (self._sides[1] == b))
            buses = np.unique(np.concatenate([end[mine] for end in self._ends]))
            (turn_a, v_a, flows_a), (turn_b, v_b, flows_b) = seen[a], seen[b]
            squares = float(np.sum((turn_a - turn_b)[buses] ** 2 + (v_a - v_b)[buses] ** 2))
            squares += float(np.sum(np.abs(flows_a - flows_b)[:, mine] ** 2))
            total[[a, b]] += squares
        return float(np.sqrt(total.max()))

    def _copies(self, k: int, x: FloatArray) -> tuple[FloatArray, FloatArray, Any]:
        """Return angles and magnitudes by bus, and complex flows into both ends of all ties."""
        region = self._problem.regions[k]
        turn, v = np.zeros((2, len(self._problem.region_of)))
        turn[region.buses], v[region.buses] = x[region.turn], x[region.v]
        voltage = v * np.exp(1j * turn)
        i, j = (voltage[end] for end in self._ends)
        y_ff, y_ft, y_tf, y_tt = self._admittances
        return (
            turn,
            v,
            np.stack((i * np.conj(y_ff * i + y_ft * j), j * np.conj(y_tf * i + y_tt * j))),
        )


if __name__ == "__main__":
    main()
