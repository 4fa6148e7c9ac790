"""One thread for linear algebra.

The matrices of a federation are small. Threads that share one cost more than they gain, on busy
cores fifty times as much, and the last bits of a result would depend on the number of cores.
Federates, runs and workers are what is parallel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process whose BLAS has one thread."""
_inside = False


def use_one_thread() -> None:
    """Let BLAS use one thread in this process and its children, unless the user says otherwise.

    It has an effect on libraries that are loaded later.
    """
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread meanwhile, also where it is loaded already, and in child processes.

    Libraries that were loaded before have as many threads afterwards as before; those that are
    loaded meanwhile keep one. Inside another `one_thread` it costs nothing.
    """
    global _inside  # noqa: PLW0603 - BLAS is one for the process
    if _inside:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    _inside = True
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _inside = False
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
