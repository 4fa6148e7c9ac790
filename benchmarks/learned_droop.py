"""The learned local policy beside droops and OPTDIST-VC, by `feederate run` on held-out days.

    python benchmarks/learned_droop.py [--json] [--seeds 101,102,103,104] [--narrow FILE]

The first table has whole days at 5 s, means over the seeds; the second 05:00 to 19:00 of the first
seed, with a load diversity of 0.3, the substation's regulator a tap higher, and half of the load.
Cells of the second are node-hours out of the band / losses in kWh. `--narrow` adds a policy that
`feederate train voltvar-ieee123 --narrow --out FILE` wrote. Ten minutes; `--tables shift` is one.

The steep droops are `volt-var-1547` with one slope and full reactive power at 1.05 or 1.03 pu, and
a response time at half of the bound of stability, as the policy has it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# One thread, before numpy loads its BLAS: two that wait for each other take many times as long.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402

from controllers.learned_droop.controller import own_slopes  # noqa: E402
from federates.core.sites import GridSite  # noqa: E402
from federates.kinds.controller import inverters  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402
from federates.training.study import HELD_OUT_SEEDS, droop_options, summary  # noqa: E402

Law = tuple[str, list[str]]
Metrics = dict[str, float]
LEARNED = "voltvar-ieee123-learned"
_RECORD = "record.ports=[feeder.import_kw]"  # metrics need no recording
SHOWN = ("out_of_band_node_hours", "losses_kwh", "abs_q_kvarh", "v_min_pu", "v_max_pu")
SHIFTS = {
    "base": [],
    "load diversity 0.3": ["grid.load_diversity=0.3"],
    "rg1 tap 4": ["grid.taps.rg1=4"],
    "load x0.5": ["grid.load_scale=0.5"],
}
DAYTIME = ["time.start_s=18000", "time.duration_s=50400"]


def laws(narrow: Path | None) -> dict[str, Law]:
    """Return scenario and changes of each row."""
    found: dict[str, Law] = {
        "none": ("voltvar-ieee123-none", []),
        "droop 1547 B": ("voltvar-ieee123-droop", []),
        "steep, full q at 1.05": ("voltvar-ieee123-droop", steep_droop(1.05)),
        "steep, full q at 1.03": ("voltvar-ieee123-droop", steep_droop(1.03)),
        "OPTDIST-VC": ("voltvar-ieee123", []),
    }
    if narrow is not None:
        change = f"federates.volt_var.options.policy={narrow.resolve()}"
        found["learned, narrow"] = LEARNED, [change]
    return found | {"learned, randomised": (LEARNED, [])}


def steep_droop(full_q_pu: float) -> list[str]:
    """Return the change of the droop's options."""
    scenario = load_scenario(LEARNED)
    site = GridSite(scenario)
    feeder, ders = site.feeder, inverters(site)
    kva = np.array([der.kva for der in ders])
    slopes, step_s = own_slopes(feeder, ders), scenario.time.step_s
    options = json.dumps(droop_options(full_q_pu, kva, slopes, step_s))
    return [f"federates.volt_var.options={options}"]


def metrics_of(law: Law, changes: Sequence[str], seed: int) -> Metrics:
    """Run a scenario and return what is shown of its metrics."""
    name, own = law
    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario(name, [*own, *changes, _RECORD], seed=seed)
        found = run(scenario, out=Path(folder) / "run", placement="single").metrics
    return {key: float(found[key]) for key in SHOWN}


def held_out(rows: dict[str, Law], seeds: Sequence[int]) -> Iterator[tuple[str, Metrics]]:
    """Yield the means of whole days, the least and largest voltage."""
    for name, law in rows.items():
        yield name, summary([metrics_of(law, [], seed) for seed in seeds])


def shifted(rows: dict[str, Law], seed: int) -> Iterator[tuple[str, dict[str, Metrics]]]:
    """Yield the metrics of the daytime under each shift."""
    for name, law in rows.items():
        yield (
            name,
            {
                shift: metrics_of(law, [*DAYTIME, *changes], seed)
                for shift, changes in SHIFTS.items()
            },
        )


def cell(metrics: Metrics) -> str:
    """Return node-hours and losses as text."""
    return f"{metrics['out_of_band_node_hours']:.3g} / {metrics['losses_kwh']:.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures only")
    parser.add_argument("--seeds", default=",".join(map(str, HELD_OUT_SEEDS)))
    parser.add_argument("--narrow", type=Path, help="a policy file of a narrow training")
    parser.add_argument("--tables", choices=("days", "shift", "both"), default="both")
    parser.add_argument("--rows", help="begins of rows' names, with commas; default: all")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    out: dict[str, dict[str, object]] = {"held_out": {}, "shifts": {}}
    wanted = args.rows.split(",") if args.rows else [""]
    rows = {
        name: law
        for name, law in laws(args.narrow).items()
        if any(name.startswith(begin) for begin in wanted)
    }
    for name, means in held_out(rows, seeds) if args.tables != "shift" else ():
        out["held_out"][name] = means
        if not args.json:
            text = f"{means['abs_q_kvarh']:8,.0f} kvarh  {means['v_min_pu']:.4f} to "
            print(f"{name:24s} {cell(means):16s} {text}{means['v_max_pu']:.4f} pu", flush=True)
    for name, found in shifted(rows, seeds[0]) if args.tables != "days" else ():
        out["shifts"][name] = found
        if not args.json:
            text = "  ".join(f"{shift}: {cell(m)}" for shift, m in found.items())
            print(f"{name:24s} {text}", flush=True)
    if args.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()
