"""The process host: one process per federate and one for the broker, supervised by this one.

A federate that only stands between others (an attack) rides in the process of one of them: with a
process of its own, every value would pass the broker once more. In a run on several hosts with
placement `shared`, one process holds all federates of this host.

Everything that can be killed is a child in a process group of its own. Children are told what to
do over standard input and end when it closes, so that nothing outlives a run, not even one whose
parent was killed with -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federates.core.oedisi import Topic
from federates.core.progress import Progress
from federates.core.run_store import RunStore
from federates.errors import ScenarioError
from federates.hosts import external
from federates.hosts.gate import Guests
from federates.hosts.helics_broker import Endpoint
from federates.hosts.outcome import Control, Failure, Outcome
from federates.hosts.reach import Reach
from federates.kinds.external import ExternalFederate
from grid_models.base import parent

if TYPE_CHECKING:
    from federates.assembly.federation import Assembly
    from federates.core.wiring import FederateWiring

_READY_S = 120.0
_RELEASE_S = 4.0
_POLL_S = 0.05
_ANSWER_S = 1.0


@dataclass(frozen=True)
class Seat:
    """One federate of a process."""

    name: str
    wiring: FederateWiring
    row: int
    """Of the heartbeat table."""
    paced: bool
    """Whether this federate leads the run, and so keeps the wall clock."""


@dataclass(frozen=True)
class Job:
    """What a child needs to build and run its federates; sent to it pickled."""

    assembly: Assembly
    seats: tuple[Seat, ...]
    folder: Path
    progress: Path
    rows: int
    topics: dict[tuple[str, str], Topic]
    guests: Guests


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    federates: tuple[str, ...] = ()
    ready: bool = False
    done: bool = False
    failing: bool = False
    inbox: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, **message: Any) -> None:
        """Send one line; a child that has ended is ignored here."""
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()

    def drain(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have come in."""
        stdout = self.process.stdout
        assert stdout is not None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(stdout.fileno(), 65536):
                self.inbox += chunk
        *lines, self.inbox = self.inbox.split(b"\n")
        for line in lines:
            yield json.loads(line)


