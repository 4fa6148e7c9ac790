"""The nodal admittance matrix of a compiled circuit, read without changing its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    labels = tuple(str(n).lower() for n in engine.dss.Circuit.YNodeOrder())
    return labels, _sum_of_primitives(engine, len(labels), (engine.dss.PDElements,))[1:, 1:]


def shunt_conductance(engine: Engine) -> csc_array | None:
    """Return the conductance of shunt elements between all nodes, ground first, in siemens.

    ``v.conj() @ matrix @ v`` is what grounding reactors and capacitor resistances dissipate, in W;
    the engine's losses leave it out. None where there is nothing of the kind.
    """
    n, dss = len(engine.dss.Circuit.YNodeOrder()), engine.dss
    found = _sum_of_primitives(engine, n, (dss.Reactors, dss.Capacitors), shunts_only=True).real
    return found if found.nnz and np.abs(found.data).max() > 0.0 else None


def _sum_of_primitives(
    engine: Engine, n_nodes: int, interfaces: Sequence[Any], *, shunts_only: bool = False
) -> csc_array:
    """Return the sum of primitive matrices of elements, (n_nodes + 1, n_nodes + 1), ground first.

    `interfaces`: The engine's classes of elements.
    """
    from scipy.sparse import coo_array

    dss = engine.dss
    rows, columns, values = [np.empty(0, int)], [np.empty(0, int)], [np.empty(0, complex)]
    for _ in (active for interface in interfaces for active in each(interface)):
        if shunts_only and not dss.PDElements.IsShunt():
            continue
        # Number of each conductor's node in `labels`, from 1; 0 is ground.
        nodes = np.asarray(dss.CktElement.NodeRef(), dtype=int)
        # The engine stores columns one after the other.
        values.append(as_complex(dss.CktElement.YPrim()))
        rows.append(np.tile(nodes, nodes.size))
        columns.append(np.repeat(nodes, nodes.size))
    shape = (n_nodes + 1, n_nodes + 1)
    at = np.concatenate(rows), np.concatenate(columns)
    return coo_array((np.concatenate(values), at), shape=shape).tocsc()
