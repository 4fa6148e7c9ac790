"""A run's folder as Python objects: metrics, and every table as a pandas DataFrame.

Works on runs that failed, were killed or still go on: what is readable is read. pandas is imported
when a table is.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federates.core.signals import STREAM, TABLE, read_batches
from federates.errors import ScenarioError, UnknownNameError
from federates.runs.data import RunData
from federates.runs.options import path_text
from grid_models.base.errors import listed, nearest_name

if TYPE_CHECKING:
    import pandas as pd

TIME, CSV = "time_s", ".csv"
# Columns of the grid's tables that are text, also where all buses are called by numbers.
_NAMES = ("bus", "from_bus", "to_bus", "element", "load", "der", "capacitor", "label", "phases")
_SHOWN_METRICS = 8
_ATTRS = b"PANDAS_ATTRS"


class Tables(Mapping[str, "pd.DataFrame"]):
    """The tables of a folder by name, each read when it is first asked for and then kept.

    A DataFrame with a column ``time_s`` is indexed by it. Its ``attrs`` are what the file says of
    itself: tables of an attack give unit, seed and the legend of the step numbers.

    Parameters
    ----------
    folder : Path
        It need not exist: then there are no tables.
    what : What one of the tables is called in messages.
    """

    def __init__(self, folder: Path, what: str = "signal") -> None:
        self.folder, self._what = folder, what
        self._read: dict[str, pd.DataFrame] = {}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        # A whole table wins over the stream that it was made from.
        paths = sorted(p for s in (STREAM, TABLE, CSV) for p in self.folder.rglob(f"*{s}"))
        return {
            path.relative_to(self.folder).as_posix().removesuffix(path.suffix): path
            for path in sorted(paths, key=lambda path: path.suffix == TABLE)
        }

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return a table.

        Raises UnknownNameError: There is none of that name; it is a KeyError, too.
        """
        if name not in self._read:
            table = self.arrow(name)
            frame = table.to_pandas()
            frame = frame.set_index(TIME) if TIME in frame.columns else frame
            frame.attrs = json.loads((table.schema.metadata or {}).get(_ATTRS, b"{}"))
            self._read[name] = frame
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"<{self.folder}: {listed(list(self)) or 'no tables'}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def arrow(self, name: str) -> Any:
        """Return a table as a `pyarrow.Table`, with ``time_s`` as its first column.

        Of a run that was killed: the steps up to its last write.

        Raises UnknownNameError: There is none of that name.
        """
        import pyarrow as pa

        path = self._paths.get(name)
        if path is None:
            known = listed(list(self))
            raise UnknownNameError(
                f"no {self._what} is called '{name}'",
                where=str(self.folder),
                expected=f"one of {known}" if known else "a run with such tables",
                nearest=nearest_name(name, self),
            )
        try:
            if path.suffix == TABLE:
                import pyarrow.parquet as pq

                return pq.read_table(path)
            if path.suffix == CSV:
                from pyarrow import csv

                text = csv.ConvertOptions(column_types=dict.fromkeys(_NAMES, pa.string()))
                return csv.read_csv(path, convert_options=text)
            batches = list(read_batches(path))
            schema = batches[0].schema if batches else pa.schema([(TIME, pa.float64())])
            return pa.Table.from_batches(batches, schema)
        except (pa.ArrowException, OSError) as error:
            raise ScenarioError(f"cannot be read: {error}", where=str(path)) from error


class RunFolder:
    """A run: its metrics and its tables, read from its folder.

    Parameters
    ----------
    folder : str or Path
        As ``feederate run`` writes it.

    Attributes
    ----------
    folder : Path
        Absolute, so that a notebook may change its folder.
    manifest : dict
        ``manifest.json``: the whole scenario, versions, seed, how the run ended.
    summary : dict
        ``summary.json``: status, steps, seconds, metrics; empty for a run that was killed.
    signals : Tables
        ``FEDERATE.PORT`` to a DataFrame, one column per label, indexed by ``time_s``.
    labels : Tables
        Beside each signal, which values an attack changed; empty without an attack.
    seen : Tables
        Attacked signals as their deceived readers saw them; empty without an attack.
    grid : Tables
        The grid: ``buses``, ``branches``, ``loads``, ``ders``, ...; ``PLANT/buses`` of several.

    Raises
    ------
    ScenarioError
        The folder holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = _run_folder(Path(path_text(folder, "folder")).absolute())
        self._data = RunData(self.folder)
        self.manifest: dict[str, Any] = self._data.manifest
        self.summary: dict[str, Any] = self._data.summary
        self.signals = Tables(self.folder / "signals")
        self.labels = Tables(self.folder / "labels", "label table")
        self.seen = Tables(self.folder / "seen", "table of seen values")
        self.grid = Tables(self.folder / "grid", "grid table")

    @property
    def title(self) -> str:
        """Title of the scenario, or its name."""
        return self._data.title

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``interrupted`` or ``not finished`` (killed, or still on)."""
        return self._data.status

    @property
    def reason(self) -> str:
        """Why the run did not finish; empty when it did."""
        return self._data.reason

    @property
    def metrics(self) -> dict[str, float | None]:
        """The run's metrics, units in the keys; empty when it was killed."""
        return self._data.metrics

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events of the run in order: ``time_s``, ``federate``, ``event`` and their details."""
        import pandas as pd

        first = [TIME, "federate", "event", "wall"]
        frame = pd.DataFrame(self._data.events())
        return frame.reindex(columns=[*first, *(c for c in frame.columns if c not in first)])

    @property
    def report(self) -> Path | None:
        """The report page, if it was written."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    def __repr__(self) -> str:
        steps = self.summary.get("steps", self.manifest.get("steps"))
        return f"<run '{self.title}': {self.status}, {steps} steps, in {self.folder}>"

    def _repr_html_(self) -> str:
        """Return title, status, the first metrics and a link to the report, for notebooks."""
        metrics, escape = list(self.metrics.items()), html.escape
        how = f"{self.status}: {self.reason}" if self.reason else self.status
        parts = [f"<b>{escape(self.title)}</b> ({escape(how)})<table>"]
        for key, value in metrics[:_SHOWN_METRICS]:
            number = "-" if value is None else f"{value:,.6g}"
            parts.append(f"<tr><td>{escape(key)}</td><td>{number}</td></tr>")
        parts.append("</table>")
        if len(metrics) > _SHOWN_METRICS:
            parts.append(f"<p>{len(metrics) - _SHOWN_METRICS} more in <code>metrics</code></p>")
        if self.report is not None:
            page = escape(os.path.relpath(self.report))
            parts.append(f"<p><a href='{page}'>{page}</a></p>")
        return f"<div>{''.join(parts)}</div>"


def _run_folder(folder: Path) -> Path:
    """Return the folder of a run, given it, a folder or file in it."""
    for place in (folder, folder.parent):
        if (place / "manifest.json").is_file():
            return place
    if not folder.exists():
        raise ScenarioError("no such folder", where=str(folder), expected="the folder of a run")
    runs = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    raise ScenarioError(
        "not the folder of a run" + (f", but of {len(runs)}" if runs else ""),
        where=str(folder),
        expected=f"one of its folders: {listed(runs)}"
        if runs
        else "a folder with a manifest.json, as 'feederate run' writes it",
    )
