"""Set-points of one device that wait to be written, and those that are put off for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hil.adapter.safe import grown


@dataclass(frozen=True)
class Order:
    """A set-point that waits to be written.

    Parameters
    ----------
    again : The adapter itself repeats the last command, because of `why`.
    """

    asked: float
    again: bool = False
    why: str = ""


@dataclass(frozen=True)
class Delay:
    """Why a set-point is not written yet, since when, and when it is tried again."""

    why: str
    since_s: float
    next_s: float
    pause_s: float


@dataclass
class Orders:
    """At most one order per point; a newer one replaces it, but is not written any sooner.

    Parameters
    ----------
    most_s : Longest pause between two tries.
    """

    most_s: float
    waiting: dict[str, Order] = field(default_factory=dict)
    delays: dict[str, Delay] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything."""
        self.waiting.clear()
        self.delays.clear()

    def drop(self, point: str) -> None:
        """Forget the order of a point."""
        self.waiting.pop(point, None)
        self.delays.pop(point, None)

    def take(self, now_s: float) -> tuple[str, Order] | None:
        """Take the first order that may be written now; None where there is none."""
        for point in self.waiting:
            if point not in self.delays or self.delays[point].next_s <= now_s:
                return point, self.waiting.pop(point)
        return None

    def pause_s(self, now_s: float) -> float:
        """Return how long until an order may be written; inf where none waits."""
        due = (self.delays[p].next_s if p in self.delays else now_s for p in self.waiting)
        return max(0.0, min(due, default=math.inf) - now_s)

    def delay(self, point: str, order: Order, why: str, now_s: float) -> bool:
        """Put an order off, for longer each time; return True where it is the first time."""
        before = self.delays.get(point)
        pause_s = min(grown(before.pause_s if before else 0.0), self.most_s)
        since_s = before.since_s if before else now_s
        self.delays[point] = Delay(why, since_s, now_s + pause_s, pause_s)
        self.waiting.setdefault(point, order)
        return before is None

    def done(self, point: str) -> Delay | None:
        """Note that a point was written or given up; return the delay that it had."""
        return self.delays.pop(point, None)
