"""Checks that SunSpec models are still where the scan found them, by their registers ID and L."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from hil.adapter.plan import Block
from hil.adapter.sunspec import ModelBlock, read_registers
from hil.devices.errors import NotNowError
from hil.modbus.client import ModbusClient

_SURE_S = 0.25
"""How long `before_write` holds: the requests of one command follow each other."""


class ModelCheck:
    """Checks of one device.

    Parameters
    ----------
    moved : Called with the reason when a model is not where it was.
    """

    def __init__(self, link: ModbusClient, unit: int, moved: Callable[[str], None]) -> None:
        self._link, self._unit, self._moved = link, unit, moved
        self._sure_s: dict[str, float] = {}

    async def after_poll(self, received: Sequence[tuple[Block, bytes]]) -> None:
        """Check the models of what was read, in the order of reading.

        Raises NotNowError: One is not where the scan found it.
        Raises ExchangeError: A header could not be read.
        """
        seen: dict[str, int] = {}
        for k, (block, data) in enumerate(received):
            for model, found in block.headers(data):
                self._compare(model, found)
                seen[model.label] = k
        # A header that was read before a block says nothing of the time of the block.
        unsure = {
            model.label: model
            for k, (block, _) in enumerate(received)
            for model in block.models.values()
            if seen.get(model.label, -1) < k
        }
        for model in unsure.values():
            await self._read(model)

    async def before_write(self, model: ModelBlock) -> None:
        """Check one model; errors as `after_poll`."""
        if time.monotonic() - self._sure_s.get(model.label, -math.inf) >= _SURE_S:
            await self._read(model)
            self._sure_s[model.label] = time.monotonic()

    async def _read(self, model: ModelBlock) -> None:
        first, second = await read_registers(self._link, self._unit, model.address, 2)
        self._compare(model, (first, second))

    def _compare(self, model: ModelBlock, found: tuple[int, int]) -> None:
        if found == (model.model, model.length):
            return
        why = (
            f"the SunSpec map has changed: at {model.address} the device has model {found[0]} of "
            f"{found[1]} registers, the scan found {model.model} of {model.length}; scanned again"
        )
        self._sure_s.clear()
        self._moved(why)
        raise NotNowError(why)
