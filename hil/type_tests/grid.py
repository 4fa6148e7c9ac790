"""Grid simulators: the side channel of an emulator, or a command that a laboratory supplies."""

from __future__ import annotations

import json
import re
import shlex
import socket
import string
import subprocess
import time
from collections.abc import Callable
from typing import Any, Protocol

from grid_models.base.errors import FeederateError, nearest_name, reason_of

_ANSWER_S = 20.0
_COMMAND_S = 60.0
_ADDRESS = re.compile(r"(?P<host>[^\s/:]+):(?P<port>\d{1,5})")
_FIELDS = ("v_pu", "f_hz", "power_pu")
#: Longest sleep while the clock of a device is waited for, s.
_NAP_S = 0.05


class GridError(FeederateError):
    """The grid simulator did not do what it was told."""


class GridSimulator(Protocol):
    """Voltage and frequency at the terminals of a device, and what its source has.

    Attributes
    ----------
    has_power : Whether the available power can be set.
    own_time : Whether time passes only in `wait`; everything else then takes none.
    """

    has_power: bool
    own_time: bool

    def set(self, v_pu: float, f_hz: float, power_pu: float) -> None:
        """Set voltage, frequency and available power; raise `GridError` where that fails."""
        ...

    def now_s(self) -> float:
        """Return the device's time, s."""
        ...

    def wait(self, seconds: float) -> None:
        """Let device time pass."""
        ...

    def close(self) -> None:
        """Let go of the simulator."""
        ...


class ChannelGrid:
    """The side channel of an emulator; see "The side channel" in docs/emulators.md.

    Parameters
    ----------
    ask : Sends the keys of one line and returns the answer.
    """

    has_power = True

    def __init__(self, ask: Callable[..., dict[str, Any]], close: Callable[[], None]) -> None:
        self._ask, self._close = ask, close
        self._t, self._wall_s, self._speed = 0.0, time.monotonic(), 1.0
        self._t = self._heard(ask())
        try:
            self._heard(ask(t=self._t))
            self.own_time = True
        except GridError:
            self.own_time = False

    def _heard(self, answer: dict[str, Any]) -> float:
        if "error" in answer:
            raise GridError(str(answer["error"]), where="grid simulator")
        if not isinstance(answer.get("t"), (int, float)):
            raise GridError("no time in the answer", where="grid simulator", expected='{"t": ...}')
        return float(answer["t"])

    def set(self, v_pu: float, f_hz: float, power_pu: float) -> None:
        """Set the inputs of the plant; see `GridSimulator`."""
        self._heard(self._ask(v_pu=v_pu, hz=f_hz, irradiance_pu=power_pu))

    def now_s(self) -> float:
        """Return the plant's time; see `GridSimulator`."""
        now, wall = self._heard(self._ask()), time.monotonic()
        if wall - self._wall_s > _NAP_S:
            self._speed = max((now - self._t) / (wall - self._wall_s), 1e-3)
            self._t, self._wall_s = now, wall
        return now

    def wait(self, seconds: float) -> None:
        """Advance the plant, or wait until its clock has; see `GridSimulator`."""
        now = self.now_s()
        if self.own_time:
            self._heard(self._ask(t=now + seconds))
            return
        end = now + seconds
        while (left := end - self.now_s()) > 1e-6:
            time.sleep(min(left / self._speed, _NAP_S) if left > 0 else 0.0)

    def close(self) -> None:
        """See `GridSimulator`."""
        self._close()


class CommandGrid:
    """A command of the laboratory, run once per step.

    Parameters
    ----------
    command : With ``{v_pu}`` and ``{f_hz}``, and ``{power_pu}`` where it sets the source as well.
        It is not run by a shell. It returns when the values are there, with exit code 0; what it
        says on standard error is shown when it fails.
    """

    own_time = False

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
            names = [n for w in self._words for _, n, _, _ in string.Formatter().parse(w) if n]
        except ValueError as error:
            raise GridError(f"not a command: {error}", where="--grid") from None
        for name in names:
            if name not in _FIELDS:
                raise GridError(
                    f"the command has no value '{name}'",
                    where="--grid",
                    expected=", ".join(f"{{{f}}}" for f in _FIELDS),
                    nearest=nearest_name(name, _FIELDS),
                )
        for name in _FIELDS[:2]:
            if name not in names:
                raise GridError(
                    f"the command does not take {{{name}}}",
                    where="--grid",
                    expected="HOST:PORT of an emulator's side channel, or 'CMD {v_pu} {f_hz}'",
                )
        self.has_power = _FIELDS[2] in names

    def set(self, v_pu: float, f_hz: float, power_pu: float) -> None:
        """Run the command; see `GridSimulator`."""
        values = {"v_pu": f"{v_pu:.5f}", "f_hz": f"{f_hz:.4f}", "power_pu": f"{power_pu:.4f}"}
        words = [w.format_map(values) for w in self._words]
        where = f"grid simulator '{shlex.join(words)}'"
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=_COMMAND_S, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GridError(f"did not end within {_COMMAND_S:g} s", where=where) from None
        except OSError as error:
            raise GridError(reason_of(error), where=where) from None
        if done.returncode:
            told = (done.stderr.strip().splitlines() or [""])[-1]
            what = f"failed with exit code {done.returncode}" + (f": {told}" if told else "")
            raise GridError(what, where=where)

    def now_s(self) -> float:
        """Return the wall clock; see `GridSimulator`."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep; see `GridSimulator`."""
        time.sleep(seconds)

    def close(self) -> None:
        """See `GridSimulator`."""


def open_grid(target: str) -> GridSimulator:
    """Return the grid simulator at HOST:PORT, or the one that a command works.

    Raises GridError: Nothing answers there, or the command lacks a value.
    """
    address = _ADDRESS.fullmatch(target)
    if address is None:
        return CommandGrid(target)
    where = f"grid simulator {target}"
    try:
        connection = socket.create_connection((address["host"], int(address["port"])), _ANSWER_S)
    except (OSError, OverflowError) as error:
        raise GridError(reason_of(error), where=where) from None
    file = connection.makefile("rwb")

    def ask(**message: float) -> dict[str, Any]:
        try:
            file.write(json.dumps(message).encode() + b"\n")
            file.flush()
            answer = json.loads(file.readline() or b"null")
        except (OSError, ValueError) as error:
            raise GridError(reason_of(error), where=where) from None
        if not isinstance(answer, dict):
            raise GridError("the connection ended", where=where)
        return answer

    def close() -> None:
        file.close()
        connection.close()

    return ChannelGrid(ask, close)
