"""Attack 1a answered by thermostats: import, reduction per house, response time.

    python benchmarks/hil_market.py [--json] [--kw 36] [--seeds 7 8 9] [--only simulated]
    python benchmarks/hil_market.py --only set-points

Runs `hil-market-ieee123` undisturbed, attacked, and attacked with the resilience manager, with its
twenty thermostats simulated and emulated, and compares the three runs step by step: houses, weather
and devices are the same, so what differs is the attack's, or the manager's. More than one seed is
simulated only, for other houses. `set-points`: what 1008 houses save in the mean when each is asked
for 0.1, 0.35 and 0.5 kW for half an hour, by 5 minutes, and for half an hour afterwards.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from controllers.market.agents.local.thermostats import ThermostatSetPoints
from federates.core.signals import read_signal
from federates.runs.runner import RunResult, run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.ders.houses import HouseFleet, HouseParameters

SCENARIO = "hil-market-ieee123"
DEVICES = "federates.thermostats.devices"
SETTLED_S = 180.0
"""From the begin of the attack: by then the manager has found it, asked, and been answered."""
SLIDES = {"fall_kw": "123 to 131", "per_thermostat_kw": "0.2 to 0.5", "answer_s": "< 60"}


def scenario(kind: str, kw: float, seed: int | None, *, attack: bool, manager: bool) -> Scenario:
    """Return the scenario with its thermostats as `kind`."""
    overrides = [f"{DEVICES}={{'house_*_3_10': {kind}}}"]
    if attack:
        overrides.append(f"attack.steps.0.action.kw={kw:g}")
    return load_scenario(
        SCENARIO,
        overrides,
        seed=seed,
        attack=None if attack else "",
        defence="mitigated" if manager else None,
    )


def runs(kind: str, kw: float, seed: int | None, folder: Path) -> dict[str, RunResult]:
    """Return the three runs."""
    wanted = {"baseline": (False, False), "attacked": (True, False), "mitigated": (True, True)}
    out = {}
    for name, (attack, manager) in wanted.items():
        made = scenario(kind, kw, seed, attack=attack, manager=manager)
        out[name] = run(made, out=folder / f"{kind}-{seed}-{name}", placement="single")
    return out


def signal(result: RunResult, name: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    time_s, labels, values = read_signal(result.folder / "signals", name)
    return np.asarray(time_s), tuple(labels), np.asarray(values)


def event_s(result: RunResult, event: str) -> float:
    """Return when the manager first reported an event, NaN for never."""
    for line in (result.folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        if found["federate"] == "resilience" and found["event"] == event:
            return float(found["time_s"])
    return float("nan")


def figures(of: dict[str, RunResult]) -> dict[str, float]:
    """Return the row of a table: kW, and s from the attack's begin or from the manager's order."""
    attack = load_scenario(SCENARIO).attack_spec
    assert attack is not None
    step = attack.steps[0]
    begin_s = float(step.trigger.at_s or 0.0)
    end_s = begin_s + float(step.duration_s or 0.0)
    imports = {name: signal(result, "feeder.import_kw")[2][:, 0] for name, result in of.items()}
    time_s, labels, attacked_kw = signal(of["attacked"], "feeder.p_kw")
    gave_kw = signal(of["mitigated"], "feeder.p_kw")[2] - attacked_kw  # injections
    names = signal(of["mitigated"], "thermostats.p_kw")[1]
    market = load_scenario(SCENARIO).federates["market"].options
    homes = [f"house_{glob.removeprefix('home_')}" for glob in market["flexible_homes"]]
    flexible = [any(fnmatchcase(label, glob) for glob in homes) for label in labels]
    thermostat = np.isin(labels, names)
    window = (time_s >= begin_s + SETTLED_S) & (time_s < end_s)
    order_s = event_s(of["mitigated"], "weights_committed")
    answers = (time_s >= order_s) & (gave_kw[:, thermostat].max(axis=1) > 0.1)
    first_s = float(time_s[answers][0]) if answers.any() else float("nan")
    mean = {name: float(kw[window].mean()) for name, kw in imports.items()}
    others = np.array(flexible) & ~thermostat
    return {
        "before_kw": float(imports["attacked"][time_s < begin_s][-12:].mean()),
        "rise_kw": mean["attacked"] - mean["baseline"],
        "left_kw": mean["mitigated"] - mean["baseline"],
        "fall_kw": mean["attacked"] - mean["mitigated"],
        "per_thermostat_kw": float(gave_kw[window][:, thermostat].mean()),
        "per_simulated_home_kw": float(gave_kw[window][:, others].mean()),
        "found_s": event_s(of["mitigated"], "import_off_schedule") - begin_s,
        "order_s": order_s - begin_s,
        "answer_s": first_s - order_s,
    }


def difference(one: RunResult, other: RunResult, name: str) -> float:
    """Return the largest difference of two runs' signal."""
    return float(np.nanmax(np.abs(signal(one, name)[2] - signal(other, name)[2])))


