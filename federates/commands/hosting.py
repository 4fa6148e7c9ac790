"""``feederate hosting``: one study, its figures, its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federates.commands.options import print_json
from federates.commands.terminal import clean_stdout, messages, output, print_table
from federates.core.run_store import new_run_dir
from federates.hosting.referee import limit_words
from federates.hosting.study import HostingStudy, hosting_study
from federates.runs.options import RunOptions

_SHOWN = 12
_STATISTICS = ("mean", "sd", "min", "median", "max")


def hosting_command(
    options: RunOptions, *, method: str, placements: int | None, as_json: bool
) -> None:
    """Make a study, print it and write the folder."""
    from federates.reports.hosting import write_study

    console = messages()
    with clean_stdout(as_json):
        scenario = options.load()
        folder = None if options.out is None else new_run_dir("hosting", options.out)
        found = hosting_study(scenario, method, placements=placements)
        page = None if folder is None else write_study(found, folder)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        print_json(found.summary())
    else:
        _print(found, page)


def _print(found: HostingStudy, page: Path | None) -> None:
    console, summary = output(), found.summary()
    console.print(
        f"{summary['scenario']}, {summary['method']}: {summary['hc_kw']['n']} of "
        f"{summary['designs']} designs",
        markup=False,
    )
    for key, unit in (("hc_kw", "kW"), ("hc_pct", "% of the peak in kVA")):
        console.print(f"  {_statistics(summary[key])} {unit}", markup=False)
    rows = [
        [limit_words(row["limit"], row["element"], row["hour"]), str(row["designs"])]
        for row in summary["limiting"][:_SHOWN]
    ]
    print_table(console, ("ends at", "designs"), rows, (1,))
    for replay in found.replays:
        console.print(str(replay), markup=False, soft_wrap=True)
    if page is not None:
        console.print(f"page    {page}", markup=False, soft_wrap=True)


def _statistics(found: Mapping[str, Any]) -> str:
    known = [(name, found[name]) for name in _STATISTICS if found[name] is not None]
    return ", ".join(f"{name} {value:.1f}" for name, value in known) or "no figure"
