"""The three-phase market without a centre: ADMM between areas of the feeder.

An area (`grid_models.current_injection.areas.PortArea`) has its own network and the bids at its
own terminals. It agrees with each neighbour on the voltages and currents of the nodes they share,
y. Areas with an even distance from the source and those with an odd one take turns; with w the
state that an even area keeps::

    even    x = argmin f(x) + 1/2 |y(x) - w|^2      r = 2 y - w
    odd     x = argmin f(x) + 1/2 |y(x) - r|^2      t = 2 y - r
    even    w <- w + relaxation/2 (t - w)

which is ADMM of two blocks in the form of Douglas and Rachford (J. Eckstein, D. Bertsekas, "On the
Douglas-Rachford splitting method and the proximal point algorithm for maximal monotone operators",
Math. Program. 55, 1992; w is copy and dual in one). So no dual is summed over messages, and the
effect of an error in one message decays. Each argmin is one step of Newton's method from the last.

`AreaMarket` runs all areas in one loop; over mail they are agents
(`controllers.market.agents.area_agents`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.checks import check_bids
from controllers.market.model.errors import MarketError
from controllers.market.model.exactness import Exactness
from controllers.market.model.problem import PortProblem
from controllers.market.solvers.iteration import checked_positive
from controllers.market.solvers.stopping import Rule, check_whole
from controllers.market.three_phase.area_problem import AreaProblem, Scale
from controllers.market.three_phase.dispatch import ComplexArray, PortClearing
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import PortObjective, check_problem
from controllers.market.three_phase.result import clearing_at
from grid_models.current_injection.model import PortArea, PortNetwork

AREAS = 4
RULE = Rule(max_iterations=500, tolerance=1e-3, infeasibility_kw=1.0, limits_pu=1e-4)
KW_PER_PU = 1e4
"""A voltage's error of 1 pu counts as much as so many kW."""
_LOOK_BACK, _MOST_LEFT = 4, 10.0
_SOLVED_KW = 1e-6
_UNKNOWN = 1e6
_CALM = 100
"""Turns after which steps and errors are averaged ever more: noise of messages then cancels."""


@dataclass(frozen=True)
class AreaPlan:
    """Parameters that all areas have in common.

    Attributes
    ----------
    penalty : Price of a shared current's square, per pu, over the import price.
    reach_pu : Voltages are weighed against currents by this impedance, pu.
    relaxation : Between 0 and 2; 1 is ADMM.
    """

    penalty: float = 5.0
    reach_pu: float = 0.12
    relaxation: float = 1.3

    def __post_init__(self) -> None:
        for name in ("penalty", "reach_pu", "relaxation"):
            checked_positive(name, getattr(self, name), "clearing 'three-phase-admm'")
        if self.relaxation >= 2.0:
            raise MarketError(
                f"relaxation is {self.relaxation}",
                where="clearing 'three-phase-admm'",
                expected="less than 2",
            )

    def scale(self, import_price: float) -> Scale:
        """Return the units of what is shared."""
        current = float(np.sqrt(self.penalty * max(abs(import_price), 1e-3)))
        return Scale(current / self.reach_pu, current)


