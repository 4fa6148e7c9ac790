"""A lock of asyncio that lets writes go before reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Turns:
    """One holder at a time; next are those that asked to be first, then the others, in order.

    A safe write must not wait until all devices behind its gateway were polled.
    """

    def __init__(self) -> None:
        self._busy = False
        self._queues: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())

    @property
    def busy(self) -> bool:
        """Return True while somebody holds it."""
        return self._busy

    @contextlib.asynccontextmanager
    async def turn(self, *, first: bool) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        if self._busy:
            mine = asyncio.get_running_loop().create_future()
            self._queues[not first].append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():  # it was given before the cancellation
                    self._give()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._give()

    def _give(self) -> None:
        for queue in self._queues:
            while queue:
                waiting = queue.popleft()
                if not waiting.done():
                    waiting.set_result(None)  # still busy: for the one that waited
                    return
        self._busy = False
