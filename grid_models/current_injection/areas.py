"""An area of a feeder: its own part of the current-injection model, and what it shares.

The elements of a feeder are dealt out to connected areas, its nodes, too. Where an element of one
area ends at a node of another, the two share that node: its voltage v and the current j that the
node's owner gives to the other. Inside an area everything is affine in the currents i at its ports,
the voltages that it is given and the currents that it gives, with matrices known to it alone.
Areas that agree on all v and j are the whole feeder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import ComplexArray, PortNetwork

IndexArray = NDArray[np.intp]


@dataclass(frozen=True)
class PortArea:
    """One area with m ports and b shared nodes; per unit as `PortNetwork`.

    Attributes
    ----------
    network : PortNetwork
        The area's nodes, ports and lines, and all terminals of the feeder. Its matrices have
        m + b columns. They are multiplied with zeta: the m port currents, followed for each shared
        node by the change of what comes from the neighbour: of j where the area owns the node, of
        v where it does not. An area that does not hold the source has no `source_nodes`.
    terminals, nodes, ports : Positions of the area's terminals, nodes and ports in the feeder's.
    shared : (b,). Labels of the shared nodes, by neighbour; a node shared with two appears twice.
    neighbour : (b,). Position of the area that it is shared with.
    owns : (b,). Whether the node belongs to this area.
    v0, v : complex (b,), (b, m + b). Their voltages, those of the whole feeder where zeta is 0.
    j0, j : complex (b,), (b, m + b). The currents from the nodes' owners to the others.
    z : complex (b, b)
        Impedance of the feeder between the shared nodes with each neighbour, without ports: what j
        does to v. Zero between nodes shared with different neighbours.
    """

    network: PortNetwork
    terminals: IndexArray
    nodes: IndexArray
    ports: IndexArray
    shared: tuple[str, ...]
    neighbour: IndexArray
    owns: NDArray[np.bool_]
    v0: ComplexArray
    v: ComplexArray
    j0: ComplexArray
    j: ComplexArray
    z: ComplexArray
