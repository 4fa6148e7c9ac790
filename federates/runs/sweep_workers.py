"""Where the runs of a sweep are made: processes of this machine, or a Dask cluster."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from federates.core.run_store import write_json
from federates.errors import RunError, ScenarioError
from federates.runs.sweep_job import ROW, execute
from federates.runs.sweep_pool import WorkerProcess, take
from grid_models.base import parent

Job = Mapping[str, Any]
Row = dict[str, Any]
_PATIENCE_S = 10.0
_POLL_S = 0.2
_DASK_TIMEOUT_S = 5.0


def local(jobs: Sequence[Job], workers: int, log: Path) -> Generator[Row, None, None]:
    """Make runs in `workers` processes; yield each row when its run has ended.

    A process that dies fails its run only; another one takes its place. However the iteration
    ends, no process is left.

    Parameters
    ----------
    jobs : Each with ``folder``, the folder of its run, where the process writes the row as well.
    log : File for what the processes and users' modules print.

    Raises RunError: A process cannot start.
    """
    if not jobs:
        return
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    ended: SimpleQueue[Row | BaseException] = SimpleQueue()
    threads = [_Worker(waiting, ended, log) for _ in range(max(1, min(workers, len(jobs))))]
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            yield _next(ended)
    finally:
        for thread in threads:
            thread.stopped = True
        parent.end((t.worker.process for t in threads if t.worker is not None), _PATIENCE_S)
        for thread in threads:
            thread.join(_PATIENCE_S)
            thread.keep_log()


def _next(ended: SimpleQueue[Row | BaseException]) -> Row:
    while True:
        with contextlib.suppress(Empty):  # a wait without an end would not hear Ctrl-C
            found = ended.get(timeout=_POLL_S)
            if isinstance(found, BaseException):
                raise found
            return found


class _Worker(threading.Thread):
    """Hands jobs to one process, and to the next one where it died."""

    def __init__(
        self, waiting: SimpleQueue[Job], ended: SimpleQueue[Row | BaseException], log: Path
    ) -> None:
        super().__init__(daemon=True)
        self.worker: WorkerProcess | None = None
        self.stopped = False
        self._waiting, self._ended, self._log = waiting, ended, log

    def run(self) -> None:
        try:
            while not self.stopped:
                try:
                    job = self._waiting.get_nowait()
                except Empty:
                    break
                row = self._answer(job)
                if not self.stopped:
                    self._ended.put(row)
        except BaseException as error:
            self._ended.put(error)

    def _answer(self, job: Job) -> Row:
        if self.worker is None:
            self.worker = take()
            if not self._line() and not self.stopped:
                what = f"cannot start ({_how(self._end())}); see {self._log}"
                raise RunError(what, federate="worker of the sweep")
        process = self.worker.process
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        line = self._line()
        if line:
            row: Row = json.loads(line)
            return row
        if self.stopped:
            return failed(job, "interrupted")
        row = failed(job, f"the worker process ended by {_how(self._end())} in this run")
        write_json(Path(job["folder"]) / ROW, row)
        return row

    def _line(self) -> str:
        """Return the next answer of the process, '' when it has ended."""
        assert self.worker is not None
        assert self.worker.process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            return str(self.worker.process.stdout.readline())
        return ""

    def _end(self) -> int:
        """End the process; return its exit code."""
        assert self.worker is not None
        process = self.worker.process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)  # its pipe closes before it has ended
        parent.end([process])
        self.keep_log()
        return process.wait()

    def keep_log(self) -> None:
        """Append what the process printed to the sweep's log, and let go of it."""
        if self.worker is not None and (text := self.worker.printed()):
            with self._log.open("a", encoding="utf-8") as file:
                file.write(text)
        self.worker = None


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def failed(job: Job, reason: str) -> Row:
    """Return the row of a run that could not say itself how it ended."""
    times = {"wall_s": None, "stepping_s": None, "host": None, "process": None}
    row = {"run": job["run"], "status": "failed", "reason": reason, "steps": 0}
    return row | {"metrics": {}, "times": times}


# -- Dask ----------------------------------------------------------------------------------------


def on_dask(jobs: Sequence[Job], address: str) -> Generator[Row, None, None]:
    """Make runs on the Dask cluster at `address`, and write here what they leave.

    The workers need this version of the package and the scenario file at its path; they write
    nothing but to temporary folders. However the iteration ends, no run of it goes on there.

    Raises ScenarioError: Dask is not installed, or no scheduler answers.
    """
    if not jobs:
        return
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ScenarioError(
            "Dask is not installed", where="--dask", expected="pip install 'feederate[dask]'"
        ) from None
    try:
        client = Client(address, timeout=_DASK_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ScenarioError(
            f"no Dask scheduler answers at {address} ({type(error).__name__})",
            where="--dask",
            expected="the address of a running scheduler, as tcp://10.0.0.1:8786",
        ) from None
    with client:
        # Runs are not pure for Dask: a failed one may be made again.
        futures = [client.submit(remote, dict(job), pure=False, retries=1) for job in jobs]
        job_of = dict(zip((future.key for future in futures), jobs, strict=True))
        try:
            with client.as_current():
                ended = as_completed(futures)
            for future in ended:
                job = job_of[future.key]
                if future.status == "finished":
                    row, files = future.result()
                    _write_files(Path(job["folder"]), files)
                else:
                    lost = type(future.exception()).__name__
                    row = failed(job, f"lost by the cluster ({lost})")
                write_json(Path(job["folder"]) / ROW, row)
                future.release()
                yield row
        finally:
            client.cancel(futures, force=True)


def remote(job: Job) -> tuple[Row, dict[str, bytes]]:
    """Make one run on a worker of the cluster; return its row and the files that it left."""
    with tempfile.TemporaryDirectory(prefix="feederate-sweep-") as place:
        folder = Path(place) / "run"
        row = execute(job, folder)
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return row, files


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
