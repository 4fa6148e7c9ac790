"""Counter-based random numbers: a pure function of (seed, stream, counter), no shared state.

Draws of one stream do not depend on which other streams exist or who asks first, which is what
makes a lossy network independent of how agents are split over federates. The mixing function is
the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
OOPSLA 2014), applied once per key word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

UIntArray = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1
_11, _27, _30, _31 = (np.uint64(n) for n in (11, 27, 30, 31))


@lru_cache(maxsize=1 << 16)
def stream_id(name: str) -> int:
    """Return a 64-bit identity of `name`, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def stream_ids(names: Iterable[str]) -> UIntArray:
    """Return the identities of several names."""
    return np.array([stream_id(name) for name in names], dtype=np.uint64)


def _mix(z: UIntArray) -> UIntArray:
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


def bits(
    seed: int, streams: UIntArray, counter: UIntArray | int, channel: int | Sequence[int]
) -> UIntArray:
    """Return 64 random bits per stream for one (seed, counter, channel).

    Several channels give an array each, stacked, with the bits that each has alone.
    """
    # An array keeps numpy from warning on scalar overflow, which is meant here.
    count = np.atleast_1d(np.asarray(counter, dtype=np.uint64))
    base: UIntArray | np.uint64
    if isinstance(channel, int):
        base = np.uint64(_base(seed, channel))
    else:
        rows = np.array([_base(seed, one) for one in channel], dtype=np.uint64)
        base = rows.reshape(-1, *[1] * max(np.ndim(streams), count.ndim))
    return _mix(_mix(_mix(streams + base) + count * _GAMMA) + _GAMMA)


def _base(seed: int, channel: int) -> int:
    return (seed * 0xD1342543DE82EF95 + channel * 0xDA942042E4DD58B5 + 1) & _MASK


def uniform(
    seed: int, streams: UIntArray, counter: UIntArray | int, channel: int | Sequence[int]
) -> NDArray[np.float64]:
    """Return uniform numbers in the open interval (0, 1), one per stream; see `bits`."""
    mantissa = (bits(seed, streams, counter, channel) >> _11).astype(np.float64)
    return (mantissa + 0.5) * 2.0**-53


def normal(
    seed: int, streams: UIntArray, counter: UIntArray | int, channel: int
) -> NDArray[np.float64]:
    """Return standard normal numbers, one per stream (Box-Muller; uses `channel` and the next)."""
    first, second = uniform(seed, streams, counter, (channel, channel + 1))
    drawn: NDArray[np.float64] = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
    return drawn
