"""The electrical tree of LinDistFlow: one linear law per edge, stacked into sparse matrices.

Every edge between a parent bus p and a child bus c is reduced (`grid_models.linear.edges`) to::

    V_c = T V_p - Z J_c,        J_p = T^H J_c                                          (1)

with J the current that flows into a bus from above, T the turns ratios (identity for a line) and Z
the series impedance seen from the child. In volts, amperes and ohms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from grid_models.base.errors import FeederError, TopologyError
from grid_models.feeder.model import Bus, Feeder, Line, Switch, Transformer, phases_at
from grid_models.feeder.topology import BranchElement, RadialTree
from grid_models.linear.edges import Columns, Complex, Real, edge_law
from grid_models.linear.tree_algebra import unit_lu

_MV_KV_LN = 2.4
_ANGLES = np.exp(-2j * np.pi / 3 * np.arange(3))


@dataclass(frozen=True)
class Network:
    """A radial network in the form of equation (1), m electrical nodes in tree order.

    Attributes
    ----------
    labels : Public node labels, (n,); several may share an electrical node (merged switches).
    node : (n,). Electrical node of each label.
    bus : (m,). Electrical bus (a running number) of each electrical node.
    base_v : (m,). Base voltage, line to neutral, in volt.
    transfer : (m, m). T, strictly lower block triangular.
    impedance : (m, m). Z in ohm, block diagonal.
    source_v : (m,). Source voltage in volt at the source bus, zero elsewhere.
    shunt : (m, m). Admittance to ground of line charging and capacitors, in siemens.
    """

    labels: tuple[str, ...]
    node: NDArray[np.intp]
    bus: NDArray[np.intp]
    base_v: Real
    transfer: sparse.csr_array
    impedance: sparse.csr_array
    source_v: Complex
    shunt: sparse.csr_array

    @property
    def size(self) -> int:
        """Number of electrical nodes."""
        return len(self.base_v)

    @cached_property
    def no_load_v(self) -> Complex:
        """Voltages in volt with taps in, and without loads and shunts, (m,)."""
        return np.asarray(unit_lu(self.transfer).solve(self.source_v))

    @property
    def stiff(self) -> NDArray[np.bool_]:
        """Whether a node's voltage is fixed: the source without impedance, (m,)."""
        no_drop = np.asarray(abs(self.impedance).sum(axis=1)) == 0
        return np.asarray((self.source_v != 0) & no_drop)


class Triplets:
    """Collects dense blocks of a sparse matrix."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._cols: list[int] = []
        self._values: list[complex] = []

    def add(self, rows: Sequence[int], cols: Sequence[int], block: Complex | Real) -> None:
        """Add `block` at `rows` x `cols`."""
        for row, values in zip(rows, block.tolist(), strict=True):
            for col, value in zip(cols, values, strict=True):
                if value:
                    self._rows.append(row)
                    self._cols.append(col)
                    self._values.append(value)

    def matrix(self, m: int) -> sparse.csr_array:
        """Return the sum as a complex (m, m) matrix."""
        values = np.array(self._values, dtype=np.complex128)
        index = (np.array(self._rows, dtype=np.int32), np.array(self._cols, dtype=np.int32))
        return sparse.csr_array((values, index), shape=(m, m))


class NetworkBuilder:
    """Adds buses in tree order and gives a `Network`; shared by both phase models."""

    def __init__(self) -> None:
        self.columns: dict[str, Columns] = {}
        self._bus: list[int] = []
        self._base_v: list[float] = []
        self._source_v: list[complex] = []
        self._transfer = Triplets()
        self._impedance = Triplets()
        self._shunt = Triplets()

    def add_root(
        self, bus: str, phases: Iterable[int], v: Complex, z: Complex, base: float
    ) -> None:
        """Add the source bus: voltage `v` behind the impedance `z`."""
        self._new_bus(bus, phases, base)
        cols = list(self.columns[bus].values())
        for col, value in zip(cols, v.tolist(), strict=True):
            self._source_v[col] = value
        self._impedance.add(cols, cols, z)

    def add_bus(
        self, bus: str, phases: Iterable[int], parent: str, t: Complex, z: Complex, base: float
    ) -> None:
        """Add a bus below `parent` by its edge law (1)."""
        self._new_bus(bus, phases, base)
        cols = list(self.columns[bus].values())
        self._transfer.add(cols, list(self.columns[parent].values()), t)
        self._impedance.add(cols, cols, z)

    def merge_bus(self, bus: str, phases: Mapping[int, int], parent: str) -> None:
        """Let `bus` share the electrical nodes of `parent`: its phase -> the parent's."""
        self.columns[bus] = {own: self.columns[parent][p] for own, p in phases.items()}

    def add_shunt(self, cols: Sequence[int], y: Complex) -> None:
        """Add a nodal admittance block in siemens."""
        self._shunt.add(cols, cols, y)

    def network(self, labels: Sequence[str], nodes: Sequence[int]) -> Network:
        """Return the finished network."""
        m = len(self._base_v)
        return Network(
            labels=tuple(labels),
            node=np.array(nodes, dtype=np.intp),
            bus=np.array(self._bus, dtype=np.intp),
            base_v=np.array(self._base_v),
            transfer=self._transfer.matrix(m),
            impedance=self._impedance.matrix(m),
            source_v=np.array(self._source_v, dtype=np.complex128),
            shunt=self._shunt.matrix(m),
        )

    def _new_bus(self, bus: str, phases: Iterable[int], base: float) -> None:
        index = self._bus[-1] + 1 if self._bus else 0
        columns: Columns = {}
        for phase in phases:
            columns[phase] = len(self._base_v)
            self._base_v.append(base)
            self._bus.append(index)
            self._source_v.append(0j)
        self.columns[bus] = columns


