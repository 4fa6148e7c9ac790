"""What it costs to stand in between: step time with 1 and with 100 attacked labels.

    python benchmarks/interposition.py [--json] [--steps N] [--repeats N]

IEEE 123 with 96 volt/var agents that read voltages and powers. One run interleaves all variants,
so that ratios hold when the machine's speed drifts; figures are medians over the repeats, in
microseconds per step, ratios against the same placement without an attack. The attack is active
during the whole run and writes its ground truth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from federates.runs.options import Placement
from federates.runs.runner import run
from federates.scenario.schema import Scenario, load_scenario

PLACEMENTS: tuple[Placement, ...] = ("single", "thread", "process")
VARIANTS = {"none": 0, "1 label": 1, "100 labels": 100}
ATTACK = """\
id: interposition
steps:
  - id: bias
    layer: signal
    target: {{port: "volt_var.[vp]_*", count: {count}}}
    trigger: {{at_s: 0}}
    action: {{kind: bias, value: 0.001}}
"""


def scenario(folder: Path, count: int) -> Scenario:
    """Return the benchmark's scenario with so many attacked labels."""
    attack = None
    if count:
        path = folder / f"attack-{count}.yaml"
        path.write_text(ATTACK.format(count=count))
        attack = str(path)
    wires = (
        "connections=[feeder.v_pu -> volt_var.v_pu, feeder.p_kw -> volt_var.p_kw, "
        "volt_var.q_set_kvar -> feeder.q_set_kvar]"
    )
    return load_scenario("voltvar-ieee123", ["time.step_s=10", wires], attack=attack)


def step_us(spec: Scenario, folder: Path, placement: Placement, steps: int) -> float:
    """Return the microseconds that one step takes."""
    out = folder / "run"
    try:
        summary = run(spec, out=out, placement=placement, steps=steps).summary
        return 1e6 / float(summary["steps_per_s"])
    finally:
        shutil.rmtree(out, ignore_errors=True)


def measure(steps: int, repeats: int) -> list[dict[str, Any]]:
    """Return one row per placement and variant."""
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(repeats):
            for placement in PLACEMENTS:
                for variant, count in VARIANTS.items():
                    us = step_us(scenario(folder, count), folder, placement, steps)
                    times.setdefault((placement, variant), []).append(us)
    rows = []
    for (placement, variant), values in times.items():
        ratios = [v / n for v, n in zip(values, times[placement, "none"], strict=True)]
        rows.append(
            {
                "placement": placement,
                "attacked": variant,
                "step_us": round(statistics.median(values), 1),
                "ratio": round(statistics.median(ratios), 3),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = measure(args.steps, args.repeats)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'placement':<10} {'attacked':<12} {'us/step':>9} {'ratio':>7}")
    for row in rows:
        print(
            f"{row['placement']:<10} {row['attacked']:<12} {row['step_us']:9.1f} "
            f"{row['ratio']:7.2f}"
        )


if __name__ == "__main__":
    main()
