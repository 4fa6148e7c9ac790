"""The McCormick relaxation of the three-phase market as a cone program, in the form of clarabel.

Of each port the voltage u and the current i, in coordinates rotated to its own voltage at a known
power flow, lie in boxes (`boxes`)::

    u = u_mid + u_half * xi        i = i_mid + i_half * eta        |xi|, |eta| <= 1  (each part)

The balance ``P = u^R i^R + u^I i^I``, ``Q = u^I i^R - u^R i^I`` is then affine but for the four
products ``xi eta`` of a port, which become variables omega within their envelopes (G. McCormick,
1976; thesis, (5a)-(5d)). For products of numbers in [-1, 1] these are, whatever the boxes::

    omega >= -xi - eta - 1        omega >= xi + eta - 1
    omega <=  xi - eta + 1        omega <= eta - xi + 1

(the slides lost the variables of (5a)-(5d) and print the two lower envelopes twice). Written with
the bounds themselves the rows degenerate where a box is narrow; these do not.

The variables are [devices y, eta, xi, omega, p]: devices as parts of their ranges, (4 t), p the
import. Real and imaginary parts are stacked, (2 m). The import is a quadratic function of the
currents where the source has an impedance; its concave part is replaced by its chord over the
boxes, so that p is at most the import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from controllers.core.mail import FloatArray, IntArray
from controllers.market.three_phase.boxes import Box
from controllers.market.three_phase.objective import P_GEN, P_LOAD, Q_GEN, SHED, Devices
from grid_models.current_injection.model import ComplexArray, PortNetwork

# An import without a limit, per unit.
_NO_LIMIT = 1e5
# A box is at least this wide, pu: no column of the program is all zero.
_LEAST_HALF = 1e-9


@dataclass(frozen=True)
class Boxed:
    """Numbers of one program.

    Attributes
    ----------
    devices : Devices
    turn, node_turn : complex (m,), (n,)
        Of length 1: rotated is ``u * conj(turn)``; of ports and of nodes, at a power flow.
    u, i : Box. Rotated.
    held : complex (m,)
        What ports draw less than is bid, because loads depend on the voltage; as at a power flow.
    import_at : (constant, complex (m,)); the import is at least ``constant + Re(conj(g) i)``, i as
        it is, not rotated.
    objective : complex (m,), (m, m)
        Gradient g and form M of the objective by the currents, ``Re(g^H i) + i^H M i``, import
        apart.
    import_price, import_slope, import_min, import_max : float
    v_min, v_max : float
    """

    devices: Devices
    turn: ComplexArray
    node_turn: ComplexArray
    u: Box
    i: Box
    held: ComplexArray
    import_at: tuple[float, ComplexArray]
    objective: tuple[ComplexArray, ComplexArray]
    import_price: float
    import_slope: float
    import_min: float
    import_max: float
    v_min: float
    v_max: float


@dataclass(frozen=True)
class Program:
    """``min x'Px/2 + q'x`` with ``Ax + s = b``; `p` and `a` sparse (csc)."""

    p: Any
    q: FloatArray
    a: Any
    b: FloatArray


def stacked(z: ComplexArray) -> FloatArray:
    """Return the real matrix of ``z x`` on stacked parts, (2 k, 2 m) of (k, m)."""
    return np.block([[z.real, -z.imag], [z.imag, z.real]])


def parts(x: ComplexArray) -> FloatArray:
    """Return real and imaginary parts, stacked."""
    return np.concatenate([x.real, x.imag])


class McCormickForm:
    """Rows and columns of a network's programs, with the limits of some nodes and lines.

    Parameters
    ----------
    nodes, lines : Positions of those whose limits are rows; others cannot be reached.
    """

    def __init__(self, network: PortNetwork, nodes: IntArray, lines: IntArray) -> None:
        self.network, self.nodes, self.lines = network, nodes, lines
        t, m = network.size, len(network.ports)
        ends = np.cumsum([4 * t, 2 * m, 2 * m, 4 * m, 1])
        self.size = int(ends[-1])
        self.y, self.eta, self.xi, self.omega = (
            slice(a, b) for a, b in zip([0, *ends[:3]], ends[:4], strict=True)
        )
        self.p = self.size - 1
        self.n_equal = 4 * m + 1
        self.n_inequal = 8 * t + 16 * m + 2 * len(nodes) + 2
        self.m = m
        self._fixed = self._fixed_rows(t)

    def cones(self) -> list[Any]:
        """Return clarabel's cones of the rows."""
        import clarabel

        cones = [clarabel.ZeroConeT(self.n_equal), clarabel.NonnegativeConeT(self.n_inequal)]
        return cones + [clarabel.SecondOrderConeT(3) for _ in self.lines]

    def holds(self, nodes: NDArray[np.bool_], lines: NDArray[np.bool_]) -> bool:
        """Whether the limits of these nodes (n,) and lines (r,) are among the rows."""
        has = nodes[self.nodes].sum() == nodes.sum(), lines[self.lines].sum() == lines.sum()
        return bool(all(has))

    def _fixed_rows(self, t: int) -> Any:
        """Return ranges of the devices and envelopes: rows that are the same in every program."""
        m, none = self.m, sparse.csr_array
        one = sparse.eye_array(4 * t, format="csr")
        wide = sparse.vstack([one, -one])
        ranges = sparse.hstack([wide, none((8 * t, self.size - 4 * t))])
        # Products xi^R eta^R, xi^I eta^I, xi^R eta^I, xi^I eta^R.
        e, zero = sparse.eye_array(m, format="csr"), none((m, m))
        of_xi = sparse.block_array([[e, zero], [zero, e], [e, zero], [zero, e]])
        of_eta = sparse.block_array([[e, zero], [zero, e], [zero, e], [e, zero]])
        omega = sparse.eye_array(4 * m, format="csr")
        envelopes = sparse.vstack(
            [
                sparse.hstack([none((4 * m, 4 * t)), a * of_eta, b * of_xi, c * omega,
                               none((4 * m, 1))])
                for a, b, c in ((-1, -1, -1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))
            ]
        )  # fmt: skip
        return sparse.vstack([ranges, envelopes])

    def program(self, at: Boxed) -> Program:
        """Return the program; its entries have the same places for every `at`."""
        z_u = self.network.z_port * at.turn * np.conj(at.turn)[:, None]
        half_i = parts(_wide(at.i))
        half_i = np.where(np.tile(self.network.w_port == 0.0, 2), 0.0, half_i)
        a_equal, b_equal = self._equations(at, z_u, half_i)
        a_limit, b_limit = self._limits(at, half_i)
        a_line, b_line = self._line_cones(at, half_i)
        t, m = self.network.size, self.m
        b_fixed = np.concatenate([np.ones(4 * t), np.zeros(4 * t), np.ones(16 * m)])
        a = sparse.vstack([a_equal, self._fixed, a_limit, a_line], format="csc")
        b = np.concatenate([b_equal, b_fixed, b_limit, b_line])
        p, q = self._costs(at, half_i)
        return Program(p, q, a, b)

    def _equations(
        self, at: Boxed, z_u: ComplexArray, half_i: FloatArray
    ) -> tuple[Any, FloatArray]:
        """Return the rows of voltages (2 m), of active and reactive power (2 m), of the import."""
        net, m, half_u = self.network, self.m, parts(_wide(at.u))
        rotated = net.w_port * np.conj(at.turn) + z_u @ at.i.mid
        ohm = _block(stacked(z_u) * half_i)
        u_mid, i_mid = at.u.mid, at.i.mid
        du, di = (half_u[:m], half_u[m:]), (half_i[:m], half_i[m:])
        d = _diagonal
        by_eta = sparse.block_array(
            [[d(u_mid.real * di[0]), d(u_mid.imag * di[1])],
             [d(u_mid.imag * di[0]), d(-u_mid.real * di[1])]]
        )  # fmt: skip
        by_xi = sparse.block_array(
            [[d(i_mid.real * du[0]), d(i_mid.imag * du[1])],
             [d(-i_mid.imag * du[0]), d(i_mid.real * du[1])]]
        )  # fmt: skip
        zero = sparse.csr_array((m, m))
        by_omega = sparse.block_array(
            [[d(du[0] * di[0]), d(du[1] * di[1]), zero, zero],
             [zero, zero, d(-du[0] * di[1]), d(du[1] * di[0])]]
        )  # fmt: skip
        by_device = self._injections(at.devices)
        constant, gradient = at.import_at
        by_current = parts(gradient * np.conj(at.turn)) * half_i
        t4 = by_device.shape[1]
        rows = sparse.block_array(
            [[sparse.csr_array((2 * m, t4)), ohm, d(-half_u), sparse.csr_array((2 * m, 4 * m)),
              sparse.csr_array((2 * m, 1))],
             [-by_device, by_eta, by_xi, by_omega, None],
             [None, _block(-by_current[None, :]), None, None, sparse.csr_array([[1.0]])]]
        )  # fmt: skip
        s = net.share @ at.devices.injection(at.devices.low) + at.held - u_mid * np.conj(i_mid)
        known = constant + float((np.conj(gradient) @ (at.turn * i_mid)).real)
        return rows, np.concatenate([parts(u_mid - rotated), parts(s), [known]])

    def _injections(self, devices: Devices) -> Any:
        """Return what the devices' parts of their ranges inject at the ports, (2 m, 4 t)."""
        net, width = self.network, devices.high - devices.low
        ones = np.ones(net.size, dtype=np.complex128)
        share = sparse.csr_array(net.share)
        active, reactive = (devices.pulled_back(ones * unit) * width for unit in (1, 1j))

        def of(rows: FloatArray, kinds: tuple[int, ...]) -> Any:
            return sparse.hstack([share * rows[k] if k in kinds else share * 0.0 for k in range(4)])

        return sparse.vstack(
            [of(active, (P_GEN, P_LOAD, SHED)), of(reactive, (Q_GEN, P_LOAD, SHED))]
        )

    def _limits(self, at: Boxed, half_i: FloatArray) -> tuple[Any, FloatArray]:
        """Return the rows of the voltage band (2 k) and of the import (2).

        In the direction of a node's voltage at the power flow, the upper limit is its tangent and
        the lower one its chord over the voltages across that the boxes allow: both hold wherever
        the limits do.
        """
        net, k = self.network, self.nodes
        back = np.conj(at.node_turn[k])
        z = net.z[k] * at.turn * back[:, None]
        across = at.i.affine(net.w[k] * back, z)
        matrix, mid = stacked(z) * half_i, parts(across.mid)
        n = len(k)
        low, high = (np.clip(end.imag, -at.v_min, at.v_min) for end in (across.low, across.high))
        ends = np.sqrt(at.v_min**2 - low**2), np.sqrt(at.v_min**2 - high**2)
        flat = np.divide(ends[1] - ends[0], high - low, out=np.zeros(n), where=high - low > 1e-9)
        least = np.minimum(ends[0] - flat * low, ends[1] - flat * high)
        rows = np.vstack([matrix[:n], flat[:, None] * matrix[n:] - matrix[:n]])
        right = np.concatenate([at.v_max - mid[:n], mid[:n] - flat * mid[n:] - least])
        last = sparse.csr_array(([1.0, -1.0], ([0, 1], [self.p, self.p])), shape=(2, self.size))
        ends_p = np.clip([at.import_max, -at.import_min], -_NO_LIMIT, _NO_LIMIT)
        return sparse.vstack([self._on_eta(rows), last]), np.concatenate([right, ends_p])

    def _line_cones(self, at: Boxed, half_i: FloatArray) -> tuple[Any, FloatArray]:
        """Return the rows of the lines' currents, three for each."""
        net, k = self.network, self.lines
        z = net.line_z[k] * at.turn
        matrix, mid = stacked(z) * half_i, net.line_w[k] + z @ at.i.mid
        rows, right = np.zeros((3 * len(k), 2 * self.m)), np.empty(3 * len(k))
        rows[1::3], rows[2::3] = -matrix[: len(k)], -matrix[len(k) :]
        right[0::3], right[1::3], right[2::3] = net.line_limit[k], mid.real, mid.imag
        return self._on_eta(rows), right

    def _on_eta(self, rows: FloatArray) -> Any:
        """Return dense rows of eta in the program's columns."""
        r = len(rows)
        after = self.size - self.eta.stop
        return sparse.hstack(
            [sparse.csr_array((r, self.eta.start)), _block(rows), sparse.csr_array((r, after))]
        )

    def _costs(self, at: Boxed, half_i: FloatArray) -> tuple[Any, FloatArray]:
        devices, width = at.devices, at.devices.high - at.devices.low
        gradient, form = at.objective
        q = np.zeros(self.size)
        q[self.y] = (devices.gradient(devices.low) * width).ravel()
        turned = form * at.turn * np.conj(at.turn)[:, None]
        hessian = stacked(turned + np.conj(turned.T))
        slope = parts(gradient * np.conj(at.turn)) + hessian @ parts(at.i.mid)
        q[self.eta] = slope * half_i
        q[self.p] = at.import_price
        bend = (devices.curvature * width**2).ravel()
        zero = sparse.csr_array((6 * self.m, 6 * self.m))
        dense = _block(hessian * np.outer(half_i, half_i))
        p = sparse.block_diag([_diagonal(bend), dense, zero, _block([[at.import_slope]])])
        return sparse.triu(p, format="csc"), q

    # --- results ---------------------------------------------------------------------------------

    def devices_at(self, at: Boxed, x: FloatArray) -> FloatArray:
        """Return the devices of a solution, (4, t), within their ranges."""
        low, high = at.devices.low, at.devices.high
        part = np.clip(x[self.y], 0.0, 1.0).reshape(low.shape)
        return np.asarray(np.clip(low + part * (high - low), low, high))

    def currents(self, at: Boxed, x: FloatArray) -> ComplexArray:
        """Return the port currents of a solution, not rotated, (m,)."""
        half = _wide(at.i)
        eta = x[self.eta]
        i = at.i.mid + half.real * eta[: self.m] + 1j * half.imag * eta[self.m :]
        return np.asarray(np.where(self.network.w_port == 0.0, 0.0, at.turn * i))

    def port_prices(self, z: FloatArray) -> ComplexArray:
        """Return prices of active (real) and reactive load at the ports, (m,)."""
        m = self.m
        return np.asarray(z[2 * m : 3 * m] + 1j * z[3 * m : 4 * m])

    def limit_worth(self, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """Return multipliers of all nodes' upper and lower limits, lines', and the import's."""
        net, k = self.network, len(self.nodes)
        high, low = np.zeros(len(net.nodes)), np.zeros(len(net.nodes))
        line = np.zeros(len(net.line_limit))
        at = self.n_equal + 8 * net.size + 16 * self.m
        high[self.nodes], low[self.nodes] = z[at : at + k], z[at + k : at + 2 * k]
        line[self.lines] = z[self.n_equal + self.n_inequal :: 3]
        return high, low, line, float(z[at + 2 * k] - z[at + 2 * k + 1])


def _wide(box: Box) -> ComplexArray:
    half = box.half
    return np.asarray(np.maximum(half.real, _LEAST_HALF) + 1j * np.maximum(half.imag, _LEAST_HALF))


def _diagonal(values: FloatArray) -> Any:
    """Return a diagonal matrix that stores its zeros."""
    at = np.arange(len(values))
    return sparse.coo_array((values, (at, at)), shape=(len(values), len(values)))


def _block(dense: Any) -> Any:
    """Return a dense matrix as a sparse one that stores its zeros, too: their place is kept."""
    full = np.asarray(dense, dtype=np.float64)
    rows, columns = np.indices(full.shape)
    return sparse.coo_array((full.ravel(), (rows.ravel(), columns.ravel())), shape=full.shape)
