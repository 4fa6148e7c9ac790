"""A lock of asyncio that lets writes go before reads."""

from __future__ import annotations

import asyncio
from collections import deque


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

    async def take(self, *, first: bool) -> None:
        """Wait for a turn; `give` ends it."""
        if self._busy:
            mine = asyncio.get_running_loop().create_future()
            self._queues[not first].append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():  # it was given before the cancellation
                    self.give()
                raise
        self._busy = True

    def give(self) -> None:
        """End a turn: the next one has it, or nobody."""
        for queue in self._queues:
            while queue:
                waiting = queue.popleft()
                if not waiting.done():
                    waiting.set_result(None)  # still busy: for the one that waited
                    return
        self._busy = False
