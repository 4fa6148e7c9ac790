"""Attacks 1a, 1b, 1c and 3 on the unbalanced feeder, beside the figures of the slides.

    python benchmarks/attack_tables.py [--json] [--seeds 8] [--only 1a 1b ...]

Runs each scenario without and with its defence, with the attack sooner and shorter than it ships,
and prints per attack the states as metered on the OpenDSS feeder: median (least to largest) over
the seeds. With a resilience manager also: seconds to the alarm and until the import was restored,
clearings, the correlation of the operators' scores with the share of their flexibility in use, and
voltages during the mitigation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.reports.market_parties import PrimaryParties, parties_of
from federates.reports.market_states import metered_states
from federates.runs.runner import run
from federates.scenario.schema import Scenario, load_scenario


@dataclass(frozen=True)
class Case:
    """An attack: when it begins here and how long it lasts, s, and what the slides print.

    `slides`: state and quantity, or the difference of two states ("mitigated-pre"), to a figure.
    """

    begin_s: float
    lasts_s: float
    slides: dict[tuple[str, str], str] = field(default_factory=dict)


CASES = {
    "1a": Case(240.0, 300.0, {
        ("attacked-pre", "import_kw"): "37", ("mitigated-pre", "import_kw"): "-94",
        ("mitigated-attacked", "import_kw"): "-123 to -131",
        ("mitigated", "nodes_curtailing"): "30",
    }),
    "1b": Case(240.0, 300.0, {
        ("pre", "load_kw"): "1167.52", ("attacked", "load_kw"): "1190.44",
        ("mitigated", "load_kw"): "1123.31", ("pre", "import_kw"): "1125.91",
        ("attacked", "import_kw"): "1193.87", ("mitigated", "import_kw"): "1126.35",
        ("mitigated", "curtailed_min_kw"): "0.12", ("mitigated", "curtailed_max_kw"): "4.77",
        ("mitigated", "nodes_curtailing"): "30",
    }),
    "1c": Case(420.0, 600.0, {
        ("pre", "import_kw"): "", ("attacked", "import_kw"): "", ("secondary", "import_kw"): "",
        ("mitigated", "import_kw"): "as pre", ("secondary", "nodes_curtailing"): "",
        ("mitigated", "nodes_curtailing"): "",
    }),
    "3": Case(240.0, 300.0, {
        ("pre", "unit_kw"): "", ("attacked", "unit_kw"): "", ("mitigated", "unit_kw"): "",
        ("attacked", "shed_kw"): "", ("mitigated", "shed_kw"): "",
    }),
}  # fmt: skip
MANAGER = ("found_s", "restored_s", "searches", "clearings", "correlation")
VOLTAGES = ("v_min_pu", "v_max_pu", "node_minutes_out_of_band")


def ran(attack: str, seed: int, defence: str | None, folder: Path) -> tuple[Scenario, Path]:
    """Run a scenario to the end of its attack."""
    case = CASES[attack]
    name = f"attack-{attack}-ieee123"
    steps = len(load_scenario(name).attack_spec.steps)  # type: ignore[union-attr]
    changes = [
        f"attack.steps.{i}.{key}"
        for i in range(steps)
        for key in (f"trigger.at_s={case.begin_s:g}", f"duration_s={case.lasts_s:g}")
    ]
    scenario = load_scenario(name, changes, seed=seed, defence=defence)
    out = folder / f"{attack}-{defence}"
    n_steps = round((case.begin_s + case.lasts_s) / scenario.time.step_s)
    run(scenario, out=out, placement="single", steps=n_steps)
    return scenario, out


def row(attack: str, seed: int) -> dict[str, Any]:
    """Return states and figures of one seed."""
    with tempfile.TemporaryDirectory() as name:
        attacked = ran(attack, seed, None, Path(name))[1]
        scenario, mitigated = ran(attack, seed, "mitigated", Path(name))
        made: dict[str, Any] = {"attack": attack, "seed": seed}
        made["states"] = metered_states(attacked, mitigated)
        if "resilience" in scenario.federates:
            made |= manager(mitigated, CASES[attack].begin_s)
            made["correlation"] = correlation(scenario, mitigated)
        return made


def manager(out: Path, begin_s: float) -> dict[str, float]:
    """Return when the manager found the attack and had the import back, and its clearings."""
    lines = (out / "events.jsonl").read_text("utf-8").splitlines()
    told = [e for e in map(json.loads, lines) if e["federate"] == "resilience"]

    def first_s(kind: str) -> float:
        return next((e["time_s"] - begin_s for e in told if e["event"] == kind), float("nan"))

    restored_s = first_s("import_restored")
    until = [e for e in told if not e["time_s"] - begin_s > restored_s]
    commits = [e["clearings"] for e in until if e["event"] == "weights_committed"]
    return {
        "found_s": first_s("import_off_schedule"),
        "restored_s": restored_s,
        "searches": float(len(commits)),
        "clearings": float(sum(commits)),
    }


def correlation(scenario: Scenario, out: Path) -> float:
    """Return that of scores and used shares, over the operators with flexibility of their own."""
    share, usable = used_share(scenario, out)
    score = read_signal(out / "signals", "resilience.resilience")[2][-1]
    return float(np.corrcoef(score[usable], share[usable])[0, 1])


def used_share(scenario: Scenario, out: Path) -> tuple[FloatArray, FloatArray]:
    """Return the share of each operator's flexibility in use, and whether it has any to give."""
    grid = GridSite(scenario, "feeder")
    site = ControlSite(grid.feeder, grid.feeder.ders, 1.0, seed=scenario.seed, ports=grid.ports)
    parties = parties_of(scenario, "market", site)
    silenced = np.array(
        [bus.partition(".")[0] in attacked_buses(scenario) for bus in parties.buses]
    )
    if isinstance(parties, PrimaryParties):
        _, labels, p_kw = read_signal(out / "signals", "feeder.p_kw")
        now = dict(zip(labels, p_kw[-15:].mean(axis=0), strict=True))
        load = np.array([-now[der] for der in parties.ders]) * parties.is_load
        given = 1000.0 * parties.demand_mw - np.bincount(parties.owner, load, len(parties.buses))
        room = 1000.0 * (parties.demand_mw - parties.least_mw)
    else:
        bid, most, award = (
            read_signal(out / "signals", f"market.smo_{name}_kw")[2][-1]
            for name in ("bid", "bid_max", "award")
        )
        given, room = award - bid, most - bid
    share = given / np.maximum(room, 1e-9)
    return share, (room > 0.05) & ~silenced


