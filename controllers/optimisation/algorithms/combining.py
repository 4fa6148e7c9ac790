"""Sharing ADMM whose members start a round from a combination of earlier results.

One round of sharing ADMM maps y = (y_1, ..., y_n) to T(y) (`controllers.optimisation.algorithms.
admm`), and T moves no two points apart in the norm ``|y|^2 = sum_i rho_i |y_i|^2``. An acceleration
starts the next round not from the last result r_0 but from ::

    s = r_0 + sum_j c_j (r_j - r_0)          (r_j: the result j rounds earlier)

The coordinator chooses c and sends it with the price of s, which it knows from the sums of the
results. It judges by the move of a round, g = T(s) - s: each member adds its part of the inner
products of the last move with earlier ones to its message. Coordinator and members must count the
same rounds, so that mail waits at a barrier.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Asynchronous, Waiting
from controllers.optimisation.algorithms import admm
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch, row_sum


def build(
    problem: Dispatch,
    coordinator: Callable[[], Coordinator],
    rho: FloatArray,
    sizes: tuple[int, int],
    waiting: Waiting | None,
    tolerance: float,
    hosted: tuple[str, ...] | None,
) -> RowController:
    """Return the members of a dispatch and a coordinator that combines.

    sizes : Numbers of earlier results and of inner products.
    """
    m, (memory, products) = len(problem.right), sizes
    return star_of(
        problem, lambda at: Members(problem, at, rho, memory, products), coordinator,
        (m + products, m + memory), waiting, tolerance, hosted,
    )  # fmt: skip


class Members(admm.Members):
    """Members that keep results and moves of earlier rounds.

    memory : Number of earlier results. products : Number of inner products with the last move.
    """

    def __init__(
        self, problem: Dispatch, at: IntArray, rho: FloatArray, memory: int, products: int
    ) -> None:
        super().__init__(problem, at, rho)
        self._results = np.repeat(self.y[None], memory + 1, axis=0)
        self._moves = np.zeros((products, *self.y.shape))

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Do a round from the combination that the coordinator chose."""
        m, at = self.y.shape[1], self.at(rows)
        price, weight = heard.values[:, :m], heard.values[:, m:]
        last = self._results[0, at]
        start = last.copy()
        for j, earlier in enumerate(self._results[1:, at]):
            start += weight[:, j, None] * (earlier - last)
        result = self.mapped(at, price, start)
        _push(self._results, at, result)
        _push(self._moves, at, result - start)
        moved = self._rho[at] * self._moves[0, at]
        products = [row_sum(moved * move) for move in self._moves[:, at]]
        return np.column_stack([result, *products])


class Coordinator(admm.Coordinator):
    """Chooses the combination from which the next round starts."""

    def __init__(self, problem: Dispatch, rho: FloatArray, memory: int) -> None:
        super().__init__(problem, rho)
        self._sums = np.zeros((memory + 1, len(problem.right)))
        self._memory, self._opened = memory, False

    def first(self) -> FloatArray:
        """Ask at price 0, from the start."""
        return np.concatenate([self.price, np.zeros((1, self._memory))], axis=1)

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Set the price of the next start."""
        total = heard.total()
        m = self._sums.shape[1]
        self.judge(total[:, :m] - self.price / self._step)
        _push(self._sums[:, None], slice(None), total[:, :m])
        # The first round was at price 0, not at the price of its start: no move to judge by.
        weight = self.weights(total[0, m:]) if self._opened else np.zeros(self._memory)
        self._opened = True
        start = self._sums[0].copy()
        for c, earlier in zip(weight, self._sums[1:], strict=True):
            start += c * (earlier - self._sums[0])
        self.price = self.price_of(start[None])
        return np.concatenate([self.price, weight[None]], axis=1)

    @abstractmethod
    def weights(self, products: FloatArray) -> FloatArray:
        """Return c (memory,).

        products : Inner products of the last round's move with itself and the moves before it.
        """


def _push(history: FloatArray, rows: admm.Rows, newest: FloatArray) -> None:
    """Put (rows, m) at the head of (rounds, all rows, m)."""
    history[1:, rows] = history[:-1, rows].copy()
    history[0, rows] = newest


def refuse_asynchronous(waiting: Waiting | None, algorithm: str) -> None:
    """Refuse waiting under which coordinator and members do not count the same rounds.

    Raises ControllerError: The policy is `Asynchronous`.
    """
    if isinstance(waiting, Asynchronous):
        raise ControllerError(
            "its coordinator and members must count the same rounds",
            where=f"algorithm '{algorithm}'",
            expected="Barrier waiting, or algorithm 'admm-async'",
        )