class AreaState:
    """One area in the iteration.

    Attributes
    ----------
    said : complex (2 b,). Its last message: to each neighbour the columns of what they share.
    error : complex (2 b,). Half the difference of two messages that should be equal at the end.
    moved_pu : float. Largest change of a device in the last step.
    """

    def __init__(
        self, area: PortArea, objective: PortObjective, plan: AreaPlan, even: bool
    ) -> None:
        self.area, self.even = area, even
        self._objective, self._plan = objective, plan
        self._local: AreaProblem | None = None

    @property
    def local(self) -> AreaProblem:
        """Its problem, after `begin`."""
        assert self._local is not None
        return self._local

    def begin(self, problem: PortProblem) -> None:
        """Take a clearing's problem; start from where the last clearing ended."""
        if self._local is None:
            scale = self._plan.scale(problem.import_price)
            self._local = local = AreaProblem(self.area, self._objective, scale)
            self._w = local.y0.copy()
            # The owner of a node sells what the other takes, at the import's price.
            price = self._objective.import_price(problem, 0.0) / scale.current
            sign = np.where(self.area.owns, 1.0, -1.0)
            self._w[len(sign) :] += sign * price * self.area.v0
            self.said = self._w.copy()
        self.local.load(problem)
        self.error = np.full(self.said.shape, _UNKNOWN, dtype=np.complex128)
        self.moved_pu, self._turns = np.inf, 0

    def forget(self) -> None:
        """Begin the next clearing from planning data, not where the last one ended."""
        self._local = None

    def turn(self, heard: ComplexArray | None) -> None:
        """Take a turn after the neighbours' messages `heard` (2 b,); None: an even area's first."""
        local = self.local
        self._turns += 1
        calm = min(1.0, _CALM / self._turns)
        if self.even:
            if heard is not None:
                half = 0.5 * (heard - self._w)
                self.error = self.error + calm * (half - self.error)
                self._w = self._w + calm * self._plan.relaxation * half
            centre = self._w
        else:
            assert heard is not None
            centre = heard
        self.moved_pu = local.step(centre)
        said = 2.0 * local.y - centre
        self._dual = centre - local.y
        if not self.even:
            self.error = self.error + calm * (0.5 * (said - self.said) - self.error)
        self.said = said

    @property
    def error_kw(self) -> float:
        """Largest error of a shared current, in kW at 1 pu; a voltage's of 1e-4 pu counts as 1."""
        b, scale = len(self.area.shared), self.local.scale
        currents = float(np.abs(self.error[b:]).max(initial=0.0)) / scale.current * 1e3
        voltages = float(np.abs(self.error[:b]).max(initial=0.0)) / scale.voltage * KW_PER_PU
        return max(currents, voltages)

    @property
    def error_price(self) -> float:
        """Largest error of what a shared current is worth, relative to the import price."""
        b = len(self.area.shared)
        largest = float(np.abs(self.error[b:]).max(initial=0.0))
        return largest * self._plan.penalty / self.local.scale.current

    @property
    def worth_of_error(self) -> float:
        """What the error costs at the present prices of what is shared, money per hour."""
        return float((self._dual.conj() @ self.error).real)


def parities(areas: tuple[PortArea, ...]) -> tuple[bool, ...]:
    """Return which areas have an even distance from the first.

    Raises MarketError: Two neighbours have the same: areas that form an odd ring.
    """
    distance = {0: 0}
    reached = [0]
    for a in reached:
        for q in sorted(set(areas[a].neighbour.tolist())):
            if q not in distance:
                distance[q] = distance[a] + 1
                reached.append(q)
            elif (distance[q] - distance[a]) % 2 == 0:
                raise MarketError(
                    f"areas {min(a, q) + 1} and {max(a, q) + 1} of {len(areas)} close an odd ring",
                    where="clearing 'three-phase-admm'",
                    expected="another number of areas",
                )
    return tuple(distance[a] % 2 == 0 for a in range(len(areas)))


def area_states(
    network: PortNetwork, k: int, plan: AreaPlan, objective: Mapping[str, Any]
) -> list[AreaState]:
    """Return the states of all areas; `objective` has the keywords of `PortObjective`."""
    areas = network.areas(k)
    return [
        AreaState(area, PortObjective(area.network, **objective), plan, even=even)
        for area, even in zip(areas, parities(areas), strict=True)
    ]


def columns_from(area: PortArea, neighbour: int) -> FloatArray:
    """Return where in y (2 b,) stands what is shared with a neighbour; both use the same order."""
    own = np.flatnonzero(area.neighbour == neighbour)
    return np.concatenate([own, len(area.shared) + own])


@dataclass(frozen=True)
class AreaClearing(PortClearing):
    """A cleared interval; `exactness` compares the areas' own states with one power flow of all.

    Attributes
    ----------
    converged : Whether the rule was met: what areas share agrees within ``infeasibility_kw`` and
        ``limits_pu``, and what is left is worth less than `tolerance` of the cost.
    messages : int. Sent between areas.
    history : (iterations, 2). Largest error, kW, and its worth relative to the cost.
    """

    converged: bool
    messages: int
    history: FloatArray


