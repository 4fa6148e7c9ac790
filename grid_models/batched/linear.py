"""How the port voltages answer to the source and to the port currents, with the loads linearised.

With a linearisation ``i = y u + rest`` of the port currents, the network's ``u = w + z i`` becomes
``u = u0 + k (i - y u)``. The closer y is to the derivative of the currents, the faster the
iteration of this equation converges. y is linear in real and imaginary part (2 x 2 by port), so
complex numbers are stored as two rows: real parts, then imaginary parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import ComplexArray

RealArray = NDArray[np.floating[Any]]
"""In double precision, or in single where an iteration begins."""


@dataclass(frozen=True)
class PortAnswer:
    """Voltages of m ports for N cases: ``u = gain @ [i - slope u; source]``.

    Attributes
    ----------
    gain : (2 m, 2 m + 1). The last column: voltages at source 1 and ``i = slope u``.
    slope : (2, 2, m, 1). d(Re i, Im i) / d(Re u, Im u) of each port.
    at : (2, m, 1). Voltages of the case that was linearised, at source 1.
    """

    gain: RealArray
    slope: RealArray
    at: RealArray

    @classmethod
    def of(cls, w: ComplexArray, z: ComplexArray, slope: RealArray, at: RealArray) -> PortAnswer:
        """Return the answer of ``u = w + z i`` with the linearisation `slope`, (2, 2, m).

        `w`, `z`: complex (m,), (m, m). `at`: (2, m, 1).
        """
        m = len(w)
        right: RealArray = np.empty((2 * m, 2 * m + 1))
        right[:m, :m] = right[m:, m:-1] = z.real
        right[m:, :m], right[:m, m:-1] = z.imag, -z.imag
        right[:m, -1], right[m:, -1] = w.real, w.imag
        if slope.any():
            right = np.linalg.solve(np.eye(2 * m) - fed_back(right[:, :-1], slope), right)
        return cls(np.ascontiguousarray(right), slope[..., None].copy(), at)

    @cached_property
    def single(self) -> PortAnswer:
        """The same in single precision."""
        return PortAnswer(*(x.astype(np.float32) for x in (self.gain, self.slope, self.at)))


def fed_back(gain: RealArray, slope: RealArray) -> RealArray:
    """Return ``gain @ slope``, (2 m, 2 m), of a `slope` (2, 2, m) that is diagonal by ports."""
    m = slope.shape[2]
    by_part = gain.reshape(2 * m, 2, m)
    return np.asarray(np.einsum("iam,abm->ibm", by_part, slope).reshape(2 * m, 2 * m))
