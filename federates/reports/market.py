"""What paired runs of a market show beside their metrics: the thesis' table, and who helped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federates.reports.blocks import Block, Drawing, Figures, PageSection, TableBlock
from federates.reports.feeder import draw_map, load_run_feeder
from federates.reports.market_parties import CONTROLLERS
from federates.reports.market_states import Window, metered_states, metered_windows, node_roles
from federates.reports.supply_states import dark_buses, supply_states
from federates.runs.data import RunData
from federates.runs.paired import ATTACKED, BASELINE, CLEAN
from federates.runs.replay import scenario_of_run
from federates.scenario.attack_schema import Published
from grid_models.base.errors import FeederateError

PRE = "pre"
_ROWS = (
    ("import_kw", "Import", "kW", 0),
    ("import_change_kw", "Import, less that before", "kW", 2),
    ("unit_kw", "Grid-forming unit", "kW", 0),
    ("shed_kw", "Critical load shed", "kW", 0),
    ("cost", "Cost, coefficients as bid", "per h", 2),
    ("load_kw", "Load", "kW", 0),
    ("generation_kw", "Generation", "kW", 0),
    ("helper_kw", "Extra generation of one operator", "kW", 0),
    ("nodes_curtailing", "Nodes curtailing", "", 0),
    ("curtailed_min_kw", "Least curtailment of a node", "kW", 2),
    ("curtailed_max_kw", "Largest curtailment of a node", "kW", 2),
    ("nodes_out", "Nodes out", "", 0),
    ("load_min_kw", "Least load supplied", "kW", 0),
    ("nodes_dark", "Nodes without voltage", "", 0),
    ("losses_kw", "Losses", "kW", 1),
    ("node_minutes_out_of_band", "Out of the voltage band", "node-min", 1),
)
_COMPARED = ("import_kw", "cost", "load_kw", "generation_kw")
_ROLES = (
    ("role-out", "lost to the attack"),
    ("role-generating", "generates more (may curtail, too)"),
    ("role-curtailing", "curtails load"),
    ("role-other", "as before"),
)

States = Mapping[str, Mapping[str, Any]]
"""Metered state by name: 'pre', 'attacked', and each defence with and without the attack."""


@dataclass(frozen=True)
class MarketTable:
    """The metered states of paired runs, and which of them could not be metered, and why."""

    states: States
    left_out: Mapping[str, str]


def market_table(runs: Mapping[str, RunData]) -> MarketTable:
    """Return the metered states of paired runs.

    A scenario without a market has those of `supply_states`, where lines or switches opened.

    A run that ended early, or in which the attack never began, leaves the others their places.

    Parameters
    ----------
    runs : mapping of state to RunData
        As `paired_runs.PairedRuns` holds them.
    """
    market = _market(runs)
    states: dict[str, Mapping[str, Any]] = {}
    left_out: dict[str, str] = {}
    if market is None:
        if ATTACKED in runs and "dead_node_hours" in runs[ATTACKED].metrics:
            states, left_out = supply_states({n: r.folder for n, r in runs.items()})
        return MarketTable(states, left_out)
    attacked = runs[ATTACKED].folder
    clean: tuple[Window, Window] | tuple[()] = ()
    for name in (name for name in runs if name != BASELINE):
        try:
            if name.endswith(CLEAN):  # at the time of the attack
                clean = clean or metered_windows(attacked, market)
            windows = clean if name.endswith(CLEAN) else ()
            found = metered_states(attacked, runs[name].folder, *windows, market=market)
        except FeederateError as error:
            left_out[name] = error.what
            if name == ATTACKED:  # nothing to compare the others with
                break
            continue
        if name == ATTACKED:
            states |= {name: state for name, state in found.items() if name != "mitigated"}
        else:
            states[name] = found["mitigated"]
    return MarketTable(states, left_out)


def _market(runs: Mapping[str, RunData]) -> str | None:
    """Return the name of the market's federate."""
    if ATTACKED not in runs:
        return None
    federates = runs[ATTACKED].scenario["federates"]
    names = (name for name, spec in federates.items() if spec.get("controller") in CONTROLLERS)
    return next(names, None)


