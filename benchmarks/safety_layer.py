"""The safety layer around policies, good and bad: node-hours out of the band, cost of a step.

``python benchmarks/safety_layer.py [--json]``: runs of 90 minutes under passing clouds on IEEE 123
(`feederate run voltvar-ieee123-safety --seed 101` with the settings below), then times. Three
minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.safety.central import PENALTY
from controllers.safety.model import SafetyModel
from controllers.safety.projection import Limits, Projection
from federates.core.sites import GridSite
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.batched.power_flow import BatchedFeeder

SCENARIO, SEED = "voltvar-ieee123-safety", 101
LEARNED = {"controller": "learned-droop", "options": {"policy": "policies/voltvar-ieee123.csv"}}
STUCK = """\
id: stuck
title: Ten inverters inject all the reactive power they have
seed: 1
steps:
  - id: stuck
    layer: signal
    trigger: {at_s: 0}
    target: {port: feeder.q_set_kvar, count: 10}
    action: {kind: set, value: 1000}
"""
TOLD_LOW = """\
id: told-low
title: All agents read voltages that are 0.05 pu too low
seed: 1
steps:
  - id: bias
    layer: signal
    trigger: {at_s: 0}
    target: {port: volt_var.v_pu}
    action: {kind: bias, value: -0.05}
"""
Case = tuple[dict[str, Any], float, str]
#: The controller, the factor on all loads, and the attack.
CASES: dict[str, Case] = {
    "zero": ({"controller": "none"}, 1.0, ""),
    "malicious": ({"controller": "bad-policy"}, 1.0, ""),
    "random each step": (
        {"controller": "bad-policy", "options": {"policy": "random"}}, 1.0, ""),
    "IEEE 1547 droop": ({"controller": "volt-var-1547"}, 1.0, ""),
    "optdist-vc": ({"controller": "optdist-vc"}, 1.0, ""),
    "learned": (LEARNED, 1.0, ""),
    "learned, load x0.5": (LEARNED, 0.5, ""),
    "learned, ten stuck at +h": (LEARNED, 1.0, STUCK),
    "learned, told 0.05 pu too low": (LEARNED, 1.0, TOLD_LOW),
}  # fmt: skip
#: The key `safety`, and rules for links.
LAYERS: dict[str, tuple[dict[str, Any] | None, list[dict[str, float]]]] = {
    "none": (None, []),
    "central": ({"kind": "central"}, []),
    "central, volt-watt": ({"kind": "central", "volt_watt": True}, []),
    "price": ({"kind": "price"}, []),
    "price, volt-watt": ({"kind": "price", "volt_watt": True}, []),
    "price, bad mail": ({"kind": "price"}, [{"loss": 0.2, "latency_s": 10}]),
}


def metrics(case: Case, layer: str, folder: Path) -> dict[str, float]:
    """Return what a run tells."""
    controller, load_scale, attack = case
    safety, links = LAYERS[layer]
    section = {"kind": "controller", "options": {}, **controller, "safety": safety}
    changes = [f"federates.volt_var={json.dumps(section)}", f"grid.load_scale={load_scale}"]
    rules = [{"source": "*", "target": "*", **rule} for rule in links]
    changes.append(f"links={json.dumps(rules)}")
    attack_file = folder / "attack.yaml"
    attack_file.write_text(attack)
    scenario = load_scenario(
        SCENARIO, [*changes, "record.ports=[]"], seed=SEED,
        attack=str(attack_file) if attack else None,
    )  # fmt: skip
    out = folder / "run"
    run(scenario, out=out, placement="single")
    return dict(json.loads((out / "summary.json").read_text())["metrics"])


def table() -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of all runs by case and layer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, case in CASES.items():
        for layer in LAYERS:
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(name, {})[layer] = metrics(case, layer, Path(folder))
    return found


def best_us(work: Callable[[], object], times: int = 7) -> float:
    """Return the shortest time of some calls, microseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1e6 * min(taken)


def problems(n: int) -> tuple[FloatArray, FloatArray, Limits, BatchedFeeder]:
    """Return the programme's matrix, proposals of a malicious policy, their limits, the feeder."""
    grid = GridSite(load_scenario(SCENARIO))
    model = SafetyModel.of(ControlSite(grid.feeder, grid.feeder.ders, 5.0))
    feeder = BatchedFeeder(grid.take_circuit())
    rng = np.random.default_rng(0)
    p = rng.uniform(0.3, 0.95, (n, 1)) * np.array([d.p_max_kw for d in model.ders]) / model.kva
    room = np.sqrt(1.0 - p * p)
    x0 = room * np.sign(rng.uniform(-0.5, 1.0, p.shape))
    flow = feeder.solve(feeder.nominal_kva, (p + 1j * x0) * model.kva)
    at = [feeder.network.nodes.index(node) for node in model.nodes]
    v = 0.5 * flow.v_pu[:, at] ** 2 - x0 @ model.by_q.T
    low, high = 0.5 * 0.953**2 - v, 0.5 * 1.047**2 - v
    return model.by_q, x0, Limits(-room, room, low, high), feeder


def times() -> dict[str, float]:
    """Return the times of the programme, of a general solver, and of a power flow."""
    import cvxpy as cp

    a, x0, limits, feeder = problems(256)
    solver = Projection(a, PENALTY)
    one = Limits(*(part[0] for part in vars(limits).values()))
    x, slack = cp.Variable(a.shape[1]), cp.Variable(a.shape[0], nonneg=True)
    y = a @ x
    rows = [y <= one.y_high + slack, y >= one.y_low - slack, x >= one.low, x <= one.high]
    cost = cp.sum_squares(x - x0[0]) / 2 + PENALTY * cp.sum(slack)
    problem = cp.Problem(cp.Minimize(cost), rows)

    def general() -> float:
        problem.solve(solver=cp.CLARABEL)
        return float(problem.solver_stats.solve_time)

    found = {
        "iteration_us": best_us(
            lambda: solver.solve(x0[0], one, iterations=100, tolerance=0.0)) / 100,
        "case_of_256_150_iterations_ms": best_us(
            lambda: solver.solve(x0, limits, iterations=150, tolerance=0.0), 3) / 256e3,
        "clarabel_ms": 1e3 * min(general() for _ in range(3)),
        "power_flow_us": best_us(lambda: feeder.solve(feeder.nominal_kva)),
    }  # fmt: skip
    warm = solver.solve(x0[0], one, iterations=400, tolerance=1e-6)
    found["error_after_400_iterations"] = float(np.abs(warm.x - x.value).max())
    return found


def main(words: list[str]) -> None:
    """Print tables, or figures only."""
    runs, figures = table(), times()
    if "--json" in words:
        print(json.dumps({"runs": runs, "times": figures}))
        return
    print("Out of band, node-h / lowest and highest voltage, pu / curtailed, kWh")
    for name, row in runs.items():
        print(name)
        for layer, m in row.items():
            ends = f"{m['v_min_pu']:.3f} to {m['v_max_pu']:.3f}"
            curtailed = m.get("safety_curtailed_kwh", 0.0)
            print(f"  {layer:20}{m['out_of_band_node_hours']:8.2f}  {ends}{curtailed:8.0f}")
    for name, value in figures.items():
        print(f"{name:32}{value:12.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])
