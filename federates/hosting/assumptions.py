"""What decides a hosting capacity beside the method: said with every result."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from federates.hosting.case import HostingCase
from grid_models.base.errors import listed
from grid_models.feeder.ratings import SHIPPED_RATINGS


def limits_of(case: HostingCase) -> dict[str, Any]:
    """Return the limits; None is one that is off."""
    return asdict(case.whole.limits)


def assumptions(case: HostingCase) -> dict[str, Any]:
    """Return what the result depends on, as plain data."""
    model, section, day = case.whole, case.section, case.day
    feeder, grid = day.circuit.feeder, day.site.grid
    there = feeder.ders[: len(feeder.ders) - len(model.sites)]
    peak = int(np.abs(model.demand_kva).argmax())
    acting = case.acting is not None
    return {
        "feeder": feeder.name,
        "model": section.model,
        "source_v_pu": day.circuit.source_v_pu,
        "taps": day.circuit.tap_steps(),
        "regulators": f"fixed at the base case of {case.held_h:g} h for the search, acting in "
        "a replay"
        if acting
        else "fixed",
        "capacitors_kvar": {
            f"{bank.name} at {bank.bus}": bank.kvar for bank in feeder.capacitors if bank.closed
        },
        "ratings": ratings_words(case),
        "unrated_lines": len(unrated_lines(case)),
        "power_factor": section.power_factor,
        "peak_kva": model.base_kva,
        "peak_hour": float(model.hours[peak]),
        "load_scale": grid.load_scale,
        "day": grid.profiles.path or grid.profiles.kind,
        "steps": len(model.hours),
        "step_h": model.step_h,
        "batteries_already": section.batteries,
        "steps_left_out": model.hours[~case.kept].tolist(),
        "sites": len(model.sites),
        "at": section.at,
        "unit_kw": list(section.unit_kw),
        "ders_already": {
            kind: {"count": n, "kva": sum(der.kva for der in there if der.kind == kind)}
            for kind, n in Counter(der.kind for der in there).items()
        },
    }


def ratings_words(case: HostingCase) -> str:
    """Say where the ratings of lines are from."""
    given = case.day.site.grid.ratings
    if case.whole.limits.line_pu is None:
        return "not used"
    if given is None:
        return "of the feeder's file"
    return f"{given}: {SHIPPED_RATINGS[given]}" if given in SHIPPED_RATINGS else given


def unrated_lines(case: HostingCase) -> list[str]:
    """Return the lines without a rating; no current limits them."""
    return [line.name for line in case.day.circuit.feeder.lines if not line.norm_amps]


def base_case(case: HostingCase) -> dict[str, Any]:
    """Return the extremes of the day without any unit added, at the steps that are searched."""
    model = case.model
    flow, nodes = model.flow(), model.feeder.network.nodes
    v_pu = np.where(np.abs(model.feeder.network.w) > 0.0, flow.v_pu, np.nan)
    found: dict[str, Any] = {"feasible": True, "peak_kva": case.whole.base_kva}
    for name, pick in (("v_max_pu", np.nanargmax), ("v_min_pu", np.nanargmin)):
        t, k = divmod(int(pick(v_pu)), len(nodes))
        found[name] = float(v_pu[t, k])
        found[f"{name}_at"] = f"{nodes[k]} at {model.hours[t]:g} h"
    if flow.loading.size:
        t, k = divmod(int(flow.loading.argmax()), flow.loading.shape[1])
        found["loading_max_pct"] = 100.0 * float(flow.loading[t, k])
        found["loading_max_pct_at"] = f"{model.feeder.network.lines[k]} at {model.hours[t]:g} h"
    return found


def case_notes(case: HostingCase) -> tuple[str, ...]:
    """Return what of the case the reader of the figures must know."""
    notes = list(case.day.circuit.feeder.notes)
    model = case.whole
    unrated = unrated_lines(case)
    # Of a table of ratings the feeder's own notes say it.
    if unrated and model.limits.line_pu is not None and case.day.site.grid.ratings is None:
        notes.append(
            f"{len(unrated)} lines have no rating, so no current limits them: {listed(unrated, 4)}"
        )
    if case.acting is not None:
        notes.append(
            "the regulators of the scenario act; the search holds the taps that they choose in the "
            f"base case of {case.held_h:g} h, and switched capacitors, and OpenDSS replays the "
            "designs with regulators and capacitors that act"
        )
    if not case.kept.all():
        left = ", ".join(f"{h:g}" for h in model.hours[~case.kept])
        notes.append(
            "at those taps the base case passes a limit at some hours, which the search leaves "
            f"out; with regulators that act it does not: {left} h"
        )
    feeder = case.day.circuit.feeder
    there = feeder.ders[: len(feeder.ders) - len(model.sites)]
    if case.section.batteries == "discharging" and not any(x.kind == "battery" for x in there):
        notes.append("hosting.batteries is discharging, and there is no battery on the feeder")
    if there:
        notes.append(
            f"{len(there)} DERs are on the feeder already; they stay and are no part of the "
            "hosting capacity"
        )
    curves = sum(x.volt_var is not None for x in there)
    if curves:
        notes.append(
            f"volt-var curves of {curves} DERs on the feeder do not act in a study; their reactive "
            "power is 0"
        )
    return tuple(notes)
