"""The function `optimise` of the package `feederate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from federates.runs.options import path_text, several
from feederate.functions import Changes, PathLike, readable_errors, warn

if TYPE_CHECKING:
    import pandas as pd

    from controllers.optimisation.method import Problem
    from federates.optimise.settings import Links


def optimise(
    problem: str | Problem,
    algorithms: str | Sequence[str] | None = None,
    *,
    links: Links | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    seed: int = 0,
    regions: int | Mapping[str, str] | None = None,
    set: Changes | None = None,
    period_s: float | None = None,
    out: PathLike | None = None,
) -> pd.DataFrame:
    """Compare distributed optimisation algorithms on one problem; one row for each.

    Parameters
    ----------
    problem : str or Problem
        ``"dispatch-1000"`` and the like (``feederate list``), the path of a MATPOWER file, or an
        own object of a problem.
    algorithms : sequence of str, optional
        Default: all that can solve the problem.
    links : str, dict, LinkRule or list of them, optional
        Rules as in a scenario, ``{"loss": 0.2, "latency_s": 0.05}``, ``"loss=0.2"``, or a YAML file
        with a key ``links``. Default: perfect links.
    tolerance : float, optional
        Residual at which agents stop, relative. Default: that of each algorithm, 1e-6 or less.
    max_iterations : int, optional
        Iterations after which an algorithm ends. Default: 10,000, for cases 2,000.
    seed : int
        Of the problem's random numbers and of the links.
    regions : int or dict, optional
        Of a case: how many, or the name of each bus's region. Default: its areas where they are
        several and connected, else three.
    set : dict, optional
        Options of algorithms: ``{"admm.penalty_factor": 10}``.
    period_s : float, optional
        Simulated time between two steps of the agents. Default: a tenth of the longest delay of a
        link, 1 ms at least.
    out : str or Path, optional
        New folder for tables and a page.

    Returns
    -------
    DataFrame
        Columns as in [optimisation.md](optimisation.md#columns); `error` says where an algorithm
        failed.

    Raises
    ------
    FeederateError
        An unknown name or option, links or a problem that cannot be used.
    """
    import pandas as pd

    from federates.core.run_store import new_run_dir
    from federates.optimise.compare import compare as make
    from federates.reports.optimise import write_comparison

    with readable_errors():
        folder = None
        if out is not None:
            folder = new_run_dir("optimise", Path(path_text(out, "out")))
        found = make(
            problem,
            None if algorithms is None else several(algorithms, "algorithms"),
            links=links,
            tolerance=tolerance,
            max_iterations=max_iterations,
            seed=seed,
            regions=regions,
            options=set,
            period_s=period_s,
        )
        if folder is not None:
            write_comparison(found, folder)
    for note in found.notes:
        warn(note)
    return pd.DataFrame(found.records())
