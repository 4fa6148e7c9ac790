"""A federate in a process of its own: ``python -m federates.hosts.child``, started by the host.

Protocol: a pickled `Job` on standard input, then JSON lines both ways. It answers ``ready``, waits
for the broker's address, runs, and answers ``done`` or ``failed``. A ``stop`` line, or the end of
standard input, ends it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import threading
from queue import SimpleQueue
from typing import Any, BinaryIO

from federates.federate import Federate
from federates.hosts.drive import drive
from federates.hosts.helics_bus import Core, Endpoint, HelicsBus
from federates.hosts.outcome import Control, Failure
from federates.hosts.process import Job
from federates.pacing import Pacer
from federates.progress import Progress
from federates.run_store import RunStore
from federates.shell import Shell

_LAST_WORDS_S = 5.0


class _Line:
    """The way back to the parent: the original standard output, which prints must not disturb."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def tell(self, **message: Any) -> None:
        try:
            self._file.write(json.dumps(message).encode() + b"\n")
            self._file.flush()
        except OSError:  # the parent is gone; the reader thread ends this process
            return


def _listen(stdin: BinaryIO, starts: SimpleQueue[dict[str, Any] | None], control: Control) -> None:
    for line in stdin:
        message = json.loads(line)
        if "stop" in message:
            control.stop.set()
            starts.put(None)
        else:
            starts.put(message)
    # Standard input closed: the parent has ended or wants us gone. Data is flushed by then or by
    # the main thread's way out; one that hangs is ended here.
    control.stop.set()
    starts.put(None)
    timer = threading.Timer(_LAST_WORDS_S, os._exit, (3,))
    timer.daemon = True
    timer.start()


def main() -> int:
    """Run one federate as the parent says."""
    line = _Line()
    stdin = sys.stdin.buffer
    size = struct.unpack("<q", stdin.read(8))[0]
    job: Job = pickle.loads(stdin.read(size))
    progress = Progress(job.rows, job.progress)
    control = Control(progress, job.assembly.scenario.time.step_timeout_s)
    starts: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(stdin, starts, control), daemon=True).start()
    shell: Shell | None = None
    stepping_s = 0.0
    pacer: Pacer | None = None
    try:
        federate = job.assembly.build(job.name)
        assert isinstance(federate, Federate)
        store = RunStore(job.folder, job.assembly.scenario.record)
        shell = Shell(federate, job.wiring, store, job.assembly.scenario.seed, progress, job.row)
        line.tell(ready=True)
        start = starts.get()
        if start is not None:
            endpoint = Endpoint(start["core_type"], start["address"], start["key"])
            core = Core(endpoint, 1)
            bus = HelicsBus(core, federate, job.wiring, job.topics)
            pacer = job.assembly.pacer(federate.timing) if job.paced else None
            stepping_s = drive(shell, bus, job.assembly.horizon_ns, control, pacer)
            core.close()
    except BaseException as error:
        control.fail(Failure.of(job.name, error))
    _close(shell, job.name, control)
    if control.failure is not None:
        failure = control.failure
        line.tell(failed=failure.reason, federate=failure.federate, traceback=failure.traceback)
        return 3
    assert shell is not None
    pacing = pacer.summary() if pacer is not None else None
    line.tell(done=shell.summary(), stepping_s=stepping_s, pacing=pacing)
    return 0


def _close(shell: Shell | None, name: str, control: Control) -> None:
    if shell is None:
        return
    try:
        shell.close()
    except Exception as error:
        control.fail(Failure.of(name, error))


if __name__ == "__main__":
    code = main()
    # HELICS' own threads may still wait for a broker that is gone; everything of ours is closed.
    os._exit(code)
