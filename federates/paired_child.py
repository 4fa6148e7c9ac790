"""One run of ``feederate attack run`` in a process of its own.

``python -m federates.paired_child run ...`` is the command line, but it ends as on
Ctrl-C, with a readable run, when its standard input closes: so it ends with its parent, however
that ended.
"""

from __future__ import annotations

import os
import signal
import threading

from federates.cli import main


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    main()
