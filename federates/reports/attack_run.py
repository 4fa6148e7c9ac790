"""The runs of one ``feederate attack run`` as Python objects."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from federates.errors import UnknownNameError
from federates.reports.paired_runs import PairedRuns
from federates.runs.results import RunFolder
from grid_models.base.errors import nearest_name

if TYPE_CHECKING:
    import pandas as pd


class AttackRun(Mapping[str, RunFolder]):
    """Runs of one scenario with and without an attack, by state: ``baseline``, ``attacked``, ...

    Parameters
    ----------
    folder : str or Path
        As ``feederate attack run`` writes it.

    Attributes
    ----------
    folder : Path
        Absolute.

    Raises
    ------
    ScenarioError
        The folder holds no such runs.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        self._paired = PairedRuns.read(self.folder)
        self._runs = {name: RunFolder(self.folder / name) for name in self._paired.names}

    def __getitem__(self, state: str) -> RunFolder:
        """Return the run of a state.

        Raises UnknownNameError: There is no such state; it is a KeyError, too.
        """
        if state not in self._runs:
            raise UnknownNameError(
                f"no state is called '{state}'",
                where=str(self.folder),
                expected=f"one of {', '.join(self)}",
                nearest=nearest_name(state, self),
            )
        return self._runs[state]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per metric, units in its name, and one column per state.

        Beside the metrics of each run: those of the attack's window, and the time to recover.
        """
        import pandas as pd

        return pd.DataFrame(self._paired.metrics).reindex(self._paired.keys)

    @cached_property
    def detectors(self) -> pd.DataFrame:
        """What each detector saw of each step of the attack, in each state; may be empty."""
        import pandas as pd

        rows = [{"state": s, **row} for s, rows in self._paired.detectors.items() for row in rows]
        return pd.DataFrame(rows)

    @property
    def remarks(self) -> list[str]:
        """What the numbers do not say: steps that never began, states that failed."""
        return self._paired.remarks()

    @property
    def report(self) -> Path | None:
        """The page that compares the states, if it was written."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    def __repr__(self) -> str:
        return f"<attack '{self._paired.spec.id}' on {self._paired.scenario}: {', '.join(self)}>"

    def _repr_html_(self) -> str:
        """Return the table of metrics, for notebooks."""
        title = html.escape(f"{self._paired.spec.title} on {self._paired.scenario}")
        return f"<div><b>{title}</b>{self.metrics.to_html()}</div>"
