"""Worker processes of sweeps, which may be started before it is known what they will run.

Standard library only: a command starts its workers first, and imports and plans while they import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, Any

from grid_models.base import parent
from grid_models.base.threads import ONE_THREAD


@dataclass
class WorkerProcess:
    """A process that makes runs, see `federates.runs.sweep_job`; `log` is what it prints."""

    process: subprocess.Popen[Any]
    log: IO[bytes]

    def printed(self) -> str:
        """Return what the process and users' modules in it have printed, and close the log."""
        self.log.seek(0)
        text = self.log.read().decode(errors="replace")
        self.log.close()
        return text


_waiting: list[WorkerProcess] = []


def prepare(n: int) -> None:
    """Start processes until `n` wait for work."""
    while len(_waiting) < n:
        _waiting.append(_spawn())


def take() -> WorkerProcess:
    """Return a process that waits for work, or a new one."""
    try:
        return _waiting.pop()
    except IndexError:
        return _spawn()


def release() -> None:
    """End the processes that wait for work."""
    taken = []
    while _waiting:
        taken.append(_waiting.pop())
    parent.end((worker.process for worker in taken), 0.0)
    for worker in taken:
        worker.log.close()


def _spawn() -> WorkerProcess:
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
    process = parent.spawn(
        [sys.executable, "-P", "-m", "federates.runs.sweep_job"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | ONE_THREAD,
    )
    return WorkerProcess(process, log)
