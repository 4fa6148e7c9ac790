"""Starts and stops the programs of external federates."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from federates.core.oedisi import Topic
from federates.core.wiring import FederateWiring
from federates.errors import ScenarioError
from federates.hosts.helics_broker import NETWORK_OPTIONS, TCP_MESSAGE_BYTES, Endpoint
from federates.hosts.outcome import Failure
from federates.kinds.external import ExternalFederate
from grid_models.base import parent

# tcp_ss has one listening socket, the broker's, and foreign programs can name it on their own.
# zmq_ss has one, too, and a message there has any length; it takes twice as long to start.
# Components of OEDI-SI are written for zmq.
_CORE, _LONG_CORE, _OEDISI_CORE = "tcp_ss", "zmq_ss", "zmq"
_FINISH_S = 5.0


def network_core(
    externals: Iterable[ExternalFederate], wirings: Mapping[str, FederateWiring]
) -> str:
    """Return the HELICS core type of a run over the network."""
    if any(e.speaks_oedisi for e in externals):
        return _OEDISI_CORE
    longest = max((wiring.message_bytes for wiring in wirings.values()), default=0)
    return _CORE if longest <= TCP_MESSAGE_BYTES else _LONG_CORE


def topics_of(externals: Iterable[ExternalFederate]) -> dict[tuple[str, str], Topic]:
    """Return the topics that external programs publish, by federate and port."""
    return {(e.name, port): topic for e in externals for port, topic in e.topics.items()}


@contextmanager
def running(
    externals: Iterable[ExternalFederate], endpoint: Endpoint, base_dir: Path, log_dir: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start every external federate that has a command; end their process groups at the exit."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for federate in externals:
            if federate.command:
                started[federate.name] = _start(federate, endpoint, base_dir, log_dir)
        yield started
    finally:
        for process in started.values():
            parent.end([process], by=signal.SIGTERM)


def _start(
    federate: ExternalFederate, endpoint: Endpoint, base_dir: Path, log_dir: Path
) -> subprocess.Popen[bytes]:
    log_dir.mkdir(exist_ok=True)
    words = {"broker": endpoint.address, "core": endpoint.core_type, "key": endpoint.key}
    try:
        command = [part.format_map(words) for part in federate.command or []]
    except (KeyError, ValueError, IndexError) as error:
        raise ScenarioError(
            f"cannot fill in the command: {error}",
            where=f"federates.{federate.name}.command",
            expected="only {broker}, {core} and {key} in braces",
        ) from None
    # `python` and HELICS' own programs mean those of this environment, activated or not.
    here = os.path.dirname(sys.executable)
    # HELICS' apps take core options from there; a program of the user's reads it if it wants to.
    options = {"HELICS_CORE_INIT_STRING": NETWORK_OPTIONS}
    env = (
        os.environ | options | {"PATH": os.pathsep.join((here, os.environ.get("PATH", os.defpath)))}
    )
    if shutil.which(command[0], path=env["PATH"]) is None and not (base_dir / command[0]).is_file():
        raise ScenarioError(
            f"cannot start '{command[0]}': no such program",
            where=f"federates.{federate.name}.command",
        )
    with (log_dir / f"{federate.name}.log").open("ab") as log:
        return parent.spawn(
            [*parent.WRAPPER, *command], cwd=base_dir, env=env, stdout=log, stderr=log
        )


def finish(programs: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Let programs take their last steps and write their files; only readers are always behind."""
    deadline = time.monotonic() + _FINISH_S
    for program in programs.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(max(0.0, deadline - time.monotonic()))


def explained(
    failure: Failure | None, programs: Mapping[str, subprocess.Popen[bytes]], log_dir: Path
) -> Failure | None:
    """Return a failure with what is known of the end of the program that is to blame."""
    program = None if failure is None else programs.get(failure.federate)
    if failure is None or program is None:
        return failure
    words, log = [], log_dir / f"{failure.federate}.log"
    if program.poll() is not None and "program ended" not in failure.reason:
        words.append(f"its program ended: {ending(program)}")
    if log.stat().st_size:
        words.append(f"its output is in logs/{log.name}")
    return replace(failure, reason=f"{failure.reason} ({'; '.join(words)})") if words else failure


def ending(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended."""
    code = process.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
