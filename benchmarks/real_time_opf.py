"""Real-time OPF on IEEE 123: the dual laws, old measurements, and the AC optimum of each minute.

    python benchmarks/real_time_opf.py [--json] [--every 60] [--rows pi,vpp]

Each row runs `rt-opf-ieee123` (40 PV, 6.06 MVA, 1 s, 09:00 to 16:00, OpenDSS) with other options:

v_max, over_*_s  highest voltage, and the time with a node that far above 1.05 pu
p_error_pct      |sum of P - that of the AC optimum| over the latter, mean of the minutes
x_error_pct      distance of all P and Q from the optimum's over the latter's length, likewise
curtailed_ratio  power not taken over that of the optimum, sums of the minutes
step_ms          processor time of a step of all: OpenDSS, areas, mail, recording, start of the run

The optimum has the same objective; it knows all loads and the sun, moves at once, and holds 1.05 pu
everywhere. The row `vpp` is the scenario `vpp-ieee123` with the error of its import.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread, before numpy loads its BLAS: two that wait for each other take many times as long.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _ac_optimum import AcProgram, Objective  # noqa: E402

from controllers.core.mail import FloatArray  # noqa: E402
from controllers.real_time_opf.objectives import Weights  # noqa: E402
from federates.assembly.federation import Assembly  # noqa: E402
from federates.core.signals import read_signal  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402
from grid_models.opendss.ports import port_network  # noqa: E402

Row = dict[str, float]
LIMIT_PU = 1.05
WARM_UP_S = 60.0
# Without the gains for it, the loop on old measurements swings, and power flows take long.
SWINGING_S = 3600


@dataclass(frozen=True)
class Variant:
    """Options of a row, the age of its measurements, and how long it runs (s)."""

    options: Mapping[str, Any] | None = None
    late_steps: int = 0
    duration_s: int = 25200


_FEEDBACK = {"anticipation": 0}
ROWS: dict[str, Variant] = {
    "none": Variant(None),
    "plain, feedback only": Variant({"dual": "plain", **_FEEDBACK}),
    "regularised 1e-6, feedback only": Variant({"dual": "regularised", **_FEEDBACK}),
    "regularised 1e-2, feedback only": Variant(
        {"dual": "regularised", "regularisation": 1e-2, **_FEEDBACK}
    ),
    "pi, feedback only": Variant(_FEEDBACK),
    "pi": Variant({}),
    "pi, one area": Variant({"areas": 1}),
    "pi, DERs at a tenth": Variant({"primal_step": 0.1}),
    "pi, 10 s old": Variant({"measurement_delay_s": 10}, 10),
    "pi, 10 s old, gains for fresh": Variant({}, 10, SWINGING_S),
}


@dataclass(frozen=True)
class Trace:
    """Signals of a run by step of the feeder, and its time per step."""

    time_s: FloatArray
    v_pu: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray
    import_kw: FloatArray
    step_ms: float


def changes(variant: Variant) -> list[str]:
    """Return what makes the scenario's run that of a row."""
    if variant.options is None:
        return ["federates={feeder: {kind: feeder}}", "connections=[]"]
    options, made = dict(variant.options), [f"time.duration_s={variant.duration_s}"]
    if variant.late_steps:
        options["late_steps"] = variant.late_steps
        made.append("federates.opf.controller=_late_rt_opf:LateRtOpf")
    return [*made, f"federates.opf.options={json.dumps(options)}", "federates.opf.split=1"]


