"""Areas, what they measure, and how the DERs' injections move it.

The measured quantities are the squared voltage of every node that some DER moves, and the import.
Sensitivities are those of the lossless three-phase LinDistFlow, fixed for the whole run; feedback
takes the place of a model of the loads. All of this follows from the site alone.

A DER's *response* to a price of one is its rating over the curvature of its own objective terms.
With R the diagonal matrix of responses and A the sensitivities, prices mu of the measured
quantities move these by -A R A' mu.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.core.terminals import agent_names
from controllers.real_time_opf.objectives import S_BASE_KW, Weights
from grid_models.feeder.topology import areas, radial_tree
from grid_models.linear.lindistflow import LinDistFlow

IMPORT = "source"
_MOST_ROWS = 3000
_UNMOVED_SHARE = 1e-6
# Directions below it the ridge of the metric hides.
_RANK_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class AreaNetwork:
    """All areas of a feeder; n DERs, m measured quantities.

    Attributes
    ----------
    areas : Names of the agents; the first area holds the source.
    der_area : (n,). Area of each DER of the site.
    rows : (m,). Node labels in order of the areas; the first row is the import.
    row_area : (m,). Area that measures each, rising.
    a : (m, 2, n). Change of each quantity by the DERs' p and q, per unit.
    response : (2, n). Change of a DER's p and q by a price of one.
    coupling : (k, k)
        Of the areas: the largest share of one's correction that prices of the other can make.
    """

    areas: tuple[str, ...]
    der_area: IntArray
    rows: tuple[str, ...]
    row_area: IntArray
    a: FloatArray
    response: FloatArray
    coupling: FloatArray

    def of_area(self, area: int) -> tuple[IntArray, IntArray]:
        """Return the positions of an area's measured quantities and of its DERs."""
        return np.flatnonzero(self.row_area == area), np.flatnonzero(self.der_area == area)

    def stiffness(self, weights: Weights) -> float:
        """Return the largest curvature of the voltage terms over that of the DERs' own."""
        scaled = (self.a[1:] * np.sqrt(self.response)).reshape(len(self.a) - 1, -1)
        return weights.voltage / len(scaled) * _norm(scaled) ** 2


def area_names(site: ControlSite, k: int) -> tuple[str, ...]:
    """Return the names of the agents, one per area."""
    count = min(k, len(radial_tree(site.feeder).buses))
    return tuple(f"area{i}" for i in range(count))


def area_network(site: ControlSite, k: int, weights: Weights) -> AreaNetwork:
    """Return the network of a site cut into `k` areas.

    Raises ControllerError: There is no DER, one has no rating, or the feeder is too large.
    FeederateError: The feeder is not radial.
    """
    rating = ratings(site)
    model = LinDistFlow.from_feeder(site.feeder.with_ders(site.ders))
    names = area_names(site, k)
    area_of = areas(site.feeder, len(names))
    node_area = np.array([area_of[label.rpartition(".")[0]] for label in model.nodes])
    if len(model.nodes) > _MOST_ROWS:
        raise ControllerError(
            f"the feeder has {len(model.nodes)} nodes",
            where="rt-opf",
            expected=f"at most {_MOST_ROWS}",
        )
    r, x = model.sensitivity(model.nodes, site.ders)
    a = np.stack([r, x], axis=1) * S_BASE_KW
    response = rating / np.array(weights.curvatures)[:, None]
    strength = np.einsum("mkn,kn->m", a * a, response)
    moved = strength > _UNMOVED_SHARE * strength.max(initial=0.0)
    order = np.flatnonzero(moved)
    order = order[np.argsort(node_area[order], kind="stable")]
    of_import = np.stack([-np.ones((1, len(rating))), np.zeros((1, len(rating)))], axis=1)
    a = np.concatenate([of_import, a[order]])
    row_area = np.concatenate([[0], node_area[order]]).astype(np.int64)
    return AreaNetwork(
        names,
        np.array([area_of[der.bus] for der in site.ders], dtype=np.int64),
        (IMPORT, *(model.nodes[i] for i in order.tolist())),
        row_area,
        a,
        response,
        _coupling(a, response, row_area, len(names)),
    )


def _coupling(a: FloatArray, response: FloatArray, row_area: IntArray, k: int) -> FloatArray:
    """Return the largest canonical correlation of the areas' rows of A sqrt(R), (k, k)."""
    scaled = (a * np.sqrt(response)).reshape(len(a), -1)
    bases = []
    for area in range(k):
        _, s, vt = np.linalg.svd(scaled[row_area == area], full_matrices=False)
        bases.append(vt[s > _RANK_SHARE * s.max(initial=0.0)])
    return np.array([[_norm(one @ other.T) for other in bases] for one in bases])


def _norm(matrix: FloatArray) -> float:
    return float(np.linalg.norm(matrix, 2)) if matrix.size else 0.0


def ratings(site: ControlSite) -> FloatArray:
    """Return the DERs' apparent power ratings in per unit, (n,)."""
    agent_names(site)  # refuses a site without DERs, and names that occur twice
    for der in site.ders:
        if not der.phases or not (np.isfinite(der.kva) and der.kva > 0.0):
            raise ControllerError(
                "a DER needs phases and a rating", where=der.name, expected="kva > 0"
            )
    return np.array([der.kva for der in site.ders]) / S_BASE_KW
