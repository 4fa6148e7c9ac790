"""Processes that end with their parent, however it ended.

The parent holds the other end of the child's standard input. It closes when the parent closes it,
ends or is killed; the child then ends itself. A program that does not watch its standard input is
started by ``python -m grid_models.base.parent PROGRAM ...``: the wrapper kills its process group
when standard input closes, and ends as the program ends, with the same exit code or signal.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

WRAPPER = (sys.executable, "-P", "-m", "grid_models.base.parent")


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a process that is to end with this one; `options` are those of `subprocess.Popen`.

    It gets a session of its own: Ctrl-C in the terminal reaches this process alone, which ends its
    children in order.
    """
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **options)


def unbuffered_stdin() -> io.FileIO:
    """Return standard input without a buffer, whose lock would outlive a waiting thread."""
    return io.FileIO(0, "rb", closefd=False)


def watch_parent(
    ended: Callable[[], None], received: Callable[[bytes], None] = lambda _line: None
) -> None:
    """Call `received` with each line of standard input and `ended` when it closes, in a thread."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            for line in unbuffered_stdin():
                received(line)
        ended()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end(
    processes: Iterable[subprocess.Popen[Any]],
    patience_s: float = 2.0,
    *,
    by: signal.Signals | None = None,
) -> None:
    """End processes that `spawn` started, then kill what is left of their process groups.

    Parameters
    ----------
    patience_s : Time for all of them to end by themselves.
    by : signal.Signals, optional
        Signal that asks them to end; by default their standard input is closed.
    """
    processes = list(processes)
    for process in processes:
        if by is None:
            close_stdin(process)
        else:
            kill_group(process, by)
    deadline_s = time.monotonic() + patience_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline_s - time.monotonic()))
        kill_group(process)
        process.wait()
        close_stdin(process)
        if process.stdout is not None:
            process.stdout.close()


def close_stdin(process: subprocess.Popen[Any]) -> None:
    """Close a process's standard input: it ends."""
    with contextlib.suppress(OSError, ValueError):
        if process.stdin is not None:
            process.stdin.close()


def kill_group(process: subprocess.Popen[Any], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that `spawn` started and to all that it started in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def main() -> None:
    """Run the program that the arguments name."""
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"cannot start '{sys.argv[1]}': {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
    watch_parent(lambda: os.killpg(0, signal.SIGKILL))
    code = program.wait()
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has dumped its core, if any
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
