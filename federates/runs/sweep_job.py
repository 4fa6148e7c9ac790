"""One run of a sweep, and the worker process that makes many of them.

``python -m federates.runs.sweep_job`` reads jobs as JSON lines from its standard input and answers
each with a JSON line. It imports and loads once for all its runs, and ends when its standard input
closes: the run in progress is then interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from federates.core.run_store import package_versions, write_json
from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.runs.options import RunOptions
from grid_models.base.errors import FeederateError

Keep = Literal["summary", "signals"]
ROW = "row.json"
# What a run leaves that is not a summary.
_BULK = ("signals", "labels", "grid", "attack", "pcap")


def execute(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make one run in `folder`, which is emptied first; return its row.

    Parameters
    ----------
    job : ``run`` (its number), ``options`` (fields of `RunOptions`), ``keep``, ``sha256`` and
        ``versions`` (of the scenario file and packages; '' and None: as they are here).

    Raises RunInterruptedError: The user stopped it; there is no row.
    """
    began = time.perf_counter()
    options = RunOptions(**{**job["options"], "overrides": tuple(job["options"]["overrides"])})
    keep: Keep = job["keep"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row: dict[str, Any] = {"run": job["run"], "status": "finished", "reason": None}
    summary: dict[str, Any] = {}
    try:
        summary = _run(options, keep, folder, job)
        if keep == "summary":
            for name in _BULK:
                shutil.rmtree(folder / name, ignore_errors=True)
    except RunInterruptedError:
        raise
    except (Exception, SystemExit) as error:
        row |= {"status": "failed", "reason": _reason(error)}
        if (folder / "summary.json").is_file():
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if not isinstance(error, FeederateError):
            (folder / "logs").mkdir(exist_ok=True)
            text = "".join(traceback.format_exception(error))
            (folder / "logs" / "sweep.log").write_text(text, encoding="utf-8")
    steps, stepping_s = summary.get("steps", 0), summary.get("stepping_s", 0.0)
    return row | {
        "steps": steps,
        "metrics": summary.get("metrics", {}),
        "times": {
            "wall_s": round(time.perf_counter() - began, 4),
            "stepping_s": stepping_s,
            "host": socket.gethostname(),
            "process": os.getpid(),
        },
    }


def _run(options: RunOptions, keep: Keep, folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    from federates.runs.runner import run
    from federates.scenario.schema import scenario_from

    source = _source(options.scenario, job.get("sha256") or "")
    versions = job.get("versions")
    if versions is not None and versions != package_versions():
        name, own = next((k, v) for k, v in package_versions().items() if v != versions.get(k))
        raise ScenarioError(
            f"{name} {own} is installed", where=socket.gethostname(), expected=versions.get(name)
        )
    scenario = scenario_from(
        source,
        options.overrides,
        seed=options.seed,
        attack=options.attack,
        defence=options.defence,
    )
    result = run(scenario, replace(options, out=folder, record=keep != "summary"))
    return result.summary


@lru_cache(maxsize=4)
def _source(scenario: str, sha256: str) -> Any:
    """Read the scenario file, once for all runs of a worker."""
    import hashlib

    from federates.scenario.schema import find_scenario
    from federates.scenario.yaml_source import load_yaml

    path = find_scenario(scenario)
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ScenarioError(
            "is not the file that the sweep began with",
            where=f"{path} on {socket.gethostname()}",
            expected="the same file on every host",
        )
    return load_yaml(path)


def _reason(error: BaseException) -> str:
    if isinstance(error, RunError):
        return f"{error.federate}: {error.what}"
    words = " ".join(str(error).split())
    return words if isinstance(error, FeederateError) else f"{type(error).__name__}: {words}"


def _warm_up() -> None:
    """Load what nearly every run needs, while the parent still reads the scenario."""
    import federates.runs.runner  # noqa: F401
    from grid_models.catalog import open_circuit

    open_circuit("ieee13")


def main() -> None:
    """Answer jobs until standard input closes."""
    from grid_models.base.parent import watch_parent

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's module prints is no answer
    jobs: SimpleQueue[dict[str, Any] | None] = SimpleQueue()

    def ended() -> None:
        jobs.put(None)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        watch_parent(ended, lambda line: jobs.put(json.loads(line)))
        _warm_up()
        print("{}", file=answers, flush=True)
        while (job := jobs.get()) is not None:
            folder = Path(job["folder"])
            row = execute(job, folder)
            write_json(folder / ROW, row)
            print(json.dumps(row), file=answers, flush=True)
    except (KeyboardInterrupt, RunInterruptedError, BrokenPipeError):
        os._exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
