"""One thread for linear algebra: set before numpy is imported."""

from __future__ import annotations

import os

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process whose BLAS has one thread."""


def use_one_thread() -> None:
    """Let BLAS use one thread in this process and its children, unless the user says otherwise.

    The matrices of a federation are small. Threads that share one cost more than they gain, on busy
    cores fifty times as much; federates, runs and workers are what is parallel.
    """
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
