"""``report.html``: everything about one run on one self-contained page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from federates.core.signals import signal_labels
from federates.reports.attack import attack_section
from federates.reports.blocks import Block, Page, PageSection, TableBlock, Text, Tile, Tiles
from federates.reports.books import market_sections, markets
from federates.reports.chart import Chart, ShadedBand, in_rows, limits, side_by_side
from federates.reports.consumer import consumer_sections, consumer_signals
from federates.reports.devices import device_sections, device_signals
from federates.reports.equipment import EQUIPMENT_PORTS, equipment_sections
from federates.reports.feeder import place_sections
from federates.reports.feeders import FEEDERS_PORTS, feeders_sections
from federates.reports.format import (
    FIRST_OF_MANY,
    clock,
    event_details,
    metric_name,
    metric_number,
    metric_unit,
    pace,
    warm_up_words,
    with_unit,
)
from federates.reports.local_market import local_markets
from federates.reports.local_sections import local_market_sections
from federates.reports.page import write_page
from federates.reports.storage import plan_signals, storage_sections
from federates.reports.traces import trace_sections
from federates.reports.transmission import transmission_sections, transmission_signals
from federates.reports.voltage_hours import voltage_hour_sections
from federates.runs.data import BINS, FEEDER_KINDS, OTHER, PlantData, RunData, Spread
from federates.runs.manifest import UNKNOWN
from federates.scenario.attack_wording import span
from grid_models.base.yaml_lines import yaml_text

REPORT = "report.html"
_EVENTS_SHOWN, _SIGNALS_SHOWN = 100, 12
_BADGES = {"not finished": "not", UNKNOWN: "not"}  # classes of the style sheet, else the status

_FEEDER_PORTS = ("v_pu", "p_kw", "q_kvar", "import_kw", "losses_kw")
_PLANT_PORTS = (*_FEEDER_PORTS, *EQUIPMENT_PORTS, *FEEDERS_PORTS)
ISLAND_CHARTS = (
    ("unit_kw", "Grid-forming unit", "s1", "source"),
    ("shed_kw", "Load shed", "s2", "source"),
    ("shed_kw", "Critical load shed", "s2", "critical"),
    ("curtailed_kw", "Generation curtailed", "s4", "source"),
)
"""Port, title, style and label of what an island's page shows."""

SectionMaker = Callable[[RunData], Iterator[PageSection]]


def write_report(folder: Path) -> Path:
    """Write the page of a run into its folder, whether the run finished or not.

    Raises ScenarioError: The folder holds no run.
    """
    return write_page(folder / REPORT, run_page(RunData(folder)))


def run_page(run: RunData) -> Page:
    """Return the page of a run."""
    text = str(run.scenario.get("description") or "")
    return Page(
        title=run.title,
        badge=(run.status, _BADGES.get(run.status, run.status)),
        facts=_facts(run),
        head=[Text(text)] if text else [],
        sections=[section for make in SECTIONS for section in make(run)],
    )


def _facts(run: RunData) -> list[str]:
    """Return the run in one line: name, feeders, steps, seed."""
    step_s, planned = float(run.scenario["time"]["step_s"]), run.manifest.get("steps")
    voltages = [p.voltages for p in run.plants if p.voltages is not None]
    # A run that was killed has no summary: what is readable is all that is known.
    readable = len(voltages[0].total.time_s) if voltages else planned
    steps = run.summary.get("steps", readable)
    of_planned = "" if steps == planned else f" of {planned}"
    simulated_s = (steps or 0) * step_s
    lasts = f"{simulated_s / 3600.0:.3g} h" if simulated_s >= 3600.0 else span(simulated_s)
    models = [m for m in dict.fromkeys(_model(run, plant.name) for plant in run.plants) if m]
    return [
        run.name,
        *([f"feeder{'s' * (len(models) > 1)} {', '.join(models)}"] if models else []),
        f"{steps}{of_planned} steps of {step_s:g} s ({lasts})",
        f"seed {run.manifest.get('seed')}",
    ]