def attacked_buses(scenario: Scenario) -> set[str]:
    """Return the buses of the elements that the attack acts on."""
    spec = scenario.attack_spec
    assert spec is not None
    names = [x for step in spec.steps for x in step.target.elements or ()]
    return {name.split("_")[1] for name in names if name.count("_")}


# --- printing -------------------------------------------------------------------------------------


def figure(states: dict[str, dict[str, Any]], state: str, key: str) -> float:
    """Return a figure of a state, or the difference of two."""
    first, _, second = state.partition("-")
    return float(states[first][key]) - (float(states[second][key]) if second else 0.0)


def table(attack: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures of an attack beside the slides'."""
    out = []
    for (state, key), printed in CASES[attack].slides.items():
        values = [figure(r["states"], state, key) for r in rows]
        out.append({"": f"{state} {key}", "slides": printed, "here": spread(values)})
    for key in VOLTAGES:
        values = [float(r["states"]["mitigated"][key]) for r in rows]
        out.append({"": f"mitigated {key}", "slides": "", "here": spread(values, 4)})
    measured = [key for key in MANAGER if key in rows[0]]
    return out + [
        {"": key, "slides": "", "here": spread([r[key] for r in rows])} for key in measured
    ]


def spread(values: list[float], digits: int = 2) -> str:
    """Return median and range as text, and how many have no value."""
    of = np.array(values)
    known = of[np.isfinite(of)]
    if not known.size:
        return "never"
    ends = f"{known.min():.{digits}f} to {known.max():.{digits}f}"
    never = f"; never in {of.size - known.size}" if known.size < of.size else ""
    return f"{np.median(known):.{digits}f} ({ends}{never})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES])
    given = parser.parse_args()
    rows = {a: [row(a, seed) for seed in range(1, given.seeds + 1)] for a in given.only}
    tables = {attack: table(attack, of) for attack, of in rows.items()}
    if given.json:
        print(json.dumps({"rows": rows, "tables": tables}, indent=1, default=str))
        return
    for attack, lines in tables.items():
        print(f"\nattack {attack}, {given.seeds} seeds: median (least to largest)")
        for line in lines:
            print(f"{line['']:>38}  {line['slides']:>14}  {line['here']}")


if __name__ == "__main__":
    main()
