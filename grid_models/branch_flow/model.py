"""The balanced single-phase equivalent of a radial feeder, for branch-flow (DistFlow) models.

The impedances are those of `grid_models.linear.single_phase`: the total power S drops ``(z_self -
z_mutual) S / (n V)`` on an edge of n phases at the line-to-neutral voltage V. In per unit an edge
is ``v_j = v_i - 2 (r P + x Q) + (r^2 + x^2) l`` (Baran and Wu, Network reconfiguration in
distribution systems for loss reduction and load balancing, IEEE Trans. Power Delivery 4, 1989).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import GridModelError, nearest_name
from grid_models.base.options import checked_choice, checked_number
from grid_models.feeder.model import Feeder, Line, Transformer
from grid_models.feeder.topology import RadialTree, radial_tree
from grid_models.linear.network import Network, merge_limit_ohm
from grid_models.linear.single_phase import single_phase_network

Real = NDArray[np.float64]
Ratios = Literal["neglected", "folded"]


@dataclass(frozen=True)
class BranchNetwork:
    """A radial network in per unit; arrays have shape (n,).

    Attributes
    ----------
    buses : The root (point of common coupling) first, every parent before its children.
    parent : Position of the parent; -1 at the root.
    r_pu, x_pu : Impedance of the line from the parent; 0 at the root.
    l_max_pu : Largest squared current of that line; inf where no rating is known.
    b_pu : Shunt susceptance at the bus (capacitors and line charging), positive injects.
    row_of : Row of every served bus of the feeder, those merged into another bus too.
    v_scale : Voltage per unit of the feeder for 1 pu here, by row: the turns ratios between the
        root and the bus where they are folded into the base voltages. None means 1 everywhere.
    """

    buses: tuple[str, ...]
    parent: NDArray[np.intp]
    r_pu: Real
    x_pu: Real
    l_max_pu: Real
    b_pu: Real
    v_root_pu: float
    base_kva: float
    base_kv_ll: float
    row_of: Mapping[str, int]
    v_scale: Real | None = None

    @property
    def size(self) -> int:
        """Number of buses."""
        return len(self.buses)

    @property
    def depth(self) -> NDArray[np.intp]:
        """Number of lines between each bus and the root, (n,)."""
        depth = np.zeros(self.size, dtype=np.intp)
        for i in range(1, self.size):
            depth[i] = depth[self.parent[i]] + 1
        return depth

    def position(self, bus: str) -> int:
        """Return the row of `bus`.

        Raises GridModelError: If the network has no such bus.
        """
        try:
            return self.row_of[bus]
        except KeyError:
            raise GridModelError(
                f"no bus '{bus}'", where="branch network", nearest=nearest_name(bus, self.row_of)
            ) from None


def branch_network(
    feeder: Feeder,
    *,
    base_kva: float = 1000.0,
    merge_ohm: float = 0.005,
    ratios: Ratios = "neglected",
    ratings: bool = True,
) -> BranchNetwork:
    """Return the balanced single-phase equivalent of a radial feeder.

    Open switches cut. Closed switches and edges below `merge_ohm` are merged into the bus above;
    transformers are impedances; closed capacitors and line charging are shunts. The impedance of
    the source is left out: the market buys at the root bus.

    Parameters
    ----------
    base_kva : Base of power, three-phase.
    merge_ohm : Edges whose equivalent impedance is smaller are merged, in ohm at medium voltage (it
        shrinks with the square of the voltage below 2.4 kV to neutral).
    ratios : What becomes of regulators' present taps and transformers' off-nominal ratios (a bank
        of single-phase units counts with its mean). 'neglected': every ratio is 1. 'folded': the
        base voltage of each bus follows the ratios, and `BranchNetwork.v_scale` carries them.
    ratings : bool
        Whether the ratings of lines (`Line.norm_amps`) and transformers (kva) become `l_max_pu`.

    Raises TopologyError: The feeder is not radial, or something is cut off from the source.
    Raises GridModelError: `base_kva` is not positive, or `ratios` is neither of the two.
    """
    checked_number("base_kva", base_kva, low=0.0, open_low=True)
    checked_choice("ratios", ratios, get_args(Ratios))
    tree = radial_tree(feeder)
    network = single_phase_network(feeder, tree, merge_ohm=0.0, with_source_impedance=False)
    names = _names(tree, network)
    above, ratio = _parents(network)
    scale = _folded(above, ratio) if ratios == "folded" else np.ones(network.size)
    volts = network.base_v * scale
    z_ohm = network.impedance.diagonal()
    limits = [merge_limit_ohm(feeder.buses[name], merge_ohm) for name in names]
    row, kept = _merged(above, np.abs(z_ohm) < np.array(limits))
    z_pu = z_ohm[kept] * 1e3 * base_kva / volts[kept] ** 2
    shunt_pu = network.shunt.diagonal().imag * volts**2 / (1e3 * base_kva)
    rated = _rated_va(tree, names, volts) if ratings else np.full(network.size, np.inf)
    return BranchNetwork(
        buses=tuple(names[i] for i in kept),
        parent=np.array([-1, *row[above[kept[1:]]]], dtype=np.intp),
        r_pu=z_pu.real.copy(),
        x_pu=z_pu.imag.copy(),
        l_max_pu=(rated[kept] / (1e3 * base_kva)) ** 2,
        b_pu=np.bincount(row, weights=shunt_pu, minlength=len(kept)).astype(np.float64),
        v_root_pu=feeder.source.v_pu,
        base_kva=base_kva,
        base_kv_ll=feeder.source.base_kv_ll,
        row_of={
            label: int(row[node])
            for label, node in zip(network.labels, network.node.tolist(), strict=True)
        },
        v_scale=scale[kept] if ratios == "folded" else None,
    )


def _names(tree: RadialTree, network: Network) -> list[str]:
    """Return the topmost bus of each electrical node."""
    node = dict(zip(network.labels, network.node.tolist(), strict=True))
    names: dict[int, str] = {}
    for bus in tree.buses:
        names.setdefault(node[bus], bus)
    return [names[i] for i in range(network.size)]


def _parents(network: Network) -> tuple[NDArray[np.intp], Real]:
    """Return each node's parent (-1 at the root) and its voltage ratio to it in per unit."""
    transfer = network.transfer.tocoo()
    above = np.full(network.size, -1, dtype=np.intp)
    above[transfer.row] = transfer.col
    ratio = np.ones(network.size)
    base = network.base_v
    ratio[transfer.row] = transfer.data.real * base[transfer.col] / base[transfer.row]
    return above, ratio


def _folded(above: NDArray[np.intp], ratio: Real) -> Real:
    """Return the product of the voltage ratios between the root and each node."""
    scale = np.ones(len(ratio))
    for i in range(1, len(ratio)):
        scale[i] = scale[above[i]] * ratio[i]
    return scale


def _merged(
    above: NDArray[np.intp], merge: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row of each node, and the nodes that head a row."""
    head = ~merge
    head[0] = True
    row = np.cumsum(head) - 1
    for i in np.flatnonzero(~head):
        row[i] = row[above[i]]
    return row, np.flatnonzero(head)


def _rated_va(tree: RadialTree, names: list[str], volts: Real) -> Real:
    """Return the apparent power at base voltage that the edge above each node is rated for."""
    rated = np.full(len(names), np.inf)
    for i, name in enumerate(names):
        own = [
            1e3 * e.windings[0].kva
            if isinstance(e, Transformer)
            else (e.norm_amps or np.inf) * len(e.phases) * volts[i]
            for e in tree.edges[tree.position(name)]
            if isinstance(e, Line | Transformer)
        ]
        rated[i] = sum(own) if own else np.inf
    return rated
