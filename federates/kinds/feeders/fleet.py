"""Many feeders alike, solved in one batch per group of equal taps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.kinds.feeder.federate import Applied
from grid_models.base.errors import FeederError, PowerFlowError, listed
from grid_models.batched.blocks import in_blocks
from grid_models.batched.power_flow import BatchedFeeder, BatchFlow
from grid_models.current_injection.model import ComplexArray
from grid_models.opendss.circuit import Circuit

_EQUAL_PU = 1e-9
_TOLERANCE_PU = 1e-8
"""Error of the voltages; the engine's own is 1e-6 for the first feeder."""
_SAME_SLOPE_PU = 5e-3
"""Change of the source's voltage, or relative one of any import, up to which slopes hold.

They carry the import from one exchange to the next, over some 1e-3 pu: an error of 1 % in them is
1e-5 of it. A calculation costs as much as a power flow.
"""


@dataclass(frozen=True)
class Scale:
    """Feeders by their size: factors on the loads and on the DERs of each, (count,)."""

    load: FloatArray
    der: FloatArray

    def at(self, rows: slice) -> Scale:
        """Return some of the feeders."""
        return Scale(self.load[rows], self.der[rows])


class FeederGroup:
    """Feeders with the same taps and switches.

    Parameters
    ----------
    circuit : Solved, at the voltage of its own source.
    threads : How many blocks of feeders are solved at a time.

    Attributes
    ----------
    own_pu : That voltage.
    flow : Last solution; None: none yet, or dark.
    """

    def __init__(self, circuit: Circuit, scale: Scale, threads: int = 1) -> None:
        self.circuit, self.scale, self._threads = circuit, scale, threads
        self.model = BatchedFeeder(circuit)
        self.own_pu = circuit.source_v_pu
        self.flow: BatchFlow | None = None
        self._slopes: tuple[BatchFlow, ComplexArray] | None = None
        net = self.model.network
        self._live = np.flatnonzero(net.w)
        self._z_single = np.ascontiguousarray(net.z[self._live].T, dtype=np.complex64)

    def solve(self, applied: Applied, source_pu: float) -> BatchFlow:
        """Solve all feeders with the loads and injections of one, times their factors.

        `source_pu`: Voltage of the source; NaN: the circuit's own.

        Raises PowerFlowError: Some feeder has no solution.
        """
        factor = 1.0 if np.isnan(source_pu) else source_pu / self.own_pu
        load_kva = np.asarray(applied.load_kw + 1j * applied.load_kvar, dtype=np.complex128)
        der_kva = np.asarray(applied.p_kw + 1j * applied.q_kvar, dtype=np.complex128)
        solve = partial(
            self.model.solve,
            load_kva,
            der_kva,
            factor,
            load_factor=self.scale.load,
            der_factor=self.scale.der,
            threads=self._threads,
            tolerance_pu=_TOLERANCE_PU,
        )
        flow = solve(start=self.flow)
        if self.flow is not None and not flow.converged.all():
            flow = solve()  # the last state may be far away
        self.flow = flow
        return flow

    def slopes(self, flow: BatchFlow) -> ComplexArray:
        """Return the derivatives of the imports by the source's voltage, kW and kvar per pu.

        They are those of a state before where this one is close to it, see `_SAME_SLOPE_PU`.
        """
        if self._slopes is not None:
            then, slopes = self._slopes
            moved = np.abs(flow.source_pu - then.source_pu).max()
            changed = np.abs(flow.import_kva - then.import_kva) / np.abs(then.import_kva)
            if max(moved, changed.max()) <= _SAME_SLOPE_PU:
                return slopes
        slopes = np.asarray(self.model.source_slopes(flow, threads=self._threads) / self.own_pu)
        self._slopes = flow, slopes
        return slopes

    def extremes(self, flow: BatchFlow) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and the highest voltage of each feeder, pu, without dead nodes.

        Which node it is, is found in single precision.
        """
        net, live = flow.network, self._live
        low, high = np.empty((2, len(flow.converged)))

        def fill(at: slice) -> None:
            source, i = flow.source_pu[at], flow.i[at]
            v = np.outer(source, net.w[live]).astype(np.complex64)
            v += i.astype(np.complex64) @ self._z_single
            size = v.real**2 + v.imag**2
            for of, node in ((low, live[size.argmin(1)]), (high, live[size.argmax(1)])):
                of[at] = np.abs(source * net.w[node] + np.einsum("km,km->k", net.z[node], i))

        in_blocks(fill, len(low), self._threads)
        return low, high


@dataclass(frozen=True)
class FleetState:
    """All feeders at one time.

    Attributes
    ----------
    import_kva, slope_kva_per_pu : complex (count,)
        Power from the source, and its derivative by the source's voltage.
    v_min_pu, v_max_pu : (count,). Over the nodes of each.
    """

    import_kva: ComplexArray
    slope_kva_per_pu: ComplexArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray


class Fleet:
    """Feeders in groups; feeder k is row k of every array.

    Parameters
    ----------
    labels : (count,). Names for messages.
    scale : Factors of all feeders.
    sizes : Feeders per group, in order.
    open_circuit : Returns a circuit of group g, as it is to be now.
    threads : See `FeederGroup`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        scale: Scale,
        sizes: Sequence[int],
        open_circuit: Callable[[int], Circuit],
        threads: int = 1,
    ) -> None:
        self.labels = tuple(labels)
        self.scale, self._open, self._threads = scale, open_circuit, threads
        ends = np.cumsum([0, *sizes]).tolist()
        self.rows = [slice(a, b) for a, b in pairwise(ends)]
        self.rebuild()

    def rebuild(self) -> None:
        """Make the models of the circuits as they are now."""
        self.groups = [
            FeederGroup(self._open(g), self.scale.at(rows), self._threads)
            for g, rows in enumerate(self.rows)
        ]
        self._last: tuple[tuple[FloatArray, ...], FleetState] | None = None

    def solve(self, applied: Applied, source_pu: float) -> FleetState:
        """Return the state of all feeders; in the dark all is 0.

        Where nothing has changed since the last time it is the last state.

        Raises PowerFlowError: Some feeder has no solution.
        """
        n = len(self.labels)
        zero = np.zeros(n, dtype=np.complex128)
        state = FleetState(zero, zero.copy(), np.zeros(n), np.zeros(n))
        if applied.dark:
            self._last = None
            for group in self.groups:
                group.flow = None
            return state
        asked = (*applied[:4], np.array([source_pu]))
        if self._last is not None and all(map(_equal, asked, self._last[0])):
            return self._last[1]
        for group, rows in zip(self.groups, self.rows, strict=True):
            flow = group.solve(applied, source_pu)
            if not flow.converged.all():
                self._refuse(np.flatnonzero(~flow.converged) + rows.start)
            state.import_kva[rows] = flow.import_kva
            state.slope_kva_per_pu[rows] = group.slopes(flow)
            state.v_min_pu[rows], state.v_max_pu[rows] = group.extremes(flow)
        self._last = tuple(x.copy() for x in asked), state
        return state

    def _refuse(self, failed: NDArray[np.intp]) -> None:
        worst = int(failed[np.argmax(self.scale.load[failed])])
        raise PowerFlowError(
            f"the power flow of {failed.size} of {len(self.labels)} feeders did not converge: "
            f"{listed([self.labels[k] for k in failed.tolist()], 4)}",
            expected="loads that each feeder can carry; the largest factor among them is "
            f"{self.scale.load[worst]:.3g}, of {self.labels[worst]}",
        )

    def group_of(self, feeder: int) -> int:
        """Return the group of a feeder."""
        return next(g for g, rows in enumerate(self.rows) if feeder < rows.stop)

    def v_pu(self, feeder: int) -> FloatArray:
        """Return the node voltages of a feeder in the last solution, (n_nodes,)."""
        g = self.group_of(feeder)
        flow = self.groups[g].flow
        k = feeder - self.rows[g].start
        if flow is None:
            return np.zeros(len(self.groups[g].circuit.node_labels))
        net = flow.network
        return np.asarray(np.abs(flow.source_pu[k] * net.w + net.z @ flow.i[k]))


def _equal(a: FloatArray, b: FloatArray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def balanced_source(v_pu: FloatArray, deg: FloatArray, where: str) -> float:
    """Return the voltage of a source whose phases are given as equal; NaN: not given.

    Parameters
    ----------
    v_pu, deg : (n_phases,). Magnitudes and angles; NaN where they are the source's own.

    Raises FeederError: The phases differ.
    """
    lag = np.arange(len(deg)) * 120.0 + deg
    turn = np.angle(np.exp(1j * np.radians(lag - lag[0])))
    known = np.isnan(v_pu).all() or bool((np.abs(v_pu - v_pu[0]) <= _EQUAL_PU).all())
    if not known or not (np.isnan(deg).all() or bool((np.abs(turn) <= _EQUAL_PU).all())):
        raise FeederError(
            f"the phases of the source are not alike: {v_pu.tolist()} pu, {deg.tolist()} deg",
            where=where,
            expected="equal magnitudes, 120 degrees apart, for feeders that are solved at once",
        )
    return float(v_pu[0])
