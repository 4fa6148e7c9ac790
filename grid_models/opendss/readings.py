"""What an OpenDSS circuit carries after a solution: currents, loadings, powers, losses, balance.

Lines and transformers are read with one call of the engine, loads and DERs with another; all else
is array arithmetic. The engine computes an element's currents from its present admittance and the
node voltages: taps, switches, elements out of service and the voltage limits of loads are in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grid_models.opendss.batch import ElementBatch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.engine import Engine
from grid_models.opendss.file_ders import FILE_DER_CLASSES

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.intp]

_SOURCES = ("vsource", "isource")
_DEAD_V = 1.0
"""Volts; nodes of an island without a source have some microvolts."""


class Sample:
    """Elements whose currents and voltages are read together.

    Attributes
    ----------
    names : tuple of str
        Full names, ``line.l115``.
    nodes : list of ndarray, shape (n_terminals, n_conductors)
        Where each element's conductors are in the node vector, 0 for ground and for an element out
        of service.
    start : Position of each element's first conductor in `current` and `voltage`.
    current, voltage : complex (n_conductors,)
        In ampere into the element and in volt to ground; valid until the next reading.
    """

    def __init__(self, engine: Engine, names: Sequence[str]) -> None:
        self._engine, self.names = engine, tuple(names)
        self.batch = ElementBatch(engine, names)
        self.find_nodes()

    def find_nodes(self) -> None:
        """Find the elements' conductors in the node vector; again when its order changed."""
        on = _enabled(self._engine, self.names)
        self.nodes = [self.batch.nodes(i) * on[i] for i in range(len(self.names))]
        self.start: IntArray = np.cumsum([0, *(n.size for n in self.nodes)], dtype=np.intp)[:-1]
        self._node: IntArray = np.concatenate(
            [np.empty(0, dtype=np.intp), *(n.ravel() for n in self.nodes)]
        )
        self.current: ComplexArray = np.zeros(len(self._node), dtype=np.complex128)
        self.voltage: ComplexArray = np.zeros(len(self._node), dtype=np.complex128)

    def read(self, volts: ComplexArray) -> None:
        """Read the last solution. `volts`: all node voltages, `Circuit.node_volts`."""
        if self.names:
            self.current = self.batch.currents()
            np.take(volts, self._node, out=self.voltage, mode="clip")

    def kva(self) -> ComplexArray:
        """Return the power into each element, P + jQ in kVA."""
        return _sums(self.voltage * self.current.conj(), self.start) / 1e3

    def parts_kw(self, ends: Sequence[int]) -> FloatArray:
        """Return the active power into the elements between `ends`, the first of each part."""
        v, i = self.voltage, self.current
        power = v.real * i.real + v.imag * i.imag
        stops = np.append(self.start, len(power))[list(ends)]
        return np.array([power[a:b].sum() for a, b in itertools.pairwise(stops)]) / 1e3


class Balance(NamedTuple):
    """What comes in minus what goes out, and the apparent power of all that is connected."""

    residual_kw: FloatArray
    total_kva: FloatArray


