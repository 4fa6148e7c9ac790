"""Dynamic hosting capacity of IEEE 123: speed, what each lever gives, and slopes.

    python benchmarks/hosting_dynamic.py [--json] [--placements 12] [--only speed levers ...]

speed        CPU seconds of one placement with all devices, over the AC power flow of its day, and
             over the same search with every linear programme solved from scratch
levers       hosting capacity of one balanced placement: with nothing, each lever, and both
placements   mean and standard deviation over placements on three phases, CPU seconds of one, the
             largest excess of a plan in its AC power flow, and how many searches settled
sensitivity  over batteries and heat pumps of 0 to 30 % of the peak: corners, cross difference, and
             slopes by duals and by full solutions

Demand at noon is 0.35 of the peak unless `--noon-load` says otherwise; the shipped day has 0.59.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _hosting_cases import hosting_case, print_tables  # noqa: E402

from grid_models.current_injection.model import FloatArray  # noqa: E402
from grid_models.hosting.devices import DeviceOptions  # noqa: E402
from grid_models.hosting.dynamic import decomposed, dynamic  # noqa: E402
from grid_models.hosting.model import HostingModel  # noqa: E402
from grid_models.hosting.placements import Placements  # noqa: E402
from grid_models.hosting.result import HostingResult  # noqa: E402
from grid_models.hosting.sensitivity import sensitivity  # noqa: E402
from grid_models.hosting.warm_lp import LpSolution, WarmLp  # noqa: E402

Row = dict[str, Any]
_SLIDES_KW = {"battery": 147.0, "vehicle": 396.0, "heat_pump": 168.0}
_FLOWS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--placements", type=int, default=12)
    parser.add_argument("--noon-load", type=float, default=0.35)
    parts = {"speed": speed, "levers": levers, "placements": placements, "sensitivity": slopes}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    found = {name: parts[name](args.placements, args.noon_load) for name in args.only}
    print_tables(found, as_json=args.json)


def _case(balanced: bool, n: int, noon: float) -> tuple[HostingModel, FloatArray, FloatArray]:
    """Return the study, n random patterns of PV, and the part of the devices at each site."""
    at = "load_buses" if balanced else "load_phases"
    model, _ = hosting_case(balanced=balanced, at=at, noon_load_pu=noon)
    units = int(model.base_kva / 3.0) + 1
    drawn = Placements.random(n, len(model.sites), units, (3.0, 12.0), 1)
    share = np.full(len(model.sites), 1.0 / len(model.sites))
    return model, drawn.site_kw(drawn.units_within(0.5 * model.base_kva)), share


def _flows(model: HostingModel) -> None:
    for _ in range(_FLOWS):
        model.flow(10.0 * model.pv_pu[:, None])


def _sizes(share: FloatArray) -> dict[str, FloatArray]:
    return {kind: kw * share for kind, kw in _SLIDES_KW.items()}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def _from_scratch(self: WarmLp) -> LpSolution | None:
    self._highs.clearSolver()
    return _warm_solve(self)


_warm_solve = WarmLp.solve


def speed(_: int, noon: float) -> list[Row]:
    """Time one placement with all devices."""
    rows = []
    for balanced in (True, False):
        model, patterns, share = _case(balanced, 1, noon)
        sizes = _sizes(share)
        flow_s, _flow = _timed(partial(_flows, model))
        for factor in (1.0, 0.995, 0.98):
            options = DeviceOptions(power_factor=factor)
            work = (model, patterns, sizes, options)
            dynamic(*work)
            warm_s, found = _timed(partial(dynamic, *work))
            WarmLp.solve = _from_scratch  # type: ignore[method-assign]
            scratch_s, same = _timed(partial(dynamic, *work))
            WarmLp.solve = _warm_solve  # type: ignore[method-assign]
            table = found.tables["dynamic"]
            rows.append(
                {
                    "model": "balanced" if balanced else "three-phase",
                    "power_factor": factor,
                    "cpu_s": warm_s,
                    "over_power_flows_of_a_day": warm_s / (flow_s / _FLOWS),
                    "scratch_over_warm": scratch_s / warm_s,
                    "hc_pct": _pct(model, found),
                    "scratch_hc_pct": _pct(model, same),
                    "excess": float(table["excess"][0]),
                    "linear_programmes": int(table["linear_programmes"][0]),
                    "network_rows": int(table["network_rows"][0]),
                }
            )
    return rows


def levers(_: int, noon: float) -> list[Row]:
    """Return one balanced placement with each lever."""
    model, patterns, share = _case(True, 1, noon)
    rows = []
    for factor in (0.98, 0.95, 0.9, 0.8):
        options = DeviceOptions(power_factor=factor)
        found = decomposed(model, patterns, _sizes(share), options)
        row: Row = {"power_factor": factor}
        for name, result in found.items():
            row[name] = _pct(model, result)
        both = found["all"]
        row["all_with_overlap"] = _percent(model, both.tables["dynamic"]["with_overlap_kw"])
        row["all_ended_by"] = str(both.binding[0])
        rows.append(row)
    return rows


def placements(n: int, noon: float) -> list[Row]:
    """Return means over placements on three phases."""
    model, patterns, share = _case(False, n, noon)
    rows = []
    for factor in (1.0, 0.995, 0.98):
        options = DeviceOptions(power_factor=factor)
        cpu_s, found = _timed(partial(dynamic, model, patterns, _sizes(share), options))
        pct = 100.0 * found.hc_kw / model.base_kva
        rows.append(
            {
                "power_factor": factor,
                "placements": n,
                "infeasible": int(np.isnan(pct).sum()),
                "mean_pct": float(np.nanmean(pct)),
                "sd_pct": float(np.nanstd(pct)),
                "min_pct": float(np.nanmin(pct)),
                "max_pct": float(np.nanmax(pct)),
                "cpu_s_of_one": cpu_s / n,
                "excess": float(np.nanmax(found.tables["dynamic"]["excess"])),
                "notes": list(found.notes),
            }
        )
    return rows


def slopes(_: int, noon: float) -> list[Row]:
    """Return the sensitivity to batteries and heat pumps."""
    model, patterns, share = _case(True, 1, noon)
    size = model.base_kva * np.array([0.0, 0.1, 0.2, 0.3])
    sizes = {"battery": size, "heat_pump": size}
    vehicles = {"vehicle": _SLIDES_KW["vehicle"] * share}
    rows = []
    for factor in (1.0, 0.98):
        options = DeviceOptions(power_factor=factor)
        work = model, patterns[0], sizes, share, options
        cpu_s, found = _timed(partial(sensitivity, *work, other_kw=vehicles))
        a, b = found.middle
        rows.append(
            {
                "power_factor": factor,
                "none_pct": _percent(model, found.hc_kw[0, 0]),
                "both_30_pct": _percent(model, found.hc_kw[-1, -1]),
                "cross_points": _percent(model, found.cross_kw),
                "by_dual": found.by_dual[:, a, b].tolist(),
                "by_solution": found.by_solution.tolist(),
                "cpu_s": cpu_s,
            }
        )
    return rows


def _pct(model: HostingModel, found: HostingResult) -> float:
    return _percent(model, found.hc_kw)


def _percent(model: HostingModel, kw: Any) -> float:
    return float(100.0 * np.mean(kw) / model.base_kva)


if __name__ == "__main__":
    main()
