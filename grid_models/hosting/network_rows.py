"""Limits of a feeder as linear rows in the powers of the sites, tangent at solved power flows.

The excess over a limit (see `LimitCheck`) is a function of the port currents: a voltage or branch
current ``y = w + z i`` has ``d|y| = Re(conj(y)/|y| z di)``, the power from the source
``dP = Re(g di)``. `BatchedFeeder.current_slopes` carries these to the powers by the adjoint
method. At the solution the tangents are those of the AC equations, so there is no relaxation and
no gap; away from it they have an error of second order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.power_flow import BatchFlow
from grid_models.current_injection.model import BASE_KVA, ComplexArray, FloatArray
from grid_models.hosting.model import HostingModel

IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Elements:
    """R elements of limits in cases of a flow, each (R,).

    Attributes
    ----------
    case : Row of the flow.
    kind : Position in `LimitCheck.kinds`.
    element : Position in `LimitCheck.labels` of the kind.
    """

    case: IntArray
    kind: IntArray
    element: IntArray

    def __len__(self) -> int:
        return len(self.case)


@dataclass(frozen=True)
class NetworkRows:
    """Tangents ``excess + by_p (p - p0) + by_q (q - q0)`` of the excess of R elements.

    Attributes
    ----------
    excess : (R,). Above 0 a limit is passed; units as in `Excess`.
    by_p, by_q : (R, S). Derivatives by the powers of the sites, per kW and kvar of the whole
        feeder.
    """

    excess: FloatArray
    by_p: FloatArray
    by_q: FloatArray


def worst_elements(model: HostingModel, flow: BatchFlow, above: float, most: int) -> Elements:
    """Return per case and limit the elements with an excess over `above`, at most `most`.

    Cases that did not converge have none.
    """
    found: list[IntArray] = []
    for kind, name in enumerate(model.check.kinds):
        value = np.nan_to_num(model.check.by_element(name, flow), nan=-np.inf)
        count = min(most, value.shape[1])
        if count == 0:
            continue
        top = np.argpartition(value, -count, axis=1)[:, -count:]
        case, at = np.nonzero(np.take_along_axis(value, top, axis=1) > above)
        found.append(np.stack([case, np.full(len(case), kind), top[case, at]]))
    return Elements(*np.concatenate(found, axis=1))


def excess_of(model: HostingModel, flow: BatchFlow, at: Elements) -> FloatArray:
    """Return the excess of elements at their cases, (R,)."""
    excess = np.zeros(len(at))
    for kind in np.unique(at.kind).tolist():
        rows = np.flatnonzero(at.kind == kind)
        by_element = model.check.by_element(model.check.kinds[kind], flow)
        excess[rows] = by_element[at.case[rows], at.element[rows]]
    return excess


def network_rows(model: HostingModel, flow: BatchFlow, at: Elements) -> NetworkRows:
    """Return the tangents of elements at their cases; one factorisation for each case.

    Rows of cases that did not converge are NaN.
    """
    sites = len(model.sites)
    by_p, by_q = np.zeros((2, len(at), sites))
    for case in np.unique(at.case).tolist():
        rows = np.flatnonzero(at.case == case)
        weights = _weights(model, flow, case, at.kind[rows], at.element[rows])
        p, q = model.feeder.current_slopes(flow, case, weights)
        by_p[rows], by_q[rows] = p[:, -sites:], q[:, -sites:]
    return NetworkRows(excess_of(model, flow, at), by_p / model.watt_scale, by_q / model.watt_scale)


def _weights(
    model: HostingModel, flow: BatchFlow, case: int, kind: IntArray, element: IntArray
) -> ComplexArray:
    """Return what the change of the port currents is multiplied with, complex (R, m)."""
    net, check, limits = flow.network, model.check, model.limits
    i = flow.i[case]
    weights = np.zeros((len(kind), len(i)), dtype=np.complex128)
    for k in np.unique(kind).tolist():
        rows, name = np.flatnonzero(kind == k), check.kinds[k]
        if name == "reverse power":
            weights[rows] = -model.watt_scale * BASE_KVA * net.source_gradient(i)[0]
            continue
        columns = check.columns(name)[element[rows]]
        if name in ("overvoltage", "undervoltage"):
            sign = 1.0 if name == "overvoltage" else -1.0
            y, z = flow.v[case, columns], sign * net.z[columns]
        else:
            y = flow.source_pu[case] * net.line_w[columns] + net.line_z[columns] @ i
            most = limits.most_by_kind[name]
            assert most is not None
            z = net.line_z[columns] / (most * net.line_limit[columns])[:, None]
        size = np.abs(y)
        weights[rows] = (y.conj() / np.where(size > 0.0, size, 1.0))[:, None] * z
    return weights
