"""The learned local policy beside droops and OPTDIST-VC, by `feederate run` on held-out days.

    python benchmarks/learned_droop.py [--json] [--seeds 101,102,103,104] [--narrow FILE]

The first table has whole days at 5 s, means over the seeds; the second 05:00 to 19:00 of the first
seed, with a load diversity of 0.3, the substation's regulator a tap higher, and half of the load.
Cells of the second are node-hours out of the band / losses in kWh. `--narrow` adds a policy that
`feederate train voltvar-ieee123 --narrow --out FILE` wrote. Ten minutes; `--tables shift` is one.

The steep droops have one slope for all and full reactive power at 1.05 or 1.03 pu, with the filter
that the policy has: 1 / (1 + L).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

# One thread, before numpy loads its BLAS: two that wait for each other take many times as long.
from grid_models.base.threads import use_one_thread

use_one_thread()

from controllers.learned_droop.controller import own_slopes  # noqa: E402
from controllers.learned_droop.files import feeder_hash, policy_text  # noqa: E402
from controllers.learned_droop.policy import loop_gain, uniform_policy  # noqa: E402
from federates.core.sites import GridSite  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402
from federates.training.days import inverters  # noqa: E402
from federates.training.study import HELD_OUT_SEEDS, summary  # noqa: E402

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


def laws(folder: Path, narrow: Path | None) -> dict[str, Law]:
    """Return scenario and changes of each row; policy files of uniform droops go to the folder."""
    found: dict[str, Law] = {
        "none": ("voltvar-ieee123-none", []),
        "droop 1547 B": ("voltvar-ieee123-droop", []),
    }
    for name, k in (("steep, full q at 1.05", 20.0), ("steep, full q at 1.03", 1.0 / 0.03)):
        found[name] = LEARNED, policy_set(steep_droop(folder / f"{k:.0f}.csv", k))
    found["OPTDIST-VC"] = "voltvar-ieee123", []
    if narrow is not None:
        found["learned, narrow"] = LEARNED, policy_set(narrow)
    found["learned, randomised"] = LEARNED, []
    return found


def policy_set(path: Path) -> list[str]:
    """Return the change that names another policy file."""
    return [f"federates.volt_var.options.policy={path.resolve()}"]


def steep_droop(path: Path, k: float) -> Path:
    """Write the policy file of one slope for all."""
    scenario = load_scenario(LEARNED)
    feeder, ders = GridSite(scenario).feeder, inverters(scenario)
    policy = uniform_policy(ders, k, 1.0)
    gain = 1.0 / (1.0 + loop_gain(policy.k, policy.kva, own_slopes(feeder, ders)))
    origin = {"feeder": feeder.name, "feeder_sha256": feeder_hash(feeder)}
    path.write_text(policy_text(replace(policy, filter_gain=gain, origin=origin)), encoding="utf-8")
    return path


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
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    out: dict[str, dict[str, object]] = {"held_out": {}, "shifts": {}}
    with tempfile.TemporaryDirectory() as folder:
        rows = laws(Path(folder), args.narrow)
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