def _model(run: RunData, plant: str) -> str:
    spec = run.scenario["federates"][plant]
    grid = spec.get("grid") or run.scenario.get("grid") or {}
    return Path(str(grid.get("model", ""))).name if spec.get("kind") in FEEDER_KINDS else ""


def trouble(run: RunData) -> Iterator[PageSection]:
    """Say why a run did not finish, with the ends of its logs."""
    if run.status == "finished":
        return
    reason = run.reason.removeprefix("not finished: ")
    text = f"{reason.rstrip('.')}. What was recorded until then is shown below."
    logs = run.logs().items()
    tails = [Text(text, "details", f"End of logs/{name}.log") for name, text in logs]
    yield PageSection("", [Text(text, "alert", f"The run is {run.status}."), *tails])


def warnings(run: RunData) -> Iterator[PageSection]:
    """Show what of the input was accepted but not used as it stands."""
    found = run.manifest.get("warnings")
    if isinstance(found, list) and found:
        head = ("Input not used, or that looks wrong",)
        yield PageSection("Warnings", [TableBlock(head, [(str(w),) for w in found], wrap=(0,))])


def key_numbers(run: RunData) -> Iterator[PageSection]:
    """Show every metric of the run."""
    metrics = run.metrics
    where: dict[str, str] = {}
    for plant in run.plants:
        if plant.voltages is None:
            continue
        several = len(run.plants) > 1 and "v_max_pu" not in metrics
        prefix = f"{plant.name}." if several else ""
        prefix += FIRST_OF_MANY if plant.kind == "feeders" else ""
        for key, highest in ((f"{prefix}v_max_pu", True), (f"{prefix}v_min_pu", False)):
            node, v_pu, at_s = plant.voltages.extreme(highest=highest)
            # A run that was killed has no metrics; its voltages are readable all the same.
            if metrics.setdefault(key, v_pu) == v_pu:
                where[key] = f"node {node} at {clock(at_s + run.start_s)}"
    for event in run.events():
        if event.get("event") == "highest_loading":
            prefix = f"{event['federate']}." if "loading_max_pct" not in metrics else ""
            at_s = event["time_s"] + run.start_s
            where[f"{prefix}loading_max_pct"] = f"{event['element']} at {clock(at_s)}"
    whole, *plants = run.by_plant(metrics).items()
    tiles = [_metric(run, key, value, where.get(key, "")) for key, value in whole[1].items()]
    if "wall_s" in run.summary and "steps_per_s" in run.summary:
        tiles.append(Tile("Speed", f"{run.summary['steps_per_s']:,.0f}", "steps/s", pace(run)))
    some = any(metrics for _, metrics in plants)
    blocks: list[Block] = [_plant_table(dict(plants), where)] if some else []
    blocks += [Tiles(tiles)] if tiles else []
    if blocks:
        yield PageSection("", [*blocks, *(Text(words) for words in warm_up_words([run]))])


def _plant_table(
    plants: Mapping[str, Mapping[str, float | None]], where: Mapping[str, str]
) -> TableBlock:
    """Return the metrics of several plants, a column each."""
    rows = []
    for key in dict.fromkeys(key for metrics in plants.values() for key in metrics):
        cells = []
        for plant, metrics in plants.items():
            hint = where.get(f"{plant}.{key}")
            number = metric_number(key, metrics.get(key))
            cells.append(f"{number} ({hint})" if hint else number)
        rows.append([with_unit(metric_name(key), metric_unit(key)), *cells])
    return TableBlock(["Metric", *plants], rows, range(1, 1 + len(plants)), style="compare")


def _metric(run: RunData, key: str, value: float | None, hint: str) -> Tile:
    low, high = run.band
    good, port = None, key.rpartition(".")[2]
    if value is not None and port in ("v_max_pu", "v_min_pu"):
        good = low <= value <= high
    elif value is not None and port == "out_of_band_node_hours":
        good, hint = value <= 0, f"band {low:g} to {high:g} pu"
    mark = "" if good is None else "good" if good else "bad"
    return Tile(metric_name(key), metric_number(key, value), metric_unit(key), hint, mark)


