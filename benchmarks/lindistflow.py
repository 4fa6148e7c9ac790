"""Time to build and to apply the linear power flow on a large radial feeder.

``python benchmarks/lindistflow.py [--json] [--nodes N] [MASTER]``: on the OpenDSS master file
MASTER, or on a synthetic three-phase tree of N nodes. With a master file the voltages are also
compared with OpenDSS at nominal load, the file's DERs at zero.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Feeder, Line, Load, Source
from grid_models.linear.lindistflow import LinDistFlow, OperatingPoint

_LAWS: tuple[tuple[str, OperatingPoint], ...] = (("flat", None), ("tangent", "nominal"))
_PHASE_SETS = ((1, 2, 3), (1, 2), (2, 3), (1,), (2,), (3,))


def synthetic_feeder(n_nodes: int, seed: int = 7) -> Feeder:
    """Return a random unbalanced tree with about `n_nodes` nodes and a load on every other bus."""
    rng = np.random.default_rng(seed)
    self_ohm, mutual_ohm = 0.0086 + 0.0204j, 0.003 + 0.008j
    buses = {"b0": Bus("b0", (1, 2, 3), 7.2)}
    lines, loads, nodes = [], [], 3
    while nodes < n_nodes:
        i = len(buses)
        above = buses[f"b{int(rng.integers(max(0, i - 60), i))}"]
        fitting = [p for p in _PHASE_SETS if set(p) <= set(above.phases)]
        phases = fitting[0] if rng.random() < 0.7 else fitting[int(rng.integers(len(fitting)))]
        bus = Bus(f"b{i}", phases, 7.2)
        buses[bus.name] = bus
        nodes += len(phases)
        n = len(phases)
        z = np.full((n, n), mutual_ohm) + np.eye(n) * (self_ohm - mutual_ohm)
        lines.append(Line(f"l{i}", above.name, bus.name, phases, z, 0.05 * np.eye(n)))
        if i % 2:
            kw = 0.5 * n
            loads.append(Load(f"d{i}", bus.name, phases, "wye", "PQ", kw, 0.4 * kw, 7.2))
    return Feeder("synthetic", Source("b0", 7.2 * 3**0.5), buses, tuple(lines), loads=tuple(loads))


def best_of(action: Callable[[], Any], times: int) -> tuple[float, Any]:
    """Return the best wall time of `times` calls in seconds, and the last result."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        result = action()
        best = min(best, time.perf_counter() - start)
    return best, result


def measure(feeder: Feeder) -> dict[str, Any]:
    figures: dict[str, Any] = {"feeder": feeder.name, "buses": len(feeder.buses)}
    for name, around in _LAWS:
        build_s, model = best_of(partial(LinDistFlow.from_feeder, feeder, around=around), 2)
        p_kw, q_kvar = model.nominal_injection()
        apply_s, _ = best_of(partial(model.v_pu, p_kw, q_kvar), 20)
        agents = model.nodes[:: max(1, len(model.nodes) // 100)][:100]
        sens_s, _ = best_of(partial(model.sensitivity, agents, agents), 2)
        figures["nodes"] = len(model.nodes)
        figures[f"{name}_build_s"] = build_s
        figures[f"{name}_apply_ms"] = 1e3 * apply_s
        figures[f"{name}_sensitivity_100_s"] = sens_s
    return figures


def compare(feeder: Feeder, circuit: Any) -> dict[str, float]:
    """Return the largest and mean voltage errors against OpenDSS at nominal load, in pu."""
    idle = np.zeros(len(feeder.ders))
    circuit.set_ders(idle, idle)
    circuit.solve()
    solved = dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))
    figures = {}
    for name, around in _LAWS:
        model = LinDistFlow.from_feeder(feeder, around=around)
        error = model.v_pu(*model.nominal_injection()) - [solved[x] for x in model.nodes]
        medium = model.network.base_v[model.network.node] > 1e3
        figures[f"{name}_max_error_pu"] = float(np.abs(error).max())
        figures[f"{name}_max_error_medium_voltage_pu"] = float(np.abs(error[medium]).max())
        figures[f"{name}_mean_error_pu"] = float(np.abs(error).mean())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("master", nargs="?", help="OpenDSS master file or shipped feeder name")
    parser.add_argument("--nodes", type=int, default=10_000, help="nodes of the synthetic feeder")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    args = parser.parse_args()
    if args.master is None:
        figures = measure(synthetic_feeder(args.nodes))
    elif Path(args.master).is_file():
        from grid_models.opendss.circuit import Circuit
        from grid_models.opendss.master import open_master

        circuit = open_master(args.master)
        figures = measure(circuit.feeder) | compare(circuit.feeder, circuit)
    else:
        from grid_models.opendss.circuit import Circuit

        feeder = load_feeder(args.master)
        figures = measure(feeder) | compare(feeder, Circuit.from_feeder(feeder))
    if args.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:40s} {value:.6g}" if isinstance(value, float) else f"{key:40s} {value}")


if __name__ == "__main__":
    main()
