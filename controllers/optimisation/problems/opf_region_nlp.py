"""AC optimal power flow of a region as a nonlinear program in polar voltages.

Per unit on the case's base; the objective is in thousands of USD per hour. The variables of a
region, in this order:

    turn, v   angles (rad) and magnitudes of its own buses and then of the far ends of its ties
    p, q      of its generators
    cost      of each generator with a piecewise linear cost, of p first and then of q

Its constraints belong to its own buses:

    g:  sum of P into branch ends + g v^2 + load - sum of p = 0, and the same of Q, at each bus
    h:  (P^2 + Q^2) / rate^2 <= 1 at each branch end at one of them
        angle limits of branches that begin at one of them
        slope p + intercept <= cost of each line of a piecewise linear cost
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.nlp import NlpPoint
from controllers.optimisation.problems.branch_ends import BranchEnds, EndFlows
from controllers.optimisation.problems.unit_costs import COST_SCALE, UnitCosts
from controllers.optimisation.sparse_pattern import Pattern, summed
from grid_models.transmission.opf_case import OpfCase


class RegionNlp:
    """The part of a case that belongs to some buses; an `controllers.optimisation.nlp.Nlp`.

    Parameters
    ----------
    case : The whole case.
    own : Indices of the region's buses, ascending. All buses give the central problem.

    Attributes
    ----------
    buses : (n_own + n_far,). Own buses, then far ends of ties, each ascending.
    n_own : Number of own buses.
    generators : (n_units,). Indices in the case of the region's generators.
    turn, v, p, q, cost : Slices of x.
    """

    def __init__(self, case: OpfCase, own: IntArray) -> None:
        self.n_own = len(own)
        self._read_branches(case, own)
        self._read_buses_and_generators(case, own)
        self._bound(case, own)
        self.equality_pattern = self._equality_pattern()
        self.inequality_pattern = self._inequality_pattern()
        self.hessian_pattern = self._hessian_pattern()

    def _read_branches(self, case: OpfCase, own: IntArray) -> None:
        branches = case.branches
        y_ff, y_ft, y_tf, y_tt = case.branches.admittances()
        bus = np.concatenate((branches.from_bus, branches.to_bus))
        far = np.concatenate((branches.to_bus, branches.from_bus))
        mine = np.flatnonzero(np.isin(bus, own))
        self.buses = np.concatenate((own, np.setdiff1d(far[mine], own)))
        place = np.full(len(case.buses.names), -1)
        place[self.buses] = np.arange(len(self.buses))
        self._ends = BranchEnds(
            place[bus[mine]],
            place[far[mine]],
            np.concatenate((y_ff, y_tt))[mine],
            np.concatenate((y_ft, y_tf))[mine],
        )
        rate = np.tile(branches.rate_mva / case.base_mva, 2)[mine]
        self._rated = np.flatnonzero(np.isfinite(rate))
        self._per_rate = 1.0 / rate[self._rated] ** 2
        at_start = np.isin(branches.from_bus, own)
        upper, lower = np.radians(branches.angle_max_deg), np.radians(branches.angle_min_deg)
        up, down = (np.flatnonzero(at_start & np.isfinite(x)) for x in (upper, lower))
        # Rows sign * (turn_i - turn_j) <= bound.
        which = np.concatenate((up, down))
        self._angle_ends = place[branches.from_bus[which]], place[branches.to_bus[which]]
        self._angle_sign = np.repeat([1.0, -1.0], [len(up), len(down)])
        self._angle_bound = np.concatenate((upper[up], -lower[down]))

    def _read_buses_and_generators(self, case: OpfCase, own: IntArray) -> None:
        buses, units, base = case.buses, case.generators, case.base_mva
        self._load = np.stack((buses.load_mw, buses.load_mvar))[:, own] / base
        # Of the power consumed: a capacitor injects reactive power.
        self._shunt = np.stack((buses.shunt_mw, -buses.shunt_mvar))[:, own] / base
        self.generators = np.flatnonzero(np.isin(units.bus, own))
        self._unit_bus = np.searchsorted(own, units.bus[self.generators])
        self.costs = UnitCosts.of(case.costs, self.generators, base)
        self.reactive_costs = UnitCosts.of(case.reactive_costs, self.generators, base)
        widths = [len(self.buses)] * 2 + [len(self.generators)] * 2
        widths.append(len(self.costs.units) + len(self.reactive_costs.units))
        at = np.cumsum([0, *widths]).tolist()
        self.turn, self.v, self.p, self.q, self.cost = map(slice, at[:-1], at[1:])
        self.n = at[-1]

    def _bound(self, case: OpfCase, own: IntArray) -> None:
        buses, units, base = case.buses, case.generators, case.base_mva
        self.lower, self.upper = np.full((2, self.n), [[-np.inf], [np.inf]])
        own_v = slice(self.v.start, self.v.start + self.n_own)
        self.lower[own_v], self.upper[own_v] = buses.v_min_pu[own], buses.v_max_pu[own]
        at = self.generators
        self.lower[self.p], self.upper[self.p] = (
            units.p_min_mw[at] / base,
            units.p_max_mw[at] / base,
        )
        self.lower[self.q], self.upper[self.q] = (
            units.q_min_mvar[at] / base,
            units.q_max_mvar[at] / base,
        )
        reference = np.radians(buses.angle_deg[buses.slack])
        fixed = np.flatnonzero(own == buses.slack)
        self.lower[fixed] = self.upper[fixed] = reference
        self.start = np.zeros(self.n)
        self.start[self.turn] = reference
        self.start[self.v] = 0.5 * (buses.v_min_pu + buses.v_max_pu)[self.buses]
        both = np.isfinite(self.lower) & np.isfinite(self.upper)
        both[self.turn] = both[self.v] = False
        self.start[both] = 0.5 * (self.lower[both] + self.upper[both])
        self.start = np.clip(self.start, self.lower, self.upper)
        lines = (
            self.costs.lines_at(self.start[self.p]),
            self.reactive_costs.lines_at(self.start[self.q]),
        )
        self.start[self.cost] = np.concatenate(lines)

    def _end_columns(self) -> IntArray:
        """Return the variables of each branch end, (4, n_ends)."""
        bus, far, v = self._ends.bus, self._ends.far, self.v.start
        return np.stack((bus, far, v + bus, v + far))

    def _equality_pattern(self) -> Pattern:
        n, own = self.n_own, np.arange(self.n_own)
        end_rows, end_columns = np.tile(self._ends.bus, (4, 1)).ravel(), self._end_columns().ravel()
        units = np.arange(len(self.generators))
        rows = (end_rows, own, self._unit_bus)
        columns = (end_columns, self.v.start + own)
        return Pattern(
            np.concatenate((*rows, *(r + n for r in rows))),
            np.concatenate((*columns, self.p.start + units, *columns, self.q.start + units)),
            (2 * n, self.n),
        )

    def _inequality_pattern(self) -> Pattern:
        rated, angles = len(self._rated), len(self._angle_sign)
        costs, reactive = self.costs, self.reactive_costs
        lines = np.arange(len(costs.slope) + len(reactive.slope))
        power = np.concatenate(
            (
                self.p.start + costs.units[costs.line_of],
                self.q.start + reactive.units[reactive.line_of],
            )
        ).astype(np.int64)
        cost = np.concatenate((costs.line_of, len(costs.units) + reactive.line_of))
        angle_rows = rated + np.arange(angles)
        rows = (np.tile(np.arange(rated), 4), angle_rows, angle_rows, *[rated + angles + lines] * 2)
        columns = (
            self._end_columns()[:, self._rated].ravel(), *self._angle_ends,
            power, self.cost.start + cost,
        )  # fmt: skip
        shape = (rated + angles + len(lines), self.n)
        return Pattern(np.concatenate(rows), np.concatenate(columns), shape)

    def _hessian_pattern(self) -> Pattern:
        columns = self._end_columns()
        own = self.v.start + np.arange(self.n_own)
        units = np.arange(self.p.start, self.q.stop)
        first = np.broadcast_to(columns[:, None], (4, 4, columns.shape[1])).ravel()
        second = np.broadcast_to(columns[None, :], (4, 4, columns.shape[1])).ravel()
        return Pattern(
            np.concatenate((first, own, units)),
            np.concatenate((second, own, units)),
            (self.n, self.n),
        )

    def flows(self, x: FloatArray) -> EndFlows:
        """Return the flows into the region's branch ends at x (n,)."""
        return self._ends.flows(x[self.turn], x[self.v])

    def at(self, x: FloatArray) -> NlpPoint:
        """Return values and first derivatives at x (n,)."""
        flows, v = self.flows(x), x[self.v][: self.n_own]
        value, gradient = self._objective(x)
        n, ones = self.n_own, np.ones(len(self.generators))
        balance, slopes = [], []
        for k, (into, slope, power) in enumerate(
            ((flows.p, flows.slope_p, x[self.p]), (flows.q, flows.slope_q, x[self.q]))
        ):
            made = summed(self._unit_bus, power, n)
            taken = summed(self._ends.bus, into, n) + self._shunt[k] * v * v
            balance.append(taken + self._load[k] - made)
            slopes += [slope.ravel(), 2.0 * self._shunt[k] * v, -ones]
        limits, limit_slopes = self._limits(x, flows)
        return NlpPoint(
            x,
            value,
            gradient,
            np.concatenate(balance),
            limits,
            np.concatenate(slopes),
            limit_slopes,
        )

    def _objective(self, x: FloatArray) -> tuple[float, FloatArray]:
        gradient = np.zeros(self.n)
        p_cost, gradient[self.p], _ = self.costs.polynomial(x[self.p])
        q_cost, gradient[self.q], _ = self.reactive_costs.polynomial(x[self.q])
        gradient[self.cost] = 1.0
        return p_cost + q_cost + float(np.sum(x[self.cost])), gradient

    def _limits(self, x: FloatArray, flows: EndFlows) -> tuple[FloatArray, FloatArray]:
        at, share = self._rated, self._per_rate
        squared = (flows.p[at] ** 2 + flows.q[at] ** 2) * share - 1.0
        slopes = 2.0 * share * (flows.p * flows.slope_p + flows.q * flows.slope_q)[:, at]
        turn, (i, j) = x[self.turn], self._angle_ends
        angles = self._angle_sign * (turn[i] - turn[j]) - self._angle_bound
        costs, reactive = self.costs, self.reactive_costs
        known = x[self.cost]
        lines = (
            costs.lines(x[self.p]) - known[costs.line_of],
            reactive.lines(x[self.q]) - known[len(costs.units) + reactive.line_of],
        )
        minus = np.full(len(costs.slope) + len(reactive.slope), -1.0)
        return np.concatenate((squared, angles, *lines)), np.concatenate(
            (
                slopes.ravel(), self._angle_sign, -self._angle_sign,
                costs.slope, reactive.slope, minus,
            )
        )  # fmt: skip

    def hessian(self, x: FloatArray, equality: FloatArray, inequality: FloatArray) -> FloatArray:
        """Return entries of the Hessian of ``f + equality' g + inequality' h`` at x (n,)."""
        n, flows, at = self.n_own, self.flows(x), self._rated
        of_p, of_q = equality[:n], equality[n : 2 * n]
        pull = np.zeros(len(self._ends.bus))
        pull[at] = 2.0 * self._per_rate * inequality[: len(at)]
        weight_p = of_p[self._ends.bus] + pull * flows.p
        weight_q = of_q[self._ends.bus] + pull * flows.q
        ends = self._ends.curvature(x[self.v], flows, weight_p, weight_q)
        for slope in (flows.slope_p[:, at], flows.slope_q[:, at]):
            ends[:, :, at] += pull[at] * slope[:, None] * slope[None, :]
        shunt = 2.0 * (of_p * self._shunt[0] + of_q * self._shunt[1])
        bends = (
            self.costs.polynomial(x[self.p])[2],
            self.reactive_costs.polynomial(x[self.q])[2],
        )
        return np.concatenate((ends.ravel(), shunt, *bends))

    def usd_per_h(self, x: FloatArray) -> float:
        """Return the cost of the powers in x (n,), whatever its `cost` variables are."""
        total = 0.0
        for costs, power in ((self.costs, x[self.p]), (self.reactive_costs, x[self.q])):
            total += costs.polynomial(power)[0] + float(np.sum(costs.lines_at(power)))
        return total / COST_SCALE

    def violation(self, x: FloatArray) -> float:
        """Return the largest violation of a constraint or bound at x (n,)."""
        at = self.at(x)
        excess = np.concatenate((at.inequalities, x - self.upper, self.lower - x))
        return max(float(np.max(np.abs(at.equalities))), float(np.max(excess)), 0.0)

    def lagrangian_slope(
        self, x: FloatArray, equality: FloatArray, inequality: FloatArray
    ) -> FloatArray:
        """Return the gradient of ``f + equality' g + inequality' h`` at x, (n,)."""
        at = self.at(x)
        of_g = self.equality_pattern.transposed_times(at.equality_slopes, equality)
        of_h = self.inequality_pattern.transposed_times(at.inequality_slopes, inequality)
        return at.gradient + of_g + of_h

    def part_of(self, whole: RegionNlp, x: FloatArray) -> FloatArray:
        """Return the variables of this region (n,) at a point x of the central problem."""
        units = (self.costs, self.reactive_costs)
        known = x[whole.p][self.generators], x[whole.q][self.generators]
        lines = (costs.lines_at(power) for costs, power in zip(units, known, strict=True))
        return np.concatenate((x[whole.turn][self.buses], x[whole.v][self.buses], *known, *lines))