def voltage_chart(run: RunData, title: str, spread: Spread, style: str) -> Chart:
    """Return a chart of node voltages."""
    band = ShadedBand("lowest, median and highest node", spread, style)
    return Chart(
        title, "Voltage, pu", [band], limits(run), (), run.start_s, digits=4, shade=run.shade
    )


def voltages(run: RunData) -> Iterator[PageSection]:
    """Show the voltages of each plant by phase."""
    for plant in run.plants:
        if plant.voltages is not None:
            charts = [
                voltage_chart(
                    run,
                    _group_title(phase, len(plant.voltages.phases)),
                    spread,
                    f"phase-{phase.lower()}",
                )
                for phase, spread in plant.voltages.phases.items()
            ]
            yield PageSection(run.label(plant, "Voltages"), [side_by_side(charts)])


def _group_title(phase: str, groups: int) -> str:
    if phase == OTHER:
        return "All nodes" if groups == 1 else "Other nodes"
    return f"Phase {phase}"


def line_chart(run: RunData, title: str, y_title: str, series: Spread, style: str) -> Chart:
    """Return a chart of a single value, zero shown."""
    band = ShadedBand(title, series, style, fill=False)
    return Chart(title, y_title, [band], (), (0.0,), run.start_s, shade=run.shade)


def power(run: RunData) -> Iterator[PageSection]:
    """Show the reactive and active power of each plant."""
    for plant in run.plants:
        charts = [_reactive_charts(run, plant), _active_charts(run, plant)]
        blocks = [in_rows(row) for row in charts if row]
        if blocks:
            yield PageSection(run.label(plant, "Power"), blocks)


def _reactive_charts(run: RunData, plant: PlantData) -> list[Chart]:
    total, each = plant.total("q_kvar"), plant.spread("q_kvar")
    if total is None or each is None:
        return []
    unit = "Reactive power, kvar"
    band = ShadedBand("lowest, median and highest DER", each, "s3")
    return [
        line_chart(run, "Reactive power of all DERs", unit, total, "s3"),
        Chart("Reactive power per DER", unit, [band], (), (), run.start_s, 1, run.shade),
    ]


def _active_charts(run: RunData, plant: PlantData) -> list[Chart]:
    ports = (
        ("p_kw", "Active power of all DERs", "s4"),
        ("import_kw", "Import from the grid above", "s1"),
        ("losses_kw", "Losses", "s2"),
    )
    island = [(plant.total(port, [of]), title, style) for port, title, style, of in ISLAND_CHARTS]
    is_island = island[0][0] is not None  # its import is the power of its unit
    found = [
        (plant.total(port), title, style)
        for port, title, style in ports
        if not (is_island and port == "import_kw")
    ]
    found += island
    return [
        line_chart(run, title, "Power, kW", series, style)
        for series, title, style in found
        if series is not None
    ]


