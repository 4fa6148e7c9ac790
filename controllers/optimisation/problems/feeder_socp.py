"""Optimal power flow of a feeder by the relaxed branch-flow model, a second-order cone program.

It is a clearing of the primary market (`controllers.market.model.problem`): agents are buses, each
knows its loads, its PV and the line to its parent, and the equations and cones of
`controllers.market.solvers.atoms`. The reference is the central clearing (Clarabel).

The named problems have loads at 60 % of nominal, of which a fifth gives way at a price, and PV with
a third of the load's active and 44 % of that as reactive power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.costs import cost
from controllers.market.model.problem import Bids, ClearingProblem
from controllers.market.solvers.atoms import COPY, Atoms, P, Q, Scales
from controllers.market.solvers.central import CentralMarket
from controllers.market.solvers.certificate import at_limit, dual_value
from controllers.market.solvers.warm_start import begin
from controllers.optimisation.problems.result import Measure, Reference, relative_gap
from grid_models.branch_flow.model import branch_network
from grid_models.feeder.model import Feeder

LOAD, FLEXIBLE, PV, REACTIVE = 0.6, 0.2, 0.35, 0.44
IMPORT_PRICE, LOSS_PRICE = 60.0, 3.0
"""Money per MWh, and the price of losses beside."""


@dataclass(frozen=True)
class BusStart:
    """Where the buses begin.

    Attributes
    ----------
    norm : Largest singular value of all rows.
    x, y : (8, n), (4, n). Variables and duals, scaled.
    up : (3, n). P, Q and the dual of the copied voltage of each line, per unit and money.
    """

    norm: float
    x: FloatArray
    y: FloatArray
    up: FloatArray


@dataclass(frozen=True, eq=False)
class FeederSocp:
    """A clearing whose agents are buses."""

    kind: ClassVar[str] = "branch flow"

    clearing: ClearingProblem

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the buses' agents."""
        return tuple(f"bus_{name}" for name in self.clearing.network.buses)

    @cached_property
    def atoms(self) -> Atoms:
        """All atoms, with variables of size 1."""
        return Atoms.of(self.clearing)

    @cached_property
    def _starts(self) -> dict[Scales | None, BusStart]:
        return {}

    def start(self, scales: Scales | None) -> BusStart:
        """Return what all agents know beforehand; computed once for each choice of scales."""
        if scales not in self._starts:
            whole = Atoms.of(self.clearing, scales)
            x, y = begin(self.clearing, whole, None)
            up = np.vstack([(x * whole.scale)[P : Q + 1], (y * whole.row_scale)[COPY]])
            self._starts[scales] = BusStart(whole.norm(), x, y, up)
        return self._starts[scales]

    @cached_property
    def reference(self) -> Reference:
        """The central clearing; x: powers of generators and loads, per unit, (3, n) flat.

        Raises MarketError: No dispatch satisfies the limits.
        """
        found = CentralMarket(self.clearing.network).clear(self.clearing).dispatch
        optimum = cost(
            self.clearing, p_gen=found.p_gen, q_gen=found.q_gen, p_load=found.p_load,
            l_line=found.l_line, p_import=found.p_import,
        )  # fmt: skip
        return Reference(
            optimum, np.concatenate([found.p_gen, found.q_gen, found.p_load]), found.lmp_p
        )

    def measure(self, answer: Mapping[str, FloatArray]) -> Measure:
        """Return the worth of an answer.

        answer : `x` (n, 8) and `dual` (n, 4) of the atoms' variables and rows, per unit and money.

        Infeasibility is the largest error of a balance relative to all loads, and of a squared
        voltage; the dual residual the worth of the duals' infeasibility relative to the cost.
        """
        atoms = self.atoms
        x, y = answer["x"].T / atoms.scale, answer["dual"].T / atoms.row_scale
        rows = np.abs(atoms.all_rows(x)) / atoms.row_scale
        rows[:2] /= max(float(self.clearing.bids.p_load0.sum()), 1e-9)
        error, objective = float(rows.max()), atoms.cost(x)
        dual = dual_value(atoms, x, y, at_limit(atoms, x))
        return Measure(
            objective=objective,
            gap=relative_gap(objective, self.reference.objective),
            infeasibility=error,
            primal=error,
            dual=dual.error / max(abs(objective), 1e-9),
            bound=dual.value - dual.error,
        )


def feeder_socp(feeder: Feeder) -> FeederSocp:
    """Return the problem of a radial feeder; its own DERs are not used.

    Raises TopologyError: The feeder is not radial.
    """
    network = branch_network(feeder)
    row = [network.position(load.bus) for load in feeder.loads]
    p, q = np.zeros((2, network.size))
    np.add.at(p, row, [LOAD * load.kw / network.base_kva for load in feeder.loads])
    np.add.at(q, row, [LOAD * load.kvar / network.base_kva for load in feeder.loads])
    price = IMPORT_PRICE * network.base_kva / 1000.0
    pv, loaded = PV * p, p > 0.0
    per_pv = np.divide(price, pv, out=np.zeros_like(p), where=loaded)
    zero = np.zeros_like(p)
    bids = Bids(
        p_load0=p, q_load0=q, p_load_min=(1.0 - FLEXIBLE) * p, p_load_max=p,
        p_gen_min=zero, p_gen_max=pv, q_gen_min=-REACTIVE * pv, q_gen_max=REACTIVE * pv,
        # At the import price a unit gives two thirds of its power, a load half of what it can.
        alpha_p=1.5 * per_pv, alpha_q=0.5 * per_pv,
        beta=np.divide(price, FLEXIBLE * p, out=np.zeros_like(p), where=loaded),
    )  # fmt: skip
    return FeederSocp(ClearingProblem(network, bids, LOSS_PRICE, price))
