"""Report of a training: held-out days, shift table, loss, and what the policy is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from federates.reports.blocks import (
    Drawing,
    Figures,
    Page,
    PageSection,
    TableBlock,
    Text,
    Tile,
    Tiles,
)
from federates.reports.page import write_page

if TYPE_CHECKING:
    from federates.training.study import TrainingResult

DAY_HEAD = ("Seed", "Node-h out", "Losses, kWh", "|q|, kvarh", "v min, pu", "v max, pu")
_LIMITS = (
    "One feeder at fixed taps and generated days. The stability bound is that of a linear loop "
    "with symmetric sensitivities; nothing guarantees the band in AC. MADDPG, MASAC and TD3 were "
    "not run."
)
_SHIFT_WORDS = (
    "Node-hours out of the band / losses in kWh / lowest voltage in pu on the first held-out day, "
    "from 05:00 to 19:00 where the run is longer. The tuned droop is volt-var-1547 with one slope, "
    "the best of five on a training day; droop 1547 B is the default curve of the standard. "
    "On another feeder a policy file is refused: train one there."
)
_POINTS = 160


def write_training(result: TrainingResult) -> Path:
    """Write the page of a training beside its policy file."""
    return write_page(result.policy.with_suffix(".html"), _page(result))


def day_rows(result: TrainingResult) -> list[tuple[str, ...]]:
    """Return the held-out days and their mean as cells."""
    days = [(f"{seed}", metrics) for seed, metrics in result.days.items()]
    return [(name, *_day_cells(m)) for name, m in (*days, ("mean", result.held_out))]


def _day_cells(metrics: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{metrics['out_of_band_node_hours']:.3g}",
        f"{metrics['losses_kwh']:.1f}",
        f"{metrics['abs_q_kvarh']:,.0f}",
        f"{metrics['v_min_pu']:.4f}",
        f"{metrics['v_max_pu']:.4f}",
    )


def shift_table(result: TrainingResult, *, low: bool) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the shift table; `low`: cells have the lowest voltage, too."""
    rows = [
        [row.shift, *(_shift_cell(m, low) for m in row.metrics.values())] for row in result.shifts
    ]
    return ["Shift", *result.shifts[0].metrics], rows


def droop_words(result: TrainingResult) -> str:
    """Return the options of the tuned droop in words."""
    full_pu, response_s = result.tuned_droop["curve"][1][0], result.tuned_droop["response_time_s"]
    return (
        f"Tuned droop: full reactive power at {full_pu:g} pu (volt-var-1547 with curve "
        f"{result.tuned_droop['curve']} and response_time_s {response_s:g})."
    )


def _shift_cell(metrics: Mapping[str, float], low: bool) -> str:
    out = metrics["out_of_band_node_hours"]
    cell = f"{out:.0f}" if out >= 100.0 else f"{out:.3g}"
    cell += f" / {metrics['losses_kwh']:.0f}"
    return f"{cell} / {metrics['v_min_pu']:.3f}" if low else cell


def _page(result: TrainingResult) -> Page:
    mean = result.held_out
    tiles = Tiles(
        [
            Tile("Out of band", f"{mean['out_of_band_node_hours']:.3g}", "node-h", "mean of days"),
            Tile("Losses", f"{mean['losses_kwh']:.1f}", "kWh", "mean of days"),
            Tile("Reactive energy", f"{mean['abs_q_kvarh']:,.0f}", "kvarh", "mean of days"),
            Tile("Lowest voltage", f"{mean['v_min_pu']:.4f}", "pu", "all days"),
        ]
    )
    facts = [
        f"feeder {result.feeder}",
        f"{len(result.losses)} updates in {result.training_seconds:.0f} s",
        f"filter gain {result.filter_gain:.3f} = 1/(1 + L)",
        "randomised" if result.randomised else "narrow",
    ]
    head, rows = shift_table(result, low=True)
    numbers = range(1, len(DAY_HEAD))
    sections = [
        PageSection("Held-out days", [TableBlock(DAY_HEAD, day_rows(result), numbers)]),
        PageSection(
            "Shifts",
            [
                Text(f"{_SHIFT_WORDS} {droop_words(result)}"),
                TableBlock(head, rows, range(1, len(head))),
            ],
        ),
        PageSection("Loss of each update", [Figures(list(_curve(result.losses)))]),
        PageSection(
            "Origin",
            [
                TableBlock(("Key", "Value"), [(k, v) for k, v in result.origin.items()], wrap=(1,)),
                Text(_LIMITS),
            ],
        ),
    ]
    notes = [Text(note, "alert", "Note:") for note in result.notes]
    return Page(f"Policy for {result.scenario}", sections, facts, [*notes, tiles])


def _curve(losses: Sequence[float]) -> Iterator[Drawing]:
    """Yield the loss over the updates."""
    at = np.unique(np.linspace(0, len(losses) - 1, _POINTS).astype(np.int64))
    title = "Loss of each update"
    data = {
        "title": title, "x": (at + 1).tolist(), "labels": None, "x_title": "Update", "digits": 3,
        "limits": [], "log": True,
        "bands": [{"name": "loss", "style": "s1", "parts": [
            {"name": "mean", "values": [float(losses[i]) for i in at]}
        ]}],
    }  # fmt: skip
    yield Drawing("sweep-chart", title, [], data, "Loss", "Update")
