"""``report.html``: everything about one run on one self-contained page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from federates.core.signals import signal_labels
from federates.reports.attack import attack_section
from federates.reports.books import market_sections
from federates.reports.chart import Band, Chart, Limit, same_axis, time_chart
from federates.reports.feeder import feeder_map, load_run_feeder, voltage_profile
from federates.reports.format import clock
from federates.reports.page import details, metric_tile, table, tile, write_page
from federates.runs.data import OTHER, RunData, Voltages
from federates.runs.manifest import UNKNOWN
from grid_models.base.yaml_lines import yaml_text

REPORT = "report.html"
_EVENTS_SHOWN = 100
_BADGES = {  # class of the style sheet
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "not finished": "not",
    UNKNOWN: "not",
}


def write_report(folder: Path) -> Path:
    """Write the page of a run into its folder, whether the run finished or not.

    Raises
    ------
    ScenarioError
        The folder holds no run.
    """
    run = RunData(folder)
    return write_page(folder / REPORT, f"{run.title} - {run.status}", run_body(run))


def run_body(run: RunData) -> str:
    """Return the page's content."""
    voltages = run.voltages
    parts = [header(run), _trouble(run), _tiles(run, voltages), attack_section(run)]
    if voltages is not None:
        parts += [_voltage_section(run, voltages), _place_section(run, voltages)]
    parts += [
        _power_section(run),
        market_sections(run),
        _events(run),
        _recorded(run),
        _reproduce(run),
    ]
    parts.append(
        "<footer>Written by Feederate. Injections are positive: p = generation - load.</footer>"
    )
    return "\n".join(part for part in parts if part)


def header(run: RunData) -> str:
    """Return title, status and the run in one line."""
    time = run.scenario["time"]
    planned = run.manifest.get("steps")
    steps = run.summary.get("steps", planned)
    if "steps" not in run.summary and run.voltages is not None:
        # Killed: what is readable is all that is known.
        steps = len(run.voltages.total.time_s)
    simulated_h = float(steps or 0) * float(time["step_s"]) / 3600.0
    grid = run.scenario.get("grid", {})
    facts = [
        run.name,
        f"feeder {Path(str(grid.get('model', ''))).name}",
        f"{steps}{'' if steps == planned else f' of {planned}'} steps of {time['step_s']:g} s "
        f"({simulated_h:.3g} h)",
        f"seed {run.manifest.get('seed')}",
    ]
    badge = f'<span class="badge {_BADGES[run.status]}">{escape(run.status)}</span>'
    text = run.scenario.get("description") or ""
    about = f"<p>{escape(str(text))}</p>" if text else ""
    return (
        f"<header><h1>{escape(run.title)} {badge}</h1>"
        f'<p class="sub">{escape(" · ".join(facts))}</p></header>{about}'
    )


def _trouble(run: RunData) -> str:
    if run.status == "finished":
        return ""
    reason = run.reason.removeprefix("not finished: ")
    out = (
        f'<div class="alert"><strong>The run is {escape(run.status)}.</strong> {escape(reason)}'
        "<br>What was recorded until then is shown below.</div>"
    )
    for name, text in run.logs().items():
        out += details(f"End of logs/{name}.log", text)
    return out


def _tiles(run: RunData, voltages: Voltages | None) -> str:
    low, high = run.band
    metrics = run.metrics
    if voltages is not None:
        # A run that was killed has no summary; its voltages are readable all the same.
        metrics.setdefault("v_max_pu", float(np.nanmax(voltages.node_high)))
        metrics.setdefault("v_min_pu", float(np.nanmin(voltages.node_low)))
    tiles = []
    for key, value in metrics.items():
        hint = mark = ""
        if key in ("v_max_pu", "v_min_pu") and value is not None:
            mark = "good" if low <= value <= high else "bad"
            if voltages is not None:
                node, _, at_s = voltages.extreme(highest=key == "v_max_pu")
                hint = f"node {node} at {clock(at_s + run.start_s)}"
        elif key == "out_of_band_node_hours" and value is not None:
            mark = "bad" if value > 0 else "good"
            hint = f"band {low:g} to {high:g} pu"
        tiles.append(metric_tile(key, value, hint, mark))
    summary = run.summary
    if "wall_s" in summary and "steps_per_s" in summary:
        hint = f"{summary['wall_s']:.1f} s of wall time"
        tiles.append(tile("Speed", f"{summary['steps_per_s']:,.0f}", "steps/s", hint))
    return f'<section class="tiles">{"".join(tiles)}</section>' if tiles else ""


def limits(run: RunData) -> list[Limit]:
    """Return the voltage band as lines of a chart."""
    return [Limit(run.band[0], "lower limit"), Limit(run.band[1], "upper limit")]


def _voltage_section(run: RunData, voltages: Voltages) -> str:
    charts = [
        Chart(
            "Other nodes" if phase == OTHER else f"Phase {phase}",
            "Voltage, pu",
            [Band("lowest, median and highest node", spread, f"phase-{phase.lower()}")],
            limits(run),
            start_s=run.start_s,
            digits=3,
            shade=run.shade,
        )
        for phase, spread in voltages.phases.items()
    ]
    columns = "grid-3" if len(charts) >= 3 else "grid-2" if len(charts) == 2 else ""
    figures = "".join(time_chart(chart) for chart in same_axis(charts))
    return f'<section><h2>Voltages</h2><div class="{columns}">{figures}</div></section>'


