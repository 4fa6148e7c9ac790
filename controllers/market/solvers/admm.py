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
one and the cone keeps its closed form. Up a line go x's (P, Q, w), down it the parent's ``z - u``
of these three. With d the ``z - u`` it heard, the child knows the parent's u, too:
``u+ = (a x + (1-a) d + (2-a) u - d+)/2``.
"""

from __future__ import annotations

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.solvers.atoms import (
    BALANCE_P,
    BALANCE_Q,
    COPY,
    N_KINDS,
    VOLTAGE,
    Atoms,
    P,
    Q,
    Scales,
    V,
    W,
)
from controllers.market.solvers.iteration import WIDTH, Iteration, Mask, Plan, checked_positive

_SHARED = [P, Q, W]
_ROWS = (BALANCE_P, BALANCE_Q, VOLTAGE)


class Admm(Iteration):
    """ADMM.

    Parameters
    ----------
    atoms : Atoms
    plan : Plan
    penalty : float, optional. rho, in scaled variables; default 50 times the import price.
    over_relaxation : float. 1 (none) to below 2.
    """

    scales = Scales(w_sq=0.3, l_line=20.0)
    messages_per_line = 2
    up_is = down_is = ("power", "power", "voltage")

    def __init__(
        self,
        atoms: Atoms,
        plan: Plan,
        *,
        penalty: float | None = None,
        over_relaxation: float = 1.6,
    ) -> None:
        super().__init__(atoms, plan)
        given = plan.default_weight if penalty is None else penalty
        self.rho = checked_positive("the penalty", given, "ADMM")
        if not 0.0 < over_relaxation < 2.0:
            raise ControllerError(
                f"over-relaxation is {over_relaxation:g}", where="ADMM", expected="between 0 and 2"
            )
        self._relax = over_relaxation
        edges, m = atoms.owner.size, atoms.m
        self._line_scale = atoms.scale[_SHARED]
        self._edge_scale = atoms.scale[_SHARED][:, atoms.owner]
        self._w_per_v = atoms.scale[V] / atoms.scale[W]
        self._own_weight = np.ones((N_KINDS, m))
        self._own_weight[_SHARED] = 1.0 - 0.5 * atoms.inner
        self._z, self._u = np.zeros((2, N_KINDS, m))
        self._z_seen, self._u_seen = np.zeros((2, WIDTH, edges))
        self._u_above, self._heard = np.zeros((2, WIDTH, m))
        self._rows_dual = self.y

    def begin(self, where: Mask, x: FloatArray, y: FloatArray, below: FloatArray) -> None:
        """Start anew so that rho times u is the pull of the duals on each copy."""
        super().begin(where, x, y, below)
        self._invert()
        atoms, edges = self.atoms, where[self.atoms.owner]
        y_own = y.copy()
        y_own[COPY] = 0.0
        pull = atoms.pull_own(y_own)
        pull[V] -= atoms.scale[V] * atoms.over_children(below[2])
        u = pull / (self.rho * self._own_weight)
        self.set_some(where, _z=x, _u=u, _u_above=np.zeros((WIDTH, atoms.m)))
        duals = (y * atoms.row_scale)[:, atoms.owner]
        at_child = np.stack([-duals[BALANCE_P], -duals[BALANCE_Q], below[2]])
        z_seen = below / self._edge_scale
        z_seen[2] = (self._w_per_v * x[V])[atoms.owner]
        u_seen = at_child * self._edge_scale / (0.5 * self.rho)
        self.set_some(edges, _z_seen=z_seen, _u_seen=u_seen)

    def up(self) -> FloatArray:
        """Return P, Q and w of each line, (3, m)."""
        return self.x[_SHARED] * self._line_scale

    def down(self) -> FloatArray:
        """Return ``z - u`` of each child's P, Q and w, (3, e)."""
        said: FloatArray = (self._z_seen - self._u_seen) * self._edge_scale
        return said

    def half(self, stage: int, where: Mask, below: FloatArray, above: FloatArray) -> None:
        """Take the x step, then the z and u steps."""
        if stage == 0:
            self._x_step(where, above / self._line_scale * self.atoms.inner)
        else:
            self._z_step(where, below / self._edge_scale)

    def reduced_costs(self, below: FloatArray, above: FloatArray) -> FloatArray:
        """Return the pull of both observers on each variable, (8, m)."""
        pull = self.rho * self._own_weight * self._u
        pull[_SHARED] += 0.5 * self.rho * self.atoms.inner * self._u_above
        slope: FloatArray = self.atoms.limits.slope
        return slope + pull

    def _x_step(self, where: Mask, heard: FloatArray) -> None:
        a, x_line = self._relax, self.x[_SHARED]
        u = 0.5 * (a * x_line + (1.0 - a) * self._heard + (2.0 - a) * self._u_above - heard)
        later = self.count > 0
        self.set_some(where, _u_above=np.where(later, u, self._u_above), _heard=heard)
        # Only now the duals of the iteration before are complete: it is the one to report.
        y = self._rows_dual.copy()
        y[COPY] = 0.5 * self.rho * self._u_above[2] / self.atoms.scale[W] * self.atoms.inner
        done = where & later
        self.set_some(done, found_x=self.x, found_y=y / self.atoms.row_scale)
        point = self._own_weight * (self._z - self._u)
        point[_SHARED] += 0.5 * self.atoms.inner * heard
        x = self.atoms.limits.proximal(point, 1.0 / self.rho)
        self.set_some(where, x=x)

    def _z_step(self, where: Mask, seen_x: FloatArray) -> None:
        a, atoms, edges = self._relax, self.atoms, where[self.atoms.owner]
        own = a * self.x + (1.0 - a) * self._z + self._u
        seen = a * seen_x + (1.0 - a) * self._z_seen + self._u_seen
        z, z_seen, nu = self._nearest(own, seen)
        self._note_errors(where, z, seen_x)
        y = np.zeros_like(self.y)
        y[:COPY] = self.rho * nu
        y[VOLTAGE] *= atoms.inner
        self.set_some(where, _z=z, _u=own - z, _rows_dual=y)
        self.set_some(edges, _z_seen=z_seen, _u_seen=seen - z_seen)
        self.count[where] += 1

    def _nearest(
        self, own: FloatArray, seen: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the nearest observations that satisfy each agent's three equations, and duals."""
        atoms = self.atoms
        z = own.copy()
        copies = atoms.over_children(0.5 * self._w_per_v[atoms.owner] * seen[2])
        z[V] = (own[V] + copies) * self._inverse_weight[V]
        flows = seen * self._edge_scale
        error = atoms.rows_own(z) + atoms.rows_off(flows[:2], np.zeros(atoms.m))
        error = error / atoms.row_scale
        nu = np.zeros_like(error)
        for a in _ROWS:
            for b in _ROWS:
                nu[a] += self._inverse[a, b] * error[b]
        z -= self._inverse_weight * atoms.pull_own(nu / atoms.row_scale)
        z_seen = np.empty_like(seen)
        z_seen[:2] = seen[:2] + 2.0 * self._edge_scale[0] * nu[:VOLTAGE, atoms.owner]
        z_seen[2] = (self._w_per_v * z[V])[atoms.owner]
        return z, z_seen, nu[:COPY]

    def _invert(self) -> None:
        """Prepare the 3 x 3 systems of all agents and what their solutions move."""
        atoms = self.atoms
        inverse_weight = 1.0 / self._own_weight
        inverse_weight[V] = 1.0 / (1.0 + 0.5 * atoms.count * self._w_per_v**2)
        self._inverse_weight = inverse_weight
        rows = atoms.dense_rows() / atoms.row_scale[:, None, :]
        gram = np.zeros((atoms.m, 3, 3))
        for a in _ROWS:
            for b in _ROWS:
                for kind in range(N_KINDS):
                    gram[:, a, b] += rows[a, kind] * inverse_weight[kind] * rows[b, kind]
        for a in (BALANCE_P, BALANCE_Q):
            gram[:, a, a] += atoms.count * atoms.scale[P] ** 2 / 0.5
        gram[atoms.root, VOLTAGE, VOLTAGE] = 1.0
        self._inverse = np.moveaxis(np.linalg.inv(gram), 0, -1)

    def _note_errors(self, where: Mask, z: FloatArray, seen_x: FloatArray) -> None:
        atoms = self.atoms
        flows = (seen_x * self._edge_scale)[:2]
        rows = atoms.rows_own(self.x) + atoms.rows_off(flows, np.zeros(atoms.m))
        # The copy is compared with the observation of it; the parent's voltage is not heard.
        rows[COPY] = (self.x[W] - z[W]) * atoms.scale[W] * atoms.inner * atoms.row_scale[COPY]
        self.set_errors(where, rows, z - self._z, 1.0 / self.rho)
