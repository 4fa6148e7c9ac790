"""An area of a feeder: its own part of the current-injection model, with its boundary.

The elements of a feeder are dealt out to connected areas. A node at which elements of several areas
meet is a *boundary* node of each of them. With the currents i at its ports and the voltages v_b of
its boundary nodes, everything inside an area is affine and known to it alone. Areas that agree on
v_b, and whose currents into every boundary node add up to zero, are the whole feeder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import ComplexArray, PortNetwork

IndexArray = NDArray[np.intp]


@dataclass(frozen=True)
class PortArea:
    """One area with m ports and b boundary nodes; per unit as `PortNetwork`.

    Attributes
    ----------
    network : PortNetwork
        The area's nodes, ports and lines, and all terminals of the feeder. Its matrices have
        m + b columns: what they are multiplied with is zeta, the m port currents followed by the
        b changes of the boundary's voltages from `v_b0`. So ``w`` is that of the whole feeder. A
        boundary node is among the nodes of one area only, that of its bus. An area that does not
        hold the source has no `source_nodes`.
    terminals : Positions of the area's terminals.
    nodes, ports : Positions of the area's nodes and ports in the whole feeder's model.
    boundary : (b,). Labels of the boundary nodes.
    v_b0 : complex (b,). Their voltages without port currents.
    i_b0, i_b : complex (b,), (b, m + b). Currents that the area feeds into its boundary nodes.
    """

    network: PortNetwork
    terminals: IndexArray
    nodes: IndexArray
    ports: IndexArray
    boundary: tuple[str, ...]
    v_b0: ComplexArray
    i_b0: ComplexArray
    i_b: ComplexArray


def neighbours(areas: tuple[PortArea, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the positions of the areas that share a boundary node with each area."""
    meet: dict[str, list[int]] = {}
    for a, area in enumerate(areas):
        for label in area.boundary:
            meet.setdefault(label, []).append(a)
    return tuple(
        tuple(sorted({other for label in area.boundary for other in meet[label]} - {a}))
        for a, area in enumerate(areas)
    )
