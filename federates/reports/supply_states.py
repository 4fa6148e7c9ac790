"""Metered states of an attack that opens lines or switches, where the scenario has no market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.reports.market_states import Window, attack_spans
from federates.runs.data import live_voltages
from federates.runs.paired import ATTACKED, BASELINE, CLEAN
from federates.runs.replay import scenario_of_run
from grid_models.base.errors import FeederateError

# Before the attack twice, and at its end three times as long.
_PERIOD_S = 20.0


@dataclass(frozen=True)
class SupplyState:
    """One state of the feeder: means over a window, and extremes since the attack's begin.

    Attributes
    ----------
    load_kw : Import and generation less losses.
    load_min_kw : The lowest since the attack began (``pre``: in the window).
    nodes_dark : Most nodes without voltage at any time of the window.
    v_min_pu, v_max_pu : Extremes of all other nodes since the attack began.
    """

    import_kw: float
    load_kw: float
    generation_kw: float
    losses_kw: float
    load_min_kw: float
    nodes_dark: int
    v_min_pu: float
    v_max_pu: float


def supply_states(
    folders: Mapping[str, Path],
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return the states ``pre``, ``attacked`` and one per defence, and what could not be metered.

    Parameters
    ----------
    folders : Run folder of each state, as `paired.states_of` names them. A scenario with several
        plants has no such table.
    """
    states: dict[str, Mapping[str, Any]] = {}
    left_out: dict[str, str] = {}
    plants = scenario_of_run(folders[ATTACKED])[0].plants
    if len(plants) != 1:
        return states, left_out
    feeder = next(iter(plants))
    for name in (name for name in folders if name != BASELINE):
        run = folders[name]
        try:
            before, during = attack_spans(
                folders[ATTACKED] if name.endswith(CLEAN) else run, _PERIOD_S
            )
            if name == ATTACKED:
                states["pre"] = asdict(_state(run, feeder, before, before))
            since = (before[1], during[1])
            states[name] = asdict(_state(run, feeder, during, since))
        except FeederateError as error:
            left_out[name] = error.what
            if name == ATTACKED:
                break
    return states, left_out


def dark_buses(run: Path, feeder: str) -> set[str]:
    """Return the buses with a node without voltage at the end of a run's attack."""
    _, (begin, end) = attack_spans(run, _PERIOD_S)
    time_s, labels, v_pu = read_signal(run / "signals", f"{feeder}.v_pu")
    last = v_pu[(time_s >= begin) & (time_s < end)][-1]
    dark = np.flatnonzero(np.isnan(live_voltages(last)))
    return {labels[i].rpartition(".")[0] for i in dark}


def _state(run: Path, feeder: str, window: Window, since: Window) -> SupplyState:
    def rows(port: str, span: Window) -> FloatArray:
        try:
            time_s, _, values = read_signal(run / "signals", f"{feeder}.{port}")
        except FileNotFoundError as error:
            raise ScenarioError(
                f"no signal '{feeder}.{port}' is recorded", where=str(run)
            ) from error
        return values[(time_s >= span[0]) & (time_s < span[1])]

    def powers(span: Window) -> tuple[FloatArray, FloatArray, FloatArray]:
        p_kw = rows("p_kw", span)
        imported, losses = rows("import_kw", span)[:, 0], rows("losses_kw", span)[:, 0]
        generated = np.maximum(p_kw, 0.0).sum(axis=1)
        return imported, generated, losses

    imported, generated, losses = powers(window)
    if not imported.size:
        raise ScenarioError("nothing was recorded in the window", where=str(run))
    later = powers(since)
    live = live_voltages(rows("v_pu", since))
    dark = np.isnan(live_voltages(rows("v_pu", window))).sum(axis=1)
    return SupplyState(
        import_kw=float(imported.mean()),
        load_kw=float((imported + generated - losses).mean()),
        generation_kw=float(generated.mean()),
        losses_kw=float(losses.mean()),
        load_min_kw=float((later[0] + later[1] - later[2]).min()),
        nodes_dark=int(dark.max()),
        v_min_pu=float(np.nanmin(live)),
        v_max_pu=float(np.nanmax(live)),
    )
