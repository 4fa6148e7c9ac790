"""Loss of a policy at its closed-loop equilibrium, and its gradient by the adjoint equation.

At rest a policy of parameters theta gives ``q = F(theta, v(q))``, where v(q) is the AC power flow.
With J = dv/dq at the agents and D = dF/dv (diagonal, 0 where the command is clipped),

    (I - D J) dq = dF/dtheta dtheta,   so   dL/dtheta = lam^T dF/dtheta,   (I - D J)^T lam = dL/dq.

The forward solution is of the AC power flow; J is that of one operating point for all cases, which
makes the gradient approximate and the fixed point exact. The loss of a case is

    sum over nodes ((v beyond the band less its margin) / 0.01 pu)^2 + q_weight sum (q / kva)^2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.learned_droop.policy import CUBIC, Policy, loop_gain, p_max_kw
from grid_models.base.errors import PowerFlowError
from grid_models.batched.power_flow import BatchedFeeder, BatchFlow
from grid_models.current_injection.model import ComplexArray
from grid_models.feeder.model import Der

_VIOLATION_PU = 0.01
_POWER_FLOWS, _FILTER_STEPS = 6, 40
_CLOSED_PU = 1e-4
"""Of kva: the largest difference between q and its command at which the loop counts as closed."""
_TOLERANCE_PU = 1e-7
_FEWEST_CLOSED = 0.5


@dataclass(frozen=True)
class Cases:
    """N instants of a feeder.

    Attributes
    ----------
    load_kva : complex (N, n_loads). Demand, kW + j kvar.
    der_kva : complex (N, n_ders). Injections of all DERs; the commanded ones' q is not used.
    source_pu : (N,). Factor on the source's voltage.
    """

    load_kva: ComplexArray
    der_kva: ComplexArray
    source_pu: FloatArray

    def of(self, at: NDArray[np.intp] | slice) -> Cases:
        """Return some of the cases."""
        return Cases(self.load_kva[at], self.der_kva[at], self.source_pu[at])


@dataclass(frozen=True)
class Goal:
    """What a policy is trained for.

    Attributes
    ----------
    v_min_pu, v_max_pu : The band less its margin.
    q_weight : Price of ``sum (q / kva)^2`` beside squared violations of the band.
    """

    v_min_pu: float
    v_max_pu: float
    q_weight: float


class Equilibrium(NamedTuple):
    """A policy at rest: q (N, n), AC flow, slopes D and own voltages (N, n), and which closed."""

    q_kvar: FloatArray
    flow: BatchFlow
    d_kvar_per_pu: FloatArray
    v_pu: FloatArray
    closed: NDArray[np.bool_]


class Gradient(NamedTuple):
    """Mean loss of the cases that closed, and its derivatives, (n,) and (n, 4)."""

    loss: float
    by_k: FloatArray
    by_b: FloatArray


class PolicyLoop:
    """A batched feeder closed by a policy on some of its DERs.

    Parameters
    ----------
    feeder : At fixed taps.
    ders : The commanded ones.

    Attributes
    ----------
    slopes_pu_per_kvar : (n_nodes, n). dV/dq, as of the last `linearise`.
    """

    def __init__(self, feeder: BatchedFeeder, ders: tuple[Der, ...]) -> None:
        self.feeder, self.ders = feeder, ders
        self.kva = np.array([der.kva for der in ders])
        self.p_max_kw = p_max_kw(ders)
        place = {name: i for i, name in enumerate(feeder.der_names)}
        self._columns = np.array([place[der.name] for der in ders])
        node = {label: i for i, label in enumerate(feeder.network.nodes)}
        self._mean = np.zeros((len(ders), len(node)))
        for i, der in enumerate(ders):
            self._mean[i, [node[label] for label in der.labels]] = 1.0 / len(der.labels)
        self.slopes_pu_per_kvar = np.zeros((len(node), len(ders)))

    def linearise(self, cases: Cases) -> FloatArray:
        """Take dV/dq at the mean of the cases, without control; return J, (n, n), pu per kvar."""
        mean = [x.mean(axis=0)[None] for x in (cases.load_kva, cases.der_kva, cases.source_pu)]
        flow = self.feeder.solve(mean[0], mean[1], mean[2])
        self.slopes_pu_per_kvar = self.feeder.der_slopes(flow, 0)[1][:, self._columns]
        return self.j_pu_per_kvar

    @property
    def j_pu_per_kvar(self) -> FloatArray:
        """The own voltages' part of `slopes_pu_per_kvar`, (n, n)."""
        return np.asarray(self._mean @ self.slopes_pu_per_kvar)

    def solve(self, cases: Cases, q_kvar: FloatArray) -> BatchFlow:
        """Return the AC flow with these reactive powers of the commanded DERs, (N, n)."""
        der_kva = np.array(cases.der_kva)
        der_kva[:, self._columns] = der_kva[:, self._columns].real + 1j * q_kvar
        at = (cases.load_kva, der_kva, cases.source_pu)
        return self.feeder.solve(*at, tolerance_pu=_TOLERANCE_PU)

    def equilibrium(self, policy: Policy, cases: Cases) -> Equilibrium:
        """Close the loop at rest: AC voltages, then the filter's own steps on the linear loop.

        J is the same for all cases, so it takes some power flows.
        """
        p_kw = cases.der_kva[:, self._columns].real
        headroom = np.sqrt(np.maximum(self.kva**2 - p_kw**2, 0.0))
        p_pu, q = p_kw / self.p_max_kw, np.zeros_like(p_kw)
        j = self.j_pu_per_kvar
        # The filter gain of the fastest contraction.
        quick = replace(policy, filter_gain=2.0 / (2.0 + loop_gain(policy.k, self.kva, j)))
        left = np.arange(len(q))
        for _ in range(_POWER_FLOWS):
            room, part, q_kvar = headroom[left], p_pu[left], q[left]
            v_pu = self.solve(cases.of(left), q_kvar).v_pu @ self._mean.T
            off = np.abs(policy.q_kvar(v_pu, part, room) - q_kvar) / self.kva
            open_ = off.max(axis=1) >= _CLOSED_PU
            left, room, part = left[open_], room[open_], part[open_]
            if not left.size:
                break
            fixed, w_pu = v_pu[open_] - q_kvar[open_] @ j.T, v_pu[open_]
            for _ in range(_FILTER_STEPS):
                q[left] = quick.q_kvar(w_pu, part, room)
                w_pu = quick.filtered(w_pu, fixed + q[left] @ j.T)
        flow = self.solve(cases, q)
        v_pu = flow.v_pu @ self._mean.T
        free = np.abs(policy.wanted_pu(v_pu, p_pu)) < 1.0
        closed = flow.converged.copy()
        closed[left] = False
        return Equilibrium(q, flow, -headroom * policy.k * free, v_pu, closed)

    def loss(self, at: Equilibrium, goal: Goal) -> FloatArray:
        """Return the loss of each case, (N,); NaN where the power flow did not converge."""
        over, under = self._violations(at, goal)
        squares = np.square(over) + np.square(under)
        used = np.square(at.q_kvar / self.kva).sum(axis=1)
        return np.asarray(squares.sum(axis=1) + goal.q_weight * used)

    def _violations(self, at: Equilibrium, goal: Goal) -> tuple[FloatArray, FloatArray]:
        v_pu = at.flow.v_pu
        over = np.maximum(v_pu - goal.v_max_pu, 0.0) / _VIOLATION_PU
        under = np.maximum(goal.v_min_pu - v_pu, 0.0) / _VIOLATION_PU
        return over, under

    def gradient(self, policy: Policy, cases: Cases, goal: Goal) -> Gradient:
        """Return the mean loss of the cases and its gradient by k and b.

        Raises PowerFlowError: More than half of the cases have no equilibrium that is found.
        """
        at = self.equilibrium(policy, cases)
        loss = self.loss(at, goal)
        good = np.flatnonzero(at.closed & np.isfinite(loss))
        if len(good) < _FEWEST_CLOSED * len(loss):
            raise PowerFlowError(
                f"{len(loss) - len(good)} of {len(loss)} training cases have no equilibrium",
                where="training of a policy",
                expected="loads and injections that the feeder can carry",
            )
        over, under = self._violations(at, goal)
        by_v = 2.0 * (over - under)[good] / _VIOLATION_PU
        by_q = 2.0 * goal.q_weight * at.q_kvar[good] / self.kva**2
        by_q += by_v @ self.slopes_pu_per_kvar
        p_kw = cases.der_kva[good][:, self._columns].real
        p_pu, d, v_pu = p_kw / self.p_max_kw, at.d_kvar_per_pu[good], at.v_pu[good]
        j, eye = self.j_pu_per_kvar, np.eye(len(self.ders))
        system = np.swapaxes(eye - d[:, :, None] * j, 1, 2)
        lam = np.linalg.solve(system, by_q[:, :, None])[:, :, 0]
        by_wanted = lam * (-d / policy.k) / len(good)
        by_b = [(by_wanted * p_pu**power).sum(axis=0) for power in range(CUBIC)]
        by_k = -(by_wanted * (v_pu - 1.0)).sum(axis=0)
        return Gradient(float(loss[good].mean()), by_k, np.stack(by_b, axis=1))
