"""The federates of one process: ``python -m federates.hosts.child``, started by the host.

Protocol: a pickled `Job` on standard input, then JSON lines both ways. It answers ``ready``, waits
for the broker's address, runs, and answers ``done`` or ``failed``; ``failing`` comes as soon as
there is a failure. A ``stop`` line, or the end of standard input, ends it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

from federates.core.federate import Federate
from federates.core.pacing import Pacer
from federates.core.progress import Progress
from federates.core.run_store import RunStore
from federates.core.shell import Shell
from federates.hosts.drive import drive
from federates.hosts.gate import Gate, announced
from federates.hosts.helics_broker import Core, Endpoint
from federates.hosts.helics_bus import HelicsMember
from federates.hosts.outcome import Control, Failure
from federates.hosts.process import Job, Seat
from grid_models.base.parent import unbuffered_stdin, watch_parent

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


def _listen(starts: SimpleQueue[dict[str, Any] | None], control: Control) -> None:
    """Take the parent's messages; end this process within seconds of its end."""

    def received(line: bytes) -> None:
        message = json.loads(line)
        if "stop" in message:
            control.stop.set()
            starts.put(None)
        else:
            starts.put(message)

    def ended() -> None:
        # Data is flushed by then or at the main thread's end; a main thread that hangs is ended.
        control.stop.set()
        starts.put(None)
        timer = threading.Timer(_LAST_WORDS_S, os._exit, (3,))
        timer.daemon = True
        timer.start()

    watch_parent(ended, received)


def _read_job() -> Job:
    with unbuffered_stdin() as stdin:
        data = stdin.read(8)
        size = struct.unpack("<q", data)[0]
        data = b""
        while len(data) < size and (part := stdin.read(size - len(data))):
            data += part
    job: Job = pickle.loads(data)
    return job


def main() -> int:
    """Run one federate, and those hosted in its process, on the parent's commands."""
    line = _Line()
    job = _read_job()
    progress = Progress(job.rows, job.progress)
    control = Control(progress, job.assembly.scenario.time.step_timeout_s)
    starts: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    if job.seats[0].row == 0:  # one voice for the processes of this host
        control.say = partial(_say, line)
    control.on_gathered = partial(line.tell, gathered=True)
    control.on_failure = partial(line.tell, failing=True)
    _listen(starts, control)
    shells: dict[str, Shell] = {}
    stepping_s = 0.0
    pacer: Pacer | None = None
    building = job.seats[0].name
    try:
        for seat in job.seats:
            building = seat.name
            shells[seat.name] = _shell(job, seat, progress)
        line.tell(ready=True)
        start = starts.get()
        if start is not None:
            pacer = job.assembly.pacer(shell.federate for shell in shells.values())
            endpoint = Endpoint(start["core_type"], start["address"], start["key"])
            core = _connect(endpoint, job, control)
            gate = Gate(core, job.guests, list(shells), control)
            member = HelicsMember(core, shells, job.topics)
            gate.arrived(shells)
            stepping_s = drive(shells, member, job.assembly.horizon_ns, control, gate, pacer)
            core.close()
    except BaseException as error:
        control.fail(Failure.of(building, error))
    for name, shell in shells.items():
        try:
            shell.close()
        except Exception as error:
            control.fail(Failure.of(name, error))
    if control.failure is not None:
        failure = control.failure
        line.tell(failed=failure.reason, federate=failure.federate, traceback=failure.traceback)
        return 3
    pacing = pacer.summary() if pacer is not None else None
    summaries = {name: shell.summary() for name, shell in shells.items()}
    line.tell(done=summaries, stepping_s=stepping_s, pacing=pacing)
    return 0


def _say(line: _Line, words: str) -> None:
    line.tell(said=words)


def _connect(endpoint: Endpoint, job: Job, control: Control) -> Core:
    """Return a core that is connected to the broker, which may not be there yet."""
    words = f"waiting for the broker at {endpoint.address}, core type {endpoint.core_type}"
    with announced(control.say, lambda: words):
        return Core(endpoint, 1, job.guests.join_timeout_s)


def _shell(job: Job, seat: Seat, progress: Progress) -> Shell:
    federate = job.assembly.build(seat.name)
    assert isinstance(federate, Federate)
    federate.wall_clock = federate.wall_clock or seat.paced
    scenario = job.assembly.scenario
    store = RunStore(job.folder, scenario.record)
    return Shell(federate, seat.wiring, store, scenario.seed, progress, seat.row)


if __name__ == "__main__":
    code = main()
    # Threads of HELICS may still wait for a broker that has ended; the federates are closed.
    os._exit(code)
