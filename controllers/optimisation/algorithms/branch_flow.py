"""PAC, NST-PAC and ADMM of the market: one agent per bus, mail along the feeder's lines.

An iteration has two halves; after each a bus tells its parent and its children three numbers
(`controllers.market.solvers`: the equations, and who says what). Buses start where every one
answers the price of the import and a sweep of the tree finds the flows.

The residual of a bus is the larger of its balances' errors relative to all loads, its squared
voltages' errors, and the reduced costs left in it relative to the import price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, Kind, RowController, Team
from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Asynchronous, Waiting
from controllers.market.clearing import checked_options, clearing_class
from controllers.market.solvers.atoms import Atoms
from controllers.market.solvers.iteration import WIDTH, Iteration, Plan
from controllers.optimisation.problems.feeder_socp import FeederSocp

Name = Literal["pac", "pac-anchored", "nst-pac", "admm"]


def build(
    problem: FeederSocp,
    *,
    iteration: Name = "admm",
    settings: Mapping[str, Any] | None = None,
    waiting: Waiting | None = None,
    tolerance: float = 1e-5,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the buses of a feeder.

    iteration : Which of the market's algorithms. settings : Its own options, such as ``penalty``.

    Raises ControllerError: `waiting` is not a barrier, or there is no such setting.
    """
    where = f"algorithm '{iteration}'"
    if isinstance(waiting, Asynchronous):
        raise ControllerError(
            "the two halves of an iteration belong together",
            where=where,
            expected="Barrier waiting",
        )
    found: type[Iteration] = clearing_class(iteration)
    options = checked_options(found, settings or {}, where)
    network = problem.clearing.network
    edges = np.stack([np.arange(1, network.size), network.parent[1:]], axis=1)
    kind = Kind(network.size, WIDTH, lambda at: Buses(problem, at, found, options))
    team = Team.peers(problem.names, Graph(network.size, edges), kind)
    return _Halves(team, hosted, waiting=waiting, tolerance=tolerance)


class _Halves(RowController):
    @property
    def rounds(self) -> int:
        """Whole iterations of the bus that has computed most often."""
        return super().rounds // 2


class Buses(AgentRows):
    """Buses and the lines from their parents."""

    by_link = True

    def __init__(
        self,
        problem: FeederSocp,
        at: IntArray,
        iteration: type[Iteration],
        options: Mapping[str, Any],
    ) -> None:
        clearing = problem.clearing
        self._atoms = atoms = Atoms(
            clearing.network, at, import_price=clearing.import_price,
            v_sq_min=clearing.v_sq_min, v_sq_max=clearing.v_sq_max, scales=iteration.scales,
        )  # fmt: skip
        bids = {f.name: getattr(clearing.bids, f.name)[at] for f in fields(clearing.bids)}
        atoms.load(replace(clearing.bids, **bids), np.full(len(at), clearing.xi))
        start = problem.start(iteration.scales)
        self._state = iteration(atoms, Plan(start.norm, clearing.import_price), **options)
        self._below = start.up[:, atoms.child]
        self._above = np.zeros((WIDTH, len(at)))
        everyone = np.ones(len(at), dtype=np.bool_)
        self._state.begin(everyone, start.x[:, at], start.y[:, at], self._below)
        self._turn = np.zeros(len(at), dtype=np.int64)
        self._load_kw = clearing.network.base_kva * max(float(clearing.bids.p_load0.sum()), 1e-9)
        self.residual = np.ones(len(at))
        parent = clearing.network.parent
        # The links, ordered by bus, then by peer: from its parent, then from its children.
        ends = np.concatenate(
            [np.stack([at, parent[at]]), np.stack([at[atoms.owner], atoms.child])], 1
        )
        ends = ends[:, ends[1] >= 0]
        bus, peer = ends[:, np.lexsort((ends[1], ends[0]))]
        self._row, self._from_child = np.searchsorted(at, bus), peer > bus
        self._edge = np.searchsorted(atoms.child, np.where(self._from_child, peer, 0))

    def first(self) -> FloatArray:
        """Tell parent and children the start."""
        return self._told(np.arange(len(self._row)))

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Do a half of an iteration; the first and the second take turns."""
        child = self._from_child[heard.link]
        self._below[:, self._edge[heard.link[child]]] = heard.values[child].T
        self._above[:, self._row[heard.link[~child]]] = heard.values[~child].T
        where = np.zeros(len(self._turn), dtype=np.bool_)
        for stage in (0, 1):
            where[:] = False
            where[rows[self._turn[rows] % 2 == stage]] = True
            if where.any():
                self._state.half(stage, where, self._below, self._above)
        self._turn[rows] += 1
        error = np.maximum(self._state.error_kw / self._load_kw, self._state.error_price)
        self.residual[rows] = error[rows]
        return self._told(heard.link)

    def _told(self, link: IntArray) -> FloatArray:
        """Return what the sender of the reply to each link says, (len(link), 3)."""
        up, down = self._state.up().T, self._state.down().T
        child = self._from_child[link]
        told: FloatArray = up[self._row[link]]
        told[child] = down[self._edge[link[child]]]
        return told

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows, 8) and duals (rows, 4) of the buses' atoms, per unit and money."""
        state, atoms = self._state, self._atoms
        return {
            "x": (state.found_x * atoms.scale).T,
            "dual": (state.found_y * atoms.row_scale).T,
        }
