"""A day on IEEE 123 with PV and batteries: distributed MPC beside OPTDIST-VC, droop and none.

    python benchmarks/dmpc_day.py [--json] [--steps 1440]

Every run has the same feeder, DERs, sky and one-minute step; OPTDIST-VC and droop act once a
minute and leave the batteries idle. Energy of the batteries is integrated from the recorded powers
and compared with its limits; `clamped_kw` is the largest battery power that the plant had to
change, 0 when every command kept the limits by itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from federates.assembly.federation import Assembly
from federates.core.signals import read_signal
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

_ONCE = [
    "federates.clusters.period_s=60",
    "federates.clusters.offset_s=30",
    "connections=[feeder.v_pu -> clusters.v_pu, feeder.p_kw -> clusters.p_kw, "
    "clusters.q_set_kvar -> feeder.q_set_kvar]",
]
_OPTIONS = "federates.clusters.options"
RUNS: dict[str, tuple[str, list[str]]] = {
    "none": ("dmpc-ieee123", ["federates={feeder: {kind: feeder}}", "connections=[]"]),
    "droop (1547 B)": (
        "dmpc-ieee123",
        [*_ONCE, "federates.clusters.controller=volt-var-1547", _OPTIONS + "={category: B}"],
    ),
    "OPTDIST-VC, margin 0.006": (
        "dmpc-ieee123",
        [*_ONCE, "federates.clusters.controller=optdist-vc", _OPTIONS + "={margin_pu: 0.006}"],
    ),
    "OPTDIST-VC, margin 0.010": (
        "dmpc-ieee123",
        [*_ONCE, "federates.clusters.controller=optdist-vc", _OPTIONS + "={margin_pu: 0.010}"],
    ),
    "DMPC, margin 0.006": ("dmpc-ieee123", [_OPTIONS + ".margin_pu=0.006"]),
    "DMPC, margin 0.010": ("dmpc-ieee123", []),
    "DMPC, 20 % loss": ("dmpc-ieee123-loss", []),
    "DMPC, delay of 2 samples": ("dmpc-ieee123", ["links=[{latency_s: 120}]"]),
    "DMPC, one cluster cut off": ("dmpc-ieee123-silent", []),
}
SOC_MIN, SOC_MAX, SOC_START, EFFICIENCY = 0.1, 1.0, 0.5, 0.95


def energy(folder: Path, ders: list[Any], step_s: float) -> dict[str, float]:
    """Return the least and largest share of energy, and how far commands were changed."""
    signals = folder / "signals"
    batteries = [der for der in ders if der.kind == "battery"]
    names = [der.name for der in batteries]
    _, p = _columns(signals, "feeder.p_kw", names)
    capacity = np.array([der.energy_kwh for der in batteries])
    change = np.minimum(-p * EFFICIENCY, -p / EFFICIENCY) * step_s / 3600.0 / capacity
    soc = SOC_START + np.cumsum(change, axis=0)
    out = {"soc_min": float(soc.min()), "soc_max": float(soc.max())}
    out["throughput_kwh"] = float(np.abs(p).sum() * step_s / 3600.0)
    if list(signals.glob("clusters.p_set_kw*")):
        times, asked = _columns(signals, "clusters.p_set_kw", names)
        feeder_s = np.arange(len(p)) * step_s
        # The last command published before each feeder step is the one that acted.
        last = np.searchsorted(times, feeder_s) - 1
        acted = np.where((last >= 0)[:, None], asked[np.maximum(last, 0)], 0.0)
        out["clamped_kw"] = float(np.abs(acted - p).max())
    return out


def _columns(folder: Path, port: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    times, labels, values = read_signal(folder, port)
    return times, values[:, [labels.index(name) for name in names]]


def one(name: str, steps: int | None) -> dict[str, float]:
    scenario_name, overrides = RUNS[name]
    # One warm-up for all, so that all rows cover the same time.
    scenario = load_scenario(scenario_name, [*overrides, "time.warm_up_s=600"])
    with tempfile.TemporaryDirectory() as folder:
        result = run(scenario, out=Path(folder) / "run", placement="single", steps=steps)
        ders = list(Assembly(scenario).site("feeder").feeder.ders)
        row = energy(result.folder, ders, scenario.time.step_s)
    metrics = result.metrics
    keys = ("out_of_band_node_hours", "v_min_pu", "v_max_pu", "losses_kwh", "abs_q_kvarh")
    row |= {key: metrics[key] for key in keys}
    row["messages"] = metrics.get("mail_delivered_count", 0.0)
    row["local_mode_samples"] = metrics.get("local_mode_samples", 0.0)
    row["wall_s"] = float(result.summary["wall_s"])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    rows = {}
    for name in RUNS:
        rows[name] = one(name, args.steps)
        if not args.json:
            shown = "  ".join(f"{key} {value:.6g}" for key, value in rows[name].items())
            print(f"{name:28s} {shown}", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
