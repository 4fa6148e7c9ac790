"""Processes that end with their parent: it closes its end, it dies, or they are told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from grid_models.base import parent

LIMIT_S = 60.0
WATCHES = """
import sys, time
from grid_models.base.parent import watch_parent
lines = []
watch_parent(lambda: (print("ended", *lines, flush=True), __import__("os")._exit(7)), lines.append)
print("ready", flush=True)
time.sleep(600)
"""
STARTS = """
import subprocess, sys, time
from grid_models.base import parent
child = parent.spawn(
    [*parent.WRAPPER, sys.executable, "-c", "import time; time.sleep(600)"],
    stdout=subprocess.DEVNULL,
)
time.sleep(0.5)
print(child.pid, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


def group_is_gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_child_hears_lines_and_then_the_end() -> None:
    child = parent.spawn([sys.executable, "-c", WATCHES], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"ready\n"
    child.stdin.write(b"one\ntwo\n")
    child.stdin.flush()
    parent.close_stdin(child)
    assert child.stdout.readline() == b"ended b'one\\n' b'two\\n'\n"
    assert child.wait(LIMIT_S) == 7
    parent.end([child])


def test_a_program_that_knows_nothing_ends_with_a_parent_that_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert not group_is_gone(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait(LIMIT_S)
    starter.stdout.close()
    assert until(lambda: group_is_gone(pid))


@pytest.mark.parametrize("by", [None, signal.SIGTERM])
def test_what_does_not_end_is_killed(by: signal.Signals | None) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(600)"
    child = parent.spawn([sys.executable, "-u", "-c", stubborn], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    parent.end([child], 0.1, by=by)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("code", "expected"), [("exit(5)", 5), ("import os; os.kill(os.getpid(), 15)", -15)]
)
def test_the_wrapper_ends_as_its_program(code: str, expected: int) -> None:
    child = parent.spawn([*parent.WRAPPER, sys.executable, "-c", code])
    assert child.wait(LIMIT_S) == expected
    with contextlib.suppress(OSError):
        parent.end([child])


def test_the_wrapper_says_which_program_is_not_there() -> None:
    child = parent.spawn([*parent.WRAPPER, "no-such-program"], stderr=subprocess.PIPE)
    assert child.stderr is not None
    assert b"cannot start 'no-such-program'" in child.stderr.read()
    assert child.wait(LIMIT_S) == 127
    child.stderr.close()
    parent.end([child])