def _place_section(run: RunData, voltages: Voltages) -> str:
    feeder = load_run_feeder(run)
    if feeder is None:
        return ""
    figures = [
        f for f in (voltage_profile(run, voltages, feeder), feeder_map(run, voltages, feeder)) if f
    ]
    columns = ' class="grid-2 tall"' if len(figures) == 2 else ""
    body = "".join(figures)
    return f"<section><h2>Where</h2><div{columns}>{body}</div></section>" if body else ""


def _power_section(run: RunData) -> str:
    reactive = []
    q_sum, q_range = run.total("q_kvar"), run.spread("q_kvar")
    if q_sum is not None and q_range is not None:
        reactive.append(_line(run, "Reactive power of all DERs", "kvar", "sum", q_sum, "s3"))
        chart = Chart(
            "Reactive power per DER",
            "Reactive power, kvar",
            [Band("lowest, median and highest DER", q_range, "s3")],
            start_s=run.start_s,
            digits=1,
            shade=run.shade,
        )
        reactive.append(time_chart(chart))
    active = []
    for port, title, style in (
        ("p_kw", "Active power of all DERs", "s4"),
        ("import_kw", "Import from the grid above", "s1"),
        ("losses_kw", "Losses", "s2"),
    ):
        series = run.total(port)
        if series is not None:
            active.append(_line(run, title, "kW", title, series, style))
    out = f'<div class="grid-2">{"".join(reactive)}</div>' if reactive else ""
    out += f'<div class="grid-{min(3, len(active))}">{"".join(active)}</div>' if active else ""
    return f'<section class="stack"><h2>Power</h2>{out}</section>' if out else ""


def _line(run: RunData, title: str, unit: str, name: str, series: Any, style: str) -> str:
    quantity = {"kvar": "Reactive power", "kW": "Power"}[unit]
    biggest = float(abs(series.high).max())
    return time_chart(
        Chart(
            title,
            f"{quantity}, {unit}",
            [Band(name, series, style, fill=False)],
            y_range=(0.0, 0.0),
            start_s=run.start_s,
            digits=0 if biggest >= 50 else 1 if biggest >= 5 else 2,
            shade=run.shade,
        )
    )


def _events(run: RunData) -> str:
    events = run.events()
    if not events:
        return ""
    first = len(events) - _EVENTS_SHOWN
    # When an attack began and ended is what a reader looks for, however much happened since.
    shown = [e for i, e in enumerate(events) if i >= first or _of_attack(e)]
    title, note = "Events", ""
    if len(shown) < len(events):
        title = f"Events: last {_EVENTS_SHOWN} of {len(events):,}"
        earlier = len(shown) - _EVENTS_SHOWN
        kept = f", and {earlier:,} earlier of the attack" if earlier else ""
        note = f"<p>The last {_EVENTS_SHOWN}{kept}. All are in the run's events.jsonl.</p>"
    rows = []
    for event in shown:
        known = ("wall", "time_s", "federate", "event")
        more = ", ".join(f"{k} {v}" for k, v in event.items() if k not in known and v is not None)
        time_s = event.get("time_s")
        at = "-"
        if isinstance(time_s, (int, float)) and math.isfinite(time_s):
            at = clock(time_s + run.start_s)
        words = (str(event.get(key, "")) for key in ("federate", "event"))
        rows.append((str(event.get("wall", ""))[:19].replace("T", " "), at, *words, more))
    head = ("Wall clock, UTC", "Simulated", "Federate", "Event", "Details")
    return f"<section><h2>{title}</h2>{note}{table(head, rows, wrap=(4,))}</section>"


def _of_attack(event: Mapping[str, Any]) -> bool:
    return str(event.get("event", "")).startswith("attack_")


def _recorded(run: RunData) -> str:
    rows = []
    for name in run.recorded:
        labels = signal_labels(run.signals, name)
        some = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
        rows.append((name, str(len(labels)), some))
    if not rows:
        return ""
    head = ("Signal (signals/)", "Labels", "Which")
    return f"<section><h2>Recorded</h2>{table(head, rows, numbers=(1,), wrap=(2,))}</section>"


def _reproduce(run: RunData) -> str:
    manifest = run.manifest
    versions = {k: str(v) for k, v in (manifest.get("versions") or {}).items() if v}
    host = manifest.get("host") or {}
    rows = [*versions.items(), *((k, str(v)) for k, v in host.items())]
    rows += [("placement", str(manifest.get("placement"))), ("seed", str(manifest.get("seed")))]
    rows += [
        (k, str(manifest[k])[:19].replace("T", " "))
        for k in ("started", "finished")
        if k in manifest
    ]
    command = manifest.get("command") or _command(run)
    return (
        "<section><h2>How to get this run again</h2>"
        f'<pre class="command">{escape(str(command))}</pre>'
        "<p>With the same seed and versions the recorded signals are equal to the last bit, "
        "whatever the placement.</p>"
        + details("The scenario, with every default filled in", yaml_text(run.scenario))
        + f"{table(('What', 'Version or value'), rows)}</section>"
    )


def _command(run: RunData) -> str:
    """Return a command for a run that was started from Python."""
    words = ["feederate", "run", run.name, "--seed", str(run.manifest.get("seed", 0))]
    if run.manifest.get("steps"):
        words += ["--steps", str(run.manifest["steps"])]
    return shlex.join(words)
