"""``--live``: opens the page of a run, and ends it with the run."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import util
from types import TracebackType
from typing import TYPE_CHECKING, Any

from federates.core.interrupt import interrupt_main
from federates.errors import ScenarioError
from federates.live.address import FIRST_PORT, is_loopback, parse_address
from grid_models.base import parent

if TYPE_CHECKING:
    from federates.runs.runner import Started

_PATIENCE_S = 2.0


class LivePage:
    """The page of one run; a context manager around it.

    The address is taken at the beginning, so that a wrong one is refused before anything starts.

    Parameters
    ----------
    address : ``PORT``, ``HOST:PORT`` or ``auto``, as `federates.live.address.parse_address` reads.

    Raises
    ------
    ScenarioError
        The extra is not installed, or nobody can listen at the address.
    """

    def __init__(self, address: str) -> None:
        _require_packages()
        host, port = parse_address(address)
        self._loopback = is_loopback(host)
        self._socket = _listen(host, port)
        port = self._socket.getsockname()[1]
        self._hosts = ["127.0.0.1", "localhost", "::1", "[::1]", host] if self._loopback else ["*"]
        self._key = secrets.token_urlsafe(12)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/" + ("" if self._loopback else f"#{self._key}")
        self._process: subprocess.Popen[bytes] | None = None
        self._resume: Callable[[], None] = lambda: None

    def start(self, run: Started) -> None:
        """Serve the page of a run that begins."""
        from federates.core.progress import Progress
        from federates.live.roster import roster_of

        job: dict[str, Any] = {
            "roster": roster_of(run),
            "socket": self._socket.fileno(),
            "hosts": self._hosts,
            "loopback": self._loopback,
            "key": self._key,
        }
        self._resume = Progress(len(run.here), run.store.heartbeat).resume
        run.store.logs.mkdir(exist_ok=True)
        with (run.store.logs / "live.log").open("ab") as log:
            self._process = parent.spawn(
                [sys.executable, "-P", "-m", "federates.live.server"],
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(self._socket.fileno(),),
            )
        self._socket.close()
        threading.Thread(target=self._obey, args=(self._process, job), daemon=True).start()

    def _obey(self, process: subprocess.Popen[bytes], job: dict[str, Any]) -> None:
        """End the run, as Ctrl-C does, when the page says so; let it go on when the page dies."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                if line == b"stop\n":
                    interrupt_main()
        self._resume()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the end of the run to those that look, and end the page."""
        self._socket.close()
        if self._process is not None:
            parent.end([self._process], _PATIENCE_S)


def _require_packages() -> None:
    missing = [name for name in ("starlette", "uvicorn") if util.find_spec(name) is None]
    if missing:
        raise ScenarioError(
            f"the live page needs {' and '.join(missing)}, which the extra 'live' installs",
            where="--live",
            expected="pip install 'feederate[live]' before",
        )


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port, the usual one or any that is free."""
    tries = (FIRST_PORT, 0) if port is None else (port,)
    for number in tries:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, number), family=family, backlog=64)
        except OSError as error:
            reason = error.strerror or str(error)
    raise ScenarioError(
        f"cannot listen at {host}:{tries[0]}: {reason}",
        where="--live",
        expected="a free port, or none: --live alone takes a free one",
    )