class AreaMarket:
    """Clears problems with all areas in one loop, each from the last one's solution.

    Parameters
    ----------
    areas : int. Their number.
    penalty, reach_pu, relaxation : See `AreaPlan`.
    weights, voltage_price, v_set_pu : See `objective.PortObjective`.

    Raises MarketError, FeederError: An option is none, or the network cannot be cut so.
    """

    three_phase = by_areas = True

    def __init__(
        self,
        network: PortNetwork,
        *,
        areas: int = AREAS,
        penalty: float = 5.0,
        reach_pu: float = 0.12,
        relaxation: float = 1.3,
        weights: Mapping[str, float] | None = None,
        voltage_price: float = 0.0,
        v_set_pu: float = 1.0,
    ) -> None:
        self.network = network
        objective: dict[str, Any] = {
            "weights": weights,
            "voltage_price": voltage_price,
            "v_set_pu": v_set_pu,
        }
        self.plan = AreaPlan(penalty, reach_pu, relaxation)
        self.objective, self._limits = PortObjective(network, **objective), Limits(network)
        check_whole("areas", areas)
        self.states = area_states(network, areas, self.plan, objective)

    def clear(self, problem: PortProblem, rule: Rule = RULE) -> AreaClearing:
        """Return the least-cost dispatch of `problem` and its prices.

        `rule`: When to stop. The distance from the optimum is estimated by what the errors that
        are left are worth.

        Raises BidError, MarketError: The problem is none, or of another network.
        """
        check_bids(problem)
        check_problem(problem, self.network)
        for state in self.states:
            state.begin(problem)
        errors: list[tuple[float, float]] = []
        messages, converged = 0, False
        for k in range(1, rule.max_iterations + 1):
            messages += self._iterate(first=k == 1)
            errors.append(self._errors())
            converged = self._met(errors, rule)
            if converged:
                break
        return self._finished(problem, k, converged, messages, np.array(errors))

    def _iterate(self, *, first: bool) -> int:
        """Let the even, then the odd areas take their turn; return the messages sent."""
        sent = 0
        for even in (True, False):
            for a, state in enumerate(self.states):
                if state.even == even:
                    state.turn(None if even and first else self._heard(a))
                    sent += len(set(state.area.neighbour.tolist()))
        return sent

    def _heard(self, a: int) -> ComplexArray:
        area = self.states[a].area
        heard = np.zeros(2 * len(area.shared), dtype=np.complex128)
        for q in set(area.neighbour.tolist()):
            other = self.states[q]
            heard[columns_from(area, q)] = other.said[columns_from(other.area, a)]
        return heard

    def _errors(self) -> tuple[float, float]:
        """Return the largest error, kW, and what the even areas' are worth over the cost."""
        cost = sum(state.local.cost for state in self.states)
        worth = sum(state.worth_of_error for state in self.states if state.even)
        largest = max(max(state.error_kw, 1e3 * state.moved_pu) for state in self.states)
        return largest, abs(worth) / max(abs(cost), 1e-9)

    def _met(self, errors: list[tuple[float, float]], rule: Rule) -> bool:
        """Say whether errors are small, and worth little with those yet to be removed."""
        if len(errors) <= _LOOK_BACK:
            return len(self.states) == 1 and errors[-1][0] < _SOLVED_KW
        (now, worth), (before, _) = errors[-1], errors[-1 - _LOOK_BACK]
        rate = (now / max(before, 1e-300)) ** (1.0 / _LOOK_BACK)
        left = min(max(1.0, rate / (1.0 - rate)), _MOST_LEFT) if rate < 1.0 else _MOST_LEFT
        small_kw = 0.4 * min(rule.infeasibility_kw, rule.limits_pu * KW_PER_PU)
        return bool(now <= small_kw and worth * left <= rule.tolerance)

    def _finished(
        self, problem: PortProblem, k: int, converged: bool, messages: int, history: FloatArray
    ) -> AreaClearing:
        """Return the clearing of the areas' set-points, carried by one power flow of all."""
        n, r = len(self.network.nodes), len(self.network.lines)
        devices = self.objective.devices(problem)
        x, mu = devices.nominal(), np.zeros(2 * n + r + 2)
        line = {label: i for i, label in enumerate(self.network.lines)}
        volts = np.zeros(n, dtype=np.complex128)
        for state in self.states:
            local, area = state.local, state.area
            x[:, area.terminals] = local.x[:, area.terminals]
            lines = np.array([2 * n + line[label] for label in area.network.lines], dtype=np.intp)
            mu[np.concatenate([area.nodes, n + area.nodes, lines])] = local.mu[:-2]
            if area.network.source_nodes.size:
                mu[-2:] = local.mu[-2:]
            volts[area.nodes] = local.flow.v
        whole = clearing_at(self.objective, self._limits, problem, x, mu, iterations=k)
        away = np.abs(volts - whole.dispatch.voltage)
        imported = sum(state.local.flow.s_import.real for state in self.states)
        lacks = whole.dispatch.p_import - imported
        exactness = Exactness(
            float(away.max()),
            abs(lacks) / max(abs(whole.dispatch.p_import), 1e-9),
            self.network.nodes[int(np.argmax(away))],
            lacks,
        )
        found = {f.name: getattr(whole, f.name) for f in fields(PortClearing)}
        found |= {"exactness": exactness, "status": "solved" if converged else "not converged"}
        return AreaClearing(**found, converged=converged, messages=messages, history=history)
