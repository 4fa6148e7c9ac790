"""Two linear laws for the squared voltages of a `Network`: flat (LinDistFlow) and tangent.

Flat, with the no-load voltages V0 of the tree (taps in, loads and shunts out)::

    V - V0 = (I - T)^-1 Z (I - T^H)^-1 conj(s / V0)
    |V|^2  = |V0|^2 + 2 Re(conj(V0) (V - V0))

With T the identity this is the lossless three-phase LinDistFlow with fixed phase ratios,
``y_c = y_p - 2 Re(Gamma o conj(Z) S)`` (Arnold, Sankur, Dobbe, Brady, Callaway, Von Meier,
"Optimal dispatch of reactive power for voltage regulation and balancing in unbalanced
distribution systems", IEEE PES General Meeting 2016, eqs. 8-13), and on one phase the LinDistFlow
of Baran and Wu (IEEE Trans. Power Delivery 4(2), 1989).

Tangent, at a solved state (V, s) of the nodal equations ``Y V = J0 + conj(s / V)``::

    Y dV + D conj(dV) = conj(ds / V),     D = diag(conj(s) / conj(V)^2) - C^T (...) C

the exact first derivative, losses, load models and delta loads included.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from grid_models.base.errors import PowerFlowError
from grid_models.linear.edges import Complex, Real
from grid_models.linear.loads import LoadSet
from grid_models.linear.network import Network
from grid_models.linear.tree_algebra import block_inverse, unit_lu

_MAX_ITERATIONS = 100
_TOLERANCE_PU = 1e-10
# Series impedance floor of the nodal form, in pu on 1 MVA: an ideal regulator has none.
_FLOOR_PU = 1e-6
_FLOOR_BASE_VA = 1e6


class FlatLinearisation:
    """LinDistFlow by two triangular sweeps; shunts inject what they do at nominal voltage."""

    def __init__(self, network: Network) -> None:
        self._lower = unit_lu(network.transfer)
        self._upper = unit_lu(network.transfer, transposed=True)
        self._impedance = network.impedance
        self.voltage: Complex = self._lower.solve(network.source_v)
        nominal = network.base_v * np.exp(1j * np.angle(self.voltage))
        shunt_va = -nominal * np.conj(network.shunt @ nominal)
        squared = np.abs(self.voltage) ** 2
        self.offset_v2: Real = squared + self.response_v2(shunt_va[:, None])[:, 0]

    def response_v2(self, s_va: Complex) -> Real:
        """Return the change of the squared voltages for injections (m, k)."""
        reference = self.voltage[:, None]
        injected = np.conj(s_va / reference)
        flow = np.conj(self._upper.solve(np.conj(injected)))
        rise = self._lower.solve(self._impedance @ flow)
        return np.asarray(2.0 * (reference.real * rise.real + reference.imag * rise.imag))


class TangentLinearisation:
    """First-order law at a solved operating point (loss-aware).

    Parameters
    ----------
    loads : Their voltage dependence and delta connections are kept; `s_va` is what they draw.
    extra_va : (m,). Constant-power injections besides the loads.
    s_va : ndarray of complex, (m,)
        All injections at nominal voltage, loads included: the point where the law is exact.

    Raises PowerFlowError: If the operating point has no solution that the fixed-point iteration
    finds.
    """

    def __init__(self, network: Network, loads: LoadSet, extra_va: Complex, s_va: Complex) -> None:
        self._loads = loads
        self._extra_va = extra_va
        self._constant_va = loads.power_va - loads.z_va
        nodal, source = nodal_equations(network, loads.shunt())
        self._live = (~network.stiff).astype(np.float64)
        self.voltage: Complex = self._solve(network, nodal, source)
        self._jacobian = splu(sparse.csc_array(self._real_jacobian(nodal)))
        squared = np.abs(self.voltage) ** 2
        self.offset_v2: Real = squared - self.response_v2(s_va[:, None])[:, 0]

    def response_v2(self, s_va: Complex) -> Real:
        """Return the change of the squared voltages for injections (m, k)."""
        m = len(self.voltage)
        v = self.voltage[:, None]
        injected = self._live[:, None] * np.conj(s_va / v)
        dv = self._jacobian.solve(np.concatenate([injected.real, injected.imag]))
        return np.asarray(2.0 * (v.real * dv[:m] + v.imag * dv[m:]))

    def _solve(self, network: Network, nodal: sparse.csr_array, source: Complex) -> Complex:
        """Solve the power flow by ``V <- Y^-1 (J0 + J(V))``."""
        lu = splu(sparse.csc_array(nodal))
        v: Complex = unit_lu(network.transfer).solve(network.source_v)
        c = self._loads.terminals
        with np.errstate(all="ignore"):  # a diverging iteration ends in NaN, then in our error
            for _ in range(_MAX_ITERATIONS):
                drawn = c.T @ np.conj(self._constant_va / np.asarray(c @ v))
                injected = np.conj(self._extra_va / v) - np.asarray(drawn)
                new = lu.solve(source + self._live * injected)
                change = float(np.abs((new - v) / network.base_v).max())
                v = new
                if change < _TOLERANCE_PU:
                    return v
                if not np.isfinite(change):
                    break
        raise PowerFlowError(
            f"no operating point found in {_MAX_ITERATIONS} iterations to linearise around",
            expected="injections that the feeder can carry; linearise flat (around=None) or "
            "lower the load",
        )

    def _real_jacobian(self, nodal: sparse.csr_array) -> sparse.csr_array:
        c, v = self._loads.terminals, self.voltage
        wye = sparse.diags_array(np.conj(self._extra_va) / np.conj(v) ** 2)
        across: Complex = np.asarray(c @ v)
        parts = sparse.diags_array(np.conj(self._constant_va) / np.conj(across) ** 2)
        d = sparse.csr_array(sparse.diags_array(self._live) @ (wye - c.T @ parts @ c))
        blocks = [
            [nodal.real + d.real, d.imag - nodal.imag],
            [nodal.imag + d.imag, nodal.real - d.real],
        ]
        return sparse.csr_array(sparse.block_array(blocks))


def nodal_equations(
    network: Network, load_shunt: sparse.csr_array
) -> tuple[sparse.csr_array, Complex]:
    """Return the nodal admittance matrix Y and the source currents J0: ``Y V = J0 + J``.

    At a stiff source the row reads ``V = V0`` instead, and no current may be injected.
    """
    eye = sparse.eye_array(network.size, format="csr", dtype=np.complex128)
    lower = eye - network.transfer
    upward = sparse.csr_array(lower.conj().T @ _inverse_blocks(network))
    stiff = network.stiff.astype(np.float64)
    live = sparse.diags_array(1.0 - stiff)
    nodal = live @ (upward @ lower + network.shunt + load_shunt) + sparse.diags_array(stiff)
    source = (1.0 - stiff) * np.asarray(upward @ network.source_v) + stiff * network.source_v
    return sparse.csr_array(nodal), source


def _inverse_blocks(network: Network) -> sparse.csr_array:
    """Invert the block-diagonal Z with a floor under ideal elements."""
    floor = _FLOOR_PU * network.base_v**2 / _FLOOR_BASE_VA
    ideal = np.abs(network.impedance.diagonal()) < floor
    return block_inverse(network.impedance, network.bus, np.where(ideal, floor, 0.0))


Linearisation = FlatLinearisation | TangentLinearisation
"""A linear law |V|^2 = offset_v2 + response_v2(s), in volt squared and VA, on m nodes."""