def merge_limit_ohm(bus: Bus, merge_ohm: float) -> float:
    """Return the impedance below which an edge at `bus` counts as zero.

    The limit is meant for medium voltage; below it, it shrinks with the square of the voltage so
    that a secondary drop of the same per-unit size is treated alike.
    """
    return merge_ohm * min(1.0, (bus.base_kv_ln / _MV_KV_LN) ** 2)


def is_negligible(elements: Iterable[BranchElement], limit_ohm: float) -> bool:
    """Say whether an edge consists of switches and lines of near-zero impedance only."""
    return all(
        isinstance(e, Switch) or (isinstance(e, Line) and np.abs(e.z_ohm).max() < limit_ohm)
        for e in elements
    )


def source_impedance(feeder: Feeder, include: bool) -> complex:
    """Return the source's series impedance in ohm, 0 when left out."""
    return complex(feeder.source.r_ohm, feeder.source.x_ohm) if include else 0j


def three_phase_network(
    feeder: Feeder, tree: RadialTree, *, merge_ohm: float, with_source_impedance: bool
) -> Network:
    """Build the unbalanced network of `feeder`: one electrical node for each served node.

    Raises TopologyError: If a load, capacitor or DER sits on a phase that no closed element feeds.
    Raises FeederError: If an edge's elements do not fix the voltages of its child bus.
    """
    build = NetworkBuilder()
    source = feeder.source
    root = feeder.buses[source.bus]
    ohm = source_impedance(feeder, with_source_impedance)
    z0 = np.diag(np.full(len(root.phases), ohm))
    build.add_root(root.name, root.phases, _source_volts(feeder), z0, _base_v(root))
    for i, name in enumerate(tree.buses[1:], start=1):
        bus, parent = feeder.buses[name], tree.buses[int(tree.parent[i])]
        live = build.columns[parent]
        above = _phases_above(tree.edges[i], name, parent, live)
        phases = _fed_phases(tree.edges[i], bus, above)
        limit = merge_limit_ohm(bus, merge_ohm)
        if is_negligible(tree.edges[i], limit):
            build.merge_bus(name, {p: above[p] for p in phases}, parent)
            continue
        t, z, shunt = edge_law(tree.edges[i], parent, name, tuple(live), phases, limit)
        build.add_bus(name, phases, parent, t, z, _base_v(bus))
        if shunt is not None:
            build.add_shunt(list(live.values()), shunt)
    _add_shunts(feeder, build)
    return _finish(feeder, build)


