"""Emulators in a process of their own: ``python -m hil.emulators.process OPTIONS``."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from grid_models.base import parent
from grid_models.base.errors import reason_of
from hil.devices.errors import ServerError
from hil.emulators.options import EmulatorOptions

_READY_S = 60.0
_ANSWER_S = 20.0
_LISTENS = re.compile(r"listening: (?P<name>\S+) (?P<host>\S+):(?P<port>\d+)( unit (?P<unit>\d+))?")


class EmulatorProcess:
    """A process that serves emulated devices, and ends with this one.

    Parameters
    ----------
    options : `end_with_parent` holds whatever it says.
    log : Takes what the process writes on standard error.

    Attributes
    ----------
    places : (str, int, int); Host, port and unit id by the name of the device.

    Raises ServerError: It did not start within a minute.
    """

    def __init__(self, options: EmulatorOptions, log: Path | None = None) -> None:
        labels = options.labels
        self._who = f"emulator of {labels[0]}" + f" and {len(labels) - 1} more" * (len(labels) > 1)
        self._log = log
        command = [sys.executable, "-P", "-m", "hil.emulators.process", options.to_json()]
        with contextlib.ExitStack() as stack:
            errors = None if log is None else stack.enter_context(log.open("ab"))
            self.process = parent.spawn(command, stdout=subprocess.PIPE, stderr=errors)
        self.places: dict[str, tuple[str, int, int]] = {}
        self._grid: tuple[str, int] | None = None
        self._channel: Any = None
        try:
            self._wait_until_ready(len(labels), with_grid=options.grid_port is not None)
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, n: int, *, with_grid: bool) -> None:
        assert self.process.stdout is not None
        timer = threading.Timer(_READY_S, self.process.kill)
        timer.start()
        try:
            while len(self.places) < n or (with_grid and self._grid is None):
                line = self.process.stdout.readline().decode()
                if not line:
                    raise self.error("did not start")
                found = _LISTENS.match(line)
                if found is not None and found["unit"] is None:
                    self._grid = found["host"], int(found["port"])
                elif found is not None:
                    at = found["host"], int(found["port"]), int(found["unit"])
                    self.places[found["name"]] = at
        finally:
            timer.cancel()

    def send(self, **message: Any) -> None:
        """Send a line over the side channel; `answer` waits for what comes back."""
        try:
            if self._channel is None:
                with socket.create_connection(self._grid or ("", 0), timeout=_ANSWER_S) as sock:
                    self._channel = sock.makefile("rwb")
            self._channel.write(json.dumps(message).encode() + b"\n")
            self._channel.flush()
        except OSError as error:
            raise self.error(reason_of(error)) from None

    def answer(self) -> dict[str, Any]:
        """Return the answer to the first line that was not answered yet."""
        try:
            line = self._channel.readline()
        except OSError as error:
            raise self.error(reason_of(error)) from None
        if not line:
            raise self.error("ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self.error(answer["error"])
        return answer

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a line over the side channel and return its answer."""
        self.send(**message)
        return self.answer()

    def error(self, what: str) -> ServerError:
        """Return an error that names the process and its log."""
        log = "" if self._log is None else f"; see {self._log}"
        return ServerError(f"the {self._who}: {what}{log}")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            if self._channel is not None:
                self._channel.close()
        parent.end([self.process], 3.0)


def main() -> None:
    """Serve the devices that the argument describes, until standard input closes."""
    from hil.emulators.host import serve

    options = EmulatorOptions.from_json(sys.argv[1])
    serve(options.plant(), options.labels, options, end_with_parent=True)


if __name__ == "__main__":
    main()
