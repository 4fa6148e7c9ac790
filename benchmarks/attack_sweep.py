"""OPTDIST-VC under each cyber attack, from no strength to more than it bears.

    python benchmarks/attack_sweep.py [--json] [--attack NAME ...] [--svg FILE] [--workers N]

Every shipped attack on ``voltvar-ieee123`` runs at several strengths, where there is one the attack
of no strength included, on one PV-rich day up to two hours after the attack's end. Columns:

* ``in_window``, ``after``: node-hours outside the band while the attack lasts, and in the hour
  after it;
* ``cost``: the controller's own cost, mean of sum of q^2 / (2 kVA) over the window, in kvar;
* ``recovery_s``: how long after the attack the voltages stay worse than the baseline's.

An attack *breaks* the control at the first strength at which the window has more than twice the
baseline's node-hours outside the band and at least one more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from federates.assembly.federation import Assembly
from federates.attacks.labels import attack_windows
from federates.core.signals import read_signal
from federates.reports.recovery import out_of_band_node_hours, recovery_s, voltage_tracks
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

SCENARIO = "voltvar-ieee123"
STEPS = 18 * 720  # 18 hours of 5 s


@dataclass(frozen=True)
class Sweep:
    """One attack: the key that is its strength, in words and units, and the values tried."""

    attack: str
    key: str
    words: str
    values: tuple[float, ...]
    more: tuple[str, ...] = ()
    name: str = ""

    @property
    def title(self) -> str:
        """Name in tables: the attack's, unless it is swept over more than one key."""
        return self.name or self.attack


_SHARES = (0.05, 0.15, 0.3, 0.5, 1.0)
_TARGET = "steps[0].target"
_FRACTION = f"{_TARGET}.fraction"
_ACTION = "steps[0].action"
_VALUE = f"{_ACTION}.value"
_NEVER_LOST, _ON_TIME = f"{_ACTION}.loss=0", f"{_ACTION}.delay_s=0"
SWEEPS = (
    Sweep("false-voltage", _VALUE, "bias, pu", (0, 0.01, 0.02, 0.05, 0.1)),
    Sweep("lying-agent", f"{_ACTION}.bias", "bias of its mail", (0, 0.01, 0.03, 0.1, 0.5)),
    # The file draws from the agents beyond bus 67, and those drawn still talk among themselves; the
    # sweep is over all agents, and who is drawn hears nobody and is heard by nobody.
    Sweep(
        "link-partition", _FRACTION, "share of agents alone", (0.1, 0.25, 0.5, 0.75, 1.0),
        (f"{_TARGET}.agents=['*']", f"{_ACTION}.kind=drop"), "link-partition, agents alone",
    ),
    Sweep(
        "link-jamming", f"{_ACTION}.delay_s", "delay up to, s", (0, 10, 20, 30, 60),
        (_NEVER_LOST,), "link-jamming, late only",
    ),
    Sweep(
        "link-jamming", f"{_ACTION}.loss", "loss", (0.5, 0.8, 0.95, 1.0),
        (_ON_TIME,), "link-jamming, lost only",
    ),
    Sweep("setpoint-replay", _FRACTION, "share of DERs", _SHARES),
    Sweep("frozen-measurement", _FRACTION, "share of DERs", _SHARES),
    Sweep("stealthy-ramp", f"{_ACTION}.limit", "bias, pu", (0.001, 0.002, 0.005, 0.01, 0.03)),
    Sweep("combined-outage", _VALUE, "forced set-point, kvar", (0, 5, 10, 20, 40)),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one run showed."""

    attack: str
    strength: float | None
    in_window: float
    after: float
    cost: float
    recovery_s: float | None


def simulate(out: str, attack: str, overrides: tuple[str, ...]) -> str:
    """Run one case in a process of its own; return its folder."""
    scenario = load_scenario(SCENARIO, overrides, attack=attack)
    run(scenario, out=Path(out), placement="single", steps=STEPS)
    return out


def row_of(folder: Path, baseline: Path, sweep: Sweep, strength: float | None) -> Row:
    """Measure one run beside the baseline, in the window of the attacked run."""
    kva = np.array([d.kva for d in Assembly(load_scenario(SCENARIO)).site("feeder").feeder.ders])
    window = attack_windows(folder)
    begin_s, end_s = (window[0][1], max(w[2] for w in window)) if window else (43200.0, 46800.0)
    measured = folder if strength is not None else baseline
    track, clean = (voltage_tracks(RunData(f))["feeder"] for f in (measured, baseline))
    time_s, _, q_kvar = read_signal(measured / "signals", "feeder.q_kvar")
    inside = (time_s >= begin_s) & (time_s < end_s)
    return Row(
        sweep.title,
        strength,
        out_of_band_node_hours(track, begin_s, end_s),
        out_of_band_node_hours(track, end_s, end_s + 3600),
        float((q_kvar[inside] ** 2 / (2 * kva)).sum(axis=1).mean()),
        recovery_s(clean, track, end_s) if strength is not None else None,
    )


def measure(names: list[str], workers: int) -> dict[str, list[Row]]:
    """Run all cases; per attack the baseline's row (strength None) and one row per strength."""
    sweeps = [s for s in SWEEPS if not names or s.attack in names]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(simulate, str(root / "baseline"), "", ())]
            for sweep in sweeps:
                for value in sweep.values:
                    folder = root / f"{sweep.title}-{value}"
                    keys = (f"{sweep.key}={value}", *sweep.more)
                    overrides = tuple(f"attack.{key}" for key in keys)
                    jobs.append(pool.submit(simulate, str(folder), sweep.attack, overrides))
            for job in jobs:
                job.result()
        rows: dict[str, list[Row]] = {}
        for sweep in sweeps:
            folders = [root / f"{sweep.title}-{value}" for value in sweep.values]
            rows[sweep.title] = [
                row_of(folders[-1], root / "baseline", sweep, None),
                *(
                    row_of(folder, root / "baseline", sweep, value)
                    for folder, value in zip(folders, sweep.values, strict=True)
                ),
            ]
        return rows


