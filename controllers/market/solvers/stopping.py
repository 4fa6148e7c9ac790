"""When a distributed clearing is done, what that promises, and what a clearing returns.

It is done when three things hold, `tolerance` being relative to the cost:

1. its own numbers agree: the duality gap and the worth of the duals' infeasibility are within
   `tolerance`, every balance within `infeasibility_kw`;
2. the `Certificate` bounds the distance of its cost from the optimum by `tolerance`;
3. its set-points, carried by physics, keep voltage band and ratings within `limits_pu`.

The first says that the prices are worth as duals what the dispatch costs. Alone it bounds nothing
where a voltage limit binds: an iterate a little outside its equations is cheaper than the optimum,
and the dual value follows it. The other two take some sweeps of the tree, so they wait for the
first, and after a failure until a fifth more iterations are done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.atoms import Atoms
from controllers.market.solvers.certificate import Certificate, Certifier, at_limit, dual_value
from controllers.market.solvers.warm_start import dispatch_of

_LOOK_EVERY = 10
_PATIENCE = 1.2


@dataclass(frozen=True, slots=True)
class Rule:
    """When to stop.

    Attributes
    ----------
    tolerance : float
        Largest duality gap and largest distance from the optimum, relative to the cost; 0: never.
    infeasibility_kw : float. Largest error of a balance.
    limits_pu : float. Largest excess of a limit; see `Certificate.excess_pu`.

    Raises ControllerError: A number is out of range.
    """

    max_iterations: int
    tolerance: float
    infeasibility_kw: float
    limits_pu: float

    def __post_init__(self) -> None:
        check_whole("max_iterations", self.max_iterations)
        for name in ("tolerance", "infeasibility_kw", "limits_pu"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ControllerError(
                    f"{name} is {value}", where="distributed clearing", expected="0 or more"
                )


def check_whole(name: str, value: object) -> None:
    """Raise unless `value` is a whole number from 1.

    Raises ControllerError: It is none.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or int(value) < 1:  # type: ignore[call-overload]
        raise ControllerError(
            f"{name} is {value!r}",
            where="distributed clearing",
            expected="a whole number of at least 1",
        )


@dataclass(frozen=True, slots=True)
class ClearingProgress:
    """Where an iteration stands by its own numbers.

    Attributes
    ----------
    cost : float. Objective, money per hour.
    gap : float. ``|objective - dual value|`` over the objective.
    dual_error : float. Worth of what keeps the duals from being feasible, over the objective.
    infeasibility_kw : float
        Largest error of a balance, in kW or kvar (of a squared voltage: in per mille).
    """

    iteration: int
    cost: float
    gap: float
    dual_error: float
    infeasibility_kw: float

    def within(self, rule: Rule) -> bool:
        """Say whether its own numbers let the clearing stop."""
        return max(self.gap, self.dual_error) <= rule.tolerance and (
            self.infeasibility_kw <= rule.infeasibility_kw
        )


@dataclass(frozen=True)
class DistributedClearing:
    """What a distributed clearing found.

    Attributes
    ----------
    dispatch : Dispatch. The last iterate; its prices are the duals of the balances.
    converged : Whether all of the rule is met: the cost is within the tolerance of the optimum,
        physics carries the set-points within `limits_pu` of the limits, and as duals the prices are
        worth the cost within the tolerance. Of single prices it promises nothing.
    gap : Certain bound on the distance of the cost from the optimum, relative to the cost; infinite
        where the set-points prove nothing.
    infeasibility_kw : float. As in `ClearingProgress`, at the end.
    excess_pu : float. As in `Certificate`, at the end.
    messages : int. Messages that neighbours would have exchanged.
    dual : ndarray, shape (4, n). All duals in physical units, for the `Start` of a later clearing.
    """

    dispatch: Dispatch
    iterations: int
    converged: bool
    gap: float
    infeasibility_kw: float
    excess_pu: float
    messages: int
    history: tuple[ClearingProgress, ...]
    dual: FloatArray


def diverged(history: list[ClearingProgress]) -> bool:
    """Say whether the last infeasibility is a million times the smallest so far, or no number."""
    now = history[-1].infeasibility_kw
    return not np.isfinite(now) or now > 1e6 * max(min(p.infeasibility_kw for p in history), 1e-3)


class Watch:
    """Looks at an iteration every tenth time, says when it may stop, and what it found then.

    Parameters
    ----------
    atoms : Atoms. All of them.
    rule : Rule
    messages_per_line : int. Of one iteration.
    """

    def __init__(
        self, problem: ClearingProblem, atoms: Atoms, rule: Rule, *, messages_per_line: int
    ) -> None:
        self._problem, self._atoms, self._rule = problem, atoms, rule
        self._messages = messages_per_line * (atoms.m - 1)
        self._certifier = Certifier(problem, atoms)
        self._next_certificate = 0.0
        self._certificate: Certificate | None = None
        self.history: list[ClearingProgress] = []

    def due(self, iteration: int) -> bool:
        """Say whether to look after this iteration, counted from 1."""
        return iteration % _LOOK_EVERY == 0 or iteration == self._rule.max_iterations

    def may_stop(self, iteration: int, x: FloatArray, y: FloatArray) -> bool:
        """Look at the scaled iterate (x, y) and say whether the rule is met."""
        now = progress(self._atoms, iteration, x, y)
        self.history.append(now)
        self._certificate = None
        if not now.within(self._rule) or iteration < self._next_certificate:
            return False
        self._certificate = self._certifier.certify(x, y)
        self._next_certificate = _PATIENCE * iteration
        return self._met(self._certificate)

    def finished(self, x: FloatArray, y: FloatArray) -> DistributedClearing:
        """Return the clearing that ended with the iterate looked at last."""
        end = self.history[-1]
        certificate = self._certificate or self._certifier.certify(x, y)
        return DistributedClearing(
            dispatch=dispatch_of(self._problem, self._atoms, x, y),
            iterations=end.iteration,
            converged=end.within(self._rule) and self._met(certificate),
            gap=certificate.gap(end.cost),
            infeasibility_kw=end.infeasibility_kw,
            excess_pu=certificate.excess_pu,
            messages=self._messages * end.iteration,
            history=tuple(self.history),
            dual=y * self._atoms.row_scale,
        )

    def _met(self, certificate: Certificate) -> bool:
        rule, cost = self._rule, self.history[-1].cost
        return certificate.gap(cost) <= rule.tolerance and certificate.excess_pu <= rule.limits_pu


def progress(atoms: Atoms, iteration: int, x: FloatArray, y: FloatArray) -> ClearingProgress:
    """Return where the scaled iterate (x, y) stands."""
    duals = dual_value(atoms, x, y, at_limit(atoms, x))
    cost = atoms.cost(x)
    size = max(abs(cost), 1e-9)
    return ClearingProgress(
        iteration, cost, abs(cost - duals.value) / size, duals.error / size,
        atoms.infeasibility_kw(x),
    )  # fmt: skip
