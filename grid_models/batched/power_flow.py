"""Power flows of one feeder at fixed taps, many cases at once.

With loads and DERs taken off, the port voltages are affine in the port currents
(`grid_models.current_injection.model`). A case is solved by the fixed point ``i = conj(s(u) / u)``,
all cases in one matrix product per iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import BASE_KVA, ComplexArray, FloatArray, PortNetwork

if TYPE_CHECKING:
    from grid_models.opendss.circuit import Circuit

TOLERANCE_PU = 1e-10
_ITERATIONS = 60


@dataclass(frozen=True)
class BatchFlow:
    """N solved cases of one feeder. What belongs to a case that did not converge is NaN.

    Attributes
    ----------
    network : PortNetwork
    i, u : complex (N, m), per unit. Currents into the ports and voltages across them.
    source_pu : (N,). Factor on the source's voltage.
    converged : ndarray of bool (N,)
    iterations : Of the slowest case.
    """

    network: PortNetwork
    i: ComplexArray
    u: ComplexArray
    source_pu: FloatArray
    converged: NDArray[np.bool_]
    iterations: int
    parts: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def v(self) -> ComplexArray:
        """Node voltages, complex (N, n), per unit."""
        return np.asarray(self.source_pu[:, None] * self.network.w + self.i @ self.network.z.T)

    @property
    def v_pu(self) -> FloatArray:
        """Magnitudes of the node voltages, (N, n); labels are ``network.nodes``."""
        return np.abs(self.v)

    @cached_property
    def import_kva(self) -> ComplexArray:
        """Power from the source, complex (N,): kW and kvar."""
        net, at = self.network, self.network.source_nodes
        v = self.source_pu[:, None] * net.w[at] + self.i @ net.z[at].T
        into = self.source_pu[:, None] * net.i_source0 + self.i @ net.i_source.T
        return np.asarray(BASE_KVA * (v * into.conj()).sum(axis=1))

    @cached_property
    def losses_kw(self) -> FloatArray:
        """Active power lost in the feeder, (N,)."""
        injected = BASE_KVA * (self.u * self.i.conj()).real.sum(axis=1)
        return np.asarray(self.import_kva.real + injected)


class BatchedFeeder:
    """A feeder at its present taps and switches, as arrays.

    Parameters
    ----------
    circuit : Solved; its regulators stay where they are.

    Attributes
    ----------
    network : PortNetwork
    load_names, der_names : tuple of str. Columns of the arguments of `solve`.
    """

    def __init__(self, circuit: Circuit) -> None:
        from grid_models.opendss.ports import port_network

        self.network = net = port_network(circuit)
        self.load_names, self.der_names = circuit.load_names, circuit.der_names
        loads = circuit.feeder.all_loads
        self._nominal = np.array([complex(x.kw, x.kvar) for x in loads])
        n, m = len(loads), len(net.ports)
        self._of_model = {model: np.zeros((n, m)) for model in ("PQ", "I", "Z")}
        for k, load in enumerate(loads):
            at = net.load_terminal.get(load.name)
            if at is not None:
                self._of_model[load.model][k] = net.share[:, at] / BASE_KVA
        self._of_der = np.zeros((len(self.der_names), m))
        for k, name in enumerate(self.der_names):
            self._of_der[k] = net.share[:, net.terminal_of_der(name)] / BASE_KVA

    def solve(
        self,
        load_kva: ComplexArray | None = None,
        der_kva: ComplexArray | None = None,
        source_pu: FloatArray | float = 1.0,
        start: BatchFlow | None = None,
    ) -> BatchFlow:
        """Return the states of N cases.

        Parameters
        ----------
        load_kva : complex (N, n_loads) or (n_loads,). Demand at nominal voltage, kW + j kvar;
            default: the feeder's own.
        der_kva : complex (N, n_ders) or (n_ders,). Injections; default: none.
        source_pu : (N,) or a number. Factor on the source's voltage.
        start : Flow of as many cases to start from.

        Raises FeederError: The shapes do not fit together.
        """
        load = np.atleast_2d(self._nominal if load_kva is None else load_kva)
        zero = np.zeros(len(self.der_names), dtype=np.complex128)
        der = np.atleast_2d(zero if der_kva is None else der_kva)
        source = np.atleast_1d(np.asarray(source_pu, dtype=np.float64))
        n = max(len(load), len(der), len(source))
        sizes = ((load, len(self.load_names)), (der, len(self.der_names)))
        if any(x.shape[1] != k or len(x) not in (1, n) for x, k in sizes) or source.size not in (
            1,
            n,
        ):
            raise FeederError(
                f"load_kva {load.shape}, der_kva {der.shape} and source_pu {source.shape}",
                where="batched power flow",
                expected=f"(N, {sizes[0][1]}), (N, {sizes[1][1]}) and (N,) with one N",
            )
        source = np.broadcast_to(source, (n,))
        parts = {model: np.asarray(load @ matrix) for model, matrix in self._of_model.items()}
        return self._fixed_point(parts, der @ self._of_der, source, start)

    def _fixed_point(
        self,
        parts: dict[str, Any],
        injected: ComplexArray,
        source: FloatArray,
        start: BatchFlow | None,
    ) -> BatchFlow:
        net = self.network
        live = net.w_port != 0.0
        safe = np.where(live, 0.0, 1.0)
        w, z = source[:, None] * net.w_port, np.ascontiguousarray(net.z_port.T)
        i = np.zeros(w.shape, dtype=np.complex128) if start is None else start.i
        u = w + i @ z
        change = np.full(len(source), np.inf)
        count = 0
        with np.errstate(all="ignore"):  # a case that diverges ends as NaN
            for _ in range(_ITERATIONS):
                count += 1
                ratio = np.abs(u) / net.loads.u_nominal
                s = injected - parts["PQ"] - ratio * (parts["I"] + ratio * parts["Z"])
                i = np.where(live, np.conj(s / (u + safe)), 0.0)
                before, u = u, w + i @ z
                change = np.abs(u - before).max(axis=1, initial=0.0)
                if not (change >= TOLERANCE_PU).any():
                    break
        converged = change < TOLERANCE_PU
        i[~converged] = u[~converged] = np.nan
        return BatchFlow(net, i, u, source, converged, count, {**parts, "DER": injected})

    def source_slopes(self, flow: BatchFlow) -> ComplexArray:
        """Return the derivative of the import by `source_pu`, complex (N,): kW and kvar per pu.

        `flow`: Of this feeder.
        """
        parts = {model: flow.parts[model] for model in self._of_model}
        h = 1e-4
        up, down = (
            self._fixed_point(parts, flow.parts["DER"], flow.source_pu + d, flow) for d in (h, -h)
        )
        return np.asarray((up.import_kva - down.import_kva) / (2.0 * h))