def breaks_at(rows: list[Row]) -> float | None:
    """Return the first strength that breaks the control; None if none of those tried does."""
    clean = rows[0].in_window
    for row in rows[1:]:
        if row.in_window > 2 * clean and row.in_window > clean + 1:
            return row.strength
    return None


def draw(rows: dict[str, list[Row]], path: Path) -> None:
    """Draw node-hours out of band over strength, one small chart per attack."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "feederate"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = iter(figure.subplots(2, 5, squeeze=False).flat)
    words = {s.title: s.words for s in SWEEPS}
    for (name, found), axis in zip(rows.items(), axes, strict=False):
        axis.axhline(found[0].in_window, color="0.6", lw=1, ls="--")
        axis.plot([r.strength for r in found[1:]], [r.in_window for r in found[1:]], "o-", ms=3)
        limit = breaks_at(found)
        if limit is not None:
            axis.axvline(limit, color="C3", lw=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(words[name], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
    for axis in list(axes):
        axis.set_axis_off()
    figure.supylabel("node-hours out of band during the attack", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def as_table(rows: dict[str, list[Row]]) -> str:
    """Return a Markdown table."""
    words = {s.title: s.words for s in SWEEPS}
    lines = [
        "| attack | strength | out of band, node-h | hour after | cost, kvar | recovery, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in rows.items():
        limit = breaks_at(found)
        for row in found:
            if row.strength is None:
                strength = "baseline"
            else:
                strength = f"{words[name]} {row.strength:g}"
                if row.strength == limit:
                    strength += " **(breaks)**"
            recovery = "-" if row.recovery_s is None else f"{row.recovery_s:.0f}"
            lines.append(
                f"| {name} | {strength} | {row.in_window:.2f} | {row.after:.2f} | {row.cost:.0f} | "
                f"{recovery} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--attack", action="append", default=[])
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    rows = measure(args.attack, args.workers)
    if args.svg is not None:
        draw(rows, args.svg)
    if args.json:
        data: dict[str, Any] = {
            name: {"breaks_at": breaks_at(found), "rows": [asdict(r) for r in found]}
            for name, found in rows.items()
        }
        print(json.dumps(data, indent=2))
    else:
        print(as_table(rows))


if __name__ == "__main__":
    main()