def trace(scenario: str, sets: list[str]) -> Trace:
    """Run a scenario."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_scenario(scenario, sets)
        began = time.process_time()
        result = run(loaded, out=Path(folder) / "run", placement="single")
        seconds = time.process_time() - began
        names = ("v_pu", "p_kw", "q_kvar", "import_kw")
        read = {x: read_signal(result.folder / "signals", f"feeder.{x}") for x in names}
    v, p, q, imported = (read[name][2] for name in names)
    times = read["v_pu"][0]
    return Trace(times, v, p, q, imported[:, 0], 1e3 * seconds / len(times))


class Optima:
    """AC optima of `rt-opf-ieee123` at the last step of each interval of `every_s` seconds."""

    def __init__(self, every_s: int) -> None:
        scenario = load_scenario("rt-opf-ieee123")
        site = Assembly(scenario).site("feeder")
        steps = np.arange(every_s - 1, round(scenario.time.duration_s), every_s)
        day = site.profiles().sample(scenario.time.start_s + steps.astype(np.float64))
        network = port_network(site.take_circuit())
        ders = site.feeder.ders
        mva = np.array([der.kva for der in ders]) / 1e3
        weights = Weights()
        objective = Objective(
            curtailment_sq=0.5 * weights.curtailment / mva, q_cost=0.5 * weights.reactive / mva
        )
        program = AcProgram(network, ders, scenario.band.v_min_pu, scenario.band.v_max_pu)
        p_max = np.array([der.p_max_kw for der in ders])
        self.available_kw = p_max * np.clip(day["irradiance_pu"], 0.0, 1.0)[:, None]
        self.steps = steps
        found = [
            program.solve(network.loads.scaled(float(load)), available, objective)
            for load, available in zip(day["load_pu"], self.available_kw, strict=True)
        ]
        self.p_kw = np.array([best.p_kw for best in found])
        self.q_kvar = np.array([best.q_kvar for best in found])

    def row(self, of: Trace) -> Row:
        """Compare a run with the optima."""
        at = self.steps[(self.steps >= WARM_UP_S) & (self.steps < len(of.time_s))]
        k = np.searchsorted(self.steps, at)
        p, q, best_p, best_q = of.p_kw[at], of.q_kvar[at], self.p_kw[k], self.q_kvar[k]
        off = np.hypot(p - best_p, q - best_q)
        size = np.linalg.norm(np.hypot(best_p, best_q), axis=1)
        lost, least = ((self.available_kw[k] - x).sum() for x in (p, best_p))
        error = np.abs(p.sum(axis=1) - best_p.sum(axis=1)) / best_p.sum(axis=1)
        over = (of.v_pu.max(axis=1) - LIMIT_PU)[of.time_s >= WARM_UP_S]
        return {
            "v_max_pu": LIMIT_PU + float(over.max()),
            **{f"over_{x:.0e}_s": float((over > x).sum()) for x in (1e-3, 2e-3, 5e-3)},
            "p_error_pct": 100.0 * float(error.mean()),
            "x_error_pct": 100.0 * float((np.linalg.norm(off, axis=1) / size).mean()),
            "curtailed_ratio": float(lost / least),
            "step_ms": of.step_ms,
        }


def vpp_row() -> Row:
    """Return how the import of `vpp-ieee123` follows its signal, and the highest voltage."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(load_scenario("vpp-ieee123"), out=Path(folder) / "run", placement="single")
        names = ("feeder.import_kw", "dispatch.import_set_kw", "feeder.v_pu")
        read = [read_signal(result.folder / "signals", name) for name in names]
    time_s, imported = read[0][0], read[0][2][:, 0]
    asked = read[1][2][:, 0]
    warm = time_s >= WARM_UP_S
    error = np.abs(imported - asked)[warm]
    stepped = np.abs(np.diff(asked, prepend=asked[0]))[warm] > 200.0
    return {
        "v_max_pu": float(read[2][2][warm].max()),
        "import_error_mean_kw": float(error.mean()),
        "import_error_p95_kw": float(np.percentile(error, 95)),
        "within_50_kw_after_s": float(
            np.mean([np.argmax(error[k:] < 50.0) for k in np.flatnonzero(stepped)])
        ),
    }


def shown_row(row: Row) -> str:
    """Return a row as text."""
    return "  ".join(f"{name} {value:.5g}" for name, value in row.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures only")
    parser.add_argument("--every", type=int, default=60, help="seconds between optima")
    parser.add_argument("--rows", help="names or begins of rows, with commas; default: all")
    args = parser.parse_args()
    wanted = args.rows.split(",") if args.rows else [""]
    began = time.perf_counter()
    optima = Optima(args.every)
    table: dict[str, Row] = {}
    if not args.json:
        print(f"{len(optima.steps)} AC optima in {time.perf_counter() - began:.0f} s")
    for name, variant in ROWS.items():
        if not any(name.startswith(begin) for begin in wanted):
            continue
        table[name] = optima.row(trace("rt-opf-ieee123", changes(variant)))
        if not args.json:
            print(f"{name:32s} {shown_row(table[name])}", flush=True)
    if any("vpp".startswith(begin) for begin in wanted):
        table["vpp"] = vpp_row()
        if not args.json:
            print(f"{'vpp':32s} {shown_row(table['vpp'])}", flush=True)
    if args.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
