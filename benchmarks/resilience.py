"""Attack 2b: the optimiser, the co-simulation on OpenDSS, and the detector on clean days.

    python benchmarks/resilience.py [--json] [--seeds 8] [--days 30] [--only optimiser ...]

`optimiser`: import restored on the clearing problem alone, per seed and first mu. `table`: the
thesis' table beside the optimiser's and the metered one. `opendss`: per seed, how long the import
was off by more than 1 %, and voltages with and without mitigation. `variants`: loss, liars, a
target out of reach. `detection`: false alarms over clean days of load, and delay by size of attack.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _market_cases import IMPORT_PRICE, XI, attack_2b, without
from _market_mitigation import cleared, mitigate, original_cost

from controllers.market.agents.detection import ImportDetector, Thresholds
from controllers.market.model.problem import Bids, Dispatch
from controllers.market.solvers.central import CentralMarket
from federates.core.signals import read_signal
from federates.reports.market_states import metered_states, metered_windows
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.base import counter_rng
from grid_models.catalog import load_feeder
from grid_models.profiles.table import Profiles

MUS = (0.003, 0.01, 0.05)
SCENARIO = "attack-2b-ieee123"
VARIANTS = ("loss", "liar", "unreachable")
THESIS = {
    "import, post %": 37.4, "import, mitigated %": 0.23, "cost, post %": 7.0,
    "cost, mitigated %": 31.7, "load, post %": -2.0, "load, mitigated %": -14.0,
    "extra generation kW": 284.0, "nodes curtailing": 82,
}  # fmt: skip
# Detection: load bought, error of the devices' response (1 % each, in all) and of the meter, kW.
LOAD_KW, RESPONSE_KW, METER_KW = 2076.0, 3.3, 1.0
SAMPLE_S, INTERVAL_S = 20.0, 60.0
ATTACKS_KW = (10.0, 20.0, 30.0, 50.0, 100.0, 500.0)


# --- the optimiser --------------------------------------------------------------------------------


def optimiser(seeds: int) -> list[dict[str, float]]:
    """Return one row per seed and first mu."""
    feeder, rows = load_feeder("ieee123"), []
    market: CentralMarket | None = None
    for seed in range(seeds):
        case = attack_2b(feeder, seed=seed)
        network = case.problem.network
        market = market or CentralMarket(network)
        pre = cleared(market, case.problem)
        problem = without(case.problem, case.attacked)
        post = cleared(market, problem)
        scores = case.scores.copy()
        scores[[network.position(bus) for bus in case.attacked]] = 0.0
        bids = problem.bids
        flexible = bids.p_load0 - bids.p_load_min
        on = flexible > 0.0
        costs = [cost(case.problem.bids, pre), cost(bids, post)]
        for mu in MUS:
            begin = time.perf_counter()
            found = mitigate(market, problem, pre.p_import, scores, mu=mu)
            seconds = time.perf_counter() - begin
            d = found.dispatch
            share = (post.p_load - d.p_load)[on] / flexible[on]
            rows.append({
                "seed": seed, "mu": mu, "clearings": found.clearings, "seconds": seconds,
                "restored": found.restored,
                "import, post %": percent(post.p_import, pre.p_import),
                "import, mitigated %": percent(d.p_import, pre.p_import),
                "cost, post %": percent(costs[1], costs[0]),
                "cost, mitigated %": percent(cost(bids, d), costs[0]),
                "load, post %": percent(post.p_load.sum(), pre.p_load.sum()),
                "load, mitigated %": percent(d.p_load.sum(), pre.p_load.sum()),
                "extra generation kW": 1000.0 * float((d.p_gen - pre.p_gen).max()),
                "nodes curtailing": int((post.p_load - d.p_load > 0.005 * bids.p_load0).sum()),
                "correlation": float(np.corrcoef(share, scores[on])[0, 1]),
            })  # fmt: skip
    return rows


def cost(bids: Bids, d: Dispatch) -> float:
    losses = d.p_import + float(d.p_gen.sum() - d.p_load.sum())
    return original_cost(
        bids, d.p_gen, d.p_load, losses, d.p_import, xi=XI, import_price=IMPORT_PRICE
    )


def percent(now: float, before: float) -> float:
    return 100.0 * (float(now) / float(before) - 1.0)


# --- the co-simulation ----------------------------------------------------------------------------


def co_simulated(name: str, folder: Path, seed: int, defence: str | None) -> Path:
    out = folder / f"{name}-{seed}-{defence}"
    run(load_scenario(name, seed=seed, defence=defence), out=out, placement="single")
    return out


def off_target(out: Path) -> dict[str, float]:
    """Return when the import was last off by more than 1 %, and how far it is off at the end."""
    before, during = metered_windows(out)
    time_s, _, values = read_signal(out / "signals", "feeder.import_kw")
    kw = values[:, 0]
    pre = kw[(time_s >= before[0]) & (time_s < before[1])].mean()
    under = (time_s >= before[1]) & (time_s < during[1])
    off = time_s[under & (np.abs(kw / pre - 1.0) > 0.01)]
    late = kw[(time_s >= during[0]) & (time_s < during[1])].mean()
    end = kw[time_s >= time_s[-1] - 60.0].mean()
    return {
        "off_1_percent_s": float(off.max() - before[1]) if off.size else 0.0,
        "import_off_percent": percent(late, pre),
        "import_at_end_percent": percent(end, pre),
    }


def on_opendss(seeds: int) -> list[dict[str, Any]]:
    """Return one row per seed of the scenario."""
    rows = []
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            attacked = co_simulated(SCENARIO, Path(name), seed, None)
            mitigated = co_simulated(SCENARIO, Path(name), seed, "mitigated")
            states = metered_states(attacked, mitigated)
            pre, post, after = states["pre"], states["attacked"], states["mitigated"]
            rows.append({"seed": seed, **off_target(mitigated),
                "import, post %": percent(post["import_kw"], pre["import_kw"]),
                "import, mitigated %": percent(after["import_kw"], pre["import_kw"]),
                "cost, post %": percent(post["cost"], pre["cost"]),
                "cost, mitigated %": percent(after["cost"], pre["cost"]),
                "load, post %": percent(post["load_kw"], pre["load_kw"]),
                "load, mitigated %": percent(after["load_kw"], pre["load_kw"]),
                "extra generation kW": after["helper_kw"],
                "nodes curtailing": after["nodes_curtailing"],
                "v attacked": (post["v_min_pu"], post["v_max_pu"]),
                "v mitigated": (after["v_min_pu"], after["v_max_pu"]),
                "node minutes out, attacked": post["node_minutes_out_of_band"],
                "node minutes out, mitigated": after["node_minutes_out_of_band"],
                "states": states,
            })  # fmt: skip
    return rows


def variants() -> list[dict[str, Any]]:
    """Return one row per variant of the scenario, and attack 2a."""
    rows = []
    names = [f"{SCENARIO}-{variant}" for variant in VARIANTS]
    for name in ["attack-2a-ieee123", *names]:
        with tempfile.TemporaryDirectory() as folder:
            out = co_simulated(name, Path(folder), 1, "mitigated")
            lines = (out / "events.jsonl").read_text("utf-8").splitlines()
            told = [e for e in map(json.loads, lines) if e["event"] == "target_unreachable"]
            floor = told[0]["floor_kw"] if told else None
            rows.append({"scenario": name, **off_target(out), "floor_kw": floor})
    return rows


# --- detection ------------------------------------------------------------------------------------


def detection(days: int) -> dict[str, Any]:
    """Return false alarms over clean days and the delay by size of attack.

    The schedule is what an interval's first moment says of the load; residuals are how the load
    moves within the interval, the error of the devices' response and that of the meter. They grow
    with the load and towards the interval's end; the detector is given their sigma at its worst
    (over hours and samples), measured on five days of their own.
    """
    first = residuals(5, seed=1000)
    by_hour = first.reshape(5, 24, -1, first.shape[1])
    sigma_kw = float(by_hour.std(axis=(0, 2)).max())
    clean = residuals(days, seed=1)
    thresholds = Thresholds.for_rate(30.0, SAMPLE_S, INTERVAL_S)
    alarms = {"leap": 0, "drift": 0}
    detector = ImportDetector(sigma_kw, thresholds)
    for row in clean:
        found = alarm_in(detector, row)
        if found:
            alarms[found[0]] += 1
            detector.reset()
    return {
        "days": days, "sigma_kw": sigma_kw, "false_alarms": alarms,
        "leap_threshold_kw": thresholds.leap * sigma_kw, "drift_threshold": thresholds.drift,
        "delay": [delay(clean, kw, sigma_kw, thresholds) for kw in ATTACKS_KW],
    }  # fmt: skip


def residuals(days: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return import less schedule, one row per interval, one column per sample."""
    per = round(INTERVAL_S / SAMPLE_S)
    rows = []
    for day in range(days):
        profile = Profiles.generate("cloudy", seed + day, round(SAMPLE_S), 86_400)
        load_pu = profile.sample(np.arange(0.0, 86_400.0, SAMPLE_S))["load_pu"]
        load = LOAD_KW * load_pu.reshape(-1, per)
        streams = counter_rng.stream_ids(f"interval {i}" for i in range(len(load)))
        response = RESPONSE_KW * counter_rng.normal(seed + day, streams, 0, 0)
        meter = [counter_rng.normal(seed + day, streams, k + 1, 2) for k in range(per)]
        rows.append(load - load[:, :1] + response[:, None] + METER_KW * np.stack(meter, axis=1))
    return np.concatenate(rows)


