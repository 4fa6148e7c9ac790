"""The largest PV along a pattern of sites when devices are coordinated: one linear programme.

    maximise lambda
    s.t.  devices of each site over the day               (`devices`)
          PV at site s: capacity lambda d_s
          total curtailment <= eps lambda sum_t,s a_t d_s
          excess of each limit <= 0                       (`network_rows`)

solved by successive linearisation: an AC power flow of the plan, tangents of what is near its
limit there, the programme again, until the power flow keeps all limits and lambda rests. Paper 003
solves a cone relaxation for each of a series of PV capacities instead ("Deterministic iterative
method"); tangents of the AC equations have no relaxation gap, and lambda needs no series.

A trust region bounds how much lambda grows in a step. Rows are added when the power flow is near a
limit, and stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.batched.power_flow import BatchFlow
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.devices import STORAGE, DeviceModel
from grid_models.hosting.model import HostingModel
from grid_models.hosting.network_rows import Elements
from grid_models.hosting.tangents import TangentRows
from grid_models.hosting.warm_lp import LpSolution, WarmLp

EXCESS = 2e-5
_RESTS_PER_EXCESS, _ROUNDS = 5.0, 30
_OVERLAP_KW = 1e-6
_TIE_KW = 1e-5
"""PV that an own cost of 1 may take: plans of equal PV are decided by the devices' own interest.
Without, vertices jump between solutions, and tangents are taken far from where they are used."""
_MARGIN, _FASTER = 1.3, 4.0
_LOSS = 1.0 / (STORAGE.charge_efficiency * STORAGE.discharge_efficiency) - 1.0
"""Energy lost there and back, over the energy that comes back."""


@dataclass(frozen=True, slots=True)
class RayOptions(Options):
    """How the largest PV is searched.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    curtailment: float = option(
        0.001, "Largest share of the day's PV energy that is curtailed.", low=0.0, high=1.0
    )
    first_kw: float = option(800.0, "PV of the first linearisation.", above=0.0)
    growth: float = option(1.4, "Largest growth of PV between two linearisations.", above=1.0)
    most_kw: float = option(1e5, "PV at which the search ends.", above=0.0)
    excess: float = option(
        EXCESS, "Excess over a limit at which a plan is accepted (pu, kW, percent).", above=0.0
    )


@dataclass(frozen=True)
class RayResult:
    """The largest PV along a pattern.

    Attributes
    ----------
    pv_kw : NaN where no plan keeps the limits without any PV.
    relaxed_kw : The same where storages may charge and discharge at once, which destroys energy:
        the largest PV with the rule that they may not is between the two.
    site_kva : complex (T, S). What the sites inject in the plan.
    plan : (n,). Columns of the devices.
    excess : Largest excess over a limit in the AC power flow of the plan.
    overlap_kw : Largest power that a storage charges and discharges at once in the plan.
    curtailed : Share of the day's PV energy.
    elements, weight : What binds, and its part in the rise of PV that it prevents, (R,) in all 1.
    marginal_kw : (U,). PV gained per kW of each capacity: the duals of the devices' limits.
    rounds : Linear programmes solved. rows : Rows of the network in the last one.
    settled : Whether PV rested when the search ended; else it may be larger.
    """

    pv_kw: float
    relaxed_kw: float
    site_kva: ComplexArray
    plan: FloatArray
    excess: float
    overlap_kw: float
    curtailed: float
    elements: Elements
    weight: FloatArray
    marginal_kw: FloatArray
    rounds: int
    rows: int
    settled: bool


@dataclass(frozen=True)
class _Point:
    """A plan and its AC power flow."""

    found: LpSolution
    site_kva: ComplexArray
    flow: BatchFlow
    excess: float

    @property
    def pv_kw(self) -> float:
        return float(self.found.x[-1])

    @property
    def plan(self) -> FloatArray:
        return self.found.x[:-1]


