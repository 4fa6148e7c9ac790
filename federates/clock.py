"""Integer time. Inside the federation time is an integer number of nanoseconds (HELICS' tick)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

NS_PER_S = 1_000_000_000


def to_ns(seconds: float) -> int:
    """Return the integer time nearest to `seconds`."""
    return round(seconds * NS_PER_S)


def to_s(ns: int) -> float:
    """Return seconds; HELICS, like `to_ns`, converts them back to the same integer."""
    return ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class Timing:
    """When a federate steps: at ``offset + k * period`` for k = 0, 1, ..."""

    period_ns: int
    offset_ns: int = 0

    def steps_before(self, horizon_ns: int) -> int:
        """Return how many steps lie in ``[0, horizon)``."""
        return max(0, -(-(horizon_ns - self.offset_ns) // self.period_ns))


def common_grid(timings: Sequence[Timing]) -> Timing:
    """Return the coarsest timing whose instants contain those of all of `timings`."""
    first = timings[0]
    period_ns = gcd(
        *(t.period_ns for t in timings), *(t.offset_ns - first.offset_ns for t in timings)
    )
    return Timing(period_ns, first.offset_ns if len(timings) == 1 else first.offset_ns % period_ns)
