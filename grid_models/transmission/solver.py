"""Trapezoidal steps of the differential-algebraic equations, with a frozen Jacobian."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from grid_models.transmission.equations import N_STATES, Demands, Equations
from grid_models.transmission.model import ComplexArray, FloatArray

_SMALL = 1e-6  # step of central differences, per unit
_SLOW = 6  # iterations after which the Jacobian is made anew
_REFRESHES = 8


class NoSolutionError(Exception):
    """The network has no voltages that Newton's method finds."""


class Derivatives(NamedTuple):
    """Blocks of the Jacobian; x as (12 * n_machines,), V as its real, then its imaginary parts."""

    fx: FloatArray
    fv: FloatArray
    gx: FloatArray
    gv: FloatArray


def real(v: ComplexArray) -> FloatArray:
    """Return complex numbers as their real parts, then their imaginary parts."""
    return np.concatenate((v.real, v.imag))


def derivatives(e: Equations, x: FloatArray, v: ComplexArray, demand: Demands) -> Derivatives:
    """Return the derivatives of f and g by central differences.

    A machine's rates depend on its own states and nodes, and a node's current on its own voltage
    and machine: one difference serves all machines. What they share, the frame's speed and the
    frequency of buses, is linear.
    """
    n, m = e.n_buses, e.n_machines
    nodes, each = n + m, np.arange(m)
    w_frame, w_bus = e.frame @ x[1], e.divider @ x[1]
    fx, fv = np.zeros((N_STATES, m, N_STATES, m)), np.zeros((N_STATES, m, 2, nodes))
    gx, gv = np.zeros((2, nodes, N_STATES, m)), np.zeros((2, nodes, 2, nodes))
    for s in range(N_STATES):
        up, down = x.copy(), x.copy()
        up[s] += _SMALL
        down[s] -= _SMALL
        change = e.rates(up, v, demand.reference, w_frame) - e.rates(
            down, v, demand.reference, w_frame
        )
        fx[:, each, s, each] = change / (2.0 * _SMALL)
        into = e.currents(up, v, demand, w_bus) - e.currents(down, v, demand, w_bus)
        gx[0, n + each, s, each] = -into.real[n:] / (2.0 * _SMALL)
        gx[1, n + each, s, each] = -into.imag[n:] / (2.0 * _SMALL)
    fx[0, :, 1, :] -= e.w0 * e.machine_in[:, None] * e.frame
    into = e.currents(x, v, demand, w_bus + _SMALL) - e.currents(x, v, demand, w_bus - _SMALL)
    by_frequency = into[:n, None] / (2.0 * _SMALL) * e.divider
    gx[0, :n, 1, :] -= by_frequency.real
    gx[1, :n, 1, :] -= by_frequency.imag
    gv[0, :, 0, :] = gv[1, :, 1, :] = e.y.real
    gv[1, :, 0, :], gv[0, :, 1, :] = e.y.imag, -e.y.imag
    place = np.arange(nodes)
    for part, turn in enumerate((_SMALL, 1j * _SMALL)):
        into = e.currents(x, v + turn, demand, w_bus) - e.currents(x, v - turn, demand, w_bus)
        gv[0, place, part, place] -= into.real / (2.0 * _SMALL)
        gv[1, place, part, place] -= into.imag / (2.0 * _SMALL)
        for at in (e.bus, n + each):
            step = np.zeros(nodes, complex)
            step[at] = turn
            change = e.rates(x, v + step, demand.reference, w_frame) - e.rates(
                x, v - step, demand.reference, w_frame
            )
            fv[:, each, part, at] = change / (2.0 * _SMALL)
    states = N_STATES * m
    return Derivatives(
        fx.reshape(states, states),
        fv.reshape(states, 2 * nodes),
        gx.reshape(2 * nodes, states),
        gv.reshape(2 * nodes, 2 * nodes),
    )