class RayProgram:
    """One pattern of PV, and devices of given capacities.

    Parameters
    ----------
    devices : Its first kind is PV.
    pattern : (S,). PV at the sites, of any scale.
    capacity_kw : (U,). Capacities of the devices; those of PV are not used.
    fixed_kva : complex (T, S). Injected at the sites besides.
    """

    def __init__(
        self,
        model: HostingModel,
        devices: DeviceModel,
        pattern: FloatArray,
        capacity_kw: FloatArray,
        options: RayOptions,
        fixed_kva: ComplexArray | float = 0.0,
    ) -> None:
        self.model, self.devices, self.options = model, devices, options
        _refuse(model)
        shape = len(model.hours), len(model.sites)
        self._fixed = np.array(np.broadcast_to(fixed_kva, shape), dtype=np.complex128)
        self._ray = np.zeros(len(capacity_kw))
        self._ray[: len(pattern)] = pattern / pattern.sum()
        self._pv_kva = devices.kva_of_capacity @ self._ray
        self._tangents = TangentRows(model, options.excess)
        self._rows = self._tangents.rows()[0]
        self._first_kw = options.first_kw
        storages = np.flatnonzero(devices.discharged)
        # The step and site at which each column of a storage that discharges injects.
        self._outlet = storages, devices.kva.tocsc()[:, storages].indices
        self._tie_cost = _TIE_KW * devices.own_cost
        self._discharge_cost = self._tie_cost[storages]
        self._lp = self._program()
        self.set_capacity(capacity_kw)

    def set_capacity(self, capacity_kw: FloatArray) -> None:
        """Replace the capacities of the devices, (U,)."""
        d, lp = self.devices, self._lp
        of_pv = np.arange(len(capacity_kw)) < d.n_sites
        self._capacity = np.where(of_pv, 0.0, capacity_kw)
        low, high = d.limits(self._capacity)
        unbounded = np.where(of_pv[d.unit], np.inf, high)
        lp.limit_columns(np.arange(len(low), dtype=np.intp), low, unbounded)
        least, most = d.row_limits(self._capacity)
        more = np.zeros(lp.n_rows - len(most))
        lp.limit_rows(np.append(least, more - np.inf), np.append(most, more))

    def solve(self) -> RayResult:
        """Return the largest PV."""
        options = self.options
        most_kw, rounds, calm, settled = self._first_kw, 0, False, False
        point: _Point | None = None
        best: _Point | None = None
        while rounds < _ROUNDS:
            rounds += 1
            self._limit_pv(most_kw)
            found = self._lp.solve()
            if found is None:
                # The limits cannot be kept, or the tangents were taken too far beyond them.
                if calm or point is None or best is not None:
                    break
                calm, most_kw = True, options.first_kw
                point = self._point(_moved(point.found, 0.0))
                self._linearise(point)
                continue
            last, point = point, self._point(found)
            if np.isinf(point.excess):
                most_kw = 0.5 * (point.pv_kw + (0.0 if last is None else last.pv_kw))
                point = last
                continue
            if last is not None and options.excess < last.excess < 2.0 * point.excess:
                # Between two vertices that pass a limit by turns lie plans that keep it.
                middle = replace(found, x=0.5 * (found.x + last.found.x))
                if self.devices.overlap_kw(middle.x[:-1]) <= _OVERLAP_KW:
                    point = self._point(middle)
            overlap = self._punish_overlap(point.found)
            if point.excess <= options.excess and not overlap:
                settled = self._settled(point, last, best, most_kw)
                best = point
                if settled:
                    break
            self._linearise(point)
            most_kw = min(max(options.first_kw, options.growth * point.pv_kw), options.most_kw)
        return self._result(best, rounds, settled)

    def _settled(
        self, point: _Point, last: _Point | None, best: _Point | None, most_kw: float
    ) -> bool:
        """Return whether PV rests, and neither the trust region nor an old tangent holds it."""
        if point.pv_kw >= self.options.most_kw:
            return True

        change_kw = _RESTS_PER_EXCESS * self.options.excess * point.pv_kw

        def near(other: _Point | None) -> bool:
            return other is not None and abs(point.pv_kw - other.pv_kw) <= change_kw

        if point.pv_kw >= most_kw or not near(last):
            return False
        invalid = self._tangents.invalid(point.flow, point.site_kva - self._fixed)
        return near(best) or not (invalid & (self._row_duals(point.found) > 0.0)).any()

    def _limit_pv(self, most_kw: float) -> None:
        last = np.array([len(self.devices.low)], dtype=np.intp)
        self._lp.limit_columns(last, np.zeros(1), np.array([most_kw]))

    def _punish_overlap(self, found: LpSolution) -> bool:
        """Return whether a storage charges and discharges at once, and make that cost more.

        Who takes 1 kW more at a site and step with price v gains v: the duals of the network's
        rows times their slopes. Who charges 1 + r kW and discharges 1 kW, r the energy lost, gains
        r v and keeps its energy. A cost of discharging above r v takes the gain away. Where v is
        positive, discharging alone hardly pays, so other plans hardly change. Where prices are
        degenerate, v rises with the cost: one that was not enough grows faster.
        """
        y, d = found.x[:-1], self.devices
        both = np.minimum(y[d.charged], y[d.discharged]) > _OVERLAP_KW
        if not both.any():
            return False
        columns, place = self._outlet
        least = _MARGIN * _LOSS * self._prices(found)[place]
        again = both & (self._discharge_cost > self._tie_cost[columns])
        more = np.where(again, _FASTER * self._discharge_cost, self._discharge_cost)
        self._discharge_cost = np.maximum(more, least)
        self._lp.set_cost(columns, self._discharge_cost)
        return True

    def _prices(self, found: LpSolution) -> FloatArray:
        """Return PV gained per kW taken at each step and site, (T S,)."""
        return np.asarray(self._rows.real.T @ self._row_duals(found))

    def _row_duals(self, found: LpSolution) -> FloatArray:
        """Return PV gained per unit of the network's rows, (R,); rows added since then have 0."""
        dual = np.zeros(self._rows.shape[0])
        then = -found.row_dual[self._lp.n_rows :]
        dual[: len(then)] = then
        return dual

    def _point(self, found: LpSolution) -> _Point:
        capacity = self._capacity + self._ray * found.x[-1]
        site_kva = self._fixed + self.devices.injection_kva(found.x[:-1], capacity)
        flow = self.model.flow(site_kva)
        return _Point(found, site_kva, flow, float(self.model.check.excess(flow).value.max()))

    def _linearise(self, point: _Point) -> None:
        """Replace the rows of the network by tangents at a point."""
        from scipy.sparse import csr_array, hstack

        moved = point.site_kva - self._fixed
        self._tangents.renew(point.flow, moved)
        if len(self._tangents.elements):
            self._rows, most = self._tangents.rows()
            by_pv = csr_array((self._rows @ self._pv_kva).real[:, None])
            by_plan = (self._rows @ self.devices.kva).real
            self._lp.replace_rows(hstack([by_plan, by_pv], format="csr"), most)

    def _result(self, best: _Point | None, rounds: int, settled: bool) -> RayResult:
        d, rows = self.devices, len(self._tangents.of_element)
        if best is None:
            nothing = np.zeros(0)
            return RayResult(
                np.nan, np.nan, self._fixed, np.zeros(len(d.low)), np.inf, 0.0, 0.0,
                self._tangents.elements, nothing, nothing, rounds, rows, settled,
            )  # fmt: skip
        relaxed_kw = best.pv_kw
        columns = self._outlet[0]
        if (self._discharge_cost > self._tie_cost[columns]).any():
            self._lp.set_cost(columns, self._tie_cost[columns])
            free = self._lp.solve()
            relaxed_kw = relaxed_kw if free is None else max(relaxed_kw, float(free.x[-1]))
            self._lp.set_cost(columns, self._discharge_cost)
        weight = self._weights(best.found)
        pv_kw = best.pv_kw * self._pv_kva.real.sum()
        self._first_kw = max(self.options.first_kw, best.pv_kw)
        return RayResult(
            pv_kw=best.pv_kw,
            relaxed_kw=relaxed_kw,
            site_kva=best.site_kva,
            plan=best.plan,
            excess=best.excess,
            overlap_kw=d.overlap_kw(best.plan),
            curtailed=float(best.plan[d.curtailed].sum() / pv_kw) if pv_kw > 0.0 else 0.0,
            elements=self._tangents.elements,
            weight=weight,
            marginal_kw=self._marginal_kw(best.found),
            rounds=rounds,
            rows=rows,
            settled=settled,
        )

    def _weights(self, found: LpSolution) -> FloatArray:
        """Return the part of each element in what keeps PV from rising, in all 1 or 0."""
        by_row = self._row_duals(found) * (self._rows.real @ self._pv_kva.real)
        at = self._tangents
        weight = np.bincount(at.of_element, np.maximum(by_row, 0.0), len(at.elements))
        return np.asarray(weight / max(weight.sum(), 1e-300))

    def _marginal_kw(self, found: LpSolution) -> FloatArray:
        """Return PV gained per kW of each capacity, (U,), from the duals of its limits."""
        d, own = self.devices, slice(len(self.devices.most))

        def gains(dual: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
            limit = np.where(dual > 0.0, low, high)
            return -dual * np.where(dual == 0.0, 0.0, limit)

        n = len(self._capacity)
        by_column = gains(found.reduced_cost[:-1], d.low, d.high)
        by_row = gains(found.row_dual[own], d.least, d.most)
        total = np.bincount(d.unit, by_column, n) + np.bincount(d.row_unit, by_row, n)
        return np.where(np.arange(n) < d.n_sites, 0.0, total)

    def _program(self) -> WarmLp:
        """Return the programme without the network; its last column is lambda."""
        from scipy.sparse import csr_array, hstack, vstack

        d, n = self.devices, len(self.devices.low)
        most = np.where(np.isfinite(d.most), d.most, 0.0)
        own = hstack([d.rows, csr_array((-most * self._ray[d.row_unit])[:, None])])
        curtailed = np.flatnonzero(d.curtailed)
        places = np.arange(len(curtailed)), curtailed
        available = d.high[curtailed] * self._ray[d.unit[curtailed]]
        limit = csr_array((np.ones(len(curtailed)), places), shape=(len(curtailed), n))
        in_all = np.zeros(n + 1)
        in_all[curtailed] = 1.0
        in_all[-1] = -self.options.curtailment * self._pv_kva.real.sum()
        matrix = vstack(
            [own, hstack([limit, csr_array(-available[:, None])]), csr_array(in_all[None])],
            format="csr",
        )
        cost, none = np.append(self._tie_cost, -1.0), np.zeros(matrix.shape[0])
        edge = np.zeros(n + 1)
        return WarmLp(cost, (edge, edge), csr_array(matrix), (none, none))


def _moved(found: LpSolution, pv_kw: float) -> LpSolution:
    """Return the plan with other PV."""
    return replace(found, x=np.append(found.x[:-1], pv_kw))


def _refuse(model: HostingModel) -> None:
    for kind, name in (("deviation", "deviation_pu"), ("unbalance", "unbalance_pct")):
        if kind in model.check.kinds:
            raise FeederError(
                f"the limit of {kind} has no tangent",
                where=f"limit '{name}'",
                expected="null here; the methods static and alone know it",
            )
