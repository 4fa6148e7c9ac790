"""Groups of sites that are electrically alike, so that a design has few unknowns.

A group shares what it has in fixed parts, by nominal load. A design by groups is one that single
sites could have as well: its hosting capacity is a lower bound of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import FloatArray
from grid_models.hosting.model import HostingModel


@dataclass(frozen=True)
class SiteGroups:
    """G groups of S sites.

    Attributes
    ----------
    share : (S, G). Part of what a group has at each site; columns sum to 1.
    nominal_kw : (G,). Nominal load at the sites of a group.
    """

    share: FloatArray
    nominal_kw: FloatArray

    def __len__(self) -> int:
        return len(self.nominal_kw)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(f"group {g}" for g in range(len(self)))


def site_groups(model: HostingModel, nominal_kw: FloatArray, n: int, seed: int = 0) -> SiteGroups:
    """Return at most `n` groups of the sites with load, by k-means of their impedances.

    A site is a point whose coordinates are the voltages that a current from it causes at all
    sites. Sites without load have no part in any group.

    `nominal_kw`: (S,). Load at the sites.

    Raises FeederError: No site has a load.
    """
    from scipy.cluster.vq import kmeans2

    loaded = np.flatnonzero(nominal_kw > 0.0)
    if not loaded.size:
        raise FeederError(
            "no site has a load",
            where="groups of sites",
            expected="sites at buses with load: nominal load bounds what a site can have",
        )
    net = model.feeder.network
    share = net.share[:, [net.terminal_of_der(model.sites[k].name) for k in loaded.tolist()]]
    points = np.abs(share.T @ net.z_port @ share)
    _, found = kmeans2(points, min(n, len(loaded)), iter=100, minit="++", seed=seed)
    used, group = np.unique(found, return_inverse=True)
    parts = np.zeros((len(nominal_kw), len(used)))
    parts[loaded, group] = nominal_kw[loaded]
    total = parts.sum(axis=0)
    return SiteGroups(parts / total, total)
