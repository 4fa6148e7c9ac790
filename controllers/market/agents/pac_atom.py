"""One atom of PAC as an agent with mail; `controllers.market.solvers.pac` does all atoms at once.

An atom talks to its parent and its children, three numbers a message both ways: up the line its
flow (P, Q) and the protected dual ``2 y+ - y`` of its copy of the voltage; down the line its
voltage and the protected duals of its two balances. Its own duals y never leave it (the privacy of
PAC).

Under `Barrier` the rounds alternate, a dual step and a primal step, so an iteration is two messages
each way and the iterates are those of the loop to the last bit: both use the same functions on the
same numbers in the same order. Under `Asynchronous` every round does both steps with what was last
heard, damped: ``z <- z + eta (T(z) - z)`` (the step of ARock: Z. Peng et al., "ARock: an
algorithmic framework for asynchronous parallel coordinate updates", SIAM J. Sci. Comput. 38(5),
2016).

A message with a number that no neighbour can mean is not believed (`Reach`): the atom goes on with
what that neighbour said last. One such number would otherwise spread to all atoms in as many rounds
as the tree is deep, and the duals would never forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from controllers.core.agents import Channel, IterativeAgent, Letters
from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from controllers.core.waiting import Barrier, Inbox, Waiting
from controllers.market.solvers.atoms import (
    BALANCE_P,
    BALANCE_Q,
    COPY,
    N_KINDS,
    N_ROWS,
    P_GEN,
    P_LOAD,
    Q_GEN,
    Atoms,
    Law,
    P,
    Q,
    V,
)
from controllers.market.solvers.pac import WEIGHT_PER_PRICE, Anchor, PacSteps, drawn, dual_step

_WIDTH = 3
_SHARES_AHEAD = 256
# Of what planning data say is large. Clean runs stay below a tenth of the reach; where no dispatch
# is within the limits duals grow for ever, in 5000 iterations to a quarter of it.
_BEYOND = 10.0


@dataclass(frozen=True)
class Reach:
    """How large the numbers of a message can be, whoever sends it; scaled, shape (3,) each.

    Attributes
    ----------
    up : ndarray
        Of a child's P, Q and the dual of its copy of the voltage.
    down : ndarray
        Of the parent's squared voltage and the duals of its two balances.
    """

    up: FloatArray
    down: FloatArray

    @staticmethod
    def of(atoms: Atoms) -> Reach:
        """Return ten times what follows from planning data.

        Powers: all devices at the end of their ranges, and all shunts. Squared voltages: the band's
        upper limit. Duals: the dearest offer, in the unit in which the algorithm weighs prices and
        powers alike (`controllers.market.solvers.pac.default_weight`).
        """
        problem, bids = atoms.problem, atoms.problem.bids
        p_gen, q_gen, p_load = (
            np.maximum(np.abs(low), np.abs(high))
            for low, high in (
                (bids.p_gen_min, bids.p_gen_max),
                (bids.q_gen_min, bids.q_gen_max),
                (bids.p_load_min, bids.p_load_max),
            )
        )
        v_sq = max(float(problem.v_sq_max.max()), problem.network.v_root_pu**2)
        shunts = np.abs(problem.network.b_pu) * v_sq
        power = float(np.sum(p_gen + q_gen + p_load + np.abs(bids.q_load0) + shunts))
        offers = (
            bids.alpha_p * p_gen,
            bids.alpha_q * q_gen,
            2.0 * bids.beta * (bids.p_load_max - bids.p_load_min),
        )
        dearest = max(
            abs(problem.import_price), problem.xi, *(float(o.max(initial=0.0)) for o in offers)
        )
        # Where there is nothing, rounding must still pass.
        power, dual = max(power, 1e-3), WEIGHT_PER_PRICE * max(dearest, 1e-3)
        flow = power / float(atoms.scale[P, 0])
        return Reach(
            up=_BEYOND * np.array([flow, flow, dual]),
            down=_BEYOND * np.array([v_sq / float(atoms.scale[V, 0]), dual, dual]),
        )


@dataclass(frozen=True)
class Piece:
    """What one atom knows of the problem: its own rows, columns and costs.

    `matrix` takes its own variables, the parent's v (where there is one), and P, Q of each child;
    `transposed` its own duals, those of the parent's balances, and of each child's copy. `x`, `y`
    are its start, `seen_x`, `seen_y` the start of what the matrices take.
    """

    matrix: Any
    transposed: Any
    rhs: FloatArray
    law: Law
    scale: FloatArray
    row_scale: FloatArray
    x: FloatArray
    y: FloatArray
    seen_x: FloatArray
    seen_y: FloatArray


def cut(atoms: Atoms, bus: int, x: FloatArray, y: FloatArray) -> Piece:
    """Return the piece of one bus with its part of the start (x, y)."""
    n, parent = atoms.n, atoms.problem.network.parent
    children = np.flatnonzero(parent == bus)
    mine_x, mine_y = np.arange(N_KINDS) * n + bus, np.arange(N_ROWS) * n + bus
    seen_x, seen_y = [mine_x], [mine_y]
    if bus:
        seen_x.append(np.array([V * n + parent[bus]]))
        seen_y.append(np.array([BALANCE_P, BALANCE_Q]) * n + parent[bus])
    for child in children:
        seen_x.append(np.array([P, Q]) * n + child)
        seen_y.append(np.array([COPY * n + child]))
    pick = np.array([bus])
    known_x, known_y = np.concatenate(seen_x), np.concatenate(seen_y)
    return Piece(
        matrix=_part(atoms.matrix, mine_y, known_x),
        transposed=_part(atoms.transposed, mine_x, known_y),
        rhs=atoms.rhs[mine_y],
        law=atoms.law.of(pick),
        scale=atoms.scale[:, pick],
        row_scale=atoms.row_scale[mine_y],
        x=x[:, pick],
        y=y[mine_y],
        seen_x=x.ravel()[known_x],
        seen_y=y[known_y],
    )


def _part(matrix: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Any:
    """Return some rows over some columns; entries keep their order, so sums keep their bits."""
    at = {int(c): k for k, c in enumerate(columns)}
    first = matrix.indptr[rows]
    counts = matrix.indptr[rows + 1] - first
    entries = np.concatenate([np.arange(a, a + k) for a, k in zip(first, counts, strict=True)])
    index = np.array([at[int(c)] for c in matrix.indices[entries]], dtype=np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_array((matrix.data[entries], index, ends), shape=(len(rows), len(columns)))


class PacAtom(IterativeAgent):
    """The agent of one bus.

    Parameters
    ----------
    name : str
    parent : str or None
        Agent of the parent bus; None at the root.
    children : sequence of str
        Agents of the child buses, in the order of the network.
    piece : Piece
    steps : PacSteps
    anchor : Anchor or None
        As in `clear_pac`.
    damping : float
        eta above; Barrier has no use for it.
    waiting : Barrier or Asynchronous
    reach : Reach
        What is believed of a neighbour.
    outputs : sequence of Port
        P_G, Q_G, P_L in kW and kvar, and the price; of one label, the bus.
    base_kva : float

    Attributes
    ----------
    iterations : int
    refused : int
        Messages that were not believed.
    """

    def __init__(
        self,
        name: str,
        parent: str | None,
        children: tuple[str, ...],
        piece: Piece,
        steps: PacSteps,
        *,
        anchor: Anchor | None,
        damping: float,
        waiting: Waiting,
        reach: Reach,
        outputs: tuple[Port, ...],
        base_kva: float,
    ) -> None:
        peers = ((parent,) if parent is not None else ()) + children
        super().__init__(
            name, [Channel(p, width=_WIDTH) for p in peers], waiting=waiting, outputs=outputs
        )
        self._parent, self._children = parent, children
        self._piece, self._steps, self._anchor = piece, steps, anchor
        self._damping = damping
        self._phased = isinstance(waiting, Barrier)
        self._base_kva = base_kva
        self.x, self.y = piece.x, piece.y
        self.x_next, self.y_next = piece.x, piece.y
        self._protected = piece.y
        self._x_anchor, self._y_anchor = self.x, self.y
        self._shares: FloatArray = np.empty(0)
        self._primal_turn = False
        self.iterations = 0
        self.refused = 0
        self._reach = reach
        self._doubted: set[str] = set()
        self._news: list[str] = []
        self._seen_x: FloatArray = piece.seen_x.copy()
        self._seen_y: FloatArray = piece.seen_y.copy()

    def first(self) -> Letters:
        """Return the start, so that everybody can take the first dual step."""
        return self._letters()

    def compute(self, inbox: Inbox) -> Letters:
        """Do half an iteration (Barrier) or a damped whole one (Asynchronous)."""
        self._hear(inbox)
        if not self._phased:
            self._dual()
            self._primal()
            self._damp()
            self.iterations += 1
        elif self._primal_turn:
            self._primal()
            self._advance()
            self._primal_turn = False
        else:
            self._dual()
            self._primal_turn = True
        return self._letters()

    def actuate(self) -> Mapping[str, FloatArray]:
        """Return the atom's part of the dispatch."""
        if not self.outputs:
            return {}
        phys = (self.x_next * self._piece.scale)[:, 0]
        price = -(self.y_next * self._piece.row_scale)[BALANCE_P]
        values = (
            phys[P_GEN] * self._base_kva,
            phys[Q_GEN] * self._base_kva,
            phys[P_LOAD] * self._base_kva,
            price * (1e3 / self._base_kva),
        )
        return {
            port.name: np.array([value]) for port, value in zip(self.outputs, values, strict=True)
        }

    def take_doubts(self) -> list[str]:
        """Return links that began to carry what is not believed since the last call."""
        news, self._news = self._news, []
        return news

    def _hear(self, inbox: Inbox) -> None:
        x, y = N_KINDS, N_ROWS
        if self._parent is not None:
            said = inbox.of(self._parent)
            if self._believes(self._parent, said, self._reach.down):
                self._seen_x[x] = said[0]
                self._seen_y[y : y + 2] = said[1:]
            x, y = x + 1, y + 2
        for child in self._children:
            said = inbox.of(child)
            if self._believes(child, said, self._reach.up):
                self._seen_x[x : x + 2] = said[:2]
                self._seen_y[y] = said[2]
            x, y = x + 2, y + 1

    def _believes(self, peer: str, said: FloatArray, reach: FloatArray) -> bool:
        """Say whether a neighbour can mean this; NaN fails the comparison, too."""
        if bool((np.abs(said) <= reach).all()):
            self._doubted.discard(peer)
            return True
        self.refused += 1
        if peer not in self._doubted:
            self._doubted.add(peer)
            self._news.append(f"{peer}>{self.name}")
        return False

    def _dual(self) -> None:
        self._seen_x[:N_KINDS] = self.x[:, 0]
        rows = self._piece.matrix @ self._seen_x
        self.y_next = dual_step(rows, self._piece.rhs, self.y, self._steps.sigma)
        self._protected = 2.0 * self.y_next - self.y

    def _primal(self) -> None:
        self._seen_y[:N_ROWS] = self._protected
        along = (self._piece.transposed @ self._seen_y).reshape(N_KINDS, 1)
        point = self.x - self._steps.tau * along
        self.x_next = self._piece.law.proximal(point, self._steps.tau)

    def _advance(self) -> None:
        """Move on to the next iteration, anchored or not; see `controllers.market.solvers.pac`."""
        k = self.iterations
        self.iterations += 1
        if self._anchor is None:
            self.x, self.y = self.x_next, self.y_next
            return
        if k >= self._shares.size:
            self._shares = self._anchor.shares(2 * k + _SHARES_AHEAD)
        share = float(self._shares[k])
        if share == 0.5:
            self._x_anchor, self._y_anchor = self.x, self.y
        self.x = drawn(self.x, self.x_next, self._x_anchor, share)
        self.y = drawn(self.y, self.y_next, self._y_anchor, share)

    def _damp(self) -> None:
        eta = self._damping
        self.x = self.x + eta * (self.x_next - self.x)
        self.y = self.y + eta * (self.y_next - self.y)

    def _letters(self) -> Letters:
        letters: dict[tuple[str, str], FloatArray] = {}
        if self._parent is not None:
            up = (self.x[P, 0], self.x[Q, 0], self._protected[COPY])
            letters[self._parent, "state"] = np.array(up)
        down = np.array([self.x[V, 0], *self._protected[[BALANCE_P, BALANCE_Q]]])
        for child in self._children:
            letters[child, "state"] = down
        return letters
