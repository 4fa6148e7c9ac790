"""What injections do to the losses of lines, from measured voltage phasors.

With the edges of the feeder's tree, ``V_c = T V_p - Z J_c`` (`grid_models.linear.network`), the
currents from above into the nodes are ``J = Z^-1 (T V - V)``. Losses and their derivative by
injections s at nodes of voltage V are

    L = J^H H J,    dL = 2 Re(J^H H dJ),    H = (Z + Z^H) / 2,    dJ = -(I - T^H)^-1 conj(ds / V)

An area knows the impedances of its own lines, measures the phasors at both of their ends, and tells
the other areas what its own lines' losses mean for their DERs. Loads count as currents that do not
change. That phasors measure the gradient of the losses is from Bolognani, Carli, Cavraro and
Zampieri, "Distributed reactive power feedback control for voltage regulation and loss
minimization", IEEE Trans. Automatic Control 60(4), 2015, doi:10.1109/TAC.2014.2363931, who take one
ratio of resistance to reactance for all lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.real_time_opf.objectives import S_BASE_KW
from grid_models.feeder.topology import areas
from grid_models.linear.edges import Complex
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.linear.network import Network
from grid_models.linear.tree_algebra import block_inverse, unit_lu

_BASE_VA = 1e3 * S_BASE_KW
_FLOOR_OHM = 1e-9


class LineLosses:
    """Derivatives of the losses of the lines of the areas hosted together; n DERs.

    Parameters
    ----------
    count : Number of areas of the feeder.
    hosted : Positions of the hosted ones.

    Attributes
    ----------
    labels : Nodes whose phasors are measured: both ends of the areas' lines.
    curvature : Bound of how much the derivatives, times the ratings, change by powers of one.
    """

    def __init__(self, site: ControlSite, count: int, hosted: Sequence[int]) -> None:
        model = LinDistFlow.from_feeder(site.feeder.with_ders(site.ders))
        net = model.network
        resistance = sparse.csr_array(0.5 * (net.impedance + net.impedance.conj().T))
        by_power = _currents_by_power(model, site)
        rating = np.array([der.kva for der in site.ders]) / S_BASE_KW
        through = np.asarray(resistance @ by_power)
        hessian = 2.0 * (by_power.conj().T @ through).real / _BASE_VA
        self.curvature = float((np.tile(rating, 2)[:, None] * np.abs(hessian)).sum(axis=1).max())

        label_of = dict(zip(net.node.tolist()[::-1], net.labels[::-1], strict=True))
        area_of = areas(site.feeder, count)
        area = np.array([area_of[label_of[k].rpartition(".")[0]] for k in range(net.size)])
        drops, lines = _loss_drops(net, resistance)
        self._of_area: list[tuple[tuple[str, ...], Complex]] = []
        for own in hosted:
            rows = np.flatnonzero(lines & (area == own))
            ends = np.unique(drops[rows].indices)
            matrix = np.asarray(drops[rows][:, ends].conj().T @ by_power[rows])
            labels = tuple(label_of[k] for k in ends.tolist())
            self._of_area.append((labels, 2.0 * net.base_v[ends, None] * matrix / _BASE_VA))
        self.labels = tuple(dict.fromkeys(x for labels, _ in self._of_area for x in labels))
        at = {label: k for k, label in enumerate(self.labels)}
        self._gather = [np.array([at[x] for x in labels], int) for labels, _ in self._of_area]

    def tolls(self, v: Complex) -> list[FloatArray]:
        """Return d(losses)/d(p, q) of all DERs, (2, n), for each hosted area's lines.

        v : Complex (len(labels),). Measured phasors, per unit.
        """
        return [
            (v[gather].conj() @ matrix).real.reshape(2, -1)
            for gather, (_, matrix) in zip(self._gather, self._of_area, strict=True)
        ]


def _currents_by_power(model: LinDistFlow, site: ControlSite) -> Complex:
    """Return what 1 pu of the DERs' p, then q, adds to the currents from above, (m, 2 n), in A."""
    net = model.network
    shares = np.zeros((net.size, len(site.ders)))
    for j, der in enumerate(site.ders):
        nodes = model.electrical_nodes(der)
        np.add.at(shares[:, j], list(nodes), 1.0 / len(nodes))
    injected = _BASE_VA * shares / net.no_load_v.conj()[:, None]
    up = unit_lu(net.transfer, transposed=True)
    into = -np.conj(up.solve(np.conj(np.hstack([injected, -1j * injected]))))
    return np.asarray(into)


def _loss_drops(
    net: Network, resistance: sparse.csr_array
) -> tuple[sparse.csr_array, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return H Z^-1 (T - I), which makes H J from voltages, and which rows are lines' ends.

    The source's own impedance is no line of the feeder.
    """
    inverse = block_inverse(net.impedance, net.bus, _FLOOR_OHM)
    drops = resistance @ inverse @ (net.transfer - sparse.eye_array(net.size))
    lines = np.asarray(abs(net.transfer).sum(axis=1) > 0.0)
    return sparse.csr_array(drops), lines
