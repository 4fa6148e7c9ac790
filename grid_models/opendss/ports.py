"""The current-injection model of a compiled circuit: its admittance matrix reduced to its ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from grid_models.base.errors import FeederError, listed
from grid_models.current_injection.model import (
    BASE_KVA,
    ComplexArray,
    FloatArray,
    PortLoads,
    PortNetwork,
)
from grid_models.opendss.admittance import node_admittance
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.elements import as_complex, each, primitive
from grid_models.opendss.file_ders import FILE_DER_CLASSES, elements_of

_BASE_VA = 1e3 * BASE_KVA
_UNKNOWN_CLASSES = ("isource", "fault", "indmach012", "upfc", "vccs", "vsconverter", "gicline")
"""Elements with power or currents of their own, which the model would leave out."""
_EARTHED = 1e-9
_SUPPLIED_PU, _SUPPLIED_POWER_PU = 0.6, 1e-3
"""Voltage without load, and short-circuit power, below which a port counts as not supplied."""


def port_network(circuit: Circuit, closed: Mapping[str, bool] | None = None) -> PortNetwork:
    """Return the current-injection model of a solved circuit.

    Parameters
    ----------
    circuit : Its loads and DERs make the ports; its regulators stay at their present taps. The
        source has the voltage that it had in the last solution.
    closed : Lines and switches to close (True) or open (False) first, by name. They stay so.

    Raises FeederError: OpenDSS itself runs DERs of the circuit, it has elements that the model does
    not have, or there is no such line.
    """
    engine = circuit.engine
    unknown = elements_of(engine, _UNKNOWN_CLASSES)
    if unknown:
        raise FeederError(
            f"the model does not have {listed(unknown, 4)}",
            where=f"circuit '{circuit.name}'",
            expected="lines, transformers, reactors, capacitors, loads and sources (Vsource)",
        )
    run_by_engine = elements_of(engine, FILE_DER_CLASSES)
    if run_by_engine:
        raise FeederError(
            f"OpenDSS runs DERs of the circuit: {listed(run_by_engine, 4)}",
            where=f"circuit '{circuit.name}'",
            expected="grid.file_ders: ours, for a current-injection model",
        )
    if closed:
        for name, state in closed.items():
            circuit.set_switch(f"line.{name}", state)
        circuit.solve()
    places = Places(circuit)
    labels, y = node_admittance(engine)
    y_source, i_norton = norton_source(circuit, len(labels))
    incidence = places.incidence()
    live = _live(y + y_source, i_norton, incidence)
    factor = splu(sparse.csc_array((y + y_source)[live][:, live]))
    right = np.column_stack([i_norton[live], incidence.T.toarray()[live]])
    volts = np.zeros((len(labels), right.shape[1]), dtype=np.complex128)
    volts[live] = factor.solve(np.ascontiguousarray(right))
    return _reduced(circuit, places, volts, live, incidence, y_source, i_norton)


def _reduced(
    circuit: Circuit,
    places: Places,
    volts: ComplexArray,
    live: NDArray[np.bool_],
    incidence: sparse.csr_array,
    y_source: sparse.csc_array,
    i_norton: ComplexArray,
) -> PortNetwork:
    """Put the answers to source and port currents, (N, 1 + m) in volt, into per unit."""
    base_v = np.array([b.base_kv_ln * 1e3 for b in circuit.feeder.buses.values() for _ in b.phases])
    index = {label: i for i, label in enumerate(circuit.engine_nodes())}
    at = np.array([index.get(label, -1) for label in circuit.node_labels], dtype=np.intp)
    port_base = base_voltages(circuit, places.first_node)
    amps = np.concatenate([[1.0], _BASE_VA / port_base])

    nodes = np.where((at >= 0)[:, None], volts[at], 0.0) * amps / base_v[:, None]
    across = np.asarray(incidence @ volts) * amps / port_base[:, None]
    # An open conductor leaves what its charging couples in: no load can run on that.
    size, impedance = np.abs(across[:, 0]), np.abs(np.diagonal(across[:, 1:]))
    alive = (size >= _SUPPLIED_PU) & (size**2 >= _SUPPLIED_POWER_PU * impedance)
    alive &= np.asarray(abs(incidence) @ ~live) == 0
    across[~alive] = 0.0
    source = set(np.flatnonzero(i_norton).tolist())
    source_nodes = np.array([k for k, i in enumerate(at.tolist()) if i in source], dtype=np.intp)
    rows = at[source_nodes]
    into = -np.asarray(y_source[rows] @ volts) * amps
    into[:, 0] += i_norton[rows]
    into *= (base_v[source_nodes] / _BASE_VA)[:, None]
    lines, line_rows, limits = rated_phases(circuit, volts)
    line_rows = line_rows * amps
    terminals, share = places.terminals()
    loads = places.loads(port_base)
    return PortNetwork(
        nodes=circuit.node_labels,
        ports=places.ports,
        terminals=terminals,
        share=share,
        live=np.asarray(share.T @ ~alive) == 0,
        w=nodes[:, 0],
        z=nodes[:, 1:],
        w_port=across[:, 0],
        z_port=across[:, 1:],
        source_nodes=source_nodes,
        i_source0=into[:, 0],
        i_source=into[:, 1:],
        lines=lines,
        line_w=line_rows[:, 0],
        line_z=line_rows[:, 1:],
        line_limit=limits,
        loads=loads,
        load_terminal=places.load_terminal,
        der_terminal=places.der_terminal,
    )


@dataclass(frozen=True)
class _Terminal:
    """A connection point: the engine's nodes of its ports, 0 for ground, and its label's parts."""

    pairs: tuple[tuple[int, int], ...]
    bus: str
    phases: str


class Places:
    """Where the loads and DERs of a circuit are connected, from the engine's elements."""

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        engine = circuit.engine
        self._nodes = circuit.engine_nodes()
        wanted = [f"load.{name}" for name in circuit.load_names] + list(circuit.der_elements)
        found: dict[str, _Terminal] = {}
        for _ in each(engine.dss.Loads):
            found[f"load.{engine.dss.Loads.Name()}".lower()] = self._terminal()
        number: dict[tuple[tuple[int, int], ...], int] = {}
        of_element = []
        for name in wanted:
            # An element out of service is nowhere; the reader has said so.
            one = found.get(name.lower())
            of_element.append(-1 if one is None else number.setdefault(one.pairs, len(number)))
        n_loads = len(circuit.load_names)
        self.load_terminal = _named(circuit.load_names, of_element[:n_loads])
        self.der_terminal = _named(circuit.der_names, of_element[n_loads:])
        first = {one.pairs: one for one in found.values()}
        self._terminals = [first[pairs] for pairs in number]
        pairs = list(dict.fromkeys(pair for one in self._terminals for pair in one.pairs))
        self._port = {pair: j for j, pair in enumerate(pairs)}
        self._pairs = pairs
        self.first_node = tuple(self._nodes[a - 1] for a, _ in pairs)
        self.ports = tuple(self._label(a, b) for a, b in pairs)

    def _terminal(self) -> _Terminal:
        """Return where the active load is connected."""
        dss = self._circuit.engine.dss
        nodes = [int(n) for n in dss.CktElement.NodeRef()]
        n = int(dss.CktElement.NumPhases())
        if dss.Loads.IsDelta():
            ends = [(nodes[k], nodes[(k + 1) % len(nodes)]) for k in range(n)]
        else:
            neutral = nodes[n] if len(nodes) > n else 0
            ends = [(nodes[k], neutral) for k in range(n)]
        # Ground, or a neutral conductor, comes second: the port's label is then its phase's.
        ends = [(a, b) if a else (b, a) for a, b in ends]
        if any(a == b for a, b in ends):
            raise FeederError(
                f"both ends of {dss.CktElement.Name().lower()} are at one node",
                where=f"circuit '{self._circuit.name}'",
                expected="a load between two nodes, or a node and ground",
            )
        labels = [self._label(a, b) for a, b in ends]
        bus = self._nodes[ends[0][0] - 1].rpartition(".")[0]
        parts = [label.rpartition(".")[2] for label in labels]
        delta = any("-" in part for part in parts)
        phases = "-".join(dict.fromkeys("-".join(parts).split("-"))) if delta else ".".join(parts)
        return _Terminal(tuple(ends), bus, phases)

    def _label(self, a: int, b: int) -> str:
        """Return ``65.1`` for a phase to ground or neutral, ``65.1-2`` for two phases."""
        first = self._nodes[a - 1]
        bus = first.rpartition(".")[0]
        second = self._nodes[b - 1].rpartition(".")[2] if b else ""
        known = self._circuit.feeder.buses.get(bus)
        is_phase = bool(second) and (known is None or int(second) in known.phases)
        return f"{first}-{second}" if is_phase else first

    def terminals(self) -> tuple[tuple[str, ...], FloatArray]:
        """Return the labels of the terminals and the shares of their ports, (m, t)."""
        buses = [one.bus for one in self._terminals]
        labels = tuple(
            one.bus if buses.count(one.bus) == 1 else f"{one.bus}.{one.phases}"
            for one in self._terminals
        )
        share = np.zeros((len(self._pairs), len(labels)))
        for k, one in enumerate(self._terminals):
            for pair in one.pairs:
                share[self._port[pair], k] += 1.0 / len(one.pairs)
        return labels, share

    def incidence(self) -> sparse.csr_array:
        """Return which nodes each port lies between, +1 and -1, (m, N)."""
        ends = [(j, a - 1, 1.0) for j, (a, _) in enumerate(self._pairs)]
        ends += [(j, b - 1, -1.0) for j, (_, b) in enumerate(self._pairs) if b]
        rows, columns, values = zip(*ends, strict=True) if ends else ((), (), ())
        shape = (len(self._pairs), len(self._nodes))
        return sparse.csr_array((values, (rows, columns)), shape=shape)

    def loads(self, port_base: FloatArray) -> PortLoads:
        """Return the circuit's own loads at nominal power, per port and per unit."""
        circuit, m = self._circuit, len(self._pairs)
        parts = {model: np.zeros(m, dtype=np.complex128) for model in ("PQ", "I", "Z")}
        u_nominal = np.ones(m)
        for load in circuit.feeder.all_loads:
            at = self.load_terminal.get(load.name)
            if at is None:
                continue
            pairs = self._terminals[at].pairs
            split = load.connection == "wye" and len(pairs) > 1
            volts = 1e3 * load.kv / (np.sqrt(3.0) if split else 1.0)
            for pair in pairs:
                j = self._port[pair]
                parts[load.model][j] += complex(load.kw, load.kvar) / BASE_KVA / len(pairs)
                u_nominal[j] = volts / port_base[j]
        return PortLoads(parts["PQ"], parts["I"], parts["Z"], u_nominal)


