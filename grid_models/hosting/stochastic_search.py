"""Successive linearisation of a stochastic programme, all steps of all days at once.

An AC power flow of a plan, tangents of what is near its limit there, the programme again, until the
power flow keeps all limits and the plan rests, as in `ray` for one day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.interior_point import Program, Solution, solve_program
from grid_models.hosting.model import HostingModel
from grid_models.hosting.network_rows import Elements, network_rows, worst_elements
from grid_models.hosting.scenarios import Days
from grid_models.hosting.site_groups import SiteGroups
from grid_models.hosting.stochastic_program import STORAGE_LOSS, StackedDays, Tangents

EXCESS = 2e-5
"""Excess of an accepted plan, in the units of `Excess` (pu, kW): accuracy of the last tangents."""
_RESTS, _ROUNDS = 1e-4, 20
_NEAR, _PER_LIMIT = 3e-3, 3
_FIRST, _GROWTH = 0.2, 1.4
"""PV of the first tangents over the peak of the loads, and its largest growth in a round."""
_OVERLAP_MW, _MARGIN = 1e-4, 1.05


@dataclass(frozen=True)
class Plan:
    """Devices of N days, and their AC power flows.

    Attributes
    ----------
    capacity_mw : (U,).
    group_kva : complex (N, T, G). Injections.
    curtailed : (N,). Share of a day's PV energy.
    excess : (N,). Largest excess over a limit in the AC power flow.
    relaxed_mw : PV where storages may charge and discharge at once, which destroys energy.
    discharge_cost : (N, D). What kept them from it, MW of PV per MW.
    weight : By (kind, element, hour): part in what keeps PV from rising, in all 1, largest first.
    rounds, rows : Programmes solved, and rows of the network in the last one.
    solvers : Those that solved them.
    """

    capacity_mw: FloatArray
    group_kva: ComplexArray
    curtailed: FloatArray
    excess: FloatArray
    relaxed_mw: float
    discharge_cost: FloatArray
    weight: dict[tuple[str, str, float], float]
    rounds: int
    rows: int
    solvers: tuple[str, ...]


class DayNetwork:
    """Tangents of the limits at all steps of N days, collected as plans come near them.

    Attributes
    ----------
    elements : What has a tangent.
    group_kva : complex (N, T, G). The plan.
    """

    def __init__(self, model: HostingModel, groups: SiteGroups, days: Days) -> None:
        self._model, self._share, self._days = model, groups.share, len(days)
        self._load_kva = model.load_kva * days.load_pu[:, :, None]
        self._keys: dict[tuple[int, ...], None] = {}
        self.elements = Elements(*np.zeros((3, 0), dtype=np.intp))

    def move_to(self, group_kva: ComplexArray) -> FloatArray:
        """Solve the power flows of a plan; return the largest excess of each day, (N,).

        It is inf where a power flow has no solution.
        """
        self.group_kva = group_kva
        self._flow = self._model.flow(group_kva @ self._share.T, load_kva=self._load_kva)
        worst = self._model.check.excess(self._flow).value.max(axis=1)
        return np.asarray(worst.reshape(self._days, -1).max(axis=1))

    def tangents(self) -> Tangents:
        """Return the tangents at the plan."""
        from scipy.sparse import csr_array

        near = worst_elements(self._model, self._flow, -_NEAR, _PER_LIMIT)
        keys = zip(near.case.tolist(), near.kind.tolist(), near.element.tolist(), strict=True)
        self._keys.update(dict.fromkeys(keys))
        self.elements = at = Elements(*np.array(list(self._keys), dtype=np.intp).reshape(-1, 3).T)
        rows = network_rows(self._model, self._flow, at)
        by = 1e3 * (rows.by_p - 1j * rows.by_q) @ self._share
        n, g = by.shape
        columns = (at.case[:, None] * g + np.arange(g)).ravel()
        shape = n, self.group_kva.size
        matrix = csr_array((by.ravel(), (np.repeat(np.arange(n), g), columns)), shape=shape)
        here = (matrix @ (1e-3 * self.group_kva.ravel())).real
        return Tangents(matrix, here - rows.excess, at.case // len(self._model.hours))


class Search:
    """Successive linearisation over some days.

    Parameters
    ----------
    program : Makes the programme from tangents, the cost of each column, and the largest PV in MW.
    capacity_mw : (U,). Of a design; None: the programme has it among its variables.
    """

    def __init__(
        self,
        network: DayNetwork,
        model: HostingModel,
        stacked: StackedDays,
        program: Callable[[Tangents, FloatArray, float], Program],
        capacity_mw: FloatArray | None = None,
    ) -> None:
        self._network, self._model, self._stacked = network, model, stacked
        self._program, self._design = program, capacity_mw
        # The step and group at which the discharged power of a storage is injected.
        self._outlet = stacked.kva.tocsc()[:, stacked.discharged].indices

    def run(self, start_kva: ComplexArray, discharge_cost: FloatArray) -> Plan | None:
        """Return the plan at which the linearisations end; None where a programme has none.

        `discharge_cost`: (N, D). To begin with.

        Raises FeederError: A power flow has no solution, not even near the start.
        """
        network, stacked = self._network, self._stacked
        cost, last = np.zeros(stacked.n), np.full(3, np.inf)
        solvers: list[str] = []
        cost[stacked.discharged] = discharge_cost.ravel()
        peak_mw = 1e-3 * self._model.base_kva
        pv_mw, growth = 1e-3 * start_kva.real.sum(axis=2).max(), _GROWTH
        plan, found, before, kept_rows = None, None, None, None
        _check_solved(network.move_to(start_kva))
        for _ in range(_ROUNDS):
            tangents = network.tangents().joined(kept_rows)
            pv_most = growth * max(_FIRST * peak_mw, pv_mw)
            found = solve_program(self._program(tangents, cost, pv_most))
            if found is None:
                return None
            solvers.append(found.solver)
            here, values = network.group_kva, self._values(found)
            plan, overlap_mw = self._plan(*values)
            excess = network.move_to(plan.group_kva)
            if np.isinf(excess).any():
                growth = 0.5 * (1.0 + growth)
                _check_solved(network.move_to(here))
                continue
            if before is not None and EXCESS < last[2] < 2.0 * excess.max():
                # Between two plans that pass a limit by turns lie plans that keep it. Currents are
                # convex, so that the tangents at both hold.
                kept_rows = tangents
                values = 0.5 * (values[0] + before[0]), 0.5 * (values[1] + before[1])
                plan, _ = self._plan(*values)
                excess = network.move_to(plan.group_kva)
            before = values
            pv_mw = plan.capacity_mw[: plan.group_kva.shape[2]].sum()
            now = np.array([pv_mw / peak_mw, plan.curtailed.mean(), excess.max()])
            moved, last = np.abs(now - last), now
            overlaps = bool((overlap_mw > _OVERLAP_MW).any())
            # A given design can pass a limit on a day, whatever its dispatch.
            stays = self._design is not None and moved[2] <= EXCESS and not overlaps
            kept = now[2] <= EXCESS or stays
            if moved[:2].max() <= _RESTS and kept:
                break
            if overlaps:
                self._punish(overlap_mw, found, tangents, cost)
        assert plan is not None
        assert found is not None
        _check_solved(excess)
        return replace(
            plan,
            excess=excess,
            relaxed_mw=self._relaxed(tangents, cost, pv_most, pv_mw),
            discharge_cost=cost[stacked.discharged].reshape(stacked.days, -1),
            weight=self._weights(found, tangents, plan.capacity_mw),
            rounds=len(solvers),
            rows=len(tangents.most),
            solvers=tuple(dict.fromkeys(solvers)),
        )

    def _values(self, found: Solution) -> tuple[FloatArray, FloatArray]:
        """Return capacities (U,) and columns (n,) of a solution."""
        stacked, x = self._stacked, self._design
        if x is None:
            first = stacked.n + stacked.n_x
            x = np.maximum(0.0, found.v[first : first + stacked.n_x // stacked.days])
        return x, found.v[: stacked.n]

    def _plan(self, x: FloatArray, z: FloatArray) -> tuple[Plan, FloatArray]:
        """Return the plan of these values in which no storage charges and discharges at once.

        And the power with which storages do in the values, (D,).
        """
        stacked = self._stacked
        z, overlap_mw = stacked.without_overlap(z)
        copies = np.tile(x, stacked.days)
        shape = stacked.days, len(self._model.hours), -1
        kva = 1e3 * (stacked.kva @ z + stacked.kva_x @ copies).reshape(shape)
        pv_mwh = np.maximum(stacked.available @ copies, 1e-12)
        none = np.zeros(0)
        plan = Plan(x, kva, (stacked.curtailed @ z) / pv_mwh, none, 0.0, none, {}, 0, 0, ())
        return plan, overlap_mw

    def _punish(
        self, overlap_mw: FloatArray, found: Solution, tangents: Tangents, cost: FloatArray
    ) -> None:
        """Raise the cost of discharging where it pays to charge at once, which destroys energy.

        Who takes 1 MW more at a step and group with price v gains v; see `RayProgram`. Where a
        storage does both, v settles at its cost: there the cost begins at what curtailment costs
        instead, and doubles until it is enough.
        """
        stacked, at = self._stacked, self._stacked.discharged
        price = (tangents.by.real.T @ self._network_dual(found, tangents))[self._outlet]
        of_energy = np.ones(stacked.days)
        if self._design is None:
            first = stacked.equal.shape[0] + stacked.n_x
            of_energy = np.abs(found.equal_dual[first : first + stacked.days])
        curtailing = self._model.step_h * np.repeat(of_energy, len(at) // stacked.days)
        price = np.where(overlap_mw > _OVERLAP_MW, np.maximum(price, curtailing), price)
        more = np.where(overlap_mw > _OVERLAP_MW, 2.0, 1.0) * cost[at]
        cost[at] = np.maximum(more, _MARGIN * STORAGE_LOSS * price)

    def _relaxed(self, tangents: Tangents, cost: FloatArray, pv_most: float, pv_mw: float) -> float:
        """Return the PV without the cost of discharging, at the last tangents."""
        if self._design is not None or not cost[self._stacked.discharged].any():
            return pv_mw
        found = solve_program(self._program(tangents, np.zeros_like(cost), pv_most))
        if found is None:
            return pv_mw
        groups = tangents.by.shape[1] // (self._stacked.days * len(self._model.hours))
        return float(max(pv_mw, self._values(found)[0][:groups].sum()))

    def _network_dual(self, found: Solution, tangents: Tangents) -> FloatArray:
        first = self._stacked.less.shape[0]
        return found.less_dual[first : first + len(tangents.most)]

    def _weights(
        self, found: Solution, tangents: Tangents, x: FloatArray
    ) -> dict[tuple[str, str, float], float]:
        """Return `Plan.weight`."""
        stacked, model = self._stacked, self._model
        hours = np.tile(model.hours, stacked.days)
        groups = tangents.by.shape[1] // len(hours)
        of_pv = np.where(np.arange(len(x)) < groups, x, 0.0)
        rise = (tangents.by @ (stacked.kva_x @ np.tile(of_pv, stacked.days))).real
        weight = np.maximum(0.0, self._network_dual(found, tangents) * rise)[
            : len(self._network.elements)
        ]
        total: dict[tuple[str, str, float], float] = {}
        at = self._network.elements
        for row in np.flatnonzero(weight > 1e-4 * weight.sum()).tolist():
            kind = model.check.kinds[at.kind[row]]
            key = kind, model.check.labels(kind)[at.element[row]], float(hours[at.case[row]])
            total[key] = total.get(key, 0.0) + float(weight[row] / weight.sum())
        return dict(sorted(total.items(), key=lambda item: -item[1]))


def _check_solved(excess: FloatArray) -> None:
    if np.isinf(excess).any():
        raise FeederError(
            f"on {np.isinf(excess).sum()} of {len(excess)} days a power flow has no solution",
            where="stochastic hosting capacity",
            expected="less demand, or less noise on the days",
        )
