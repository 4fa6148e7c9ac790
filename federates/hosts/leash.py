"""Ties a program to the life of its parent: ``python -m federates.hosts.leash PROGRAM ...``.

A program that is not ours does not know that it must end when the run does. Its leash does: it
holds the other end of a pipe on standard input, and when that closes, however the run ended, the
whole process group goes. It ends as the program ends, with the same exit code or signal.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the program that the arguments name."""
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"cannot start '{sys.argv[1]}': {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
    threading.Thread(target=_watch, daemon=True).start()
    code = program.wait()
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has dumped its core, if any
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
