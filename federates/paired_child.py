"""One run of ``feederate attack run`` in a process of its own.

``python -m federates.paired_child run ...`` is the command line, but it ends as on
Ctrl-C, with a readable run, when its standard input closes: so it ends with its parent, however
that ended.
"""

from __future__ import annotations

import os
import signal

from federates.cli import main
from grid_models.base.parent import watch_parent

if __name__ == "__main__":
    watch_parent(lambda: os.kill(os.getpid(), signal.SIGINT))
    main()
