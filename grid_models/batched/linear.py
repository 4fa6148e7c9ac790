"""How the port voltages answer to the source and to the port currents, with the loads linearised.

With a linearisation ``i = y u + rest`` of the port currents, the network's ``u = w + z i`` becomes
``u = u0 + k (i - y u)``. The closer y is to the derivative of the currents, the faster the
iteration of this equation converges. y is linear in real and imaginary part (2 x 2 by port), so
complex numbers are stored as two rows: real parts, then imaginary parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid_models.current_injection.model import ComplexArray, FloatArray


@dataclass(frozen=True)
class PortAnswer:
    """Voltages of m ports for N cases: ``u = source * unloaded + gain @ (i - slope u)``.

    Attributes
    ----------
    unloaded : (2 m, 1). Voltages at source 1 and ``i = slope u``.
    gain : (2 m, 2 m).
    slope : (2, 2, m, 1). d(Re i, Im i) / d(Re u, Im u) of each port.
    at : (2, m, 1). Voltages of the case that was linearised, at source 1.
    """

    unloaded: FloatArray
    gain: FloatArray
    slope: FloatArray
    at: FloatArray

    @classmethod
    def of(cls, w: ComplexArray, z: ComplexArray, slope: FloatArray, at: FloatArray) -> PortAnswer:
        """Return the answer of ``u = w + z i`` with the linearisation `slope`, (2, 2, m).

        `w`, `z`: complex (m,), (m, m). `at`: (2, m, 1).
        """
        m = len(w)
        z_real = np.block([[z.real, -z.imag], [z.imag, z.real]])
        times = np.zeros((2 * m, 2 * m))
        for a in range(2):
            for b in range(2):
                part = z_real[:, a * m : (a + 1) * m] * slope[a, b]
                times[:, b * m : (b + 1) * m] += part
        right = np.column_stack([z_real, np.concatenate([w.real, w.imag])])
        found = np.linalg.solve(np.eye(2 * m) - times, right)
        gain, unloaded = np.ascontiguousarray(found[:, :-1]), found[:, -1:]
        return cls(np.ascontiguousarray(unloaded), gain, slope[..., None].copy(), at)

    def voltages(self, rest: FloatArray, source: FloatArray) -> FloatArray:
        """Return the voltages (2, m, N) where ``i - slope u`` is `rest` (2, m, N)."""
        shape = rest.shape
        answer = self.gain @ rest.reshape(2 * shape[1], -1)
        answer += self.unloaded * source
        return answer.reshape(shape)
