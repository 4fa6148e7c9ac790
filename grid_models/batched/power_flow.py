"""Power flows of one feeder at fixed taps, many cases at once.

With loads and DERs taken off, the port voltages are affine in the port currents
(`grid_models.current_injection.model`). All cases of a block share one linearisation of the loads
(`linear`), so an iteration is one product of real matrices and costs a few microseconds a case.
Loads follow OpenDSS' models at any voltage (`load_curves`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import FeederError, listed
from grid_models.batched.blocks import in_blocks
from grid_models.batched.cases import Cases, Powers
from grid_models.batched.demand import Demand, DemandMaker, current_slope
from grid_models.batched.iteration import TOLERANCE_PU, iterate, linear_response, newton, rough
from grid_models.batched.linear import PortAnswer, RealArray, fed_back
from grid_models.batched.load_curves import load_curves
from grid_models.batched.unloaded import as_unloaded
from grid_models.current_injection.model import BASE_KVA, ComplexArray, FloatArray, PortNetwork

if TYPE_CHECKING:
    from grid_models.opendss.circuit import Circuit

_FEW_ITERATIONS, _MANY_CASES = 6, 128
"""A linearisation of its own pays for so many cases, and anew when it took more iterations."""
_MOST_PORTS = 600
"""Feeders with more are not linearised: their matrices would take longer than the iterations."""


@dataclass(frozen=True)
class BatchFlow:
    """N solved cases of one feeder. What belongs to a case that did not converge is NaN.

    Attributes
    ----------
    network : PortNetwork
    i, u : complex (N, m), per unit. Currents into the ports and voltages across them.
    cases : What was asked.
    converged : ndarray of bool (N,)
    iterations : Of the slowest case.
    answer : The linearisation that was used.
    threads : How many blocks of cases are worked on at a time, as given to `solve`.
    """

    network: PortNetwork
    i: ComplexArray
    u: ComplexArray
    cases: Cases
    converged: NDArray[np.bool_]
    iterations: int
    answer: PortAnswer
    threads: int = 1

    @property
    def source_pu(self) -> FloatArray:
        """Factor on the source's voltage, (N,)."""
        return self.cases.source_pu

    @cached_property
    def v(self) -> ComplexArray:
        """Node voltages, complex (N, n), per unit."""
        return self._v_of(slice(None))

    @property
    def v_pu(self) -> FloatArray:
        """Magnitudes of the node voltages, (N, n); labels are ``network.nodes``."""
        v_pu = np.empty((len(self.i), len(self.network.nodes)))

        def fill(at: slice) -> None:
            np.abs(self._v_of(at), out=v_pu[at])

        in_blocks(fill, len(self.i), self.threads)
        return v_pu

    def _v_of(self, cases: slice) -> ComplexArray:
        with_source = np.column_stack([self.source_pu[cases], self.i[cases]])
        return np.asarray(with_source @ self.network.w_and_z)

    @cached_property
    def import_kva(self) -> ComplexArray:
        """Power from the source, complex (N,): kW and kvar."""
        v, into = self.at_source()
        return np.asarray(BASE_KVA * (v * into.conj()).sum(axis=1))

    def at_source(self, cases: slice = slice(None)) -> tuple[ComplexArray, ComplexArray]:
        """Return voltages of the source bus and currents from the source, complex (N, k)."""
        net, at = self.network, self.network.source_nodes
        source, i = self.source_pu[cases, None], self.i[cases]
        return source * net.w[at] + i @ net.z[at].T, source * net.i_source0 + i @ net.i_source.T

    @cached_property
    def losses_kw(self) -> FloatArray:
        """Active power lost in the feeder, (N,)."""
        injected = BASE_KVA * (self.u * self.i.conj()).real.sum(axis=1)
        return np.asarray(self.import_kva.real + injected)

    @cached_property
    def loading(self) -> FloatArray:
        """Currents of rated lines and transformers over their ratings, (N, r).

        Labels are ``network.lines``.
        """
        net = self.network
        currents = self.source_pu[:, None] * net.line_w + self.i @ net.line_z.T
        return np.asarray(np.abs(currents) / net.line_limit)


