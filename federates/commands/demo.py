"""``feederate demo``: no control, local droop and OPTDIST-VC on the same PV-rich day."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federates.commands.run import carry_out, summary_of_failure
from federates.commands.terminal import clean_stdout, messages, output
from federates.core.run_store import new_run_dir
from federates.errors import RunError, RunInterruptedError
from federates.reports.compare import write_comparison
from federates.reports.format import clock, metric_number
from federates.reports.run import REPORT
from federates.runs.data import RunData, Spread
from federates.runs.options import RunOptions

NAMES: Mapping[str, str] = {
    "voltvar-ieee123-none": "no control",
    "voltvar-ieee123-droop": "droop (1547 B)",
    "voltvar-ieee123": "OPTDIST-VC",
}
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("v_max_pu", "V max\npu"),
    ("v_min_pu", "V min\npu"),
    ("out_of_band_node_hours", "Out of band\nnode-h"),
    ("losses_kwh", "Losses\nkWh"),
    ("abs_q_kvarh", "Sum of |q|\nkvarh"),
)
_BARS, _ASCII_BARS, _BAR_COLUMNS = "▁▂▃▄▅▆▇█", "_.-:=+*#", 60


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo."""

    label: str
    data: RunData
    summary: dict[str, Any]

    def metric(self, key: str) -> float:
        """Return a metric."""
        return float(self.summary["metrics"][key])


def run_demo(*, out: Path | None, steps: int | None, as_json: bool) -> None:
    """Run the three scenarios, print the results, and write a page with charts."""
    folder = new_run_dir("demo", out)
    summaries: dict[str, Any] = {}
    runs = []
    try:
        with clean_stdout(as_json):
            for name, label in NAMES.items():
                options = RunOptions(name, steps=steps, out=folder / name)
                result = carry_out(options.load(), options, label=label)
                summaries[name] = result.summary
                runs.append(DemoRun(label, RunData(result.folder), result.summary))
                if not as_json:
                    messages().print(f"{label}: done in {result.summary['wall_s']:.1f} s")
            write_comparison(
                [run.data for run in runs],
                folder / REPORT,
                "Volt/VAR control of the IEEE 123-node feeder, three ways",
                intro=plain_words(runs),
                labels=[run.label for run in runs],
            )
    except (RunError, RunInterruptedError) as error:
        if as_json:
            failed = summary_of_failure(error)
            if failed is not None:
                summaries[str(failed.get("scenario", "failed"))] = failed
            typer.echo(json.dumps({"runs": summaries}, indent=2))
        raise
    if as_json:
        typer.echo(json.dumps({"runs": summaries}, indent=2))
    else:
        _print(runs, folder, output())


def _print(runs: Sequence[DemoRun], folder: Path, console: Console) -> None:
    console.print()
    console.print(demo_table(runs))
    bars = _BARS if console.encoding.startswith("utf") else _ASCII_BARS
    for line in highest_voltages(runs, bars):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()
    for words in plain_words(runs):
        console.print(words, markup=False)
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    console.print(f"\ndisk    {n_bytes / 1e6:,.0f} MB in {folder}", markup=False, soft_wrap=True)
    console.print(f"report  {folder / REPORT}", markup=False, soft_wrap=True)


def demo_table(runs: Sequence[DemoRun]) -> Table:
    """Return the table of the runs' key metrics."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("IEEE 123\none day", no_wrap=True)
    for _, title in (*_COLUMNS, ("", "Steps\nper s")):
        table.add_column(title, justify="right", no_wrap=True)
    low, high = runs[0].data.band
    for run in runs:
        cells = []
        for key, _ in _COLUMNS:
            value = run.summary["metrics"].get(key)
            text = metric_number(key, value)
            if value is not None and key.startswith(("v_", "out_")):
                good = low <= value <= high if key.startswith("v_") else value == 0
                text = f"[{'green' if good else 'red'}]{text}[/]"
            cells.append(text)
        table.add_row(run.label, *cells, f"{run.summary['steps_per_s']:,.0f}")
    return table


def highest_voltages(runs: Sequence[DemoRun], bars: str = _BARS) -> list[Text]:
    """Return the highest node voltage over the day as one row of bars per run.

    `bars`: A character per level, the lowest first.
    """
    found = {run.label: plant.voltages for run in runs for plant in run.data.plants}
    spreads = {label: v.total for label, v in found.items() if v is not None}
    if not spreads:
        return []
    data = runs[0].data
    upper = data.band[1]
    least = min(float(s.high.min()) for s in spreads.values())
    most = max(upper, *(float(s.high.max()) for s in spreads.values()))
    lines = [Text(f"Highest node voltage, {least:.3f} to {most:.3f} pu; red: above {upper:g} pu")]
    for label, spread in spreads.items():
        line = Text(f"{label:<15}")
        for v_pu in spread.decimated(_BAR_COLUMNS).high:
            level = round((len(bars) - 1) * (v_pu - least) / ((most - least) or 1.0))
            line.append(bars[level], "red" if v_pu > upper else "cyan")
        lines.append(line)
    return [*lines, Text(_time_row(next(iter(spreads.values())), data.start_s), "dim")]


def _time_row(spread: Spread, start_s: float) -> str:
    """Return the first and the last time of day below the bars."""
    begin, end = (clock(float(spread.time_s[i]) + start_s)[:5] for i in (0, -1))
    columns = len(spread.decimated(_BAR_COLUMNS).time_s)
    return " " * 15 + begin + end.rjust(max(columns - len(begin), len(end) + 1))


def plain_words(runs: Sequence[DemoRun]) -> list[str]:
    """Return five lines that say what the runs show, from their own numbers."""
    none, droop, optdist = runs
    step_s = none.data.scenario["time"]["step_s"]
    hours = none.summary["steps"] * step_s / 3600.0
    low, high = none.data.band
    more_kwh = optdist.metric("losses_kwh") - none.metric("losses_kwh")
    return [
        f"{hours:.3g} h of a PV-rich day, the whole feeder solved every {step_s:g} s, three times.",
        f"No control: the highest voltage is {none.metric('v_max_pu'):.3f} pu; {_out(none)}.",
        f"Droop: every inverter uses its own voltage only; {_out(droop)}.",
        f"OPTDIST-VC: agents exchange messages with neighbours; {_out(optdist)}.",
        f"Band: {low:g} to {high:g} pu. OPTDIST-VC changes the losses by {more_kwh:+.0f} kWh.",
    ]


def _out(run: DemoRun) -> str:
    hours = run.metric("out_of_band_node_hours")
    return f"{hours:,.1f} node-h out of band" if hours > 0 else "no node out of band"
