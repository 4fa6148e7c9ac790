"""Regions that agree with their neighbours, without a coordinator: what ADMM, ATC and APP share.

Every iteration a region tells each neighbour the variables of their ties
(`controllers.optimisation.problems.ties`), hears the neighbour's, and minimises its own cost plus a
linear and a quadratic term in its own t, which a `Rule` gives::

    x, t = argmin f(x) + a' t + sum_i w_i (t_i - c_i)^2 / 2    in the region's constraints, t = T x

The residual of a region is the larger of |t - heard| (rad, pu) and of what the prices of the two
ends of a tie lack to a sum of 0, relative to 1 + the largest: the dual residual. With both at 0
the regions' solutions are a local optimum of the whole; a small |t - heard| alone shows nothing,
since large w make it small at any cost.

Stopping is by neighbours, as in `controllers.core.agent_rows`: a message ends with the count of
rounds that its sender knows to be quiet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from controllers.core.agents import Channel, Letters
from controllers.core.mail import FloatArray
from controllers.core.waiting import Inbox, Waiting
from controllers.optimisation.interior_point import InteriorPoint, Solution, Terms
from controllers.optimisation.problems.opf_regions import RegionOpf
from controllers.optimisation.problems.ties import RegionTies, region_graph, ties_of
from controllers.optimisation.region_method import RegionAgent, RegionMethod

_STOPPED, _FAILED = -1.0, -2.0
_MOST_FAILURES = 5
"""Local problems in a row without a solution, after which a region gives up."""


class Rule(Protocol):
    """What an algorithm adds to a region's cost."""

    def terms(self, own: FloatArray, heard: FloatArray) -> tuple[FloatArray, ...]:
        """Return the linear term a, weight w and target c, each (m,).

        own, heard : (m,). t of the region, and of the neighbour of each tie.
        """
        ...


def region_peers(
    problem: RegionOpf,
    rule: Callable[[RegionTies], Rule],
    *,
    waiting: Waiting | None,
    tolerance: float,
    hosted: tuple[str, ...] | None,
) -> RegionMethod:
    """Return the regions of a problem, each with its own rule."""
    limit = float(region_graph(problem).diameter + 1)
    return RegionMethod(
        [PeerRegion(ties, rule(ties), limit, tolerance, waiting) for ties in ties_of(problem)],
        hosted,
    )


class PeerRegion(RegionAgent):
    """A region.

    Parameters
    ----------
    ties : The region and what it agrees on.
    rule : Of the algorithm.
    limit : Rounds that are known to be quiet at which it stops: more than the graph's diameter.
    tolerance : Residual below which a round is quiet; 0: it does not stop.
    waiting : When it computes.
    """

    def __init__(
        self,
        ties: RegionTies,
        rule: Rule,
        limit: float,
        tolerance: float,
        waiting: Waiting | None = None,
    ) -> None:
        super().__init__(
            ties.name,
            [
                Channel(peer, "ties", part.stop - part.start + 1, counters=1)
                for peer, part in ties.parts.items()
            ],
            waiting=waiting,
        )
        self._ties, self._rule = ties, rule
        self._limit, self._tolerance = limit, tolerance
        self._solver = InteriorPoint(ties.nlp)
        self._found: Solution | None = None
        self._failures = 0
        self._quiet = 0.0
        self._x, self.t = np.split(ties.nlp.start, [ties.nlp.n])
        self._mean: FloatArray | None = None
        self._weight = np.zeros(ties.nlp.m)
        self.residual = np.inf

    def first(self) -> Letters:
        """Tell the start; a region without neighbours has its optimum at once."""
        if not self.peers:
            self._minimise(*np.zeros((3, 0)))
            self.stopped, self.status = True, self._found.status if self._found else "stalled"
        return self._letters(0.0)

    def compute(self, inbox: Inbox) -> Letters:
        """Do one iteration, or stop."""
        if self.stopped:
            return {}
        heard = np.empty_like(self.t)
        count = []
        for peer, part in self._ties.parts.items():
            row = inbox.of(peer, "ties")
            heard[part] = row[:-1]
            count.append(float(np.rint(row[-1])))
        self._judge(heard)
        if min(count) < 0.0 or self._over(count) or self._failures >= _MOST_FAILURES:
            return self._stop(min(count))
        self._minimise(*self._rule.terms(self.t, heard))
        return self._letters(self._quiet)

    def _judge(self, heard: FloatArray) -> None:
        """Set the residual of the last solution."""
        mean, before = 0.5 * (self.t + heard), self._mean
        self._mean = mean
        if before is None or self._found is None:
            return
        # The prices of both ends add to w (t + t_heard - 2 c), whose terms c add to 2 before.
        lack = np.max(2.0 * self._weight * np.abs(mean - before), initial=0.0)
        largest = np.max(np.abs(self._price(self._found)), initial=0.0)
        disagreement = np.max(np.abs(self.t - heard), initial=0.0)
        self.residual = max(float(disagreement), float(lack / (1.0 + largest)))

    def _over(self, count: list[float]) -> bool:
        """Count quiet rounds; say whether all regions have been quiet."""
        calm = self._failures == 0 and self.residual <= self._tolerance
        self._quiet = min(min(self._quiet, *count) + 1.0, self._limit) if calm else 0.0
        return self._quiet >= self._limit

    def _stop(self, least: float) -> Letters:
        failed = self._failures >= _MOST_FAILURES
        self.stopped = True
        if failed and self._found is not None:
            self.status = self._found.status
        else:
            self.status = "a neighbour has no solution" if least == _FAILED else "converged"
        return self._letters(_FAILED if failed or least == _FAILED else _STOPPED)

    def _minimise(self, linear: FloatArray, weight: FloatArray, target: FloatArray) -> None:
        """Solve the local problem; where it has no solution, go on from where the solver ended."""
        self._weight = weight
        none = np.zeros(self._ties.nlp.n)
        terms = Terms(*(np.concatenate((none, row)) for row in (linear, weight, target)))
        last = self._found
        found = self._solver.solve(terms, warm=last if last and last.converged else None)
        if not found.converged and last is not None and last.converged:
            found = self._solver.solve(terms)
        self._failures = 0 if found.converged else self._failures + 1
        self._found = found
        self._x, self.t = np.split(found.x, [self._ties.nlp.n])
        self.iterations += 1

    def _letters(self, quiet: float) -> Letters:
        return {
            (peer, "ties"): np.append(self.t[part], quiet)
            for peer, part in self._ties.parts.items()
        }

    def _price(self, found: Solution) -> FloatArray:
        """Return the price of each t, (m,): a + w (t - c) of the last local problem."""
        return found.equality[len(found.equality) - self._ties.nlp.m :]

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x, multipliers and prices of the border."""
        nlp, found = self._ties.nlp, self._found
        if found is None:
            return {"x": self._x}
        return {
            "x": self._x,
            "equality": found.equality[: len(found.equality) - nlp.m],
            "inequality": found.inequality,
            "bound": found.bound[: nlp.n],
            "price": nlp.transposed_ties(self._price(found))[self._ties.border.column],
        }
