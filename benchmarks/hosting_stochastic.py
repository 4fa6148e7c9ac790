"""Stochastic hosting capacity of IEEE 123: speed, solvers side by side, and what decides it.

    python benchmarks/hosting_stochastic.py [--json] [--days 5 25] [--only speed risk]

speed    CPU seconds of a design for N days, the part of it in the solver, and of its dispatch on 26
         other days; hosting capacity in percent of the coincident peak; curtailment and excess
         there
solvers  the same programme (5 days) by PIQP, clarabel, and HiGHS by interior points and by its
         simplex method: CPU seconds over those of PIQP, and the difference of the objectives
risk     25 days: expected curtailment, conditional value at risk, every day; with storages that may
         charge and discharge at once; with more groups, a wider bound by load, and power factor
medoids  designs for k medoids of 50 days beside the design for all 50

Balanced model, 12 groups, 1 % curtailment, noise of 5 % a day, one thread. What was measured on
which machine is in docs/hosting-capacity.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _hosting_cases import LOAD_SCALE, hosting_case, ieee123, print_tables  # noqa: E402

import grid_models.hosting.stochastic_search as search  # noqa: E402
from grid_models.ders.rules import load_kw_by_node  # noqa: E402
from grid_models.hosting.devices import DeviceOptions  # noqa: E402
from grid_models.hosting.interior_point import (  # noqa: E402
    Program,
    Solution,
    by_clarabel,
    by_piqp,
    solve_program,
)
from grid_models.hosting.scenarios import (  # noqa: E402
    DayNoise,
    Days,
    drawn_days,
    own_day,
    reduced_days,
)
from grid_models.hosting.stochastic import StochasticOptions, StochasticStudy  # noqa: E402
from grid_models.hosting.stochastic_search import Plan  # noqa: E402
from grid_models.profiles.table import Profiles  # noqa: E402

_TOTAL_PCT = {"battery": 10.0, "vehicle": 13.5, "heat_pump": 5.7}
_SEED = 0

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--days", type=int, nargs="+", default=[5, 25])
    parts = {"speed": speed, "solvers": solvers, "risk": risk, "medoids": medoids}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    found = {name: parts[name](args.days) for name in args.only}
    print_tables(found, as_json=args.json)


def speed(days: list[int]) -> list[Row]:
    """Time designs and their dispatch."""
    study = _study()
    return [_speed(study, n) for n in days]


def _speed(study: StochasticStudy, n: int) -> Row:
    drawn, spent = _drawn(study, n), _Spent()
    with patch.object(search, "solve_program", spent):
        design, design_s = _timed(lambda: study.design(drawn))
    plan, replay_s = _timed(lambda: study.dispatch(_fresh(study), drawn, design))
    return {
        "days": n,
        "hc_pct": _hc_pct(study, design),
        "design_s": design_s,
        "replay_s": replay_s,
        "solver_share": spent.seconds / design_s,
        "programmes": design.rounds,
        "variables": spent.variables,
        "solvers": ", ".join(design.solvers),
        **_tried(plan),
    }


def solvers(_: list[int]) -> list[Row]:
    """Solve the last programme of a design by each solver."""
    study, spent = _study(), _Spent()
    with patch.object(search, "solve_program", spent):
        study.design(_drawn(study, 5))
    program = spent.last
    best, base_s = _timed(lambda: by_piqp(program, 1e-6))
    assert best is not None
    others: Mapping[str, Callable[[], float]] = {
        "PIQP": lambda: _objective(program, by_piqp(program, 1e-6)),
        "clarabel": lambda: _objective(program, by_clarabel(program, 1e-6)),
        "HiGHS ipm": lambda: _highs(program, "highs-ipm"),
        "HiGHS simplex": lambda: _highs(program, "highs-ds"),
    }
    rows = []
    for name, solve in others.items():
        objective, seconds = _timed(solve)
        off = objective / (program.cost @ best.v) - 1.0
        ratio = seconds / base_s
        rows.append({"solver": name, "cpu_s": seconds, "over_piqp": ratio, "objective_off": off})
    return rows


def risk(_: list[int]) -> list[Row]:
    """Compare what is limited, and by what."""
    cases: Mapping[str, Row] = {
        "expected": {},
        "cvar": {"risk": "cvar"},
        "every": {"risk": "every"},
        "expected, most_pu 3": {"most_pu": 3.0},
        "expected, 24 groups": {"groups": 24},
        "expected, power factor 0.98": {"power_factor": 0.98},
    }
    rows: list[Row] = []
    for name, options in cases.items():
        study = _study(**options)
        drawn = _drawn(study, 25)
        design = study.design(drawn)
        assert design is not None
        relaxed = 1e5 * design.relaxed_mw / study.model.base_kva
        hosted = {"hc_pct": _hc_pct(study, design), "with_overlap_pct": relaxed}
        tried = _tried(study.dispatch(_fresh(study), drawn, design))
        rows.append({"case": name, **hosted, **tried})
    return rows


def medoids(_: list[int]) -> list[Row]:
    """Compare designs for few medoids with that for all days."""
    study = _study()
    drawn, rows = _drawn(study, 50), []
    for k in (1, 5, 20, 50):
        few = reduced_days(drawn, k)[0]
        design = study.design(few)
        assert design is not None
        tried = _tried(study.dispatch(_fresh(study), few, design))
        rows.append({"medoids": k, "hc_pct": _hc_pct(study, design), **tried})
    return rows


class _Spent:
    """`solve_program` with a clock; keeps the last programme."""

    def __init__(self) -> None:
        self.seconds, self.variables = 0.0, 0
        self.last: Program

    def __call__(self, program: Program) -> Solution | None:
        found: Solution | None
        found, seconds = _timed(lambda: solve_program(program))
        self.last, self.seconds = program, self.seconds + seconds
        self.variables = max(self.variables, len(program.cost))
        return found


def _study(power_factor: float = 1.0, **options: Any) -> StochasticStudy:
    feeder = ieee123()
    model, _ = hosting_case(feeder, balanced=True, at="load_buses")
    by_bus = {bus: sum(kw.values()) for bus, kw in load_kw_by_node(feeder).items()}
    nominal_kw = LOAD_SCALE * np.array([by_bus[site.bus] for site in model.sites])
    total_kw = {kind: model.base_kva * pct / 100.0 for kind, pct in _TOTAL_PCT.items()}
    devices = DeviceOptions(power_factor=power_factor)
    return StochasticStudy(model, nominal_kw, total_kw, devices, StochasticOptions(**options))


def _drawn(study: StochasticStudy, n: int, name: str = "day") -> Days:
    price = Profiles.generate("clear").sample(3600.0 * study.model.hours)["price_per_kwh"]
    return drawn_days(study.model, price, DayNoise(), n, _SEED, name)


def _fresh(study: StochasticStudy) -> Days:
    fresh = _drawn(study, 25, "fresh day")
    return own_day(study.model, fresh.price[0]).joined(fresh)


def _hc_pct(study: StochasticStudy, design: Plan) -> float:
    return float(1e5 * design.capacity_mw[: len(study.groups)].sum() / study.model.base_kva)


def _tried(plan: Plan | None) -> Row:
    assert plan is not None
    return {
        "curtailed_mean_pct": 100.0 * float(plan.curtailed.mean()),
        "curtailed_max_pct": 100.0 * float(plan.curtailed.max()),
        "excess": float(max(plan.excess.max(), 0.0)),
    }


def _objective(program: Program, found: Solution | None) -> float:
    return float("nan") if found is None else float(program.cost @ found.v)


def _highs(p: Program, method: str) -> float:
    from scipy.optimize import linprog

    bounds = np.column_stack([p.low, p.high])
    found = linprog(  # type: ignore[call-overload]  # its stubs know no sparse arrays
        p.cost, p.less, p.most, p.equal, p.right, bounds, method=method
    )
    return float(found.fun)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return work(), time.process_time() - began


if __name__ == "__main__":
    main()