def alarm_in(detector: ImportDetector, row: np.ndarray[Any, Any]) -> tuple[str, int] | None:
    """Take an interval in; return what raised the alarm and at which of its samples."""
    for i, value in enumerate(row.tolist()):
        if detector.add(value):
            return "leap", i
    return ("drift", len(row) - 1) if detector.end_interval() else None


def delay(
    clean: np.ndarray[Any, Any], kw: float, sigma_kw: float, thresholds: Thresholds
) -> dict[str, float]:
    """Return how long attacks of one size stay unseen, over a hundred begins spread evenly."""
    limit = 60
    starts = np.linspace(0, len(clean) - limit - 1, 100).astype(int)
    seen = []
    for start in starts.tolist():
        detector = ImportDetector(sigma_kw, thresholds)
        for i in range(limit):
            found = alarm_in(detector, clean[start + i] + kw)
            if found:
                seen.append(i * INTERVAL_S + (found[1] + 1) * SAMPLE_S)
                break
    return {
        "attack_kw": kw,
        "found_within_an_hour": len(seen) / len(starts),
        "median_s": float(np.median(seen)) if seen else float("nan"),
        "p95_s": float(np.quantile(seen, 0.95)) if seen else float("nan"),
    }


# --- printing -------------------------------------------------------------------------------------


