"""``feederate market certify``: a lower bound of what a run's market could have cost."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from federates.commands.options import print_json
from federates.commands.terminal import messages, output
from federates.errors import ScenarioError
from federates.reports.market_certificate import CertifiedInterval, as_data, certified_interval


def certify_command(
    folder: Path, interval: int | None, time_s: float | None, *, as_json: bool
) -> None:
    """Print the certificate of an interval of a run."""
    if interval is not None and time_s is not None:
        raise ScenarioError(
            "both --interval and --time", where="market certify", expected="one of them"
        )
    with messages().status("Relaxing and solving ..."):
        found = certified_interval(folder, interval, time_s)
    if as_json:
        print_json(as_data(found))
    else:
        _print(found)


def _print(found: CertifiedInterval) -> None:
    rows = {
        "market": f"{found.market}, clearing {found.clearing}, interval {found.interval} "
        f"(to {found.time_s:g} s)",
        "cost": f"{found.cost:.6g} per hour, as cleared",
        "lower bound": f"{found.lower_bound:.6g} per hour: no dispatch costs less",
        "gap": f"{found.gap:.1e} of the cost",
        "rank ratio": f"{found.rank_ratio:.1e}, largest at bus {found.rank_at} "
        "(0: the bound is the optimum)",
        "set-points": f"{found.set_points_cost:.6g} per hour, gap {found.set_points_gap:.1e}",
        "replay": f"import {found.import_kw:.2f} kW (schedule of the run "
        f"{found.recorded_import_kw:.2f} kW), voltages off by {found.replay_pu:.0e} pu",
    }
    console = output()
    for name, text in rows.items():
        console.print(f"{name:<12} {escape(text)}", soft_wrap=True, highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True, highlight=False)
