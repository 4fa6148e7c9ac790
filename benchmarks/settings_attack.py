"""Attacks on settings of inverters: baseline, attacked, defended, by share, simulated and emulated.

    python benchmarks/settings_attack.py [--json] [--part attacks|shares|emulated ...]

* ``attacks``: the shipped attacks on ``settings-attack-ieee123``, with and without its defence, and
  what its detectors say;
* ``shares``: oscillation against the share of the fleet, beside the spectral radius of the sampled
  loop ``q <- q + A (-K (v0 + X q) - q)``: A the share of the way of each response time, K the
  curves' slopes, X the reactances of the linear model. The loop is unstable above 1;
* ``emulated``: ``hil-settings-attack`` over real Modbus/TCP, and the same with simulated inverters.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from federates.attacks.physical.resolve import physical_plan
from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.reports.detection_metrics import detector_rows
from federates.reports.recovery import out_of_band_node_hours, voltage_tracks
from federates.reports.voltage_quality import voltage_quality
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.linear.lindistflow import LinDistFlow

SCENARIO, HIL, DEFENCE = "settings-attack-ieee123", "hil-settings-attack", "adaptive-curves"
ATTACKS = ("settings-oscillation", "settings-within-standard", "settings-unbalance")
SHARES = (0.2, 0.3, 0.4, 0.5, 0.75)
SIMULATED = 'federates.fleet.devices={"*": simulated}'
#: Settings of `settings-within-standard` and of IEEE 1547-2018, category B: slope, share per step.
_STEEP, _USUAL = (0.44 / 0.02, 1.0 - 10.0**-1.0), (0.44 / 0.06, 1.0 - 10.0**-0.2)


def measured(folder: Path, begin_s: float, end_s: float) -> dict[str, float]:
    """Return the figures of one run in a window."""
    data = RunData(folder)
    _, _, v_pu = read_signal(data.signals, "feeder.v_pu")
    time_s = read_signal(data.signals, "feeder.v_pu")[0]
    inside = v_pu[(time_s >= begin_s) & (time_s < end_s)]
    track = voltage_tracks(data)["feeder"]
    return voltage_quality(data, "feeder", begin_s, end_s) | {
        "v_min_pu": float(inside.min()),
        "v_max_pu": float(inside.max()),
        "out_of_band_node_hours": out_of_band_node_hours(track, begin_s, end_s),
    }


def one(
    out: Path, name: str, sets: tuple[str, ...], attack: str | None, defence: str | None
) -> Path:
    """Run a scenario; `attack` is as of `load_scenario`."""
    scenario = load_scenario(name, sets, attack=attack, defence=defence)
    return run(scenario, out=out, placement="single").folder


def states(
    work: Path,
    name: str,
    sets: tuple[str, ...],
    attack: str | None,
    which: tuple[str, ...] = ("baseline", "attacked", "defended"),
    late: float = 0.0,
) -> list[dict[str, Any]]:
    """Return the figures of some states in the attack's time, from a share `late` of it on."""
    how = {"baseline": ("", None), "attacked": (attack, None), "defended": (attack, DEFENCE)}
    tag = f"{name}-{attack}-{len(list(work.iterdir()))}"
    runs = {state: one(work / f"{tag}-{state}", name, sets, *how[state]) for state in which}
    shade = RunData(runs["attacked"]).shade
    assert shade is not None
    begin_s, end_s = min(w[0] for w in shade.windows), max(w[1] for w in shade.windows)
    begin_s += late * (end_s - begin_s)
    return [
        {
            "scenario": name,
            "attack": attack or "",
            "state": state,
            **measured(run_folder, begin_s, end_s),
            "detectors": detector_rows(run_folder),
        }
        for state, run_folder in runs.items()
    ]


def radius(share: float) -> float:
    """Return the spectral radius of the sampled loop with a share of steep, fast curves."""
    key = f"attack.steps[0].target.fraction={share}"
    scenario = load_scenario(SCENARIO, [key], attack="settings-within-standard")
    feeder = GridSite(scenario).feeder
    plan = physical_plan(scenario, "feeder", feeder)
    assert plan is not None
    (hit,) = plan.labels.values()
    steep = np.array([f"der.{der.name}" in hit for der in feeder.ders])
    kva = np.array([der.kva for der in feeder.ders])
    x = LinDistFlow.from_feeder(feeder).sensitivity(feeder.ders, feeder.ders)[1] / 2.0
    slope, way = (np.where(steep, *pair) for pair in zip(_STEEP, _USUAL, strict=True))
    loop = np.eye(len(kva)) - way[:, None] * (np.eye(len(kva)) + (slope * kva)[:, None] * x)
    return float(np.abs(np.linalg.eigvals(loop)).max())


def shares(work: Path) -> list[dict[str, Any]]:
    """Return the oscillation in the second half of the attack, by attack and share."""
    rows = []
    for share in SHARES:
        row: dict[str, Any] = {"share": share, "spectral_radius": radius(share)}
        for attack, duration_s in (
            ("settings-within-standard", 1800),
            ("settings-oscillation", 900),
        ):
            sets = (
                SIMULATED,
                f"time.duration_s={duration_s}",
                f"attack.steps[0].target.fraction={share}",
            )
            for found in states(work, HIL, sets, attack, ("attacked", "defended"), 0.5):
                row[f"{attack} {found['state']}"] = found["attack_window_oscillation_pu"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", action="append", choices=("attacks", "shares", "emulated"))
    args = parser.parse_args()
    parts = args.part or ["attacks", "shares", "emulated"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if "attacks" in parts:
            found["attacks"] = [row for a in ATTACKS for row in states(work, SCENARIO, (), a)]
        if "shares" in parts:
            found["shares"] = shares(work)
        if "emulated" in parts:
            emulated, simulated = (states(work, HIL, s, None) for s in ((), (SIMULATED,)))
            found["emulated"] = [{"devices": "emulated", **row} for row in emulated]
            found["emulated"] += [{"devices": "simulated", **row} for row in simulated]
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for part, rows in found.items():
        print(f"\n{part}")
        for row in rows:
            detectors = row.pop("detectors", [])
            print("  ", "  ".join(f"{k}={_text(v)}" for k, v in row.items()))
            for d in detectors:
                print("      ", "  ".join(f"{k}={_text(v)}" for k, v in d.items()))


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
