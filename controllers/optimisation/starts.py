"""Where an iterative algorithm starts: what was found before, or what a model learned from it.

A learned start maps the numbers that describe a problem, its features, to a guess of solution and
prices. It is fitted to problems that were solved before (R. Sambharya et al., "End-to-end learning
to warm-start for real-time quadratic optimization", 2023, learn through the iterations; the two
models here only imitate solutions). The solution of the instant before needs no learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray


@dataclass(frozen=True, eq=False)
class Start:
    """A guess of the solution x (n,) and of the rows' prices (m,)."""

    x: FloatArray
    price: FloatArray

    def check(self, n: int, m: int, where: str) -> None:
        """Refuse a guess of another problem.

        Raises ControllerError: Another shape, or a number that is not finite.
        """
        for name, size in (("x", n), ("price", m)):
            values = np.asarray(getattr(self, name))
            if values.shape != (size,) or not np.isfinite(values).all():
                found = f"shape {values.shape}" if values.shape != (size,) else "not finite"
                raise ControllerError(
                    f"'{name}' of the start is {found}",
                    where=where,
                    expected=f"{size} finite numbers, of a problem of the same size",
                )


class _Learned:
    """What both models share: features scaled by their spread, solutions as rows.

    Parameters
    ----------
    features : (N, d). Of solved problems.
    starts : (N,). Their solutions.

    Raises ControllerError: There is none, their numbers differ, or one is not finite.
    """

    def __init__(self, features: FloatArray, starts: Sequence[Start]) -> None:
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or not starts or len(features) != len(starts):
            raise ControllerError(
                f"features of shape {features.shape} for {len(starts)} solutions",
                where="learned start",
                expected="a row of features for each of one or more solutions",
            )
        self._x_size = len(starts[0].x)
        self._solutions = np.array([np.concatenate([s.x, s.price]) for s in starts])
        if not (np.isfinite(features).all() and np.isfinite(self._solutions).all()):
            raise ControllerError(
                "a number is not finite", where="learned start", expected="finite numbers"
            )
        self._mean = features.mean(axis=0)
        spread = features.std(axis=0)
        self._per_spread = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        self._features = self._scaled(features)

    def _scaled(self, features: FloatArray) -> FloatArray:
        return np.asarray((features - self._mean) * self._per_spread)

    def _start(self, solution: FloatArray) -> Start:
        return Start(solution[: self._x_size], solution[self._x_size :])


class NearestStart(_Learned):
    """The mean solution of the k most similar problems."""

    def __init__(self, features: FloatArray, starts: Sequence[Start], k: int = 3) -> None:
        super().__init__(features, starts)
        self._k = min(k, len(self._features))

    def __call__(self, features: FloatArray) -> Start:
        """Return a start for a problem with these features, (d,)."""
        distance = np.square(self._features - self._scaled(features)).sum(axis=1)
        nearest = np.argpartition(distance, self._k - 1)[: self._k]
        return self._start(self._solutions[nearest].mean(axis=0))


class RidgeStart(_Learned):
    """The solution as a linear function of the features, by ridge regression.

    weight : Of the squared coefficients, relative to the mean square of the features.
    """

    def __init__(self, features: FloatArray, starts: Sequence[Start], weight: float = 1e-3) -> None:
        super().__init__(features, starts)
        self._middle = self._solutions.mean(axis=0)
        gram = self._features @ self._features.T
        gram += weight * max(float(np.trace(gram)), 1e-12) * np.eye(len(gram)) / len(gram)
        self._dual = np.linalg.solve(gram, self._solutions - self._middle)

    def __call__(self, features: FloatArray) -> Start:
        """Return a start for a problem with these features, (d,)."""
        return self._start(self._middle + (self._features @ self._scaled(features)) @ self._dual)