def measured(kinds: list[str], kw: float, seeds: list[int | None]) -> dict[str, Any]:
    """Return the rows, and how far emulated thermostats are from simulated ones."""
    rows, results = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for kind in kinds if len(seeds) == 1 else ["simulated"]:
                results[kind] = found = runs(kind, kw, seed, Path(folder))
                rows.append({"thermostats": kind, "seed": seed, **figures(found)})
        out: dict[str, Any] = {"attack_kw": kw, "rows": rows}
        if len(results) == 2:
            pairs = [(results["simulated"][name], results["emulated"][name])
                     for name in ("baseline", "attacked", "mitigated")]  # fmt: skip
            for port in ("thermostats.p_kw", "thermostats.temp_c", "feeder.import_kw"):
                out[f"difference {port}"] = max(difference(*pair, port) for pair in pairs)
    return out


def saved_kw(asked_kw: float, seeds: int = 4, houses: int = 1008) -> np.ndarray:
    """Return what a house saves on average at 32 degrees, by 5 minutes of an hour, (12,)."""
    out = np.zeros(12)
    for seed in range(1, 1 + seeds):
        p = HouseParameters.draw([f"house_{i}" for i in range(houses)], seed)
        mean = []
        for asks in (False, True):
            fleet, points = HouseFleet(p), ThermostatSetPoints(p)
            for _ in range(6 * 360):
                fleet.step(10.0, 32.0)
            drawn = []
            for k in range(360):
                if k % 6 == 0:
                    asked = np.full(houses, asked_kw if asks and k < 180 else 0.0)
                    on = fleet.hvac_kw > 0.0
                    cool_c = points.step(60.0, fleet.temp_in_c, 32.0, on, asked)
                    cool_c = np.where(np.isnan(cool_c), p.cool_set_c, np.round(cool_c, 1))
                    fleet.retarget(p.heat_set_c, cool_c)
                fleet.step(10.0, 32.0)
                drawn.append(fleet.hvac_kw.mean())
            mean.append(np.array(drawn).reshape(12, 30).mean(axis=1))
        out += (mean[0] - mean[1]) / seeds
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kw", type=float, default=36.0)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--only", choices=["simulated", "emulated", "set-points"])
    args = parser.parse_args()
    if args.only == "set-points":
        table = {asked: saved_kw(asked).round(3).tolist() for asked in (0.1, 0.35, 0.5)}
        print(
            json.dumps(table) if args.json else "\n".join(f"{k} kW: {v}" for k, v in table.items())
        )
        return
    kinds = [args.only] if args.only else ["simulated", "emulated"]
    found = measured(kinds, args.kw, args.seeds or [None])
    if args.json:
        print(json.dumps(found))
        return
    print(f"attack of {found['attack_kw']:g} kW; means from {SETTLED_S:g} s after its begin")
    keys = [key for key in found["rows"][0] if key not in ("thermostats", "seed")]
    heads = [f"{row['thermostats']} {row['seed'] or ''}".strip() for row in found["rows"]]
    print(f"{'':22}" + "".join(f"{head:>14}" for head in heads) + f"{'slides':>14}")
    for key in keys:
        cells = "".join(f"{row[key]:14.2f}" for row in found["rows"])
        print(f"{key:22}{cells}{SLIDES.get(key, ''):>14}")
    for key, value in found.items():
        if key.startswith("difference"):
            print(f"{key}: {value:.4f}")


if __name__ == "__main__":
    main()
