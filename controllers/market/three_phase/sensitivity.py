"""The power flow of one state, linearised: what powers do to currents, and back (adjoint)."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.three_phase.dispatch import ComplexArray
from grid_models.current_injection.model import PortLoads, PortNetwork
from grid_models.current_injection.power_flow import PortFlow, jacobian


class Sensitivity:
    """Derivatives at a power flow; the Jacobian is factored once.

    Raises ArithmeticError: The Jacobian is singular, at the voltage collapse.
    """

    def __init__(
        self, network: PortNetwork, flow: PortFlow, loads: PortLoads | None = None
    ) -> None:
        from scipy.linalg.lapack import dgetrf

        self._m = m = len(flow.i)
        matrix = jacobian(network, flow.i, flow.u, loads)
        dead = np.flatnonzero(flow.u == 0.0)
        # Nothing is injected at a port without voltage, whatever happens elsewhere.
        matrix[dead, dead] = matrix[dead + m, dead + m] = 1.0
        self._share, self._dead = network.share, dead
        self._lu, self._pivots, singular = dgetrf(matrix)
        if singular:
            raise ArithmeticError("the power flow has no derivative here")

    def currents(self) -> ComplexArray:
        """Return the currents by active, then reactive power of the terminals, (m, 2 t)."""
        m, none = self._m, np.zeros_like(self._share)
        right = np.block([[self._share, none], [none, self._share]])
        right[self._dead] = right[self._dead + m] = 0.0
        found = self._solve(right, transposed=False)
        return np.asarray(found[:m] + 1j * found[m:])

    def adjoint(self, gradients: ComplexArray) -> ComplexArray:
        """Return what injections at the ports are worth, (m,) or (m, k).

        `gradients` g of functions of the currents, ``df = Re(g^H di)``. The real part of the result
        is the derivative by active, the imaginary part that by reactive injection.
        """
        both = np.concatenate([gradients.real, gradients.imag])
        found = self._solve(both, transposed=True)
        worth = np.asarray(found[: self._m] + 1j * found[self._m :])
        worth[self._dead] = 0.0
        return worth

    def of_terminals(self, worth: ComplexArray) -> ComplexArray:
        """Return what injections at the terminals are worth, (t,) or (t, k)."""
        return np.asarray(self._share.T @ worth)

    def _solve(self, right: FloatArray, *, transposed: bool) -> FloatArray:
        from scipy.linalg.lapack import dgetrs

        return np.asarray(dgetrs(self._lu, self._pivots, right, trans=int(transposed))[0])