def market_rows(states: States, published: Published | None = None) -> list[list[str]]:
    """Return the table as text: quantity, unit, one cell per state with its change against pre.

    Figures of a publication follow in brackets.
    """
    if published is not None:
        change = {name: float(state["import_kw"]) for name, state in states.items()}
        states = {
            name: {**state, "import_change_kw": change[name] - change[PRE]}
            for name, state in states.items()
        }
    rows = []
    for key, words, unit, decimals in _ROWS:
        if key not in states[PRE]:
            continue
        cells = []
        found = {} if published is None else {x: published.figure(x, key) for x in states}
        digits = 2 if any(value is not None for value in found.values()) else decimals
        for name, state in states.items():
            text = f"{float(state[key]):,.{digits}f}"
            before = float(states[PRE][key])
            if key in _COMPARED and name != PRE and before:
                text += f"\n({100 * (float(state[key]) / before - 1):+.1f} %)"
            if (value := found.get(name)) is not None:
                text += f"\n[{value:,.{digits}f}]"
            cells.append(text)
        rows.append([words, unit, *cells])
    return rows


def market_section(
    runs: Mapping[str, RunData], states: States, published: Published | None = None
) -> PageSection:
    """Return the part of the page: the table, and per defence the map of who was hit and helped."""
    numbers = range(2, 2 + len(states))
    head = [_metered(published), "", *states]
    rows = market_rows(states, published)
    blocks: list[Block] = [TableBlock(head, rows, numbers, style="compare")]
    maps = [_map(runs, name) for name in states if runs.get(name) and runs[name].shade]
    if figures := [figure for figure in maps if figure is not None]:
        blocks.append(Figures(figures, min(2, len(figures))))
    return PageSection("Before, under attack, mitigated", blocks)


def _map(runs: Mapping[str, RunData], defence: str) -> Drawing | None:
    attacked, market = runs[ATTACKED], _market(runs)
    if market is None:
        return _dark_map(runs[defence], defence)
    plant = scenario_of_run(attacked.folder)[0].plant_of(market)
    feeder = load_run_feeder(attacked, plant)
    if feeder is None:
        return None
    roles = node_roles(attacked.folder, runs[defence].folder, market=market)
    # A bus may have several operators: that one is out says most.
    role_of = {bus: role for role, buses in reversed(roles.items()) for bus in buses}
    words = dict(_ROLES)
    styles = {bus: f"role-{role_of.get(bus, 'other')}" for bus in feeder.buses}
    states = {bus: (style, words[style]) for bus, style in styles.items()}
    return draw_map(f"Who was hit and who helped: {defence}", feeder, states, _ROLES)


def _dark_map(run: RunData, state: str) -> Drawing | None:
    """Return the map of the buses without voltage at the attack's end."""
    plant = next(iter(scenario_of_run(run.folder)[0].plants))
    feeder = load_run_feeder(run, plant)
    if feeder is None:
        return None
    words = {"role-out": "without voltage", "role-other": "supplied"}
    dark = dark_buses(run.folder, plant)
    styles = {bus: "role-out" if bus in dark else "role-other" for bus in feeder.buses}
    states = {bus: (style, words[style]) for bus, style in styles.items()}
    return draw_map(f"At the end of the attack: {state}", feeder, states, tuple(words.items()))


def market_head(states: Sequence[str], published: Published | None = None) -> list[str]:
    """Return the table's head for the terminal."""
    names = (state.replace(CLEAN, f"\n{CLEAN}") for state in states)
    return [_metered(published), "Unit", *names]


def _metered(published: Published | None) -> str:
    words = "As metered on the feeder"
    return words if published is None else f"{words} [{published.source}]"
