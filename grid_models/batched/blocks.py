"""Many cases in blocks, one after the other or on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np

from grid_models.base.threads import one_thread

_BLOCK = 160
"""Cases solved together: their arrays stay in a core's cache."""


def in_blocks(work: Callable[[slice], None], n: int, threads: int) -> None:
    """Do `work` for about equal blocks of `n` cases."""
    if n <= _BLOCK:
        work(slice(0, n))
        return
    ends = np.linspace(0, n, max(1, -(-n // _BLOCK)) + 1).round().astype(int).tolist()
    blocks = [slice(*pair) for pair in pairwise(ends)]
    if threads == 1:
        for at in blocks:
            work(at)
        return
    with one_thread():
        list(_pool(threads).map(work, blocks))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