def other_signals(run: RunData) -> Iterator[PageSection]:
    """Show the recorded signals that no other section shows."""
    of_plants = (*_PLANT_PORTS, *(port for port, _, _, _ in ISLAND_CHARTS))
    shown = {f"{plant.name}.{port}" for plant in run.plants for port in of_plants}
    shown |= {*device_signals(run), *plan_signals(run), *consumer_signals(run)}
    shown |= transmission_signals(run)
    shown |= {signal for market in local_markets(run) for signal in market.signals}
    own = {*shown, *(n for n in run.recorded if n.partition(".")[0] in markets(run))}
    names = [name for name in run.recorded if name not in own]
    found = [(name, run.spread_of(name)) for name in names[:_SIGNALS_SHOWN]]
    # Up to a dozen charts of a third of the page's width each: half the points are enough.
    charts = [
        Chart(name, with_unit(name.partition(".")[2], metric_unit(name)),
              [ShadedBand("lowest, median and highest element", spread.decimated(BINS // 2), "s1")],
              start_s=run.start_s, digits=4 if name.endswith("_pu") else None, shade=run.shade)
        for name, spread in found if spread is not None
    ]  # fmt: skip
    if charts:
        left_out = len(names) - len(found)
        note = [Text(f"{left_out} further signals are in the run's folder.")] if left_out else []
        yield PageSection("Other signals", [in_rows(charts), *note])


def events(run: RunData) -> Iterator[PageSection]:
    """List the last events, and all earlier ones of an attack."""
    found = run.events()
    if not found:
        return
    first = len(found) - _EVENTS_SHOWN
    # When an attack began and ended is what a reader looks for, however much happened since.
    shown = [e for i, e in enumerate(found) if i >= first or _of_attack(e)]
    title, blocks = "Events", list[Block]()
    if len(shown) < len(found):
        title = f"Events: last {_EVENTS_SHOWN} of {len(found):,}"
        earlier = len(shown) - _EVENTS_SHOWN
        kept = f", and {earlier:,} earlier of the attack" if earlier else ""
        blocks.append(Text(f"The last {_EVENTS_SHOWN}{kept}. All are in the run's events.jsonl."))
    head = ("Wall clock, UTC", "Simulated", "Federate", "Event", "Details")
    blocks.append(TableBlock(head, [_event_row(run, event) for event in shown], wrap=(4,)))
    yield PageSection(title, blocks)


def _event_row(run: RunData, event: Mapping[str, Any]) -> tuple[str, ...]:
    time_s = event.get("time_s")
    known_time = isinstance(time_s, (int, float)) and math.isfinite(time_s)
    at = clock(time_s + run.start_s) if known_time else "-"  # type: ignore[operator]
    words = (str(event.get(key, "")) for key in ("federate", "event"))
    return (str(event.get("wall", ""))[:19].replace("T", " "), at, *words, event_details(event))


def _of_attack(event: Mapping[str, Any]) -> bool:
    return str(event.get("event", "")).startswith("attack_")


def recorded(run: RunData) -> Iterator[PageSection]:
    """List the recorded signals."""
    rows = []
    for name in run.recorded:
        labels = signal_labels(run.signals, name)
        some = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
        rows.append((name, str(len(labels)), some))
    if rows:
        head = ("Signal (signals/)", "Labels", "Which")
        yield PageSection("Recorded", [TableBlock(head, rows, numbers=(1,), wrap=(2,))])


def reproduction(run: RunData) -> Iterator[PageSection]:
    """Give the command, the scenario and the versions that make the same run again."""
    manifest = run.manifest
    rows = [(k, str(v)) for k, v in (manifest.get("versions") or {}).items() if v]
    rows += [(k, str(v)) for k, v in (manifest.get("host") or {}).items()]
    rows += [(k, str(manifest.get(k))) for k in ("placement", "seed")]
    times = [k for k in ("started", "finished") if k in manifest]
    rows += [(k, str(manifest[k])[:19].replace("T", " ")) for k in times]
    yield PageSection(
        "How to get this run again",
        [
            Text(str(manifest.get("command") or _command(run)), "command"),
            Text(
                "With the same seed and versions the recorded signals are equal to the last bit, "
                "whatever the placement."
            ),
            Text(yaml_text(run.scenario), "details", "The scenario, with every default filled in"),
            TableBlock(("What", "Version or value"), rows),
        ],
    )


def _command(run: RunData) -> str:
    """Return a command for a run that was started from Python."""
    words = ["feederate", "run", run.name, "--seed", str(run.manifest.get("seed", 0))]
    if run.manifest.get("steps"):
        words += ["--steps", str(run.manifest["steps"])]
    return shlex.join(words)


SECTIONS: tuple[SectionMaker, ...] = (
    trouble,
    warnings,
    key_numbers,
    attack_section,
    transmission_sections,
    feeders_sections,
    voltages,
    place_sections,
    voltage_hour_sections,
    power,
    equipment_sections,
    market_sections,
    local_market_sections,
    consumer_sections,
    device_sections,
    storage_sections,
    other_signals,
    trace_sections,
    events,
    recorded,
    reproduction,
)
"""The sections of a run's page, in order."""
