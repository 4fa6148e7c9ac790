"""Power into the ends of branches in polar voltages, with first and second derivatives.

A branch end at bus i with far bus j and admittances y (own) and m (mutual) takes in
``S = v_i conj(y v_i + m v_j)``. With ``d = turn_i - turn_j``, ``c = Re m cos d + Im m sin d`` and
``s = Re m sin d - Im m cos d``::

    P =  Re y v_i^2 + v_i v_j c        dc/dd = -s
    Q = -Im y v_i^2 + v_i v_j s        ds/dd =  c

Derivatives are in the order (turn_i, turn_j, v_i, v_j).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray

ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True)
class EndFlows:
    """Power into branch ends and its first derivatives, per unit.

    `p`, `q`: (n_ends,). `slope_p`, `slope_q`: (4, n_ends). `c`, `s`: See the module, (n_ends,).
    """

    p: FloatArray
    q: FloatArray
    slope_p: FloatArray
    slope_q: FloatArray
    c: FloatArray
    s: FloatArray


@dataclass(frozen=True)
class BranchEnds:
    """Ends of branches.

    Attributes
    ----------
    bus, far : (n_ends,). Positions of the end's bus and of the bus at the other end.
    own, mutual : complex (n_ends,). Entries of the branch's admittance matrix, per unit.
    """

    bus: IntArray
    far: IntArray
    own: ComplexArray
    mutual: ComplexArray

    def flows(self, turn: FloatArray, v: FloatArray) -> EndFlows:
        """Return the flows at angles (n_buses,), rad, and magnitudes (n_buses,), per unit."""
        v_i, v_j = v[self.bus], v[self.far]
        difference = turn[self.bus] - turn[self.far]
        cos, sin = np.cos(difference), np.sin(difference)
        c = self.mutual.real * cos + self.mutual.imag * sin
        s = self.mutual.real * sin - self.mutual.imag * cos
        both = v_i * v_j
        return EndFlows(
            self.own.real * v_i**2 + both * c,
            -self.own.imag * v_i**2 + both * s,
            np.stack((-both * s, both * s, 2.0 * self.own.real * v_i + v_j * c, v_i * c)),
            np.stack((both * c, -both * c, -2.0 * self.own.imag * v_i + v_j * s, v_i * s)),
            c,
            s,
        )

    def curvature(
        self, v: FloatArray, flows: EndFlows, weight_p: FloatArray, weight_q: FloatArray
    ) -> FloatArray:
        """Return the second derivatives of ``weight_p * P + weight_q * Q``, (4, 4, n_ends)."""
        v_i, v_j = v[self.bus], v[self.far]
        along = weight_p * flows.c + weight_q * flows.s
        across = weight_q * flows.c - weight_p * flows.s
        h = np.zeros((4, 4, len(self.bus)))
        h[0, 1] = h[1, 0] = v_i * v_j * along
        h[0, 0] = h[1, 1] = -h[0, 1]
        h[0, 2] = h[2, 0] = v_j * across
        h[0, 3] = h[3, 0] = v_i * across
        h[1, 2] = h[2, 1] = -h[0, 2]
        h[1, 3] = h[3, 1] = -h[0, 3]
        h[2, 2] = 2.0 * (weight_p * self.own.real - weight_q * self.own.imag)
        h[2, 3] = h[3, 2] = along
        return h
