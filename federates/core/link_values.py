"""What a link does to the numbers of messages: privacy noise, quantisation, noise, in that order.

Whole numbers of the protocol at the end of a message (`Link.counters`) pass unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from grid_models.base import counter_rng

# Channels of a message's random numbers; `federates.core.links` draws 0 and 1, a normal number 2
# and 3.
_NOISE, _DITHER, _PRIVACY = 2, 4, 5
HEADER_BYTES = 16
"""Of a message beside its numbers: its link and its round."""
_SCALE_BYTES = 2
_LARGEST_POWER = 1022  # so that the distance between both ends is finite


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """Quality of one link.

    Attributes
    ----------
    latency_s, jitter_s : Delay, and its largest uniform addition.
    loss : Probability.
    noise : Standard deviation of each number.
    bits : Of each number; None: all 64. They choose one of 2^bits levels in steps of equal size
        between `bits_min` and `bits_max`, or, without these, between plus and minus the power of
        two above the message's largest number (two more bytes tell it). The level is the next
        lower or the next higher one at random, so that its mean is the number.
    privacy_epsilon, privacy_sensitivity : Each number has Laplace noise of scale sensitivity /
        epsilon, None: no noise. If the numbers of a message change by at most the sensitivity (sum
        of absolute changes) between two data sets that must not be told apart, this message alone
        is epsilon-differentially private (C. Dwork, F. McSherry, K. Nissim and A. Smith,
        "Calibrating noise to sensitivity in private data analysis", TCC 2006). Of k messages the
        guarantee is k epsilon; counters of the protocol have none.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    noise: float = 0.0
    bits: int | None = None
    bits_min: float | None = None
    bits_max: float | None = None
    privacy_epsilon: float | None = None
    privacy_sensitivity: float = 0.0

    @property
    def keeps_numbers(self) -> bool:
        """Whether numbers arrive as they were sent."""
        return not self.noise and self.bits is None and self.privacy_epsilon is None

    @property
    def perfect(self) -> bool:
        """Whether messages pass at once and unchanged."""
        return self.keeps_numbers and not (self.latency_s or self.jitter_s or self.loss)

    def message_bytes(self, link: Link) -> int:
        """Return the bytes of a message of a link of this quality."""
        if self.bits is None:
            return HEADER_BYTES + 8 * link.width
        scale = _SCALE_BYTES if self.bits_min is None else 0
        data = math.ceil(self.bits * (link.width - link.counters) / 8)
        return HEADER_BYTES + scale + data + 8 * link.counters


class LinkValues:
    """Changes the numbers of messages.

    Parameters
    ----------
    links, each : Links and their quality.
    """

    def __init__(self, links: Sequence[Link], each: Sequence[LinkQuality], seed: int) -> None:
        self._seed = seed
        self._width: IntArray = np.array([link.width for link in links], dtype=np.int64)
        self._data = np.array([link.width - link.counters for link in links], dtype=np.int64)
        self._acts = np.array([not q.keeps_numbers for q in each], dtype=np.bool_)
        self._noise = np.array([q.noise for q in each])
        self._privacy = np.array([_laplace_scale(q) for q in each])
        self._levels = np.array([2.0 ** (q.bits or 0) - 1.0 for q in each])
        self._low = np.array([math.nan if q.bits_min is None else q.bits_min for q in each])
        self._high = np.array([math.nan if q.bits_max is None else q.bits_max for q in each])

    def applied(self, mail: Mail, streams: counter_rng.UIntArray, sent_ns: int) -> Mail:
        """Return the mail as it leaves the links; numbers of other links keep their bits.

        streams : Random stream of each message.
        """
        if not self._acts[mail.link].any():
            return mail
        width = self._width[mail.link]
        link = np.repeat(mail.link, width)
        within = element_index(np.zeros(len(mail), dtype=np.int64), width)
        draws = _Draws(self._seed, np.repeat(streams, width) + within.astype(np.uint64), sent_ns)
        is_data, values = within < self._data[link], mail.values.copy()
        if self._privacy.any():
            at = np.flatnonzero((self._privacy[link] > 0.0) & is_data)
            values[at] += self._privacy[link[at]] * draws.laplace(at)
        if self._levels.any():
            at = np.flatnonzero((self._levels[link] > 0.0) & is_data & np.isfinite(values))
            message = np.repeat(np.arange(len(mail)), width)[at]
            values[at] = self._rounded(values[at], message, link[at], draws.uniform(at))
        if self._noise.any():
            at = np.flatnonzero((self._noise[link] > 0.0) & is_data)
            values[at] += self._noise[link[at]] * draws.normal(at)
        return Mail(mail.link, mail.round, values)

    def _rounded(
        self, values: FloatArray, message: IntArray, link: IntArray, draw: FloatArray
    ) -> FloatArray:
        """Return numbers at levels; all arrays have an entry per number."""
        largest = np.zeros(1 + int(message.max(initial=0)))
        np.maximum.at(largest, message, np.abs(values))
        power = np.ldexp(1.0, np.minimum(np.frexp(largest)[1], _LARGEST_POWER))
        own = np.where(largest > 0.0, power, 0.0)[message]
        low, high = self._low[link], self._high[link]
        low, high = np.where(np.isnan(low), -own, low), np.where(np.isnan(high), own, high)
        step = (high - low) / self._levels[link]
        step = np.where(step > 0.0, step, 1.0)  # a message of zeros has the level 0 only
        level = np.floor((np.clip(values, low, high) - low) / step + draw)
        return np.asarray(low + step * np.minimum(level, self._levels[link]))


class _Draws:
    """Random numbers of the numbers of messages sent at one instant, by position."""

    def __init__(self, seed: int, streams: counter_rng.UIntArray, sent_ns: int) -> None:
        self._seed, self._streams, self._sent_ns = seed, streams, sent_ns

    def uniform(self, at: IntArray) -> FloatArray:
        return counter_rng.uniform(self._seed, self._streams[at], self._sent_ns, _DITHER)

    def normal(self, at: IntArray) -> FloatArray:
        return counter_rng.normal(self._seed, self._streams[at], self._sent_ns, _NOISE)

    def laplace(self, at: IntArray) -> FloatArray:
        """Return Laplace numbers of scale 1."""
        draw = counter_rng.uniform(self._seed, self._streams[at], self._sent_ns, _PRIVACY)
        return np.where(draw < 0.5, np.log(2.0 * draw), -np.log(2.0 - 2.0 * draw))


def _laplace_scale(quality: LinkQuality) -> float:
    epsilon = quality.privacy_epsilon
    return 0.0 if epsilon is None else quality.privacy_sensitivity / epsilon


def element_index(start: IntArray, width: IntArray) -> IntArray:
    """Return ``start[i] + 0 ... start[i] + width[i] - 1`` for every i, one after the other."""
    before = np.cumsum(width) - width
    index: IntArray = np.repeat(start - before, width) + np.arange(int(width.sum()))
    return index


def number_streams(streams: counter_rng.UIntArray, width: IntArray) -> counter_rng.UIntArray:
    """Return the random stream of each number of messages with the given streams and widths."""
    within = element_index(np.zeros(width.size, dtype=np.int64), width)
    return np.repeat(streams, width) + within.astype(np.uint64)
