"""A sweep: one scenario at the points of a grid or table, each with the same seeds.

| in the sweep's folder | |
| --- | --- |
| ``sweep.json`` | scenario, keys, points, seeds, and hashes of the files that decide |
| ``runs/00012/`` | a run; it is done when its ``row.json`` is there |
| ``results.parquet`` | a row per run, in the order of the plan: the same bytes anywhere |
| ``timings.parquet`` | a row per run: wall and stepping time, host, process |
| ``sweep.html`` | one page |
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import html
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from federates.core.run_store import new_run_dir, package_versions, write_json
from federates.errors import ScenarioError
from federates.runs.options import RunOptions
from federates.runs.parallel import at_a_time
from federates.runs.results import RunFolder
from federates.runs.sweep_job import ROW, Keep
from federates.runs.sweep_plan import SweepPlan, fingerprint, make_plan
from federates.runs.sweep_pool import prepare, release
from federates.runs.sweep_tables import read_tables, write_tables
from federates.runs.sweep_values import read_table, table_of
from federates.runs.sweep_workers import local, on_dask
from federates.scenario.overrides import override_words
from federates.scenario.schema import Scenario, find_scenario
from grid_models.base.yaml_lines import parse_yaml

if TYPE_CHECKING:
    import pandas as pd

PLAN, RUNS, LOG = "sweep.json", "runs", "workers.log"
_SAVE_S = 10.0


@dataclass
class SweepProgress:
    """How far a sweep is; given to `on_progress` at the start and after each run.

    Attributes
    ----------
    total, done, failed : Runs of the plan, those that have ended (before, too), those that failed.
    began_with : Runs that were done when this part of the sweep began.
    bytes_per_run : Mean size on the disk of the runs that ended so far; 0 before the first.
    """

    total: int
    done: int = 0
    failed: int = 0
    began_with: int = 0
    bytes_per_run: float = 0.0


@dataclass(frozen=True)
class SweepResult:
    """A sweep, whole or as far as it came."""

    folder: Path
    plan: SweepPlan = field(repr=False)

    @cached_property
    def results(self) -> pd.DataFrame:
        """A row per run: overrides, seed, status, reason, metrics, folder, times."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("run")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `results` as plain data; None where there is no value."""
        return read_tables(self.folder)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The rows of the runs that failed."""
        return [row for row in self.rows if row["status"] != "finished"]

    def run(self, i: int) -> RunFolder:
        """Return run `i`; it has signals where these were kept.

        Raises ScenarioError: There is no such run, or it has not ended.
        """
        folder = run_folder(self.folder, i)
        if not (folder / ROW).is_file():
            raise ScenarioError(
                f"no run {i} that has ended", where=str(self.folder),
                expected=f"a number from 0 to {len(self.plan) - 1}",
            )  # fmt: skip
        return RunFolder(folder)

    def _repr_html_(self) -> str:
        shown = self.results.dropna(axis=1, how="all").head(20)
        page = html.escape(str(self.folder))
        text = f"{len(self.results)} of {len(self.plan)} runs, {len(self.failures)} failed: {page}"
        return f"<p>{text}</p>{shown.to_html()}"


def run_folder(folder: Path, i: int) -> Path:
    """Return the folder of run `i` of the sweep in `folder`."""
    return folder / RUNS / f"{i:05d}"


def sweep(
    scenario: str | Path | Scenario,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    table: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    steps: int | None = None,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: str | None = None,
    keep: Keep = "summary",
    attack: str | None = None,
    defence: str | None = None,
    retry: bool = False,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> SweepResult:
    """Run a scenario at every point of a grid or table, with the same seeds at each.

    The same call with the same folder goes on where an earlier one ended, however it ended.

    Parameters
    ----------
    scenario : Path, the name of a shipped scenario, or a scenario as it was loaded.
    grid : Values of each key, ``{"grid.load_scale": [0.8, 1.0]}``; all combinations are run.
    table : CSV file, DataFrame or list of mappings: a key per column, a point per row; with a
        grid, each row with each of its combinations.
    seeds : A count (the scenario's seed and those after it) or the seeds. Default: the scenario's.
    steps : Stop each run after this many feeder steps.
    set : Overrides that all runs share, dotted or nested.
    out : Folder of the sweep. Default: ``runs/sweep-NAME-TIME``.
    workers : Processes of this machine; default: one per core, one in all if runs would share a
        device or the wall clock.
    dask : Address of the scheduler of a Dask cluster, in place of local processes.
    keep : What is kept of each run: 'summary' (summary, manifest, events) or 'signals' (also
        signals, labels and grid). Of a run that failed, all that it left.
    attack, defence : As in `federates.runs.options.RunOptions`.
    retry : Make failed runs of an earlier part again.
    on_progress : Called at the start and after each run.

    Raises ScenarioError: The input is wrong, or `out` holds another sweep; nothing was started.
    Raises KeyboardInterrupt: The user stopped it; what has ended is kept and the folder complete.
    """
    shared = override_words(set or {})
    if isinstance(scenario, Scenario):
        given = scenario.given
        shared, scenario = (*given.overrides, *shared), given.path
        attack = given.attack if attack is None else attack
        defence = given.defence if defence is None else defence
        if seeds is None and given.seed is not None:
            seeds = [given.seed]
    options = RunOptions(steps=steps, attack=attack, defence=defence)
    if grid is not None and not isinstance(grid, Mapping):
        raise ScenarioError(
            f"is a {type(grid).__name__}", where="grid", expected="a dict: {key: [value, value]}"
        )
    pairs = (word.partition("=") for word in shared)
    axes = {**{key: [parse_yaml(text)[0]] for key, _, text in pairs}, **(grid or {})}
    rows, name = None, "table"
    if isinstance(table, (str, Path)):
        rows, name = read_table(Path(table)), str(table)
    elif table is not None:
        rows = table_of(table)
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ScenarioError(f"{workers!r} workers", where="workers", expected="at least 1")
    if keep not in get_args(Keep):
        raise ScenarioError(f"found {keep!r:.60}", where="keep", expected="'summary' or 'signals'")
    try:
        if dask is None:
            prepare(workers or len(os.sched_getaffinity(0)))
        plan, first = make_plan(scenario, axes, rows, seeds, options, name)
        _refuse_programs(first)
        folder = _open(out, plan, fingerprint(plan, first), keep, first.name)
        with _locked(folder):
            done = _finished_rows(folder, len(plan), retry)
            left = [i for i in range(len(plan)) if i not in done]
            jobs = [_job(plan, keep, folder, i, dask is not None) for i in left]
            n = workers or at_a_time(first)
            made = on_dask(jobs, dask) if dask else local(jobs, n, folder / LOG)
            _collect(folder, plan, done, made, on_progress)
    finally:
        release()
    return SweepResult(folder, plan)


def read_sweep(folder: str | Path) -> SweepResult:
    """Open a sweep that was made before.

    Raises ScenarioError: `folder` holds none.
    """
    data = _read_plan(Path(folder))["plan"]
    for key in ("keys", "points", "seeds"):
        data[key] = tuple(data[key])
    return SweepResult(Path(folder), SweepPlan(**data))


def _refuse_programs(scenario: Scenario) -> None:
    for name, section in scenario.federates.items():
        if section.kind == "external":
            raise ScenarioError(
                f"'{name}' is a HELICS program; the runs of a sweep have no HELICS",
                where=scenario.where("federates", name),
                expected="federates of this package or of your own",
            )


# -- the folder ----------------------------------------------------------------------------------


def _open(
    out: str | Path | None, plan: SweepPlan, hashes: Mapping[str, str], keep: Keep, name: str
) -> Path:
    """Return the folder of a new sweep, or of the same one, made before.

    Raises ScenarioError: It holds something else, or another sweep.
    """
    now: dict[str, Any] = {
        "format": 1,
        "plan": plan.as_data(),
        "keep": keep,
        "hashes": dict(hashes),
        "versions": package_versions(),
    }
    if out is None or not (Path(out) / PLAN).is_file():
        folder = None if out is None else Path(out)
        if (
            folder is not None
            and folder.exists()
            and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise ScenarioError(
                "holds no sweep", where=str(folder),
                expected=f"a new or empty folder, or one with {PLAN}",
            )  # fmt: skip
        folder = new_run_dir(f"sweep-{name}", folder)
        write_json(folder / PLAN, now)
        return folder
    folder = Path(out)
    before = _read_plan(folder)
    for what, old, new in _differences(before, now):
        raise ScenarioError(
            f"holds another sweep: {what} was {_short(old)}, is {_short(new)}",
            where=str(folder),
            expected="the same sweep to go on with, or a new folder",
        )
    return folder


def _read_plan(folder: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        _ = data["plan"]["points"], data["hashes"]
    except FileNotFoundError:
        raise ScenarioError(
            "holds no sweep", where=str(folder), expected=f"a folder with {PLAN}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"cannot be read ({error})", where=str(folder / PLAN)) from None
    return data


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (what, before, now) of what is not equal, the plan first."""
    for key in dict.fromkeys((*now, *before)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{path}{key} ")
        elif old != new:
            names = {"points": "the grid", "hashes scenario": "the scenario's hash"}
            what = key if path == "plan " else f"{path}{key}"
            yield names.get(what, what.replace("hashes ", "the hash of ")), old, new


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock ends with it, however that ends."""
    handle = os.open(folder / PLAN, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ScenarioError("another process works on this sweep", where=str(folder)) from None
        yield
    finally:
        os.close(handle)


def _finished_rows(folder: Path, n: int, retry: bool) -> dict[int, dict[str, Any]]:
    """Return the rows of the runs that have ended, by number."""
    done: dict[int, dict[str, Any]] = {}
    for i in range(n):
        try:
            row = json.loads((run_folder(folder, i) / ROW).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not retry or row["status"] == "finished":
            done[i] = row
    return done


def _job(plan: SweepPlan, keep: Keep, folder: Path, i: int, elsewhere: bool) -> dict[str, Any]:
    options = asdict(plan.options(i))
    job = {
        "run": i,
        "keep": keep,
        "folder": str(run_folder(folder, i).absolute()),
        "options": {k: v for k, v in options.items() if v is not None},
    }
    if elsewhere:
        data = find_scenario(plan.scenario).read_bytes()
        job |= {"sha256": hashlib.sha256(data).hexdigest(), "versions": package_versions()}
    return job


def _collect(
    folder: Path,
    plan: SweepPlan,
    rows: dict[int, dict[str, Any]],
    made: Generator[dict[str, Any], None, None],
    on_progress: Callable[[SweepProgress], None] | None,
) -> None:
    """Take the rows as they come; write the tables now and then, and however it ends."""
    tell = on_progress or (lambda _: None)
    progress = SweepProgress(len(plan), len(rows), began_with=len(rows))
    progress.failed = sum(row["status"] != "finished" for row in rows.values())
    saved_s, sized = time.monotonic(), 0
    tell(progress)
    try:
        with contextlib.closing(made):
            for row in made:
                rows[row["run"]] = row
                progress.done, progress.failed = (
                    len(rows),
                    progress.failed + (row["status"] != "finished"),
                )
                if sized < 20:
                    size = _size(run_folder(folder, row["run"]))
                    progress.bytes_per_run += (size - progress.bytes_per_run) / (sized + 1)
                    sized += 1
                tell(progress)
                if time.monotonic() - saved_s > _SAVE_S:
                    write_tables(folder, plan, rows)
                    saved_s = time.monotonic()
    finally:
        write_tables(folder, plan, rows)


def _size(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*"))


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder."""
    return shutil.disk_usage(folder).free
