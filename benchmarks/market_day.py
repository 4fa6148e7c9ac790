"""A day of the local market: computing alone, as a federation, and three days beside each other.

    python benchmarks/market_day.py [--json] [--hours 24] [--days]

`compute_s` is the CPU time, on one core, of all that the market computes in a day: 1008 plans, 1440
clearings of the secondary and consumer markets, 288 of the primary one, the homes' set-points and
books. The homes are simulated and mail is handed over in memory; nothing is recorded and no power
flow is solved. `federation_s` is the CPU time of `feederate run market-day-ieee123`: the same with
HELICS, mail over the link model, OpenDSS and the recording. With `--days` the metrics of the three
days are printed beside the slides' figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, Mail
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.controller import LocalMarket
from federates.core.sites import GridSite
from federates.runs.options import RunOptions
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.ders.plant import DerFleet

NAME = "market-day-ieee123"
DAYS = {"hierarchy": NAME, "primary": f"{NAME}-primary", "none": f"{NAME}-none"}
SLIDES = {"lmp_mean_per_kwh": (0.064, 0.116, None), "tariff_mean_per_kwh": (0.082, 0.116, 0.129)}
METRICS = (
    "lmp_mean_per_kwh", "tariff_mean_per_kwh", "import_kwh", "import_peak_kw", "losses_kwh",
    "v_std_pu", "v_min_pu", "v_max_pu",
)  # fmt: skip


class Homes:
    """The devices behind the market, without a feeder."""

    def __init__(self, site: GridSite, hours: float, seed: int) -> None:
        self._fleet = DerFleet(site.feeder.ders, seed=seed, heat_pumps=site.grid.heat_pumps)
        day = site.outlook()
        self._day = day.sample(60.0 * np.arange(int(hours * 60)))
        self._place = {der.name: i for i, der in enumerate(site.feeder.ders)}
        self._p_set: FloatArray = np.full(len(self._place), np.nan)
        self._p_kw: FloatArray = np.zeros(len(self._place))

    def step(self, k: int) -> None:
        """Advance by a minute."""
        day = self._day
        self._p_kw, _ = self._fleet.step(
            60.0, day["irradiance_pu"][k], day["temp_c"][k], self._p_set,
            load_pu=day["load_pu"][k], time_s=60.0 * k,
        )  # fmt: skip

    def inputs(self, market: LocalMarket) -> dict[str, FloatArray]:
        """Return what the market measures."""
        fleet = self._fleet
        by_label = {
            "p_kw": dict(zip(self._place, self._p_kw, strict=True)),
            "temp_c": dict(zip(fleet.house_names, fleet.temp_c, strict=True)),
            "soc_kwh": dict(zip(fleet.storage_names, fleet.soc_kwh, strict=True)),
        }
        return {p.name: np.array([by_label[p.name][x] for x in p.labels]) for p in market.inputs}

    def follow(self, market: LocalMarket, outputs: Mapping[str, FloatArray]) -> None:
        """Take the set-points."""
        port = next(p for p in market.outputs if p.name == "p_set_kw")
        self._p_set[[self._place[x] for x in port.labels]] = outputs["p_set_kw"]


def compute_s(hours: float) -> dict[str, float]:
    """Return the CPU time of the market alone."""
    scenario = load_scenario(NAME)
    options = dict(scenario.federates["market"].options)
    site = GridSite(scenario)
    rounds = options["mail_rounds"]
    control = ControlSite(site.feeder, (), 60.0 / rounds, seed=scenario.seed, outlook=site.outlook)
    market = LocalMarket(control, LocalMarket.agents(control, **options), **options)
    homes = Homes(site, hours, scenario.seed)
    place = {link.key: i for i, link in enumerate(market.links_in)}
    to_inbox = np.array([place[link.key] for link in market.links_out])
    mail, spent, plan_s = Mail.empty(), 0.0, 0.0
    for j in range(int(hours * 60) * rounds):
        if j % rounds == 0:
            homes.step(j // rounds)
            inputs = homes.inputs(market)
        began = time.process_time()
        done = market.step(60.0 / rounds * j, inputs, mail)
        took = time.process_time() - began
        spent, plan_s = spent + took, took if j == 0 else plan_s
        mail = Mail(to_inbox[done.mail.link], done.mail.round, done.mail.values)
        if not done.mail_only:
            homes.follow(market, done.outputs)
    counts = market.summary()
    return {
        "compute_s": spent,
        "plan_s": plan_s,
        "secondary_clearings": counts["market_secondary_clearings_count"],
        "fallbacks": counts["market_secondary_fallbacks_count"],
        "primary_clearings": counts["market_clearings_count"],
    }


def cpu_s() -> float:
    """Return the CPU time of this process and its children."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def federation(name: str, hours: float, folder: Path) -> dict[str, Any]:
    """Run a scenario; return its metrics and CPU time."""
    scenario = load_scenario(name, [f"time.duration_s={hours * 3600:g}"])
    began, wall = cpu_s(), time.perf_counter()
    result = run(scenario, RunOptions(out=folder / name, report=False))
    spent = {"federation_s": cpu_s() - began, "wall_s": time.perf_counter() - wall}
    return dict(result.metrics) | spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--days", action="store_true", help="run the other two days, too")
    arguments = parser.parse_args()
    row: dict[str, Any] = compute_s(arguments.hours)
    with tempfile.TemporaryDirectory() as folder:
        names = DAYS if arguments.days else {"hierarchy": NAME}
        days = {k: federation(name, arguments.hours, Path(folder)) for k, name in names.items()}
    row |= {key: days["hierarchy"][key] for key in ("federation_s", "wall_s")}
    row["ratio"] = row["federation_s"] / row["compute_s"]
    row["days"] = {k: {m: day.get(m) for m in METRICS} for k, day in days.items()}
    if arguments.json:
        print(json.dumps(row, indent=2))
        return
    for name, value in row.items():
        if name != "days":
            print(f"{name:20s} {value:.3f}")
    print(f"\n{'':20s}" + "".join(f"{k:>12s}" for k in days) + "   slides")
    for metric in METRICS:
        numbers = "".join(f"{day[metric]:12.4f}" for day in days.values())
        slides = ", ".join("-" if x is None else f"{x:g}" for x in SLIDES.get(metric, ()))
        print(f"{metric:20s}{numbers}   {slides}")


if __name__ == "__main__":
    main()
