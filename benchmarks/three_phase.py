"""Three-phase market: gap, time and AC replay of each method, on IEEE 123 and other feeders.

    python benchmarks/three_phase.py [--json] [--markets 30] [--skip-large]

Cases: S, M, L (IEEE 123 at 1.19 MW with 92 kW of flexibility; at 3.49 MW with 600 kW and with 1746
kW of generation; a voltage limit binds in each), 30 random markets on IEEE 123, IEEE 123 with a
loop, a feeder of 34 buses, and one of about 500 ports. Methods: the exact market, the McCormick
relaxation, and one and two linearisations of the power flow.

gap         relative distance of the method's cost from Ipopt's on the full-space program
            (`pip install casadi`; without it there is no gap); negative: below, as of a relaxation
seconds     of a clearing after another one with loads that differ by up to 5 %, the median
first       of the first clearing
replay_pu   largest error of the method's voltages: in OpenDSS for the exact market, in the AC power
            flow of its dispatch for the others
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

# One thread, before numpy loads its BLAS: two that wait for each other take up to 80 times as long.
from grid_models.base.threads import use_one_thread

use_one_thread()

from _three_phase_cases import (  # noqa: E402
    THESIS_CASES,
    THESIS_TAPS,
    Plant,
    market,
    meshed,
    plant,
    random_market,
    replay_pu,
    synthetic,
)
from _three_phase_linear import linearised  # noqa: E402
from _three_phase_reference import reference_cost  # noqa: E402

from controllers.market.clearing import CLEARINGS, clearing_class  # noqa: E402
from controllers.market.model.errors import NoDispatchError  # noqa: E402
from controllers.market.model.participants import draw  # noqa: E402
from controllers.market.model.problem import PortProblem  # noqa: E402

Row = dict[str, Any]
_LOADS = ("p_load0", "q_load0", "p_load_min", "p_load_max")
_CASADI = importlib.util.find_spec("casadi") is not None


def next_interval(problem: PortProblem, k: int) -> PortProblem:
    """Return `problem` with loads that differ by up to 5 %."""
    factor = draw(k, "interval", problem.network.terminals, 0.95, 1.0)
    bids = replace(problem.bids, **{name: factor * getattr(problem.bids, name) for name in _LOADS})
    return replace(problem, bids=bids)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def market_row(name: str, at: Plant, problem: PortProblem, clearings: int) -> Row:
    """Return the row of a way to clear, the first clearing and repeated ones."""
    made = clearing_class(name)(problem.network)
    found, first = timed(lambda: made.clear(problem))
    again = []
    for k in range(clearings):
        other = next_interval(problem, k)
        again.append(timed(lambda problem=other: made.clear(problem))[1])
    row = {
        "seconds": statistics.median(again) if again else first,
        "first_seconds": first,
        "iterations": found.iterations,
    }
    if name == "three-phase":
        return {"cost": found.dispatch.cost, "replay_pu": replay_pu(at, found.dispatch), **row}
    # The relaxation's own cost is the bound; its dispatch costs what the power flow makes of it.
    gap = found.replay
    return {
        "cost": gap.relaxed_cost,
        "replay_pu": gap.voltage_pu,
        "import_error_kw": gap.import_kw,
        **row,
    }


def linear_row(problem: PortProblem, times: int) -> Row:
    found, seconds = timed(lambda: linearised(problem, times))
    return {"cost": found.cost, "seconds": seconds, "replay_pu": found.replay_pu}


def rows_of(
    case: str,
    at: Plant,
    problem: PortProblem,
    clearings: int,
    *,
    exact_only: bool = False,
    with_ipopt: bool = True,
) -> Iterator[Row]:
    """Yield the rows of one case."""
    reference = seconds = None
    if _CASADI and with_ipopt:
        reference, seconds = timed(lambda: reference_cost(problem))
    methods: dict[str, Callable[[], Row]] = {
        "exact": lambda: market_row("three-phase", at, problem, clearings)
    }
    if not exact_only:
        if "three-phase-mccormick" in CLEARINGS:
            methods["mccormick"] = lambda: market_row(
                "three-phase-mccormick", at, problem, clearings
            )
        methods["one linearisation"] = lambda: linear_row(problem, 1)
        methods["two linearisations"] = lambda: linear_row(problem, 2)
    size = {"ports": len(problem.network.ports), "nodes": len(problem.network.nodes)}
    for method, run in methods.items():
        row = run()
        cost = row.pop("cost")
        gap = None if reference is None else (cost - reference) / abs(reference)
        yield {"case": case, "method": method, "gap": gap, **row, "ipopt_seconds": seconds, **size}


def measure(markets: int, *, large: bool = True) -> Iterator[Row]:
    """Yield all rows."""
    thesis = plant("ieee123", taps=THESIS_TAPS)
    for name, terms in THESIS_CASES.items():
        yield from rows_of(name, thesis, market(thesis, **terms), 5)
    found = seed = 0
    while found < markets:
        problem, seed = random_market(thesis, seed), seed + 1
        try:
            yield from rows_of(f"random {seed - 1}", thesis, problem, 1, exact_only=True)
        except (NoDispatchError, ArithmeticError):
            continue  # no dispatch keeps the limits that were drawn
        found += 1
    others = {
        "meshed": plant(meshed("ieee123", "151", "300"), taps=THESIS_TAPS),
        "34 buses": plant(synthetic(56, load_mw=1.8)),
    }
    if large:
        others["500 ports"] = plant(synthetic(1000, load_mw=12.0))
    for name, at in others.items():
        total = float(at.load_mw()[0].sum())
        low = 0.965 if name == "34 buses" else 0.97
        problem = market(at, flexible_mw=0.15 * total, generation_mw=0.3 * total, v_min_pu=low)
        big = name == "500 ports"  # Ipopt takes minutes there, with the same result
        yield from rows_of(name, at, problem, 5, exact_only=big, with_ipopt=not big)


_COLUMNS = ("case", "method", "gap", "seconds", "first_seconds", "replay_pu", "ports")


def print_table(rows: list[Row]) -> None:
    for name in _COLUMNS:
        print(f"{name:>19}", end="")
    for row in rows:
        print()
        for name in _COLUMNS:
            value = row.get(name)
            text = "-" if value is None else f"{value:.3g}" if isinstance(value, float) else value
            print(f"{text:>19}", end="")
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--markets", type=int, default=30, help="random markets on IEEE 123")
    parser.add_argument("--skip-large", action="store_true", help="without the feeder of 500 ports")
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    args = parser.parse_args()
    rows = list(measure(args.markets, large=not args.skip_large))
    if args.json:
        print(json.dumps(rows))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
