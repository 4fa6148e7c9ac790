"""LinDistFlow: squared voltages of a radial feeder as a linear function of the injections.

Sign: injections are positive, ``p = p_gen - p_load``. Voltages are per unit of the bus's
line-to-neutral base; `v_squared` is |V|^2. Nothing of size nodes x nodes is ever formed: a
feeder of 10,000 nodes takes two sparse triangular solves per evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from grid_models.base.errors import FeederError, GridModelError, nearest_name
from grid_models.base.options import checked_choice
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.topology import RadialTree, radial_tree
from grid_models.linear.linearisation import FlatLinearisation, Linearisation, TangentLinearisation
from grid_models.linear.loads import LoadSet, PhaseModel, load_set
from grid_models.linear.network import Network, three_phase_network
from grid_models.linear.single_phase import single_phase_network
from grid_models.linear.tree_algebra import Index

Real = NDArray[np.float64]
OperatingPoint = Literal["nominal"] | tuple[ArrayLike, ArrayLike] | None
_COLUMNS_AT_ONCE = 256


class LinDistFlow:
    """A linear power-flow model of a radial feeder; build it with `from_feeder`.

    Attributes
    ----------
    nodes : Labels, (n,): ``bus.phase`` (three-phase) or bus names (single-phase), in feeder order;
        dead stubs behind open switches are left out.
    network : The electrical tree; several labels may share one of its nodes (merged switches).
    """

    def __init__(
        self,
        feeder: Feeder,
        tree: RadialTree,
        network: Network,
        loads: LoadSet,
        phases: PhaseModel,
        law: Linearisation,
    ) -> None:
        self.feeder = feeder
        self.tree = tree
        self.network = network
        self.phases: PhaseModel = phases
        self.nodes = network.labels
        self.index = {label: i for i, label in enumerate(self.nodes)}
        self._loads = loads
        self._law = law
        n, m = len(self.nodes), network.size
        self._gather = sparse.csr_array((np.ones(n), (network.node, np.arange(n))), shape=(m, n))
        self._base_v2 = network.base_v**2

    @classmethod
    def from_feeder(
        cls,
        feeder: Feeder,
        phases: PhaseModel = "three",
        *,
        around: OperatingPoint = None,
        merge_ohm: float = 5e-3,
        source_impedance: bool = True,
    ) -> LinDistFlow:
        """Build the model of a radial feeder.

        Parameters
        ----------
        feeder : Radial; regulators act with their present taps.
        phases : Unbalanced with mutual coupling, or the single-phase equivalent (total power of a
            bus, shared equally by the phases of each edge).
        around : None, 'nominal' or (p_kw, q_kvar)
            None: LinDistFlow proper, lossless, with the phase ratios of the unloaded feeder.
            'nominal': the tangent of the AC power flow at the feeder's nominal loads. A pair of
            arrays (n,): the tangent at those injections (all of them, loads included).
        merge_ohm : Lines below this impedance [ohm at medium voltage] and switches are merged.
        source_impedance : Whether the source's short-circuit impedance is part of the model.

        Raises TopologyError: If the feeder is meshed, or something is connected where nothing feeds
        it.
        Raises PowerFlowError: If the operating point of `around` has no solution.
        """
        tree = radial_tree(feeder)
        checked_choice("phases", phases, ("three", "single"))
        build = three_phase_network if phases == "three" else single_phase_network
        network = build(feeder, tree, merge_ohm=merge_ohm, with_source_impedance=source_impedance)
        loads = load_set(feeder, network, phases)
        model = cls(feeder, tree, network, loads, phases, FlatLinearisation(network))
        if around is None:
            return model
        if isinstance(around, str):
            return model.linearised_at(*model.nominal_injection())
        return model.linearised_at(*around)

    def linearised_at(self, p_kw: ArrayLike, q_kvar: ArrayLike) -> LinDistFlow:
        """Return the model whose law is the tangent of the AC power flow at these injections.

        The feeder's loads keep their models (I, Z) and delta connections at nominal size; what
        `p_kw`, `q_kvar` (n,) hold beyond them is constant power from phase to ground.

        Raises PowerFlowError: If there is no such operating point.
        """
        flat = FlatLinearisation(self.network)
        s = self._node_va(p_kw, q_kvar)[:, 0]
        at_labels = self._loads.injection_va(flat.voltage[self.network.node])
        nominal: NDArray[np.complex128] = np.asarray(self._gather @ at_labels)
        law = TangentLinearisation(self.network, self._loads, s - nominal, s)
        return LinDistFlow(self.feeder, self.tree, self.network, self._loads, self.phases, law)

    def nominal_injection(self) -> tuple[Real, Real]:
        """Return (p_kw, q_kvar), each (n,), of all loads at nominal power; loads are negative.

        A delta load's power is split on its phases by the unloaded feeder's voltage phasors.
        Capacitors and line charging belong to the model, not to the injections.
        """
        flat = FlatLinearisation(self.network)
        s = 1e-3 * self._loads.injection_va(flat.voltage[self.network.node])
        return s.real.copy(), s.imag.copy()

    def v_squared_pu(self, p_kw: ArrayLike, q_kvar: ArrayLike) -> Real:
        """Return squared voltages in pu for injections of shape (n,) or (n, k), same shape.

        Raises GridModelError: If the arrays do not have one row for each of `nodes`.
        """
        s = self._node_va(p_kw, q_kvar)
        v2 = (self._law.offset_v2[:, None] + self._law.response_v2(s)) / self._base_v2[:, None]
        at_labels = v2[self.network.node]
        return at_labels if np.ndim(p_kw) == 2 else at_labels[:, 0]

    def v_pu(self, p_kw: ArrayLike, q_kvar: ArrayLike) -> Real:
        """Return voltage magnitudes in pu for injections of shape (n,) or (n, k), same shape."""
        return np.asarray(np.sqrt(np.maximum(self.v_squared_pu(p_kw, q_kvar), 0.0)))

    def sensitivity(
        self, rows: Sequence[str | Der], cols: Sequence[str | Der]
    ) -> tuple[Real, Real]:
        """Return dense (R, X): change of v^2 at `rows` per injection at `cols`.

        A `Der` injects equally on its phases and is measured as the mean of v^2 over them.

        `rows`, `cols`: Node labels (or DERs), r and c of them.

        R is d(v^2)/dp in pu per kW, X is d(v^2)/dq in pu per kvar, each (r, c).

        Raises FeederError: If a label is no node of the model.
        """
        measure = self._selection(rows).T @ sparse.diags_array(1.0 / self._base_v2)
        inject = self._selection(cols)
        r = np.empty((len(rows), len(cols)))
        x = np.empty((len(rows), len(cols)))
        for start in range(0, len(cols), _COLUMNS_AT_ONCE):
            part = slice(start, start + _COLUMNS_AT_ONCE)
            s = 1e3 * inject[:, part].toarray().astype(np.complex128)
            r[:, part] = measure @ self._law.response_v2(s)
            x[:, part] = measure @ self._law.response_v2(1j * s)
        return r, x

    @cached_property
    def feeding_phase(self) -> Index:
        """The phase of the source, 1 to 3, behind each electrical node, (m,).

        It is 0 in the single-phase model. Both legs of a centre-tapped secondary have the phase
        that the transformer hangs on; below an element that mixes phases it is the nearest in
        angle.
        """
        network = self.network
        phase = np.zeros(network.size, dtype=np.intp)
        if self.phases == "three":
            lag = -np.angle(
                network.no_load_v * np.exp(-1j * np.deg2rad(self.feeder.source.angle_deg))
            )
            phase[:] = np.round(lag / (2.0 * np.pi / 3.0)).astype(np.intp) % 3 + 1
            start, parent = network.transfer.indptr, network.transfer.indices
            for i in np.flatnonzero(np.diff(start) == 1):
                phase[i] = phase[parent[start[i]]]
        return phase

    @property
    def node_phase(self) -> Index:
        """The phase of the source behind each of `nodes`, (n,); see `feeding_phase`."""
        return np.asarray(self.feeding_phase[self.network.node])

    def labels_of(self, agent: str | Der) -> tuple[str, ...]:
        """Return the node labels of a label or DER in this model.

        Raises FeederError: If it is no node of the model; the nearest label is named.
        """
        if isinstance(agent, Der):
            wanted = agent.labels if self.phases == "three" else (agent.bus,)
            where = f"DER '{agent.name}'"
        else:
            wanted, where = (agent,), self.feeder.name
        for label in wanted:
            if label not in self.index:
                raise FeederError(
                    f"no node '{label}' in the {self.phases}-phase model",
                    where=where,
                    nearest=nearest_name(label, self.nodes),
                )
        return wanted

    def electrical_nodes(self, agent: str | Der) -> tuple[int, ...]:
        """Return the positions in `network` that a label or DER is connected to."""
        return tuple(int(self.network.node[self.index[x]]) for x in self.labels_of(agent))

    def _selection(self, agents: Sequence[str | Der]) -> sparse.csc_array:
        """Return the (m, k) matrix of each agent's equal shares on its electrical nodes."""
        nodes = [self.electrical_nodes(agent) for agent in agents]
        counts = [len(group) for group in nodes]
        values = np.repeat(1.0 / np.array(counts), counts)
        rows = np.array([i for group in nodes for i in group], dtype=np.intp)
        cols = np.repeat(np.arange(len(agents)), counts)
        return sparse.csc_array((values, (rows, cols)), shape=(self.network.size, len(agents)))

    def _node_va(self, p_kw: ArrayLike, q_kvar: ArrayLike) -> NDArray[np.complex128]:
        p, q = np.asarray(p_kw, dtype=np.float64), np.asarray(q_kvar, dtype=np.float64)
        if p.shape != q.shape or p.ndim not in (1, 2) or len(p) != len(self.nodes):
            raise GridModelError(
                f"injections of shape {p.shape} and {q.shape}",
                where=self.feeder.name,
                expected=f"({len(self.nodes)},) or ({len(self.nodes)}, k), p and q alike",
            )
        s = 1e3 * (p + 1j * q)
        return np.asarray(self._gather @ (s[:, None] if s.ndim == 1 else s))
