"""The function `hosting` of the package `feederate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from federates.runs.options import path_text
from federates.scenario.schema import Scenario
from feederate.functions import Changes, PathLike, load, readable_errors, warn

if TYPE_CHECKING:
    from federates.hosting.study import HostingStudy


def hosting(
    scenario: PathLike | Scenario,
    method: str = "static",
    *,
    placements: int | None = None,
    seed: int | None = None,
    set: Changes | None = None,
    out: PathLike | None = None,
) -> HostingStudy:
    """Ask how much PV, storage and flexible demand a scenario's feeder can take.

    Parameters
    ----------
    scenario : str, Path or Scenario
        As in `load`; its section ``hosting`` says what is added and what has to be kept.
    method : str
        ``"static"``, random placements of PV until a limit is passed; ``"alone"``, each site by
        itself; ``"dynamic"``, PV, batteries, heat pumps and vehicles coordinated over the day;
        ``"stochastic"``, where and how large, for many days at once.
    placements : int, optional
        Random designs, or scenarios of the stochastic method. Default: that of the method.
    seed : int, optional
        Of placements, noise and scenarios. Default: the scenario's.
    set : dict, optional
        Keys to change, as in `load`: ``{"hosting.limits.v_max_pu": 1.06}``.
    out : str or Path, optional
        New folder for tables, ``summary.json`` and a page with a map.

    Returns
    -------
    HostingStudy
        ``summary()`` is what ``feederate hosting --json`` prints; ``tables`` has a DataFrame for
        each table of [hosting-capacity.md](hosting-capacity.md#tables).

    Raises
    ------
    FeederateError
        The input is wrong, no line has a rating, or the feeder passes a limit before anything is
        added.
    """
    from federates.core.run_store import new_run_dir
    from federates.hosting.study import hosting_study
    from federates.reports.hosting import write_study

    chosen = load(scenario, set=set, seed=seed)
    with readable_errors():
        folder = None
        if out is not None:
            folder = new_run_dir("hosting", Path(path_text(out, "out")))
        found = hosting_study(chosen, method, placements=placements)
        if folder is not None:
            write_study(found, folder)
    for note in found.notes:
        warn(note)
    return found