class Trapezoid:
    """Steps of `step_s`; the inverse Jacobian is kept until it no longer serves."""

    def __init__(self, equations: Equations, step_s: float, tolerance_pu: float = 1e-8) -> None:
        self.equations, self.step_s = equations, step_s
        self._tolerance_pu = tolerance_pu  # largest change in the last iteration
        self._inverse: FloatArray | None = None
        self._network: FloatArray | None = None
        self._grown: tuple[FloatArray, ComplexArray] | None = None  # by the last step
        self.refreshes = 0

    def forget(self) -> None:
        """Make the Jacobian anew at the next step: the network has changed."""
        self._inverse = self._network = self._grown = None

    def forget_growth(self) -> None:
        """Start the next step from where it is: the voltages have jumped."""
        self._grown = None

    def settle(self, x: FloatArray, v: ComplexArray, demand: Demands) -> ComplexArray:
        """Return the voltages V with g(x, V) = 0, from a guess. Raises NoSolutionError."""
        e, nodes = self.equations, len(v)
        for _ in range(_REFRESHES):
            if self._network is None:
                self._network = self._inverted(derivatives(e, x, v, demand).gv)
            last = np.inf
            for _ in range(_SLOW):
                change = self._network @ real(e.y @ v - e.currents(x, v, demand))
                v = v - (change[:nodes] + 1j * change[nodes:])
                size = float(np.abs(change).max())
                if size < self._tolerance_pu:
                    return v
                if not size < 0.5 * last:
                    break
                last = size
            self._network = None
            if not np.isfinite(size):
                break
        raise NoSolutionError

    def step(
        self, x: FloatArray, v: ComplexArray, demand: Demands
    ) -> tuple[FloatArray, ComplexArray]:
        """Return x and V one step later; V must be settled. Raises NoSolutionError."""
        e, half = self.equations, 0.5 * self.step_s
        known = x + half * e.rates(x, v, demand.reference)
        states, nodes, shape = x.size, len(v), x.shape
        start = (x, v)
        if self._grown is not None:
            x, v = x + self._grown[0], v + self._grown[1]
        for attempt in range(_REFRESHES):
            if self._inverse is None:
                self._refresh(x, v, demand)
            assert self._inverse is not None
            last = np.inf
            for _ in range(_SLOW + 2 * attempt):
                miss = np.concatenate(
                    (
                        (x - half * e.rates(x, v, demand.reference) - known).ravel(),
                        real(e.y @ v - e.currents(x, v, demand)),
                    )
                )
                change = self._inverse @ miss
                x = x - change[:states].reshape(shape)
                v = v - (change[states : states + nodes] + 1j * change[states + nodes :])
                size = float(np.abs(change).max())
                if size < self._tolerance_pu:
                    self._grown = (x - start[0], v - start[1])
                    return x, v
                if not size < last:
                    x, v = start
                    break
                last = size
            self._inverse = None
        self._grown = None
        raise NoSolutionError

    def _refresh(self, x: FloatArray, v: ComplexArray, demand: Demands) -> None:
        half = 0.5 * self.step_s
        d = derivatives(self.equations, x, v, demand)
        jacobian = np.block([[np.eye(x.size) - half * d.fx, -half * d.fv], [d.gx, d.gv]])
        self._inverse = self._inverted(jacobian)
        self._network = self._inverted(d.gv)
        self.refreshes += 1

    def _inverted(self, matrix: FloatArray) -> FloatArray:
        try:
            return np.asarray(np.linalg.inv(matrix))
        except np.linalg.LinAlgError:
            raise NoSolutionError from None


def state_matrix(e: Equations, x: FloatArray, v: ComplexArray, demand: Demands) -> FloatArray:
    """Return d(dx/dt)/dx with the network's voltages eliminated; its eigenvalues are the modes."""
    d = derivatives(e, x, v, demand)
    return np.asarray(d.fx - d.fv @ np.linalg.solve(d.gv, d.gx))