class Readings:
    """Currents, powers and losses of a circuit's last solution, bound to its elements once.

    Attributes
    ----------
    lines, transformers, loads : Names, in the order of the arrays that the methods return.
    file_ders : Full names of the DERs of the file that OpenDSS runs, ``pvsystem.roof``.
    current_labels : ``line.l115.1.2``: class, name, terminal, node; see `current_a`.
    rated : Lines and transformers with a rating, ``line.l115``; see `loading_pct`.
    normal_a : (n_rated,). Their normal amps at terminal 1.
    """

    def __init__(self, circuit: Circuit) -> None:
        self._circuit, self._engine = circuit, circuit.engine
        self.loads = circuit.load_names
        self._bindings = self._n_elements = -1
        self._known: tuple[str, ...] | None = None
        self._bind()

    # ---------------------------------------------------------------- binding

    def _bind(self) -> None:
        """Find the conductors of all elements; again when the circuit's nodes changed."""
        circuit = self._circuit
        order = [label.rpartition(".")[2] for label in circuit.engine_nodes()]
        self._bindings = circuit.bindings
        self._branches_at = self._injections_at = -1
        n_elements = int(self._engine.dss.Circuit.NumCktElements())
        if n_elements != self._n_elements:
            self._n_elements = n_elements
            self._find_elements(order)
        else:
            self._branches.find_nodes()
            self._injections.find_nodes()

    def _find_elements(self, order: Sequence[str]) -> None:
        groups = _groups(self._engine, self.loads, self._circuit.der_elements)
        self._branches = Sample(self._engine, groups["line"] + groups["transformer"])
        outside = ("load", "der", "file_der", "rest", "shunt")
        self.file_ders = tuple(groups["file_der"])
        self._injections = Sample(self._engine, [n for kind in outside for n in groups[kind]])
        self._of_loads, self._of_ders = self._conductors(len(self.loads), len(groups["der"]))
        ends = [*self._injections.start.tolist(), len(self._injections.current)]
        self._shunts_from = ends[len(self._injections.names) - len(groups["shunt"])]
        # Lines and transformers do not come or go; their labels stay when one is switched off.
        if self._branches.names != self._known:
            self._known = self._branches.names
            self.lines, self.transformers = _bare(groups["line"]), _bare(groups["transformer"])
            self._label_currents(order)
            self._rate()
            self._find_heads()

    def _find_heads(self) -> None:
        heads = [
            start + np.arange(nodes.shape[1])
            for start, nodes in zip(self._branches.start, self._branches.nodes, strict=True)
        ][: len(self.lines)]
        self._head: IntArray = np.concatenate([np.empty(0, dtype=np.intp), *heads])
        self._head_start: IntArray = np.cumsum([0, *map(len, heads)], dtype=np.intp)[:-1]

    def _conductors(self, n_loads: int, n_ders: int) -> tuple[slice, slice]:
        """Return where the conductors of the loads and those of the DERs are."""
        ends = [*self._injections.start.tolist(), len(self._injections.current)]
        return slice(0, ends[n_loads]), slice(ends[n_loads], ends[n_loads + n_ders])

    def _label_currents(self, order: Sequence[str]) -> None:
        """Label the conductors of lines and transformers. `order`: number of each node."""
        labels: dict[str, int] = {}
        at = 0
        for name, ends in zip(self._branches.names, self._branches.nodes, strict=True):
            for terminal, row in enumerate(ends.tolist(), start=1):
                for place, node in enumerate(row):
                    label = f"{name}.{terminal}.{order[node - 1]}"
                    if node:
                        label += f"#{place + 1}" if label in labels else ""
                        labels[label] = at + place
                at += len(row)
        self.current_labels = tuple(labels)
        self._current_at = np.array(list(labels.values()), dtype=np.intp)

    def _rate(self) -> None:
        """Find what one ampere in each phase conductor is, in percent of normal amps."""
        branches = self._branches
        amps = _normal_amps(self._engine, branches, len(self.lines))
        scale = [np.empty(0)]
        for i, (ends, normal_a) in enumerate(zip(branches.nodes, amps, strict=True)):
            is_phase = np.arange(ends.shape[1]) < branches.batch.phases(i)
            percent = 100.0 / np.where(normal_a > 0.0, normal_a, np.inf)
            scale.append(np.outer(percent, is_phase).ravel())
        self._pct_per_a = np.concatenate(scale)
        self._rated_at = np.array([i for i, a in enumerate(amps) if a.max() > 0.0], dtype=np.intp)
        self.rated = tuple(branches.names[i] for i in self._rated_at)
        self.normal_a = np.array([amps[i][0] for i in self._rated_at])

    # ---------------------------------------------------------------- reading

    def _read_branches(self) -> Sample:
        if self._bindings != self._circuit.bindings:
            self._bind()
        if self._branches_at != self._circuit.solutions:
            self._branches.read(self._circuit.node_volts())
            self._branches_at = self._circuit.solutions
        return self._branches

    def _read_injections(self) -> Sample:
        if self._bindings != self._circuit.bindings:
            self._bind()
        if self._injections_at != self._circuit.solutions:
            self._injections.read(self._circuit.node_volts())
            self._injections_at = self._circuit.solutions
        return self._injections

    def current_a(self) -> FloatArray:
        """Return current magnitudes in ampere, shape (n_current_labels,).

        Of each line and transformer, at each terminal, on each node but ground. Of two conductors
        of a terminal on one node, the second has ``#`` and its position after its label.
        """
        return np.abs(self._read_branches().current[self._current_at])

    def loading_pct(self) -> FloatArray:
        """Return the loading of lines and transformers, shape (n_rated,), in % of normal amps.

        That of the phase and terminal with the highest. Normal amps are those of the line; at each
        winding of a transformer, those of its normal kVA at its rated voltage.
        """
        branches = self._read_branches()
        if not self.rated:
            return np.empty(0)
        each = np.abs(branches.current) * self._pct_per_a
        return np.maximum.reduceat(each, branches.start)[self._rated_at]

    def line_kva(self) -> ComplexArray:
        """Return the power into terminal 1 of each line, P + jQ in kVA, shape (n_lines,)."""
        branches, at = self._read_branches(), self._head
        return _sums(branches.voltage[at] * branches.current[at].conj(), self._head_start) / 1e3

    def losses_kw(self) -> tuple[float, float]:
        """Return the losses of all lines and those of all transformers, in kW."""
        branches, n = self._read_branches(), len(self.lines)
        lines_kw, transformers_kw = branches.parts_kw((0, n, len(branches.names)))
        return float(lines_kw), float(transformers_kw)

    def load_kva(self) -> ComplexArray:
        """Return what each load draws, P + jQ in kVA, shape (n_loads,)."""
        return self._read_injections().kva()[: len(self.loads)]

    def file_der_kva(self) -> ComplexArray:
        """Return what each DER of the file injects, P + jQ in kVA, shape (n_file_ders,)."""
        n = len(self.loads) + len(self._circuit.der_names)
        return -self._read_injections().kva()[n : n + len(self.file_ders)]

    def dead_loads(self) -> NDArray[np.bool_]:
        """Return which loads have no voltage at any conductor, shape (n_loads,)."""
        injections, n = self._read_injections(), len(self.loads)
        if not n:
            return np.zeros(0, dtype=bool)
        v = np.abs(injections.voltage[self._of_loads])
        return np.asarray(np.maximum.reduceat(v, injections.start[:n]) < _DEAD_V)

    def injections(self) -> tuple[ComplexArray, ComplexArray]:
        """Return currents into loads, DERs and shunts and their voltages, for `balance`.

        Each (n_conductors,), valid until the next reading.
        """
        sample = self._read_injections()
        return sample.current, sample.voltage

    def balance(
        self,
        import_kw: FloatArray | float,
        losses_kw: FloatArray | float,
        der_kw: FloatArray,
        current: ComplexArray,
        voltage: ComplexArray,
    ) -> Balance:
        """Return import + DERs - loads - losses, which is 0 for a correct solution.

        The file's own DERs and loads are read; what the circuit's DERs inject is taken from
        `der_kw`, so that a DER that injects something else shows. The total is that of loads, DERs
        and shunt capacitors: at no load the reactive power remains, with the solution's tolerance.

        Parameters
        ----------
        import_kw, losses_kw : (...). `Circuit.source_kw_kvar`, `Circuit.losses_kw`.
        der_kw : (..., n_ders). What the circuit's DERs were told to inject.
        current, voltage : (..., n_conductors). See `injections`; of one or of many solutions.
        """
        power = voltage * current.conj() / 1e3
        # What is drawn in all, but for what our DERs feed in.
        p_kw = power.real
        drawn = p_kw[..., : self._shunts_from].sum(axis=-1) - p_kw[..., self._of_ders].sum(axis=-1)
        residual = import_kw + der_kw.sum(axis=-1) - drawn - losses_kw
        return Balance(np.asarray(residual), np.abs(power).sum(axis=-1))


