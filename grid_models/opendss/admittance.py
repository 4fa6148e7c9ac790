"""The nodal admittance matrix of a compiled circuit, read without changing its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grid_models.opendss.elements import as_complex, each
from grid_models.opendss.engine import Engine

if TYPE_CHECKING:
    from scipy.sparse import csc_array


def node_admittance(engine: Engine) -> tuple[tuple[str, ...], csc_array]:
    """Return the node labels of a solved circuit and its admittance matrix, in siemens.

    The matrix is the sum of the engine's primitive matrices (`CktElement.YPrim`) of all power
    delivery elements in service: lines, transformers, regulators at their present taps, switches,
    reactors and capacitor banks. Loads, DERs and the source's own impedance are not in it, so
    ``matrix @ v`` (v in volt, to ground) is the current in ampere that these feed into each node.

    Returns
    -------
    labels : Every node of the engine as ``bus.node``, neutral conductors (4 and up) and nodes
        without voltage among them, in the engine's order.
    matrix : complex (n_nodes, n_nodes)
    """
    from scipy.sparse import coo_array

    dss = engine.dss
    labels = tuple(str(n).lower() for n in dss.Circuit.YNodeOrder())
    rows, columns, values = [np.empty(0, int)], [np.empty(0, int)], [np.empty(0, complex)]
    for _ in each(dss.PDElements):
        # Number of each conductor's node in `labels`, from 1; 0 is ground.
        nodes = np.asarray(dss.CktElement.NodeRef(), dtype=int)
        # The engine stores columns one after the other.
        values.append(as_complex(dss.CktElement.YPrim()))
        rows.append(np.tile(nodes, nodes.size))
        columns.append(np.repeat(nodes, nodes.size))
    n = len(labels) + 1
    at = np.concatenate(rows), np.concatenate(columns)
    with_ground = coo_array((np.concatenate(values), at), shape=(n, n)).tocsc()
    return labels, with_ground[1:, 1:]
