"""Memory, set-up and step of the distributed MPC of a feeder, by the number of DERs.

    python benchmarks/dmpc_large.py [--json] [--ders 375 750 1500 3000] [--clusters 4]

On synthetic trees with a PV unit at two of three load nodes and a battery at every third. Each size
runs in a process of its own. Times are of the processor, so that other work on the machine counts
less; memory is what the controller adds to the process's peak. `dense_gb` is what the
matrices of all clusters, padded to the largest, would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
from lindistflow import synthetic_feeder

from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from controllers.dmpc.feeder import FeederDmpc
from grid_models.feeder.model import Der

SAMPLES = 3
ITERATIONS = 10


def site_with(count: int) -> ControlSite:
    """Return a feeder with `count` DERs, one on each phase of each load."""
    feeder = synthetic_feeder(int(2.2 * count) + 100)
    at = [(load.bus, phase) for load in feeder.loads for phase in load.phases][:count]
    ders = []
    for i, (bus, phase) in enumerate(at):
        if i % 3:
            ders.append(Der(f"pv{i}", "pv", bus, (phase,), kva=5.5, p_max_kw=5.0))
        else:
            size = {"p_min_kw": -3.0, "energy_kwh": 6.0}
            ders.append(Der(f"bat{i}", "battery", bus, (phase,), 3.3, 3.0, **size))
    return ControlSite(replace(feeder, ders=tuple(ders)), tuple(ders), 5.0)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def measure(count: int, clusters: int) -> dict[str, float]:
    site = site_with(count)
    before, start = peak_mb(), time.process_time()
    names = FeederDmpc.agents(site, clusters=clusters)
    controller = FeederDmpc(site, names, clusters=clusters, sample_s=60.0, iterations=ITERATIONS)
    set_up_s = time.process_time() - start
    values = {port.name: np.full(len(port.labels), port.initial) for port in controller.inputs}
    start = time.process_time()
    for k in range(SAMPLES * 12):
        controller.step(5.0 * k, values, Mail.empty())
    split = controller._split
    rows = split.bounded + split.coupled
    return {
        "ders": len(site.ders),
        "set_up_s": set_up_s,
        "memory_mb": peak_mb() - before,
        "sample_ms": 1e3 * (time.process_time() - start) / SAMPLES,
        "dense_gb": 8e-9 * len(names) * rows**2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ders", type=int, nargs="+", default=[375, 750, 1500, 3000])
    parser.add_argument("--clusters", type=int, default=4)
    args = parser.parse_args()
    rows = []
    for count in args.ders:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows.append(pool.submit(measure, count, args.clusters).result())
        if not args.json:
            print("  ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
