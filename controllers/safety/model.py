"""What reactive and active power do to the voltages of all nodes, on the linear model.

The model is the tangent of the AC power flow at the feeder's nominal loads
(`grid_models.linear.lindistflow`), which is linear in squared voltages. Half a squared voltage
changes like the voltage itself near 1 pu, so limits, slacks and prices are per pu of voltage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.real_time_opf.network import ratings
from controllers.real_time_opf.objectives import S_BASE_KW
from grid_models.base.errors import GridModelError
from grid_models.feeder.model import Der
from grid_models.linear.lindistflow import LinDistFlow

_UNMOVED_SHARE = 1e-3
"""Of the most sensitive node: below it, as next to a stiff source, there is nothing to be done."""


@dataclass(frozen=True, eq=False)
class SafetyModel:
    """Nodes, DERs and sensitivities.

    Attributes
    ----------
    nodes : (m,). Labels of all nodes that reactive power moves.
    ders : (n,). The controller's DERs, in the site's order.
    kva : (n,). Their ratings.
    by_q, by_p : (m, n). Change of half the squared voltage [pu^2] by power over rating.
    """

    nodes: tuple[str, ...]
    ders: tuple[Der, ...]
    kva: FloatArray
    by_q: FloatArray
    by_p: FloatArray

    @classmethod
    def of(cls, site: ControlSite) -> SafetyModel:
        """Return the model of a site.

        Raises ControllerError: A DER has no rating, or the feeder is not radial or has no power
        flow at its nominal loads.
        """
        kva = S_BASE_KW * ratings(site)
        try:
            linear = LinDistFlow.from_feeder(site.feeder.with_ders(site.ders), around="nominal")
        except GridModelError as error:
            raise ControllerError(
                error.what, where=error.where, expected=error.expected, nearest=error.nearest
            ) from error
        r, x = linear.sensitivity(linear.nodes, site.ders)
        by_q, by_p = 0.5 * x * kva, 0.5 * r * kva
        strength = np.abs(by_q).max(axis=1)
        moved = np.flatnonzero(strength > _UNMOVED_SHARE * strength.max())
        nodes = tuple(linear.nodes[i] for i in moved.tolist())
        return cls(nodes, site.ders, kva, by_q[moved], by_p[moved])

    def positions(self, names: Sequence[str]) -> list[int]:
        """Return the positions of DERs."""
        place = {der.name: i for i, der in enumerate(self.ders)}
        return [place[name] for name in names]
