"""Emulators that a run starts itself: their processes, their ports, and the grid they feel."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from federates.errors import RunError
from federates.kinds.device.models import Surroundings
from federates.kinds.device.roles import RoleName
from grid_models.feeder.model import Der

_READY_S = 60.0
_ANSWER_S = 20.0
_LISTENS = re.compile(r"listening: (?P<name>\S+) (?P<host>\S+):(?P<port>\d+)( unit (?P<unit>\d+))?")
_CLI = "from federates.cli import main; main()"


def rating_groups(ders: Sequence[Der]) -> Iterator[list[int]]:
    """Yield the positions of DERs that one emulator process can serve: equal ratings."""
    groups: dict[tuple[float, float, float, float, int], list[int]] = {}
    for i, der in enumerate(ders):
        key = (der.kva, der.p_max_kw, der.p_min_kw, der.energy_kwh, len(der.phases))
        groups.setdefault(key, []).append(i)
    yield from groups.values()


def _words(role: RoleName, der: Der, seed: int) -> list[str]:
    phases = "3" if len(der.phases) == 3 else "1"
    if role == "inverter":
        return ["--kw", repr(der.p_max_kw), "--kva", repr(der.kva), "--phases", phases]
    if role == "battery":
        return ["--kw", repr(der.p_max_kw), "--kwh", repr(der.energy_kwh), "--phases", phases]
    return ["--kw", repr(-der.p_min_kw), "--seed", str(seed)]


class Emulator:
    """One process with emulated devices that live in the run's simulated time.

    Parameters
    ----------
    role : str
    ders : sequence of Der
        Equal ratings; one device each.
    seed : int
        Of the houses.
    dt_s : float
        Period of the device federate; the physics takes one step per period.
    log : Path
        Takes what the process says on standard error.
    """

    def __init__(
        self, role: RoleName, ders: Sequence[Der], seed: int, dt_s: float, log: Path
    ) -> None:
        self._role, self._dt_s, self._time_s = role, dt_s, 0.0
        self._who = f"emulator of {ders[0].name}" + (f" and {len(ders) - 1} more" * (len(ders) > 1))
        names = ",".join(der.name for der in ders)
        command = [sys.executable, "-P", "-c", _CLI, "emulate", role, "--names", names]
        command += ["--leash", "--time", "grid", "--grid-port", "0", "--step", repr(dt_s)]
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as errors:
            # A session of its own: Ctrl-C must not end a device before it has been made safe. Its
            # standard input is its leash: it ends when this process does, however that ends.
            self.process = subprocess.Popen(
                [*command, *_words(role, ders[0], seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.places: dict[str, tuple[str, int, int]] = {}
        try:
            self._file = self._connect(len(ders))
        except BaseException:
            self.close()
            raise

    def _connect(self, n: int) -> Any:
        """Wait until it listens; return the open side channel."""
        assert self.process.stdout is not None
        giving_up = threading.Timer(_READY_S, self.process.kill)
        giving_up.start()
        grid: tuple[str, int] | None = None
        try:
            while len(self.places) < n or grid is None:
                line = self.process.stdout.readline().decode()
                if not line:
                    self._lost("did not start")
                found = _LISTENS.match(line)
                if found is None:
                    continue
                at = found["host"], int(found["port"])
                if found["unit"] is None:
                    grid = at
                else:
                    self.places[found["name"]] = (*at, int(found["unit"]))
        finally:
            giving_up.cancel()
        self._socket = socket.create_connection(grid, timeout=_ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket.makefile("rwb")

    def send(self, around: Surroundings) -> None:
        """Ask for the next step; `wait` for it."""
        self._time_s += self._dt_s
        message: dict[str, Any] = {"t": self._time_s}
        if self._role == "thermostat":
            message |= {"temp_out_c": around.temp_c, "load_pu": around.load_pu}
        else:
            message |= {"v_pu": around.v_pu.tolist(), "irradiance_pu": around.irradiance_pu}
        self.ask(message)

    def ask(self, message: dict[str, Any]) -> None:
        """Send one line over the side channel."""
        try:
            self._file.write(json.dumps(message).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            self._lost(str(error))

    def wait(self) -> dict[str, Any]:
        """Return the answer to the last line."""
        try:
            line = self._file.readline()
        except OSError as error:
            self._lost(str(error))
        if not line:
            self._lost("ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self._lost(answer["error"])
        return answer

    def _lost(self, why: str) -> Any:
        raise RunError(f"the {self._who}: {why}; see {self._log}", federate="emulator")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError, AttributeError):
            self._file.close()
            self._socket.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3.0)
                break
        if self.process.stdout is not None:
            self.process.stdout.close()
