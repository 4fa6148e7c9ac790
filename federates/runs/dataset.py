"""Data sets for machine learning: many seeded runs, clean and attacked, as train and test tables.

| in the folder | |
| --- | --- |
| ``README.md`` | the card: what it is, columns, balance, licence, how to make it again |
| ``runs.csv`` | a row per run: split, attack, seed, begin and end, rows |
| ``train/``, ``test/`` | a table per run: what the operator read, and the labels of each time |
| ``truth/`` | of each attacked run every affected value: true, seen, step |
| ``pcap/`` | Modbus traffic of each device, where devices take part |
| ``manifest.json`` | command, versions, SHA-256 of every file |
"""

from __future__ import annotations

import contextlib
import csv
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from federates.core.run_store import new_run_dir, package_versions, write_json
from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.runs.dataset_card import card
from federates.runs.dataset_plan import DatasetPlan, plan_dataset
from federates.runs.dataset_tables import PCAP, RUNS, file_hashes, write_tables
from federates.runs.options import RunOptions, path_text, several
from federates.runs.parallel import at_a_time
from federates.runs.sweep_values import as_seeds
from federates.runs.sweep_workers import local
from federates.scenario.overrides import override_words

MANIFEST, _WORK = "manifest.json", ".runs"
LICENCE = "CC-BY-4.0"
_ROOM = 1.2
_BYTES_PER_READING = 8


