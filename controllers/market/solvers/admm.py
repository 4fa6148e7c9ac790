"""ADMM of a radial network with every step in closed form: one agent per bus, neighbours only.

The splitting follows Q. Peng and S. Low, "Distributed Optimal Power Flow Algorithm for Radial
Networks, I", IEEE Trans. Smart Grid 9(1), 2018: an agent keeps its own variables x in their boxes
and cone, and observations z of its own and its neighbours' variables that satisfy its equations::

    x <- prox of cost/rho at the mean of (z - u)            box and cone, as in PAC
    x' = a x + (1 - a) z                                    over-relaxation, a = 1.6
    z <- nearest point to (x' + u) with balance P, balance Q, voltage drop      a 3 x 3 system
    u <- u + x' - z

Bus i observes all that it owns, and of each child c the flows P_c, Q_c and the copy w_c, which in z
*is* its own v_i. What two agents observe counts half with each, so that every variable has weight
one and the cone keeps its closed form.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.atoms import (  # fmt: skip
    BALANCE_P,
    BALANCE_Q,
    COPY,
    KINDS,
    P_GEN,
    P_LOAD,
    Q_GEN,
    VOLTAGE,
    Atoms,
    L,
    P,
    Q,
    Scales,
    V,
    W,
    load_tangent,
    make_atoms,
)
from controllers.market.solvers.stopping import DistributedClearing, Rule, Watch
from controllers.market.solvers.warm_start import Start, begin

_SHARED = (P, Q, W)
OVER_RELAXATION = 1.6
# The penalty per unit of the import price; see docs/market-distributed.md for the curve.
PENALTY_PER_PRICE = 50.0
ADMM_SCALES = Scales(w_sq=0.3, l_line=20.0)


def clear_admm(
    problem: ClearingProblem,
    start: Dispatch | Start | None = None,
    *,
    max_iterations: int = 5000,
    tolerance: float = 1e-3,
    infeasibility_kw: float = 1.0,
    limits_pu: float = 1e-4,
    penalty: float | None = None,
    over_relaxation: float = OVER_RELAXATION,
    scales: Scales | None = None,
) -> DistributedClearing:
    """Clear by ADMM.

    Parameters
    ----------
    problem : ClearingProblem
    start : Dispatch or Start, optional
        Default: `warm_start`.
    max_iterations, tolerance, infeasibility_kw, limits_pu
        As in `clear_pac`.
    penalty : float, optional
        rho, in scaled variables; default 50 times the import price.
    over_relaxation : float
        1 (none) to below 2.
    scales : Scales, optional
        Sizes of the variables, equal for all buses.

    Raises
    ------
    ControllerError
        The problem is none, or a parameter is out of range.
    """
    rule = Rule(max_iterations, tolerance, infeasibility_kw, limits_pu)
    rho = PENALTY_PER_PRICE * max(abs(problem.import_price), 1e-3) if penalty is None else penalty
    if not (0.0 < rho < np.inf):
        raise ControllerError(f"the penalty is {rho:g}", where="ADMM", expected="more than 0")
    if not 0.0 < over_relaxation < 2.0:
        raise ControllerError(
            f"over-relaxation is {over_relaxation:g}", where="ADMM", expected="between 0 and 2"
        )
    atoms = make_atoms(problem, scales or ADMM_SCALES)
    x, y = begin(atoms, start)
    splitting = Splitting(atoms, rho, over_relaxation, x, y)
    watch = Watch(atoms, rule, messages_per_line=2)
    for k in range(max_iterations):
        x = splitting.advance()
        if watch.due(k + 1) and watch.may_stop(k + 1, x, splitting.duals()):
            break
    return watch.finished(x, splitting.duals())


class Splitting:
    """The state of the iteration; arrays of shape (8, n) own and (3, n) as seen by the parent."""

    def __init__(
        self, atoms: Atoms, rho: float, over_relaxation: float, x: FloatArray, y: FloatArray
    ) -> None:
        n = atoms.n
        self.atoms = atoms
        self.rho = rho
        self.relax = over_relaxation
        self._parent = atoms.problem.network.parent
        child = np.arange(1, n)
        ones = np.ones(n - 1)
        self._children = sparse.csr_array((ones, (self._parent[1:], child)), shape=(n, n))
        self._own_weight = np.ones((len(KINDS), n))
        self._own_weight[_SHARED, 1:] = 0.5
        self._seen_weight = np.full((3, n), 0.5)
        self._seen_weight[:, 0] = 0.0
        self._rows = _own_rows(atoms)
        # A child's copy is its parent's v in units of w's scale, the same at all buses.
        self._w_per_v = float(atoms.scale[V, 0] / atoms.scale[W, 0])
        self._invert()
        self._own, self._seen = x.copy(), x[list(_SHARED)]
        self._start_duals(y)

    def _invert(self) -> None:
        """Prepare the 3 x 3 systems of all agents and what their solutions move."""
        n = self.atoms.n
        inverse_weight = 1.0 / self._own_weight
        count: FloatArray = np.asarray(self._children.sum(axis=1)).ravel()
        inverse_weight[V] = 1.0 / (1.0 + 0.5 * count * self._w_per_v**2)
        self._inverse_weight = inverse_weight
        gram = np.einsum("akn,kn,bkn->nab", self._rows, inverse_weight, self._rows)
        line = self.atoms.scale[P] ** 2 / 0.5
        line[0] = 0.0
        below = self._children @ line
        gram[:, 0, 0] += below
        gram[:, 1, 1] += below
        gram[0, 2, 2] = 1.0
        self._inverse = np.linalg.inv(gram)
        self._rhs = (self.atoms.rhs / self.atoms.row_scale).reshape(-1, n)[:3]

    def _start_duals(self, y: FloatArray) -> None:
        """Set u so that rho times its weight is the pull of the duals on each copy."""
        atoms = self.atoms
        duals = (y * atoms.row_scale).reshape(-1, atoms.n)
        pull = np.einsum("akn,an->kn", self._rows, duals[:3])
        pull[V] -= self._children @ duals[COPY] * atoms.scale[V]
        self._u_own = pull / (self.rho * self._own_weight)
        seen = np.array([-duals[BALANCE_P], -duals[BALANCE_Q]])[:, self._parent]
        pull_seen = np.vstack([seen, duals[COPY]]) * atoms.scale[list(_SHARED)]
        self._u_seen = pull_seen / (self.rho * 0.5)
        self._u_seen[:, 0] = 0.0
        self._nu = duals[:3]

    def advance(self) -> FloatArray:
        """Do one iteration and return x, shape (8, n)."""
        point = self._own - self._u_own
        point[P : Q + 1] *= self._own_weight[P : Q + 1]
        point[W] *= self._own_weight[W]
        other = self._seen_weight * (self._seen - self._u_seen)
        point[P : Q + 1] += other[:2]
        point[W] += other[2]
        x = self.atoms.law.proximal(point, 1.0 / self.rho)
        a = self.relax
        own = a * x + (1.0 - a) * self._own + self._u_own
        seen = a * x[list(_SHARED)] + (1.0 - a) * self._seen + self._u_seen
        self._own, self._seen = self._nearest(own, seen)
        self._u_own, self._u_seen = own - self._own, seen - self._seen
        self._u_seen[:, 0] = 0.0
        return x

    def _nearest(self, own: FloatArray, seen: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the nearest observations that satisfy each agent's three equations."""
        scale = self.atoms.scale
        flow = seen[:2] * scale[P]
        flow[:, 0] = 0.0
        copies = 0.5 * self._w_per_v * seen[2]
        copies[0] = 0.0
        below = self._children @ np.vstack([flow, copies]).T
        z = own.copy()
        z[V] = (own[V] + below[:, 2]) * self._inverse_weight[V]
        error = np.einsum("akn,kn->an", self._rows, z) - self._rhs
        error[:2] -= below[:, :2].T
        nu = np.einsum("nab,bn->an", self._inverse, error)
        z -= self._inverse_weight * np.einsum("akn,an->kn", self._rows, nu)
        z_seen = np.empty_like(seen)
        z_seen[:2] = seen[:2] + 2.0 * scale[P] * nu[:2, self._parent]
        z_seen[2] = self._w_per_v * z[V, self._parent]
        self._nu = self.rho * nu
        return z, z_seen

    def duals(self) -> FloatArray:
        """Return the duals of the atoms' rows, scaled, shape (4 n,)."""
        copy = 0.5 * self.rho * self._u_seen[2:] / self.atoms.scale[W]
        rows = np.vstack([self._nu, copy])
        rows[2:, 0] = 0.0
        return rows.ravel() / self.atoms.row_scale


def _own_rows(atoms: Atoms) -> FloatArray:
    """Return what each agent's own variables add to its three equations, shape (3, 8, n)."""
    net = atoms.problem.network
    rows = np.zeros((3, len(KINDS), atoms.n))
    rows[BALANCE_P, [P, P_GEN]] = 1.0
    rows[BALANCE_P, P_LOAD] = -1.0
    rows[BALANCE_P, L] = -net.r_pu
    rows[BALANCE_Q, [Q, Q_GEN]] = 1.0
    rows[BALANCE_Q, P_LOAD] = -load_tangent(atoms.problem)[0]
    rows[BALANCE_Q, L] = -net.x_pu
    rows[BALANCE_Q, V] = net.b_pu
    rows[VOLTAGE, W], rows[VOLTAGE, V] = 1.0, -1.0
    rows[VOLTAGE, P], rows[VOLTAGE, Q] = -2.0 * net.r_pu, -2.0 * net.x_pu
    rows[VOLTAGE, L] = net.r_pu**2 + net.x_pu**2
    rows[VOLTAGE, :, 0] = 0.0
    rows[BALANCE_P:VOLTAGE, L, 0] = 0.0
    return rows * atoms.scale