def _base_v(bus: Bus) -> float:
    return 1e3 * bus.base_kv_ln


def _source_volts(feeder: Feeder) -> Complex:
    source = feeder.source
    magnitude = source.v_pu * source.base_kv_ll * 1e3 / sqrt(3)
    turn = magnitude * np.exp(1j * np.deg2rad(source.angle_deg)) * _ANGLES
    order = source.phases or (1, 2, 3)
    phases = feeder.buses[source.bus].phases
    if not set(phases) <= set(order[: len(_ANGLES)]):
        raise FeederError(
            f"bus '{source.bus}' has phases {phases} and its source {order}",
            where=feeder.name,
            expected="a source of up to three phases that feeds every phase of its bus",
        )
    return np.asarray(turn[[order.index(p) for p in phases]], dtype=np.complex128)


def _phases_above(
    elements: Sequence[BranchElement], bus: str, parent: str, live: Columns
) -> dict[int, int]:
    """Return which live phase of `parent` each phase of `bus` is joined to, transformers apart."""
    return {
        own: above
        for e in elements
        if not isinstance(e, Transformer)
        for own, above in zip(phases_at(e, bus), phases_at(e, parent), strict=True)
        if above in live
    }


def _fed_phases(
    elements: Sequence[BranchElement], bus: Bus, above: Mapping[int, int]
) -> tuple[int, ...]:
    """Return the phases of `bus` that the edge feeds, in the bus's order."""
    fed = set(above)
    for e in elements:
        if isinstance(e, Transformer):
            fed.update(n for w in e.windings if w.bus == bus.name for n in w.nodes if n > 0)
    return tuple(p for p in bus.phases if p in fed)


def _add_shunts(feeder: Feeder, build: NetworkBuilder) -> None:
    for line in feeder.lines:
        if not line.closed or not np.any(line.b_us):
            continue
        for bus in (line.from_bus, line.to_bus):
            live = build.columns.get(bus, {})
            own = phases_at(line, bus)
            used = [i for i, p in enumerate(own) if p in live]
            half = 0.5e-6j * np.asarray(line.b_us, dtype=np.complex128)[np.ix_(used, used)]
            build.add_shunt([live[own[i]] for i in used], half)
    for cap in feeder.capacitors:
        if cap.closed:
            for pair in terminal_pairs(cap.phases, cap.connection):
                volts = 1e3 * cap.kv_ln * (sqrt(3) if cap.connection == "delta" else 1.0)
                share = cap.kvar * 1e3 / len(terminal_pairs(cap.phases, cap.connection))
                cols = [build.columns[cap.bus][p] for p in pair]
                c = np.array([[1.0], [-1.0]][: len(pair)])
                build.add_shunt(cols, 1j * share / volts**2 * (c @ c.T))


def terminal_pairs(phases: tuple[int, ...], connection: str) -> list[tuple[int, ...]]:
    """Return the terminals of each single-phase part: (a,) to ground, or (a, b)."""
    if connection == "wye" or len(phases) == 1:  # one delta terminal: the other is at ground
        return [(p,) for p in phases]
    if len(phases) == 2:
        return [phases]
    if len(phases) == 3:
        return [(phases[k], phases[(k + 1) % 3]) for k in range(3)]
    raise FeederError(f"a delta connection on phases {phases}", expected="at most three phases")


def _finish(feeder: Feeder, build: NetworkBuilder) -> Network:
    labels, nodes = [], []
    for name, bus in feeder.buses.items():
        live = build.columns.get(name, {})
        labels += [f"{name}.{p}" for p in bus.phases if p in live]
        nodes += [live[p] for p in bus.phases if p in live]
    for group in (feeder.loads, feeder.capacitors, feeder.ders):
        for item in group:
            for phase in item.phases:
                if phase not in build.columns.get(item.bus, {}):
                    raise TopologyError(
                        f"'{item.name}' sits on {item.bus}.{phase}, which nothing feeds",
                        where=feeder.name,
                        expected=f"phases {tuple(build.columns.get(item.bus, {}))}",
                    )
    return build.network(labels, nodes)