@dataclass(frozen=True)
class Dataset:
    """A data set that is complete: its folder, and the rows of its runs."""

    folder: Path
    runs: tuple[Mapping[str, Any], ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before training: attacks that did not act."""
        idle = [r["run"] for r in self.runs if r["attack"] and not r["rows_under_attack"]]
        words = "no row under attack: its steps wait for a signal that did not come"
        return tuple(f"{name}: {words}" for name in idle)


@dataclass(frozen=True)
class DatasetOptions:
    """What is chosen of a data set, besides its scenario; for `command` as it was given."""

    attacks: tuple[str, ...]
    seeds: int | tuple[int, ...]
    test_share: float = 0.25
    unseen: tuple[str, ...] = ()
    noise: Mapping[str, float] | None = None
    licence: str = LICENCE

    def command(self, options: RunOptions) -> str:
        """Return the command line that makes the data set again."""
        seeds = self.seeds if isinstance(self.seeds, int) else ",".join(map(str, self.seeds))
        words = ["feederate", "dataset", options.scenario, *self.attacks, "--seeds", str(seeds)]
        for name in self.unseen:
            words += ["--unseen", name]
        for name, deviation in (self.noise or {}).items():
            words += ["--noise", f"{name}={deviation:g}"]
        if self.test_share != 0.25:
            words += ["--test-share", f"{self.test_share:g}"]
        words += [] if self.licence == LICENCE else ["--licence", self.licence]
        words += [] if options.pcap else ["--no-pcap"]
        return shlex.join([*words, *replace(options, pcap=False).words(), "--out", "DIR"])


def dataset(
    scenario: str | Path,
    attacks: str | Sequence[str | Path],
    *,
    seeds: int | Sequence[int],
    out: str | Path,
    steps: int | None = None,
    set: Mapping[str, Any] | None = None,
    test_share: float = 0.25,
    unseen: Sequence[str] = (),
    noise: Mapping[str, float] | None = None,
    licence: str = LICENCE,
    pcap: bool = True,
    workers: int | None = None,
    on_plan: Callable[[DatasetPlan, str], None] | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a data set: for each seed a clean run, and a run under each attack.

    The begin and the targets of every attack follow the seed; the last seeds are the tests. The
    same call gives the same bytes (captures excepted), on one machine and with the same versions.

    Parameters
    ----------
    scenario : str or Path
        A path, or the name of a shipped scenario.
    attacks : str, Path or sequence of them
        Attack files or shipped attacks.
    seeds : int or sequence of int
        A count, at least 2 (the scenario's seed and those after it), or the seeds.
    out : str or Path
        Folder of the data set; must be new or empty.
    steps : int, optional
        Stop each run after this many plant steps.
    set : dict, optional
        Overrides of all runs; ``attack.steps.0.duration_s`` is one of each attack.
    test_share : float
        Share of the seeds that are tests.
    unseen : sequence of str
        Of `attacks`: in the tests only.
    noise : dict, optional
        Standard deviation of the sensors by port, in its unit, in place of or besides
        `federates.runs.dataset_plan.SENSORS`; ``federate.port`` adds any other output.
    licence : str
        Named in the card.
    pcap : bool
        Keep the Modbus traffic of devices.
    workers : int, optional
        Runs at a time. Default: one per core; one if they share a device or the wall clock.
    on_plan : callable, optional
        Called before the first run with the plan and a sentence on size and room.
    on_run : callable, optional
        Called with (runs done, runs in all).

    Raises
    ------
    FeederateError
        Wrong input, `out` is not empty, or no room on the disk; nothing was started.
    RunError
        A run failed; `out` holds what was made before, without a manifest.
    """
    count = as_seeds(seeds)
    chosen = DatasetOptions(
        tuple(path_text(attack, "attacks") for attack in several(attacks, "attacks")),
        count if isinstance(count, int) else tuple(count),
        test_share,
        several(unseen, "unseen"),
        noise,
        licence,
    )
    options = RunOptions(
        scenario=path_text(scenario, "scenario"),
        overrides=override_words(set or {}),
        steps=steps,
        pcap=pcap,
    )
    folder = Path(path_text(out, "out"))
    return make_dataset(options, chosen, folder, workers, on_plan, on_run)


def make_dataset(
    options: RunOptions,
    chosen: DatasetOptions,
    out: Path,
    workers: int | None = None,
    on_plan: Callable[[DatasetPlan, str], None] | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a data set from the options of its runs and its own; see `dataset`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ScenarioError(
            "exists already", where=str(out), expected="the path of a new or empty folder"
        )
    plan = plan_dataset(
        options,
        chosen.attacks,
        chosen.seeds,
        chosen.test_share,
        chosen.unseen,
        chosen.noise or {},
    )
    workers = workers or at_a_time(plan.scenario)
    estimate = _estimate(plan, out, workers)
    if on_plan is not None:
        on_plan(plan, estimate)
    out = new_run_dir("dataset", out)
    try:
        rows = _make_runs(plan, out, workers, on_run)
    except KeyboardInterrupt:
        raise RunInterruptedError("interrupted", where=str(out)) from None
    finally:
        shutil.rmtree(out / _WORK, ignore_errors=True)
    command = chosen.command(options)
    with (out / RUNS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = card(plan, rows, command, chosen.licence, captures=(out / PCAP).is_dir())
    (out / "README.md").write_text(text, encoding="utf-8")
    files = file_hashes(out)
    write_json(
        out / MANIFEST,
        {
            "format": 1,
            "command": command,
            "versions": package_versions(),
            "not_reproducible": [name for name in files if name.startswith(f"{PCAP}/")],
            "files": files,
        },
    )
    return Dataset(out, tuple(rows))


def _make_runs(
    plan: DatasetPlan, out: Path, workers: int, on_run: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    """Make the runs in worker processes, and the tables of each that ended; return their rows.

    Raises RunError: A run failed; those that go on are stopped.
    """
    work = out.absolute() / _WORK
    work.mkdir()
    jobs = [
        {
            "run": k,
            "keep": "signals",
            "folder": str(work / each.name),
            "options": {n: v for n, v in asdict(each.options).items() if v is not None},
        }
        for k, each in enumerate(plan.runs)
    ]
    rows: dict[int, dict[str, Any]] = {}
    with contextlib.closing(local(jobs, workers, work / "workers.log")) as ended:
        for row in ended:
            each = plan.runs[row["run"]]
            if row["status"] != "finished":
                raise RunError(row["reason"], federate=each.name)
            rows[row["run"]] = write_tables(plan, each, work / each.name, out)
            shutil.rmtree(work / each.name)
            if on_run is not None:
                on_run(len(rows), len(plan.runs))
    return [rows[k] for k in sorted(rows)]


def _estimate(plan: DatasetPlan, out: Path, workers: int) -> str:
    """Say how large the data set will be.

    Raises ScenarioError: It does not fit on the disk.
    """
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    n_columns = sum(len(sensor.labels) for sensor in plan.sensors)
    needed = plan.bytes_in_all + workers * plan.n_steps * n_columns * _BYTES_PER_READING
    free = shutil.disk_usage(place).free
    words = (
        f"{len(plan.runs)} runs of {plan.n_steps} steps, {n_columns} readings each: "
        f"about {needed / 1e6:,.1f} MB, {free / 1e6:,.0f} MB free"
    )
    if needed * _ROOM > free:
        raise ScenarioError(
            f"no room: {words}", where=str(out), expected="fewer seeds or steps, or another disk"
        )
    return words