def _named(names: Sequence[str], numbers: Sequence[int]) -> dict[str, int]:
    return {name: k for name, k in zip(names, numbers, strict=True) if k >= 0}


def norton_source(circuit: Circuit, n: int) -> tuple[sparse.csc_array, ComplexArray]:
    """Return admittance (n, n) and injected currents (n,) of the sources, in siemens and ampere.

    A source is its own admittance and a current source (Norton). The current follows from its
    state in the last solution, whatever kind of source it is.
    """
    engine = circuit.engine
    volts = circuit.node_volts()
    matrix = sparse.lil_array((n + 1, n + 1), dtype=np.complex128)
    norton = np.zeros(n + 1, dtype=np.complex128)
    for _ in each(engine.dss.Vsources):
        nodes = np.asarray(engine.dss.CktElement.NodeRef(), dtype=int)
        own = primitive(engine.dss)
        current = as_complex(engine.dss.CktElement.Currents())
        np.add.at(norton, nodes, own @ volts[nodes] - current)
        for row, values in zip(nodes.tolist(), own, strict=True):
            for column, value in zip(nodes.tolist(), values.tolist(), strict=True):
                matrix[row, column] += value
    return sparse.csc_array(matrix[1:, 1:]), norton[1:]


def _live(
    y: sparse.csc_array, i_norton: ComplexArray, incidence: sparse.csr_array
) -> NDArray[np.bool_]:
    """Return which nodes a conducting path joins to a source, (N,).

    A neutral that loads alone join to live phases is among them where a reactor earths it.
    """
    _, part = csgraph.connected_components(abs(y) > 0.0, directed=False)
    live = np.isin(part, part[i_norton != 0.0])
    ends = abs(incidence)
    beside = np.asarray(ends.T @ (ends @ live.astype(float))) > 0.0
    row_sums = np.asarray(y.sum(axis=1)).ravel()
    to_earth = np.bincount(part, row_sums.real) + 1j * np.bincount(part, row_sums.imag)
    earthed = np.abs(to_earth) > _EARTHED * np.bincount(part, np.abs(y.diagonal()))
    return np.asarray(live | np.isin(part, np.flatnonzero(earthed)) & np.isin(part, part[beside]))


