"""The hosts in this process: one HELICS core, and HELICS federates in threads.

With placement `shared` one HELICS federate carries all federates; with `thread` each has its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts import external
from federates.hosts.drive import drive
from federates.hosts.gate import Gate, Guests
from federates.hosts.helics_broker import Broker, Core
from federates.hosts.helics_bus import HelicsMember
from federates.hosts.outcome import Control, Failure, Outcome
from federates.kinds.external import ExternalFederate

_RELEASE_S = 3.0


def run_threads(
    groups: Sequence[Mapping[str, Shell]],
    externals: Sequence[ExternalFederate],
    horizon_ns: int,
    control: Control,
    base_dir: Path,
    log_dir: Path,
    guests: Guests,
    pacers: Sequence[Pacer | None],
) -> Outcome:
    """Run shells on HELICS; models are loaded before this is called.

    Each group of shells has a thread and a HELICS federate of its own, and a pacer where one of
    them keeps the wall clock.
    """
    wirings = {name: shell.wiring for group in groups for name, shell in group.items()}
    core_type = external.network_core(externals, wirings) if externals else "inproc"
    # External programs may not support keys, so their broker has none.
    key = "" if externals else uuid.uuid4().hex
    outcome = Outcome()
    with contextlib.ExitStack() as stack:
        broker = Broker(len(groups) + len(externals), core_type, key=key)
        stack.callback(broker.close)
        programs = stack.enter_context(
            external.running(externals, broker.endpoint, base_dir, log_dir)
        )
        core = Core(broker.endpoint, len(groups))
        stack.callback(core.close)
        topics = external.topics_of(externals)
        alone = len(groups) == 1 and not externals
        gate = Gate(core, guests, guests.ours, control)
        members = [HelicsMember(core, group, topics, alone=alone) for group in groups]
        workers = [
            _Worker(group, member, horizon_ns, control, gate, pacer)
            for group, member, pacer in zip(groups, members, pacers, strict=True)
        ]
        gate.arrived(guests.ours)
        for worker in workers:
            worker.start()
        _watch(
            workers,
            [name for group in groups for name in group],
            control,
            broker,
            outcome,
            programs,
            guests.programs or ["broker"],
        )
        if control.failure is None and not outcome.interrupted:
            external.finish(programs)
        control.failure = external.explained(control.failure, programs, log_dir)
        outcome.stepping_s = max((w.stepping_s for w in workers), default=0.0)
    outcome.failure = control.failure
    outcome.pacing = next((pacer.summary() for pacer in pacers if pacer is not None), None)
    return outcome


class _Worker(threading.Thread):
    def __init__(
        self,
        shells: Mapping[str, Shell],
        member: HelicsMember,
        horizon_ns: int,
        control: Control,
        gate: Gate,
        pacer: Pacer | None,
    ) -> None:
        # A daemon, because a step that hangs cannot be ended from outside.
        super().__init__(name=member.names[0], daemon=True)
        self.stepping_s = 0.0
        self._job = (shells, member, horizon_ns, control, gate, pacer)

    def run(self) -> None:
        self.stepping_s = drive(*self._job)


def _watch(
    workers: Sequence[_Worker],
    names: Sequence[str],
    control: Control,
    broker: Broker,
    outcome: Outcome,
    programs: Mapping[str, subprocess.Popen[bytes]],
    strangers: Sequence[str],
) -> None:
    """Wait for the workers; end the federation when one hangs, a program dies or the user stops.

    `names` are the federates by heartbeat row.
    """
    stopped_at: float | None = None
    while any(worker.is_alive() for worker in workers):
        try:
            for worker in workers:
                worker.join(0.1)
                if worker.is_alive():
                    break
            if control.on_progress is not None:
                control.on_progress(control.progress.steps(0))
            hung = control.hung(names, strangers)
            if hung is not None and control.failure is None:
                control.fail(hung)
            for name, program in programs.items():
                if program.poll() and control.failure is None:
                    control.fail(Failure(name, f"its program ended ({external.ending(program)})"))
        except KeyboardInterrupt:
            outcome.interrupted = control.failure is None
            control.stop.set()
        if control.stop.is_set():
            stopped_at = stopped_at or time.monotonic()
            if control.failure is not None or time.monotonic() - stopped_at > 1.0:
                broker.global_error("the run was stopped")
            if time.monotonic() - stopped_at > _RELEASE_S:
                return  # only the step that hangs is still running
