"""Whole co-simulations in a folder of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.core.signals import read_signal, signal_names
from federates.runs.options import Placement
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario


@dataclass(frozen=True)
class Ran:
    """A finished run and ways to compare it with another."""

    result: RunResult

    @property
    def signals(self) -> Path:
        return self.result.folder / "signals"

    def digests(self) -> dict[str, str]:
        """Return the hash of every signal file."""
        assert not list(self.signals.glob("*.arrows"))
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.signals.iterdir())
        }

    def values(self, name: str) -> np.ndarray:
        """Return the recorded values of ``federate.port``."""
        return read_signal(self.signals, name)[2]

    def by_label(self, port: str) -> dict[str, bytes]:
        """Return the bits of every label of `port`, whichever federate recorded it."""
        out: dict[str, bytes] = {}
        for name in signal_names(self.signals):
            if name.endswith(f".{port}"):
                _, labels, values = read_signal(self.signals, name)
                for label, column in zip(labels, values.T, strict=True):
                    assert label not in out
                    out[label] = column.tobytes()
        return out

    @property
    def manifest(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.result.folder / "manifest.json").read_text())
        return data


Runner = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="session")
def shared_runs() -> dict[tuple[Any, ...], Ran]:
    """Return the runs that several tests look at, by what was asked for."""
    return {}


@pytest.fixture
def ran(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    shared_runs: dict[tuple[Any, ...], Ran],
) -> Runner:
    """Run a scenario (text, path or shipped name) and return what came of it.

    With `shared` a run that was asked for before is not repeated; only for reading.
    """
    count = 0

    def go(
        scenario: str | Path,
        *overrides: str,
        placement: Placement = "single",
        steps: int | None = None,
        seed: int | None = None,
        shared: bool = False,
    ) -> Ran:
        nonlocal count
        count += 1
        key = (scenario, overrides, placement, steps, seed)
        if shared and key in shared_runs:
            return shared_runs[key]
        if isinstance(scenario, str) and "\n" in scenario:
            path = tmp_path / "study.yaml"
            path.write_text(scenario)
            scenario = path
        loaded = load_scenario(scenario, overrides, seed=seed)
        out = tmp_path_factory.mktemp("shared") / "run" if shared else tmp_path / f"run-{count}"
        result = Ran(run(loaded, out=out, placement=placement, steps=steps))
        if shared:
            shared_runs[key] = result
        return result

    return go


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Copy the examples of docs/federates.md out of the repository, as a user does."""

    def copy(name: str) -> Path:
        shutil.copytree(EXAMPLES / "federates", tmp_path / "mine", dirs_exist_ok=True)
        for module in EXAMPLES.glob("*.py"):
            shutil.copy(module, tmp_path / "mine")
        return tmp_path / "mine" / name

    return copy


@pytest.fixture
def command_line(tmp_path: Path) -> Callable[[Sequence[str]], subprocess.Popen[str]]:
    """Start the command line as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from federates.cli import main; main()", *arguments],
            cwd=tmp_path,
            env=os.environ | {"NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def _forwarded(port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Forward a local port, as ``ssh -L`` does; yield the local port."""

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, port)) as far:
                back = threading.Thread(target=_pump, args=(far, self.request))
                back.start()
                _pump(self.request, far)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def forwarded() -> Callable[..., AbstractContextManager[int]]:
    """Forward a port as an SSH tunnel does."""
    return _forwarded