def _sums(values: ComplexArray, starts: IntArray) -> ComplexArray:
    if not len(starts):
        return np.zeros(0, dtype=np.complex128)
    return np.asarray(np.add.reduceat(values, starts))


def _bare(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.partition(".")[2] for name in names)


def _groups(engine: Engine, loads: Sequence[str], ders: Sequence[str]) -> dict[str, list[str]]:
    """Return the full names of all elements that carry power, but sources, by what they are.

    `loads` are names, `ders` full names of the circuit's own DERs.
    """
    dss = engine.dss
    kinds = ("line", "transformer", "file_der", "rest", "shunt")
    groups: dict[str, list[str]] = {kind: [] for kind in kinds}
    groups["load"] = [f"load.{name}" for name in loads]
    groups["der"] = list(ders)
    taken = {*groups["load"], *groups["der"]}
    parents: dict[str, str] = {}
    for full in (str(name).lower() for name in dss.Circuit.AllElementNames()):
        kind = full.partition(".")[0]
        if kind not in parents:
            dss.Circuit.SetActiveClass(kind)
            parents[kind] = str(dss.ActiveClass.ActiveClassParent())
        if not _ever_in_service(engine, full):
            continue
        if kind in ("line", "transformer", "autotrans"):
            groups["line" if kind == "line" else "transformer"].append(full)
        elif parents[kind] == "TPCClass" and kind not in _SOURCES and full not in taken:
            groups["file_der" if kind in FILE_DER_CLASSES else "rest"].append(full)
        elif parents[kind] == "TPDClass" and dss.PDElements.IsShunt():
            groups["shunt"].append(full)
    return groups


def _ever_in_service(engine: Engine, full: str) -> bool:
    """Make an element the active one; whether it has nodes, which its first service gives it."""
    dss = engine.dss
    dss.Circuit.SetActiveElement(full)
    if dss.CktElement.Enabled():
        return True
    dss.CktElement.NodeRef()
    return engine.take_error() is None


def _enabled(engine: Engine, names: Sequence[str]) -> list[bool]:
    """Return which elements are in service; the nodes of others may be gone."""
    on = []
    for name in names:
        engine.dss.Circuit.SetActiveElement(name)
        on.append(bool(engine.dss.CktElement.Enabled()))
    return on


def _normal_amps(engine: Engine, branches: Sample, n_lines: int) -> list[FloatArray]:
    """Return the normal amps at each terminal of the lines and transformers."""
    dss = engine.dss
    amps = []
    for i, (full, ends) in enumerate(zip(branches.names, branches.nodes, strict=True)):
        dss.Circuit.SetActiveElement(full)
        normal_a = np.full(len(ends), float(dss.CktElement.NormalAmps()))
        if i >= n_lines and full.startswith("transformer."):
            dss.Transformers.Name(full.partition(".")[2])
            rated_a = []
            for winding in range(1, len(ends) + 1):
                dss.Transformers.Wdg(winding)
                rated_a.append(float(dss.Transformers.kVA()) / float(dss.Transformers.kV()))
            # The engine gives the normal amps of the first winding.
            normal_a *= np.array(rated_a) / rated_a[0]
        amps.append(normal_a)
    return amps