def base_voltages(circuit: Circuit, labels: Sequence[str]) -> FloatArray:
    """Return the base voltage of the buses of nodes; 1 V for a bus that never had a voltage."""
    buses = circuit.feeder.buses
    names = (label.rpartition(".")[0] for label in labels)
    return np.array([1e3 * buses[bus].base_kv_ln if bus in buses else 1.0 for bus in names])


def rated_phases(
    circuit: Circuit, volts: ComplexArray
) -> tuple[tuple[str, ...], ComplexArray, FloatArray]:
    """Return labels, currents (r, 1 + m) in pu per ampere at the ports, and limits of rated phases.

    Lines whose rating the feeder knows, and transformers; limits are the engine's normal amps.
    """
    engine, feeder = circuit.engine, circuit.feeder
    rated = [f"line.{x.name}" for x in feeder.lines if x.norm_amps]
    rated += [f"transformer.{x.name}" for x in feeder.transformers]
    known = {str(name).lower() for name in engine.dss.Circuit.AllElementNames()}
    labels: list[str] = []
    rows = [np.empty((0, volts.shape[1]), dtype=np.complex128)]
    limits: list[float] = []
    grounded = np.vstack([np.zeros((1, volts.shape[1])), volts])
    for name in rated:
        if name.lower() not in known:
            continue
        engine.dss.Circuit.SetActiveElement(name)
        nodes = np.asarray(engine.dss.CktElement.NodeRef(), dtype=int)
        phases = [k for k in range(int(engine.dss.CktElement.NumPhases())) if nodes[k]]
        nodes_of = [circuit.engine_nodes()[nodes[k] - 1] for k in phases]
        base_a = _BASE_VA / base_voltages(circuit, nodes_of)
        rows.append((primitive(engine.dss)[phases] @ grounded[nodes]) / base_a[:, None])
        labels += [f"{name}.{label.rpartition('.')[2]}" for label in nodes_of]
        limits += (float(engine.dss.CktElement.NormalAmps()) / base_a).tolist()
    return tuple(labels), np.concatenate(rows), np.array(limits)
