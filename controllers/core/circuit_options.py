"""Options that name a circuit, shared by the controllers and the plant of a circuit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from grid_models.base.errors import nearest_name
from grid_models.circuits.dynamics import RlcCircuit
from grid_models.circuits.feeder24 import feeder24, feeder_of_clusters
from grid_models.feeder.clusters import Clusters, found_clusters, given_clusters

_SHIPPED = ("feeder24", "chain")


def circuit_of(
    name: Any, clusters: Mapping[str, Any] | int | None = None
) -> tuple[RlcCircuit, Clusters]:
    """Return a circuit and its clusters.

    Parameters
    ----------
    name : ``feeder24``, or ``chain:K`` for K clusters of the same make in a row.
    clusters : The user's own clusters (name to buses), or how many are to be found by electrical
        distance; default: those the circuit comes with.

    Raises ControllerError: There is no such circuit.
    Raises GridModelError: The clusters are wrong; see `grid_models.feeder.clusters.given_clusters`.
    """
    kind, _, count = str(name).partition(":")
    if kind == "feeder24" and not count:
        circuit, own = feeder24()
    elif kind == "chain" and count.isdigit() and int(count) >= 1:
        names = tuple(f"c{i}" for i in range(int(count)))
        circuit, own = feeder_of_clusters(names, name=str(name))
    else:
        raise ControllerError(
            f"no circuit is called '{name}'",
            where="option 'circuit'",
            expected="feeder24, or chain:K with K clusters",
            nearest=nearest_name(str(name), _SHIPPED),
        )
    if clusters is None:
        return circuit, own
    if isinstance(clusters, Mapping):
        return circuit, given_clusters(circuit.buses, clusters, circuit.line_from, circuit.line_to)
    if isinstance(clusters, bool) or not isinstance(clusters, int):
        raise ControllerError(
            f"{clusters!r} is not accepted",
            where="option 'clusters'",
            expected="a number, or a mapping of cluster name to its buses",
        )
    length = np.hypot(circuit.r_pu, 377.0 * circuit.l_pu_s).astype(np.float64)
    return circuit, found_clusters(
        circuit.n_buses, circuit.line_from, circuit.line_to, length, clusters
    )