def _spawn(name: str, module: str, store: RunStore, federates: tuple[str, ...] = ()) -> _Child:
    store.logs.mkdir(exist_ok=True)
    with (store.logs / f"{name}.log").open("ab") as log:
        # -P: a user's own controllers/ folder must not shadow ours.
        command = [sys.executable, "-P", "-m", module]
        process = parent.spawn(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return _Child(name, process, federates)


def run_processes(
    assembly: Assembly,
    names: Sequence[str],
    externals: Sequence[ExternalFederate],
    wirings: Mapping[str, FederateWiring],
    hosted_by: Mapping[str, str],
    store: RunStore,
    reach: Reach,
    tell: Callable[[int], None],
    say: Callable[[str], None],
    everybody: Guests,
    *,
    shared: bool = False,
) -> tuple[Outcome, int]:
    """Run federates as processes; return how it ended and how many steps the first one did.

    `hosted_by` names, for federates without a process of their own, the one in whose process they
    run; `shared` puts all into one. With `reach`, only some of them run here and the broker may be
    elsewhere.
    """
    wanted = assembly.select(reach.only)
    here = [name for name in names if name in wanted]
    processes = [here] if shared and here else _processes(here, hosted_by)
    # How other hosts share theirs out is not known here; every process waits until all are there.
    total = len(externals) + (len(processes) if reach.here_only else 1)
    progress = Progress(len(here), store.heartbeat)
    control = Control(progress, assembly.scenario.time.step_timeout_s, tell)
    control.say = say
    topics = external.topics_of(externals)
    outcome = Outcome()
    children: list[_Child] = []
    members: list[_Child] = []
    try:
        broker = _Broker(store, total, reach, external.network_core(externals, wirings), externals)
        children += [] if broker.child is None else [broker.child]
        for process in processes:
            child = _spawn(process[0], "federates.hosts.child", store, tuple(process))
            children.append(child)
            members.append(child)
            seats = tuple(
                Seat(n, wirings[n], here.index(n), paced=n == names[0]) for n in child.federates
            )
            job = Job(assembly, seats, store.folder, store.heartbeat, len(here), topics, everybody)
            _send_job(child, job)
        programs = [e for e in externals if not reach.only or e.name in reach.only]
        folders = assembly.scenario.base_dir, store.logs
        with external.running(programs, broker.endpoint, *folders) as started:
            # Who, besides the broker, may hold up the run without a step of ours that hangs.
            strangers = [n for n in (*everybody.ours, *everybody.programs) if n not in here]
            _supervise(here, members, broker, control, outcome, started, strangers)
            if control.failure is None and not outcome.interrupted:
                external.finish(started)
            control.failure = external.explained(control.failure, started, store.logs)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        parent.end(child.process for child in children)
    store.finalise_signals()
    outcome.failure = control.failure
    return outcome, progress.steps(0)


def _processes(here: Sequence[str], hosted_by: Mapping[str, str]) -> list[list[str]]:
    """Return the federates of each process, the one that it is named after first."""
    out = {name: [name] for name in here if hosted_by.get(name) not in here}
    for name in here:
        if name not in out:
            out[hosted_by[name]].append(name)
    return list(out.values())


class _Broker:
    """The broker of a run: a child of this process, or one on another host."""

    def __init__(
        self,
        store: RunStore,
        total: int,
        reach: Reach,
        core_type: str,
        externals: Sequence[ExternalFederate],
    ) -> None:
        self.child: _Child | None = None
        if reach.join is not None:
            self.endpoint = Endpoint(core_type, reach.join)
            return
        # Hosts and programs started by hand cannot know a random key.
        key = "" if externals or reach.listen else uuid.uuid4().hex
        self.child = _spawn("broker", "federates.hosts.broker", store)
        self.child.tell(n=total, core_type=core_type, listen=reach.listen, key=key)
        address = self._address()
        self.endpoint = Endpoint(core_type, address, key)

    def _address(self) -> str:
        assert self.child is not None
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self.child.process.poll() is None:
            for message in self.child.drain():
                if "error" in message:
                    raise ScenarioError(message["error"], where="--listen")
                return str(message["address"])
            time.sleep(0.01)
        raise ScenarioError("the HELICS broker did not start; see logs/broker.log")

    def abort(self) -> None:
        if self.child is not None:
            self.child.tell(abort="the run was stopped")

    def answers(self) -> bool:
        """Whether the broker's process runs; one on another host is thought to."""
        if self.child is None:
            return True
        self.child.tell(ask=True)
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            if any(True for _ in self.child.drain()):
                return True
            time.sleep(_POLL_S)
        return False

    def died(self) -> Failure | None:
        if self.child is None or self.child.process.poll() is None:
            return None
        return Failure("broker", f"the HELICS broker ended ({external.ending(self.child.process)})")


def _send_job(child: _Child, job: Job) -> None:
    data = pickle.dumps(job)
    stdin = child.process.stdin
    assert stdin is not None
    # A child that died at once is noticed, and named, by the supervisor.
    with contextlib.suppress(OSError):
        stdin.write(struct.pack("<q", len(data)) + data)
        stdin.flush()


def _supervise(
    names: Sequence[str],
    members: Sequence[_Child],
    broker: _Broker,
    control: Control,
    outcome: Outcome,
    programs: dict[str, subprocess.Popen[bytes]],
    strangers: Sequence[str],
) -> None:
    """Watch until every member has ended; `names` are the federates by heartbeat row."""
    started = False
    stopped_at: float | None = None
    with selectors.DefaultSelector() as selector:
        for child in members:
            assert child.process.stdout is not None
            selector.register(child.process.stdout, selectors.EVENT_READ)
        while not all(c.done or c.process.poll() is not None for c in members) or not started:
            try:
                selector.select(_POLL_S)
                _listen(members, control, outcome)
                if not started and all(c.ready for c in members):
                    started = True
                    for child in members:
                        child.tell(
                            core_type=broker.endpoint.core_type,
                            address=broker.endpoint.address,
                            key=broker.endpoint.key,
                        )
                _look_for_trouble(names, members, broker, control, outcome, programs, strangers)
                if control.on_progress is not None:
                    control.on_progress(control.progress.steps(0))
            except KeyboardInterrupt:
                outcome.interrupted = control.failure is None
                control.stop.set()
            if control.stop.is_set():
                if stopped_at is None:
                    stopped_at = time.monotonic()
                    for child in members:
                        child.tell(stop=True)
                age = time.monotonic() - stopped_at
                if control.failure is not None or age > 1.0:
                    broker.abort()
                if age > _RELEASE_S:
                    break
        _listen(members, control, outcome)
        _look_for_trouble(names, members, broker, control, outcome, programs, strangers)


def _listen(members: Sequence[_Child], control: Control, outcome: Outcome) -> None:
    for child in members:
        for message in child.drain():
            if "ready" in message:
                child.ready = True
            elif "said" in message:
                control.say(message["said"])
            elif "gathered" in message:
                control.on_gathered()
            elif "failing" in message:
                child.failing = True
            elif "failed" in message:
                control.fail(
                    Failure(message["federate"], message["failed"], message.get("traceback", ""))
                )
            elif "done" in message:
                child.done = True
                outcome.summaries |= message["done"]
                outcome.stepping_s = max(outcome.stepping_s, message["stepping_s"])
                if outcome.pacing is None or child is members[0]:
                    outcome.pacing = message["pacing"]


def _look_for_trouble(
    names: Sequence[str],
    members: Sequence[_Child],
    broker: _Broker,
    control: Control,
    outcome: Outcome,
    programs: dict[str, subprocess.Popen[bytes]],
    strangers: Sequence[str],
) -> None:
    ended = [c for c in members if not c.done and c.process.poll() is not None]
    dead = {name: program for name, program in programs.items() if program.poll()}
    # Last words may have come after the last look, and are worth more than an exit code. A failure
    # here ends programs, too; a member says that it has one before it ends the federation.
    _listen(members if dead else ended, control, outcome)
    if control.failure is not None:
        return
    for child in ended:
        if not child.done:
            if child.process.returncode == 0 and control.stop.is_set():
                continue
            control.fail(
                Failure(child.name, f"its process ended ({external.ending(child.process)})")
            )
            return
    if dead and not any(child.failing for child in members):
        name, program = next(iter(dead.items()))
        control.fail(Failure(name, f"its program ended ({external.ending(program)})"))
        return
    hung = control.hung(names, (*strangers, "broker"))
    if hung is not None:
        if strangers and hung.federate.endswith(" or broker"):
            culprit = " or ".join(strangers) if broker.answers() else "broker"
            hung = replace(hung, federate=culprit)
        control.fail(hung)
        for child in members:
            if hung.federate in child.federates:
                parent.kill_group(child.process)
        return
    lost = broker.died()
    if lost is not None and not all(c.done for c in members):
        control.fail(lost)
