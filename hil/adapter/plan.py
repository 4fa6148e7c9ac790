"""Which requests fetch the points of a device, and what becomes of one that is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hil.adapter.sunspec import ModelBlock
from hil.devices.codec import BlockCodec, Request, plan_requests
from hil.devices.places import Place
from hil.devices.spec import ConnectionSpec

_MOST_SKIPPED = 4
"""Polls that leave out a block whose registers are not available now."""
_SUNSPEC_GAP = 124  # inside a SunSpec map every register is there, so any gap may be read over


@dataclass(frozen=True)
class Target:
    """Something that a block reads.

    Parameters
    ----------
    slot : Of a point; -1 for the header of a model.
    model : The SunSpec model that it belongs to; None for a plain point.
    """

    place: Place
    slot: int
    model: ModelBlock | None = None


def header(model: ModelBlock) -> Target:
    """Return the registers ID and L of a model."""
    return Target(Place("holding", model.address, "uint32", 2), -1, model)


class Block:
    """One read, the slots that it fills and the model headers in it."""

    def __init__(self, request: Request, targets: Sequence[Target]) -> None:
        self.request, self.targets = request, targets
        points = [t for t in targets if t.slot >= 0]
        self.slots = np.array([t.slot for t in points], dtype=np.intp)
        places = [t.place for t in points]
        self._codec = self._bits = None
        if request.table in ("coil", "discrete"):
            self._bits = np.array([p.address - request.address for p in places], dtype=np.intp)
        elif places:
            self._codec = BlockCodec(places, request.address, request.count)
        self.models = {t.model.label: t.model for t in points if t.model is not None}
        self._heads = [
            (2 * (t.place.address - request.address), t.model)
            for t in targets
            if t.slot < 0 and t.model is not None
        ]
        self.skipped = self.left_out = 0

    def raw(self, data: bytes) -> npt.NDArray[np.float64]:
        """Return the raw values of the slots."""
        if self._bits is not None:
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            return bits[self._bits].astype(np.float64)
        return self._codec.raw(data) if self._codec is not None else np.empty(0)

    def headers(self, data: bytes) -> list[tuple[ModelBlock, tuple[int, int]]]:
        """Return the models whose headers are in the block, and the ID and L that were read."""
        word = int.from_bytes
        return [(m, (word(data[i : i + 2]), word(data[i + 2 : i + 4]))) for i, m in self._heads]

    def answered(self) -> None:
        """Ask for the block in each poll."""
        self.skipped = self.left_out = 0

    def put_off(self) -> None:
        """Leave the block out of some polls: 0, then 1, 2, 4."""
        self.left_out = self.skipped
        self.skipped = min(max(2 * self.skipped, 1), _MOST_SKIPPED)


def plan_blocks(targets: Sequence[Target], connection: ConnectionSpec) -> list[Block]:
    """Return the fewest reads of all targets, and of the header of each model among them.

    Blocks of a model come before the one with its header, which then holds for what was read.
    """
    plain = [t for t in targets if t.model is None]
    models = {t.model.label: t.model for t in targets if t.model is not None}
    mapped = [t for t in targets if t.model is not None] + [header(m) for m in models.values()]
    blocks = _blocks(plain, connection, connection.max_gap)
    return blocks + _blocks(mapped, connection, _SUNSPEC_GAP)[::-1]


def _blocks(targets: Sequence[Target], connection: ConnectionSpec, max_gap: int) -> list[Block]:
    requests = plan_requests(
        [t.place for t in targets],
        max_registers=connection.max_registers,
        max_gap=max_gap,
        borders=connection.borders,
    )
    return [Block(r, [targets[i] for i in r.members]) for r in requests]


@dataclass
class PollPlan:
    """The blocks of one poll period.

    Parameters
    ----------
    absent : Blocks of one point that the device refuses; one of them is asked in each poll.
    split_on : Number of the connection on which a block was split last; None: all are whole.
    """

    blocks: list[Block]
    absent: list[Block] = field(default_factory=list)
    split_on: int | None = None
    _first: Block | None = None

    def begin(self, *, everything: bool = False) -> list[Block]:
        """Return the blocks of the next poll, that first which the last poll did not reach.

        With `everything` those as well whose registers were not available a moment ago.
        """
        at = self.blocks.index(self._first) if self._first in self.blocks else 0
        self._first = None
        out = []
        for block in self.blocks[at:] + self.blocks[:at]:
            if everything or block.left_out == 0:
                out.append(block)
            else:
                block.left_out -= 1
        if self.absent:
            self.absent.append(self.absent.pop(0))
            out.append(self.absent[-1])
        return out

    def not_reached(self, first: Block) -> None:
        """Begin the next poll with a block."""
        self._first = first

    def refused(self, block: Block, connection: int) -> list[Block]:
        """Split a block that the device refuses; return its parts."""
        if block not in self.blocks:  # absent, or split by another poll meanwhile
            return []
        at = self.blocks.index(block)
        self.split_on = connection
        if len(block.targets) == 1:
            self.absent.append(self.blocks.pop(at))
            return []
        half = len(block.targets) // 2
        parts = [_part(block, block.targets[:half]), _part(block, block.targets[half:])]
        if block.models:
            parts.reverse()  # the header last
        self.blocks[at : at + 1] = parts
        return parts


def _part(block: Block, targets: Sequence[Target]) -> Block:
    first = min(t.place.address for t in targets)
    count = max(t.place.end for t in targets) - first
    return Block(Request(block.request.table, first, count, ()), targets)
