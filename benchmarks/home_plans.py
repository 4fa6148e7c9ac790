"""Plans of homes (stage I of the consumer market): time, exactness and cost beside other solvers.

    python benchmarks/home_plans.py [--json] [--homes 1000] [--checked 20]

plan_1000_s     wall time of planning `--homes` homes in one process, 48 steps of 30 min, each
                device in half of them, with building; `cpu_s` is the CPU time of it, `again_s`
                that of a second plan
overlap_max_kw  largest power that a storage charges and discharges at once, over all homes
inexact         homes where that is above 1e-6 kW, and how many with half the throughput cost at a
                price of zero: the bound is needed
cost_gap_max    over `--checked` homes with all devices: the largest difference of the plan's cost
                to the same problem in cvxpy without binaries (`relaxed`, clarabel: a bound from
                below), with the plan's directions fixed (`fixed`, clarabel: one from above), and,
                with linear weights only, to HiGHS deciding the binaries (`mixed_integer`)
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
from _home_cases import mixed_homes, starts, summer_day
from _home_reference import home_reference

from controllers.market.consumer.plan import PlanOptions, plan_homes

LINEAR = PlanOptions(ramp_per_kw2=0.0, own_pv_per_kwh=0.0, tracking_per_k2_h=0.0)


def timed(count: int) -> dict[str, Any]:
    """Plan many homes twice, and once where the throughput cost is too small."""
    homes = mixed_homes(count)
    forecast, start = summer_day(homes), starts(homes)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = plan_homes(homes, forecast, *start)
    row = {
        "homes": count,
        "plan_1000_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }
    cpu = time.process_time()
    plan_homes(homes, forecast, *start)
    row["again_s"] = time.process_time() - cpu
    free = replace(forecast, price_per_kwh=np.zeros(48))
    half = plan_homes(homes, free, *start, PlanOptions(throughput_factor=0.5))
    return row | {
        "converged": int(plan.converged.sum()),
        "overlap_max_kw": float(plan.overlap_kw.max()),
        "inexact": int((~plan.exact).sum()),
        "inexact_at_half": int((~half.exact).sum()),
    }


def checked(count: int) -> dict[str, float]:
    """Compare plans with other solvers."""
    homes = mixed_homes(count, seed=3, share=1.0)
    forecast, start = summer_day(homes), starts(homes)
    options = PlanOptions()
    plan = plan_homes(homes, forecast, *start, options)
    linear = plan_homes(homes, forecast, *start, LINEAR)
    gaps = {"relaxed": 0.0, "fixed": 0.0, "mixed_integer": 0.0}
    for i in range(count):
        signs = {kind: plan.p_kw[kind][i] > 0.0 for kind in ("battery", "vehicle")}
        case = homes, forecast, start
        for name, value, own in (
            ("relaxed", home_reference(*case, options, i), plan),
            ("fixed", home_reference(*case, options, i, signs=signs), plan),
            ("mixed_integer", home_reference(*case, LINEAR, i, binaries=True), linear),
        ):
            gaps[name] = max(gaps[name], abs(float(value - own.objective[i])))
    return {"cost_gap_max": max(gaps.values())} | {f"gap_{k}": v for k, v in gaps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--homes", type=int, default=1000)
    parser.add_argument("--checked", type=int, default=20)
    arguments = parser.parse_args()
    row: dict[str, Any] = timed(arguments.homes) | checked(arguments.checked)
    if arguments.json:
        print(json.dumps(row, indent=2))
    else:
        for name, value in row.items():
            print(f"{name:16} {value:.4g}")


if __name__ == "__main__":
    main()
