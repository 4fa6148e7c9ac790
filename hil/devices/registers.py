"""Values whose bits one `struct` call cannot take from a reply.

Masks, words or bytes in little order, decimal digits, words that are not adjacent, and 64-bit
integers with a pattern for "not implemented", which float64 cannot tell from its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hil.devices.places import Place

_NIBBLES = np.arange(0, 64, 4, dtype=np.uint64)
_TENS = 10 ** np.arange(16, dtype=np.uint64)


class WordDecoder:
    """Decodes places of one block with array operations only.

    Parameters
    ----------
    places : Inside the block; not text.
    address : First register of the block.
    count : Registers of the block.
    """

    def __init__(self, places: Sequence[Place], address: int, count: int) -> None:
        n, most = len(places), max(len(p.words_at) for p in places)
        # Bytes in little order are the same registers in a second copy, behind the first.
        self._at = np.zeros((n, most), dtype=np.intp)
        self._weight = np.zeros((n, most), dtype=np.uint64)
        for row, place in enumerate(places):
            base = 10_000 if place.is_mod10k else 0x10000
            swapped = count if place.byte_order == "little" else 0
            for power, at in enumerate(reversed(place.words_at)):
                self._at[row, power] = at - address + swapped
                self._weight[row, power] = base**power
        self._top = np.array([[9_999 if p.is_mod10k else 0xFFFF] for p in places], np.uint64)
        self._mask = np.array([p.pattern_mask for p in places], dtype=np.uint64)
        self._shift = np.array([p.shift for p in places], dtype=np.uint64)
        signs = [1 << (p.bits - 1) if p.is_signed else 0 for p in places]
        self._sign = np.array(signs, dtype=np.uint64)
        self._signed = self._sign > 0
        self._bcd = self._rows(places, "bcd")
        self._single, self._double = self._rows(places, "float32"), self._rows(places, "float64")
        self._missing = np.array([p.sentinel is not None and not p.is_float for p in places])
        self._pattern = np.array(
            [
                p.pattern_of(p.sentinel or 0) if m else 0
                for p, m in zip(places, self._missing, strict=True)
            ],
            dtype=np.uint64,
        )
        self._number = np.array(
            [p.sentinel if p.is_float and p.sentinel is not None else np.nan for p in places],
            dtype=np.float64,
        )

    @staticmethod
    def _rows(places: Sequence[Place], kind: str) -> npt.NDArray[np.intp]:
        return np.array([i for i, p in enumerate(places) if p.kind.startswith(kind)], np.intp)

    def raw(self, payload: bytes) -> npt.NDArray[np.float64]:
        """Return the raw values, one per place; nan where not implemented or no digits."""
        both = np.concatenate([np.frombuffer(payload, ">u2"), np.frombuffer(payload, "<u2")])
        words = both.astype(np.uint64)[self._at]
        pattern = (words * self._weight).sum(axis=1, dtype=np.uint64)
        pattern = (pattern & self._mask) >> self._shift
        wrong = np.any(words * (self._weight > 0) > self._top, axis=1)
        wrong |= self._missing & (pattern == self._pattern)
        value: npt.NDArray[np.float64] = pattern.astype(np.float64)
        extended = ((pattern ^ self._sign) - self._sign).view(np.int64)
        value[self._signed] = extended[self._signed]
        if self._bcd.size:
            digits = pattern[self._bcd, None] >> _NIBBLES & np.uint64(15)
            value[self._bcd] = digits @ _TENS
            wrong[self._bcd] |= np.any(digits > 9, axis=1)
        if self._single.size:
            with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN here, not an error
                value[self._single] = pattern[self._single].astype(np.uint32).view(np.float32)
        if self._double.size:
            value[self._double] = pattern[self._double].view(np.float64)
        value[wrong | (value == self._number)] = np.nan
        return value