def table(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the thesis' table beside ours: medians, and in brackets the range over all rows."""
    rows = []
    for key, printed in THESIS.items():
        row: dict[str, Any] = {"": key, "thesis": printed}
        for name in ("optimiser", "opendss"):
            values = [r[key] for r in data.get(name, [])]
            if values:
                row[name] = f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        rows.append(row)
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    keys = [key for key in rows[0] if key != "states"]
    text = [[word(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(key), *(len(r[i]) for r in text)) for i, key in enumerate(keys)]
    for line in [keys, *text]:
        print("  ".join(part.rjust(width) for part, width in zip(line, widths, strict=True)))


def word(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{v:.4f}" for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parts: dict[str, Callable[[], Any]] = {
        "optimiser": lambda: optimiser(given.seeds),
        "opendss": lambda: on_opendss(given.seeds),
        "variants": variants,
        "detection": lambda: detection(given.days),
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--only", nargs="*", choices=[*parts], default=[*parts])
    given = parser.parse_args()
    data = {name: part() for name, part in parts.items() if name in given.only}
    data["table"] = table(data)
    if given.json:
        print(json.dumps(data, indent=1, default=str))
        return
    for name in ("optimiser", "opendss", "variants"):
        if name in data:
            show(name, data[name])
    if "detection" in data:
        found = data["detection"]
        print("\n" + ", ".join(f"{k} {word(v)}" for k, v in found.items() if k != "delay"))
        show("delay", found["delay"])
    show("attack 2b beside the thesis", data["table"])


if __name__ == "__main__":
    main()