class BatchedFeeder:
    """A feeder at its present taps and switches, as arrays.

    Parameters
    ----------
    circuit : Solved; its regulators stay where they are.

    Attributes
    ----------
    network : PortNetwork
    load_names, der_names : tuple of str. Columns of the arguments of `solve`.
    nominal_kva : complex (n_loads,). The loads' own demand.
    """

    def __init__(self, circuit: Circuit) -> None:
        from grid_models.opendss.ports import port_network

        self.network = net = as_unloaded(port_network(circuit), circuit)
        self.load_names, self.der_names = circuit.load_names, circuit.der_names
        loads = circuit.feeder.all_loads
        self.nominal_kva = np.array([complex(x.kw, x.kvar) for x in loads], dtype=np.complex128)
        self._live = np.flatnonzero(net.w_port)
        self._w = net.w_port[self._live]
        self._z = net.z_port[np.ix_(self._live, self._live)]
        self._demand = DemandMaker(load_curves(circuit, net).at(self._live), len(self._live))
        nothing = np.zeros((2, 2, len(self._live)))
        self._unloaded = PortAnswer.of(self._w, self._z, nothing, self._rows(net.w_port[None]))
        self._nominal = self._linearised(self._cases(), self._unloaded)

    def solve(
        self,
        load_kva: ArrayLike | None = None,
        der_kva: ArrayLike | None = None,
        source_pu: ArrayLike = 1.0,
        start: BatchFlow | None = None,
        *,
        load_factor: ArrayLike = 1.0,
        der_factor: ArrayLike = 1.0,
        threads: int = 1,
        tolerance_pu: float = TOLERANCE_PU,
    ) -> BatchFlow:
        """Return the states of N cases.

        Parameters
        ----------
        load_kva : complex (N, n_loads) or (n_loads,). Demand at rated voltage, kW + j kvar;
            default: the feeder's own.
        der_kva : complex (N, n_ders) or (n_ders,). Injections; default: none.
        source_pu : (N,) or a number. Factor on the source's voltage.
        start : Flow of as many cases, similar ones, to start from.
        load_factor, der_factor : (N,) or a number. Times all of a case's loads, or DERs.
        threads : How many blocks of cases are solved at a time.
        tolerance_pu : Error of the voltages at which a case is solved.

        Raises FeederError: The shapes do not fit together, or a number is not finite.
        """
        cases = self._cases(load_kva, der_kva, (load_factor, der_factor), source_pu)
        n, source = len(cases), cases.source_pu
        self._refuse(cases, start)
        answer = self._answer(cases, start)
        i, u = np.zeros((2, n, len(self.network.ports)), dtype=np.complex128)
        converged, counts = np.zeros(n, dtype=bool), []

        def solve(at: slice) -> None:
            with np.errstate(all="ignore"):  # a case that diverges ends as NaN
                if start is None:
                    before = answer.at * source[at]
                else:
                    before = self._rows(start.u[at]) * (source[at] / start.source_pu[at])
                block = answer, cases.powers(at), source[at], before
                u_at, i_at, converged[at], count = self._block(
                    *block, near=start is not None, tolerance_pu=tolerance_pu
                )
            u[at, self._live], i[at, self._live] = _complex(u_at), _complex(i_at)
            counts.append(count)

        in_blocks(solve, n, threads)
        i[~converged] = u[~converged] = np.nan
        most = max(counts, default=0)
        return BatchFlow(self.network, i, u, cases, converged, most, answer, threads)

    def linearise(self, load_kva: ArrayLike, der_kva: ArrayLike) -> None:
        """Linearise at a typical case from now on: less than `_MANY_CASES` take fewer iterations.

        Without it they share the linearisation at nominal loads without DERs. Solutions are the
        same within the tolerance.

        `load_kva`, `der_kva`: complex (n_loads,), (n_ders,). See `solve`.
        """
        self._nominal = self._linearised(self._cases(load_kva, der_kva), self._nominal)

    def source_slopes(self, flow: BatchFlow, *, threads: int = 1) -> ComplexArray:
        """Return the derivative of the import by `source_pu`, complex (N,): kW and kvar per pu.

        To five digits.

        `flow`: Solved by this feeder.
        """
        slopes = np.full(len(flow.converged), np.nan, dtype=np.complex128)
        net, source = self.network, self.network.source_nodes

        def solve(at: slice) -> None:
            u = np.where(flow.converged[at], self._rows(flow.u[at]), flow.answer.at)
            demand = self._demand.at(flow.cases.powers(at), u)
            # Single precision: a slope is needed to some digits, and each step again.
            by_voltage = current_slope(demand.single(), u.astype(np.float32))
            # What has no solution must not keep the other cases of its block from ending.
            by_voltage = np.where(flow.converged[at], by_voltage, flow.answer.single.slope)
            du = linear_response(flow.answer.single, by_voltage)
            di = _complex(by_voltage[:, 0] * du[0] + by_voltage[:, 1] * du[1])
            v, into = flow.at_source(at)
            dv = net.w[source] + di @ net.z[np.ix_(source, self._live)].T
            dinto = net.i_source0 + di @ net.i_source[:, self._live].T
            slopes[at] = BASE_KVA * (dv * into.conj() + v * dinto.conj()).sum(axis=1)

        in_blocks(solve, len(flow.converged), threads)
        return np.where(flow.converged, slopes, np.nan)

    def der_slopes(self, flow: BatchFlow, case: int) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of `v_pu` by the DERs' active and reactive power, (n, n_ders).

        In per unit per kW and per kvar. NaN where the case did not converge.

        `flow`: Solved by this feeder. `case`: Row of it.
        """
        v = flow.v[case]
        size = np.abs(v)
        along = v.conj() / np.where(size > 0.0, size, 1.0)
        return self.current_slopes(flow, case, along[:, None] * self.network.z)

    def current_slopes(
        self, flow: BatchFlow, case: int, weights: ComplexArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of ``Re(weights @ i)`` by the DERs' powers, (R, n_ders).

        Per kW and per kvar; NaN where the case did not converge. The adjoint method: one
        factorisation, and a solution with its transpose for each row of `weights`.

        `weights`: complex (R, m). `flow`, `case`: As in `der_slopes`.
        """
        if not flow.converged[case]:
            nan = np.full((len(weights), len(self.der_names)), np.nan)
            return nan, nan.copy()
        m, one = len(self._live), slice(case, case + 1)
        u = self._rows(flow.u[one])
        slope = current_slope(self._demand.at(flow.cases.powers(one), u), u)[..., 0]
        gain = self._unloaded.gain[:, :-1]
        of_currents = weights[:, self._live]
        direct = np.stack([of_currents.real, -of_currents.imag], axis=1)
        of_voltages = np.einsum("ram,abm->rbm", direct, slope).reshape(-1, 2 * m)
        matrix = np.eye(2 * m) - fed_back(gain, slope)
        by_rise = gain.T @ np.linalg.solve(matrix.T, of_voltages.T)
        total = direct + by_rise.T.reshape(direct.shape)
        by_power = (total[:, 0] - 1j * total[:, 1]) / np.conj(_complex(u)[0])
        found = by_power @ self._der_share / BASE_KVA
        return found.real, found.imag

    @cached_property
    def _der_share(self) -> FloatArray:
        """Share of each DER's power at the live ports, (m_live, n_ders)."""
        net = self.network
        terminals = [net.terminal_of_der(name) for name in self.der_names]
        return np.asarray(net.share[np.ix_(self._live, np.array(terminals, dtype=np.intp))])

    # ------------------------------------------------------------------ parts

    def _block(
        self,
        answer: PortAnswer,
        powers: Powers,
        source: RealArray,
        start: RealArray,
        *,
        near: bool = False,
        tolerance_pu: float = TOLERANCE_PU,
    ) -> tuple[RealArray, RealArray, NDArray[np.bool_], int]:
        """Return voltages and currents (2, m, B), whether solved (B,), and the iterations.

        `near`: The start is better than what single precision would find soon.
        """
        maker, count = self._demand, 0
        u, solved = start, np.zeros(source.size, dtype=bool)
        i = np.zeros_like(start)
        if maker.polynomial:
            own = maker.own(powers)
            if not near:
                u, count = rough(answer, own, source, start)
            u, solved, more = iterate(answer, own, source, u, tolerance_pu=tolerance_pu)
            solved &= maker.in_own_range(u)
            i, count = _currents(own, u), count + more
        if not solved.all():
            left = np.flatnonzero(~solved)
            full, source = maker.any(powers.all()[..., left]), source[left]
            from_here = answer.at * source
            found, ok, more = iterate(answer, full, source, from_here, tolerance_pu=tolerance_pu)
            hard = np.flatnonzero(~ok)
            if hard.size and len(self._live) <= _MOST_PORTS:
                at = full.take(hard), source[hard], answer.at * source[hard]
                found[..., hard], ok[hard] = newton(self._unloaded, *at)
            u = np.array(u)
            u[..., left], i[..., left], solved[left] = found, _currents(full, found), ok
            count += more
        return u, i, solved, count

    def _answer(self, cases: Cases, start: BatchFlow | None) -> PortAnswer:
        """Return a linearisation for these cases."""
        if len(cases) < _MANY_CASES:
            return self._nominal if start is None else start.answer
        if start is not None and start.iterations <= _FEW_ITERATIONS:
            return start.answer
        return self._linearised(cases.mean(), self._nominal)

    def _linearised(self, case: Cases, answer: PortAnswer) -> PortAnswer:
        """Return the linearisation at one case; or `answer` if it has none."""
        at, powers = case.source_pu, case.powers()
        if len(self._live) > _MOST_PORTS:
            return answer
        u, _, solved, _ = self._block(answer, powers, at, answer.at * at)
        if not solved[0]:
            return answer
        slope = current_slope(self._demand.at(powers, u), u)[..., 0]
        return PortAnswer.of(self._w, self._z, slope, u / at)

    def _cases(
        self,
        load_kva: ArrayLike | None = None,
        der_kva: ArrayLike | None = None,
        factors: tuple[ArrayLike, ArrayLike] = (1.0, 1.0),
        source_pu: ArrayLike = 1.0,
    ) -> Cases:
        sizes = len(self.load_names), len(self.der_names)
        load = self.nominal_kva if load_kva is None else load_kva
        der = np.zeros(sizes[1], dtype=np.complex128) if der_kva is None else der_kva
        return Cases.of(load, der, factors, source_pu, sizes)

    def _rows(self, u: ComplexArray) -> RealArray:
        """Return port voltages (N, m) as those of live ports, (2, m_live, N)."""
        live = u.T[self._live]
        return np.stack([live.real, live.imag])

    def _refuse(self, cases: Cases, start: BatchFlow | None) -> None:
        """Raise where the cases do not fit to the circuit or to the start."""
        if start is not None and len(start.u) != len(cases):
            raise FeederError(
                f"start has {len(start.u)} cases",
                where="batched power flow",
                expected=f"as many cases as are to be solved, {len(cases)}",
            )
        net = self.network
        buses = {net.nodes[k].rpartition(".")[0] for k in net.source_nodes.tolist()}
        if len(buses) > 1 and (cases.source_pu != 1.0).any():
            raise FeederError(
                f"source_pu is not 1 in a circuit with sources at {listed(sorted(buses), 4)}",
                where="batched power flow",
                expected="1 where a circuit has several sources: it is a factor on all of them",
            )


def _currents(demand: Demand, u: RealArray) -> RealArray:
    """Return the currents ``(G - j B) u`` into the feeder, (2, m, N)."""
    g, b = demand.admittance(u)
    return np.stack([g * u[0] + b * u[1], g * u[1] - b * u[0]])


def _complex(rows: RealArray) -> ComplexArray:
    """Return (2, m, N) as complex (N, m)."""
    out = np.empty(rows.shape[:0:-1], dtype=np.complex128)
    out.real, out.imag = rows[0].T, rows[1].T
    return out
