"""The attack on a run's page: its steps, its windows, what it changed, what to look for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from federates.attacks.labels import attack_windows
from federates.attacks.truth import read_truth
from federates.core.signals import numpy_column, read_signal
from federates.reports import attack_words as words
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.chart import Chart, ShadedBand, in_rows
from federates.reports.format import clock, metric_unit, with_unit
from federates.runs.data import RunData, Spread
from federates.scenario.attack_actions import RECORDED
from federates.scenario.attack_schema import AttackSpec, Step

_CHARTS = 4


def attack_of(run: RunData) -> AttackSpec | None:
    """Return the attack of a run as its manifest holds it; None without one."""
    data = run.scenario.get("attack")
    if not isinstance(data, dict):
        return None
    try:
        return AttackSpec.model_validate(data, context={RECORDED: True})
    except ValidationError:  # written by another version
        return None


def attack_section(run: RunData) -> Iterator[PageSection]:
    """Show the attack of a run; nothing for a run without one."""
    spec = attack_of(run)
    if spec is None:
        return
    truth = read_truth(run.folder)
    blocks: list[Block] = [*about(spec), steps_table(run, spec, truth)]
    if charts := truth_charts(run, truth):
        blocks.append(in_rows(charts, 2))
    kind = "Disturbance" if spec.kind == "disturbance" else "Attack"
    yield PageSection(f"{kind}: {spec.title or spec.id}", blocks)


def about(spec: AttackSpec) -> list[Block]:
    """Return an attack's description and its techniques."""
    texts = [" ".join(spec.description.split())] if spec.description else []
    if spec.techniques:
        names = ", ".join(words.techniques(spec))
        texts.append(f"MITRE ATT&CK for ICS {spec.attack_version}: {names}")
    return [Text(text) for text in texts]


def steps_table(run: RunData, spec: AttackSpec, truth: Any) -> TableBlock:
    """Return the steps with what they did and when they did it."""
    windows = {step: (begin, end) for step, begin, end in attack_windows(run.folder)}
    counts = Counter(truth.column("step").to_pylist())
    head = ["Step", "Layer", "At work", "Target", "Does", "Shown instead", "Values affected"]
    rows = [
        [
            step.id,
            step.layer,
            _at_work(windows.get(step.id), run.start_s),
            target(step),
            words.does(step),
            "; ".join(f"{c.port}: {words.shows(c)}" for c in step.conceal),
            f"{counts.get(step.id, 0):,}",
        ]
        for step in spec.steps
    ]
    if not any(row[5] for row in rows):
        for row in (head, *rows):
            del row[5]
    return TableBlock(head, rows, numbers=(len(head) - 1,), wrap=(3, 4, 5))


def _at_work(window: tuple[float, float] | None, start_s: float) -> str:
    if window is None:
        return "never began"
    begin, end = window
    until = "the end" if np.isinf(end) else clock(round(end) + start_s)
    return f"{clock(round(begin) + start_s)} to {until}"


def target(step: Step) -> str:
    """Return what a step aims at, as its file says."""
    of = step.target
    share = ""
    if of.fraction is not None:
        share = f", {of.fraction:.0%} of them"
    elif of.count is not None:
        share = f", {of.count} of them"
    if of.port is not None:
        labels = "" if of.labels == ["*"] else f": {', '.join(of.labels)}"
        return f"{of.port}{labels}{share}"
    for kind in ("links", "agents", "devices", "elements"):
        globs = getattr(of, kind)
        if globs is not None:
            return f"{kind} {', '.join(globs)}{share}"
    return share


def truth_charts(run: RunData, truth: Any, clean: RunData | None = None) -> list[Chart]:
    """Return, for each step and port, how the changed values were and how they were seen.

    `clean`: the run without attack, whose values of the same elements are drawn behind them.
    """
    if not truth.num_rows:
        return []
    # Compute functions of Arrow would import pandas.
    keys = (truth[key].to_pylist() for key in ("step", "federate", "port"))
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, group in enumerate(zip(*keys, strict=True)):
        groups.setdefault(group, []).append(row)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))
    charts = (_truth_chart(run, truth, group, rows, clean) for group, rows in largest)
    return [chart for chart in charts if chart is not None][:_CHARTS]


def _truth_chart(
    run: RunData,
    truth: Any,
    group: tuple[str, str, str],
    rows: Sequence[int],
    clean: RunData | None,
) -> Chart | None:
    step, federate, port = group
    time_s, true, seen = (
        numpy_column(truth[name].combine_chunks())[rows]
        for name in ("time_s", "true_value", "seen_value")
    )
    bands = [
        ShadedBand("as it was", _spread(time_s, true), "s4"),
        ShadedBand("as it was seen", _spread(time_s, seen), "s2"),
    ]
    if any(np.count_nonzero(np.isfinite(b.spread.mid)) < 2 for b in bands):
        return None
    every = truth["label"].to_pylist()
    labels = list(dict.fromkeys(every[row] for row in rows))
    if clean is not None:
        bands = [*_unattacked(clean, f"{federate}.{port}", labels), *bands]
    which = f"{len(labels)} {'links' if port == 'mail' else 'labels'}"
    which = labels[0] if len(labels) == 1 else which
    return Chart(
        f"{step}: {which} of {federate}.{port}",
        with_unit(port, metric_unit(port)),
        bands,
        start_s=run.start_s,
        digits=4 if port.endswith("_pu") else None,
    )


def _unattacked(run: RunData, name: str, labels: Sequence[str]) -> list[ShadedBand]:
    """Return the values of some elements of a signal in the run without attack."""
    if not run.has(name):
        return []
    time_s, known, values = read_signal(run.signals, name)
    at = [known.index(label) for label in labels if label in known]
    if not at:
        return []
    times = np.repeat(time_s, len(at))
    return [ShadedBand("without attack", _spread(times, values[:, at].ravel()), "phase-other")]


def _spread(time_s: Any, values: Any) -> Spread:
    """Return smallest, median and largest value at each time; NaN where nothing was seen."""
    times, at = np.unique(time_s, return_inverse=True)
    low, mid, high = (np.full(len(times), np.nan) for _ in range(3))
    good = np.isfinite(values)
    order = np.lexsort((values, at))
    order = order[good[order]]
    rows, first, count = np.unique(at[order], return_index=True, return_counts=True)
    ordered = values[order]
    low[rows] = ordered[first]
    mid[rows] = ordered[first + count // 2]
    high[rows] = ordered[first + count - 1]
    return Spread(times, low, mid, high)
