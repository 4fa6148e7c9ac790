"""Many cases of one feeder: microseconds per case in the batch and in OpenDSS, and the deviation.

    python benchmarks/batch.py [--json] [--cases 1 64 550 4096] [--most 1.5] [MASTER.dss ...]
    python benchmarks/batch.py --monte-carlo [--json]

Cases have random loads (0 to `--most` times nominal, and a spread by load), DER injections at ten
of the load buses, and source voltages of 0.95 to 1.05. Feeders: IEEE 13 and IEEE 123, and master
files that are named.

us_per_case    CPU time of `solve` and all node voltages, best of several runs on one core
warm_us        the same from the states at loads that differ by 1 %
slopes_us      CPU time of `source_slopes`
opendss_us     CPU time of OpenDSS for a sample of the same cases: powers in, solution, voltages out
max_dev_pu     largest deviation of a node voltage, as a complex number, from OpenDSS in the sample
converged      share of the cases that have a solution

`--monte-carlo`: wall time of 100,000 cases of IEEE 123 on two threads, the lowest voltage of each
included.
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

from grid_models.base.errors import GridModelError  # noqa: E402
from grid_models.batched.power_flow import BatchedFeeder  # noqa: E402
from grid_models.catalog import open_circuit  # noqa: E402
from grid_models.current_injection.model import ComplexArray, FloatArray  # noqa: E402
from grid_models.feeder.model import Der  # noqa: E402
from grid_models.opendss.circuit import Circuit  # noqa: E402

Row = dict[str, Any]
_TOLERANCE_PU, _SAMPLE, _SEED = 1e-10, 40, 20261128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("masters", nargs="*", metavar="MASTER.dss")
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 64, 550, 4096])
    parser.add_argument("--most", type=float, default=1.5, help="largest load, times nominal")
    parser.add_argument("--monte-carlo", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.monte_carlo:
        rows = [monte_carlo()]
    else:
        rows = []
        for name in ("ieee13", "ieee123", *args.masters):
            circuit = open_with_ders(name)
            feeder = BatchedFeeder(circuit)
            rows += [measured(name, circuit, feeder, n, args.most) for n in args.cases]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("  ".join(f"{key} {_text(value)}" for key, value in row.items()))


def open_with_ders(name: str) -> Circuit:
    """Open a feeder with a DER at up to ten of its loads' places, of the load's size."""
    circuit = open_circuit(name, tolerance_pu=_TOLERANCE_PU)
    loads = circuit.feeder.loads
    chosen = loads[:: max(1, len(loads) // 10)][:10]
    circuit.place_ders(
        [
            Der(f"der_{k}", "inverter", x.bus, x.phases, max(x.kw, 1.0), max(x.kw, 1.0))
            for k, x in enumerate(chosen)
            if len(x.phases) != 2
        ]
    )
    return circuit


def cases_of(
    feeder: BatchedFeeder, n: int, most: float
) -> tuple[ComplexArray, ComplexArray, FloatArray]:
    """Return random loads, injections and source voltages of `n` cases."""
    rng = np.random.default_rng(_SEED)
    level = rng.uniform(0.0, most, (n, 1))
    load = feeder.nominal_kva * level * rng.uniform(0.8, 1.2, (n, len(feeder.load_names)))
    size = np.abs(feeder.nominal_kva).mean()
    shape = n, len(feeder.der_names)
    der = size * (rng.uniform(-1.0, 2.0, shape) + 1j * rng.uniform(-0.5, 0.5, shape))
    return load, der, rng.uniform(0.95, 1.05, n)


def measured(name: str, circuit: Circuit, feeder: BatchedFeeder, n: int, most: float) -> Row:
    """Return the row of one feeder and number of cases."""
    load, der, source_pu = cases_of(feeder, n, most)
    flow = feeder.solve(load, der, source_pu)
    near = feeder.solve(0.99 * load, der, source_pu)
    opendss_us, deviation = by_opendss(circuit, load, der, source_pu, flow.v[:_SAMPLE])
    return {
        "feeder": name,
        "cases": n,
        "us_per_case": cpu_us(lambda: feeder.solve(load, der, source_pu).v_pu, n),
        "warm_us": cpu_us(lambda: feeder.solve(load, der, source_pu, near).v_pu, n),
        "slopes_us": cpu_us(lambda: feeder.source_slopes(flow), n),
        "opendss_us": opendss_us,
        "max_dev_pu": deviation,
        "converged": float(flow.converged.mean()),
        "iterations": flow.iterations,
        "v_min_pu": float(np.nanmin(flow.v_pu[:, flow.network.w != 0.0])),
    }


def cpu_us(work: Callable[[], object], n: int) -> float:
    """Return the least CPU time of several calls, per case in microseconds."""
    best, spent = np.inf, 0.0
    while spent < 1.0:
        start = time.process_time()
        work()
        took = time.process_time() - start
        best, spent = min(best, took), spent + took + 1e-3
    return round(best / n * 1e6, 2)


def by_opendss(
    circuit: Circuit, load: ComplexArray, der: ComplexArray, source_pu: FloatArray, v: ComplexArray
) -> tuple[float, float]:
    """Return OpenDSS' time per case in microseconds and the deviation from `v` (sample, n)."""
    own_pu, sources = circuit.feeder.source.v_pu, circuit.engine.dss.Vsources
    sources.First()
    times, deviation = [], 0.0
    for k in range(len(v)):
        start = time.process_time()
        circuit.set_loads(load[k].real, load[k].imag)
        circuit.set_ders(der[k].real, der[k].imag)
        sources.PU(own_pu * source_pu[k])
        try:
            circuit.solve()
        except GridModelError:
            continue  # OpenDSS finds no solution
        found = circuit.v_complex_pu()
        times.append(time.process_time() - start)
        shown = np.abs(found) > 0.0
        # NaN, a case that only OpenDSS solves, stays NaN.
        deviation = float(np.maximum(deviation, np.abs(found - v[k])[shown].max()))
    sources.PU(own_pu)
    return round(float(np.median(times)) * 1e6, 1), deviation


def monte_carlo(n: int = 100_000) -> Row:
    """Return the wall time of 100,000 cases on two threads."""
    feeder = BatchedFeeder(open_circuit("ieee123"))
    rng = np.random.default_rng(_SEED)
    load = feeder.nominal_kva * rng.uniform(0.5, 1.5, (n, len(feeder.load_names)))
    wall, cpu = time.perf_counter(), time.process_time()
    flow = feeder.solve(load, threads=2)
    v_min = flow.v_pu.min(axis=1)
    return {
        "feeder": "ieee123",
        "cases": n,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "converged": float(flow.converged.mean()),
        "below_0_95_pu": float((v_min < 0.95).mean()),
    }


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
