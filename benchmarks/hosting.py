"""Static hosting capacity of IEEE 123: speed beside OpenDSS, and what decides the figures.

    python benchmarks/hosting.py [--json] [--placements 1000] [--only speed study source noise map]

speed    CPU time of a power flow with all voltages and currents at the limits, in a batch and one
         at a time in OpenDSS, and their ratio; the largest deviation of a voltage over 12 cases;
         seconds of a study of `--placements` placements over 24 steps with its tables, of the same
         without first looking at three critical hours, and of the map
study    mean, standard deviation, least and largest hosting capacity in percent of the coincident
         peak, without DERs and with the slides' batteries, heat pumps and vehicles at 5 %; on the
         shipped day, whose load at noon is 0.59 of its peak, and at 0.35
source   the same over the voltage of the source (balanced, no DERs)
noise    the same over noise a day, noise a step and noise of each element
map      least, median and largest kW of each site alone, as generation and as load, what ends it
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

# One core: the comparison is of algorithms, not of threads. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _hosting_cases import hosting_case, ieee123, print_tables  # noqa: E402

from grid_models.current_injection.model import ComplexArray, FloatArray  # noqa: E402
from grid_models.feeder.model import Der  # noqa: E402
from grid_models.hosting.alone import AloneOptions, alone_capacity  # noqa: E402
from grid_models.hosting.model import HostingModel  # noqa: E402
from grid_models.hosting.monte_carlo import NoiseOptions, sampled_days  # noqa: E402
from grid_models.hosting.result import Binding  # noqa: E402
from grid_models.hosting.static import (  # noqa: E402
    StaticOptions,
    placement_search,
    static_capacity,
    with_batteries_discharging,
)
from grid_models.opendss.circuit import Circuit  # noqa: E402

_NOON_PU = 0.35
_CASES, _REFEREED = 2400, 12

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--placements", type=int, default=1000)
    parts = {"speed": speed, "study": study, "source": source, "noise": noise, "map": alone_map}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    found = {name: parts[name](args.placements) for name in args.only}
    print_tables(found, as_json=args.json)


def speed(n: int) -> list[Row]:
    """Time power flows, studies and maps."""
    return [_speed(n, balanced) for balanced in (True, False)]


def _speed(n: int, balanced: bool) -> Row:
    model, circuit = hosting_case(balanced=balanced, noon_load_pu=_NOON_PU)
    days = _CASES // len(model.hours)
    search = placement_search(model, StaticOptions(placements=days))
    kva = search.site_kva(np.arange(days), np.full(days, 150), np.arange(len(model.hours)))
    flow_s = _cpu_s(lambda: model.excess(kva)) / (days * len(model.hours))
    engine_s, off = _engine(model, circuit, kva)
    options, all_hours = StaticOptions(n), StaticOptions(n, critical_hours=0)
    return {
        "model": _name(balanced),
        "flow_us": 1e6 * flow_s,
        "opendss_us": 1e6 * engine_s,
        "opendss_over_flow": engine_s / flow_s,
        "referee_pu": off,
        "study_s": _cpu_s(lambda: static_capacity(model, options), 1),
        "search_s": _cpu_s(lambda: placement_search(model, options).found(), 1),
        "search_all_hours_s": _cpu_s(lambda: placement_search(model, all_hours).found(), 1),
        "map_s": _cpu_s(lambda: alone_capacity(model, AloneOptions())),
    }


def _cpu_s(call: Callable[[], object], repeats: int = 3) -> float:
    """Return the CPU time of a call, the best of several."""
    best = np.inf
    for _ in range(repeats):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best


def _engine(model: HostingModel, circuit: Circuit, kva: ComplexArray) -> tuple[float, float]:
    """Return the CPU time of a case in OpenDSS, and the largest deviation of a voltage.

    The cases are those of the first day; the engine reads voltages only, no currents.
    """
    load, site = model.load_kva / model.watt_scale, kva[0] / model.watt_scale

    def day(steps: range) -> list[FloatArray]:
        found = []
        for t in steps:
            circuit.set_loads(load[t].real, load[t].imag)
            circuit.set_ders(site[t].real, site[t].imag)
            circuit.solve()
            found.append(circuit.v_pu().copy())
        return found

    every = range(len(model.hours))
    seconds = _cpu_s(lambda: day(every)) / len(every)
    circuit.set_tolerance(1e-11)
    refereed = every[:: len(every) // _REFEREED]
    off = np.array(day(refereed)) - model.flow(kva[:1]).v_pu[refereed]
    return seconds, float(np.abs(off).max())


def study(n: int) -> list[Row]:
    """Return the figures on both days, with and without devices."""
    rows = []
    for noon in (None, _NOON_PU):
        for balanced in (True, False):
            plain, _ = hosting_case(balanced=balanced, noon_load_pu=noon)
            idle, circuit = hosting_case(balanced=balanced, noon_load_pu=noon, electrified=True)
            ders = _with_power_of(circuit.feeder.ders, idle.watt_scale)
            cases = {
                "no DERs": (plain, StaticOptions(n)),
                "batteries idle": (idle, StaticOptions(n)),
                "batteries discharging": (
                    with_batteries_discharging(idle, ders),
                    StaticOptions(n),
                ),
                "no DERs, units to 42 kW": (plain, StaticOptions(n, unit_max_kw=42.0)),
                "no DERs, power factor 0.98": (plain, StaticOptions(n, power_factor=0.98)),
            }
            for what, (model, options) in cases.items():
                found = placement_search(model, options).found()
                said = {"model": _name(balanced), "noon load": noon or 0.59, "case": what}
                rows.append(said | _figures(model, found.hc_kw) | _ends(found.binding))
    return rows


def source(n: int) -> list[Row]:
    """Return the figures over the voltage of the source."""
    rows = []
    for v_pu in (1.0, 1.015, 1.02, 1.025, 1.027, 1.03):
        for capacitors in (True, False) if v_pu == 1.03 else (True,):
            feeder = ieee123(v_pu, capacitors=capacitors)
            model, _ = hosting_case(feeder, balanced=True, noon_load_pu=_NOON_PU)
            found = placement_search(model, StaticOptions(n)).found()
            said = {"source": v_pu, "capacitors": capacitors}
            rows.append(said | _figures(model, found.hc_kw) | _ends(found.binding))
    return rows


def noise(n: int) -> list[Row]:
    """Return the figures over noise of demand and PV."""
    model, circuit = hosting_case(balanced=True, noon_load_pu=_NOON_PU, electrified=True)
    ders = _with_power_of(circuit.feeder.ders, model.watt_scale)
    model, options, rows = with_batteries_discharging(model, ders), StaticOptions(n), []
    for pct in (0.0, 3.0, 5.0, 10.0):
        for per, shared in (("day", True), ("step", True), ("day", False)):
            made = NoiseOptions(pct, pct, per=per, shared=shared)  # type: ignore[arg-type]
            found = placement_search(model, options, *sampled_days(model, options, made)).found()
            said = {"noise %": pct, "per": per, "of": "all" if shared else "each"}
            infeasible = int(np.isnan(found.hc_kw).sum())
            rows.append(said | _figures(model, found.hc_kw) | {"infeasible": infeasible})
    return rows


def alone_map(n: int) -> list[Row]:
    """Return the figures of each site alone; `n` is not used."""
    del n
    rows = []
    for balanced in (True, False):
        model, _ = hosting_case(balanced=balanced, noon_load_pu=_NOON_PU)
        for direction in ("generation", "load"):
            found = alone_capacity(model, AloneOptions(direction=direction))
            kw = found.hc_kw
            said: Row = {"model": _name(balanced), "direction": direction, "sites": len(kw)}
            kws = {"min_kw": float(kw.min()), "median_kw": float(np.median(kw))}
            rows.append(said | kws | {"max_kw": float(kw.max())} | _ends(found.binding))
    return rows


def _with_power_of(ders: Sequence[Der], scale: float) -> list[Der]:
    """Return the DERs of a single-phase equivalent with the power of the whole feeder."""
    return [replace(x, p_max_kw=scale * x.p_max_kw, energy_kwh=scale * x.energy_kwh) for x in ders]


def _name(balanced: bool) -> str:
    return "balanced" if balanced else "three-phase"


def _figures(model: HostingModel, hc_kw: FloatArray) -> Row:
    pct = 100.0 * hc_kw[~np.isnan(hc_kw)] / model.base_kva
    figures = {"mean": pct.mean(), "sd": pct.std(), "min": pct.min(), "max": pct.max()}
    return {name: float(figure) for name, figure in figures.items()}


def _ends(binding: Sequence[Binding]) -> Row:
    return {"ends": dict(Counter(b.kind for b in binding))}


if __name__ == "__main__":
    main()
