"""Power flow of a `PortNetwork` and its exact first derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import (
    ComplexArray,
    FloatArray,
    PortLoads,
    PortNetwork,
)

TOLERANCE_PU = 1e-12
_FIXED_POINT, _NEWTON = 40, 30


@dataclass(frozen=True)
class PortFlow:
    """A solved state, per unit.

    Attributes
    ----------
    i, u : complex (m,). Currents into the ports and voltages across them.
    v : complex (n,). Node voltages.
    s_drawn : complex (m,). What the feeder's own loads draw.
    s_import : complex. Power from the source.
    loss : float. Active power lost in the feeder, shunts included.
    """

    i: ComplexArray
    u: ComplexArray
    v: ComplexArray
    s_drawn: ComplexArray
    s_import: complex
    loss: float


def power_flow(
    network: PortNetwork,
    s: ComplexArray,
    loads: PortLoads | None = None,
    start: ComplexArray | None = None,
) -> PortFlow:
    """Return the state in which `s` is injected at the ports.

    The fixed point ``i = conj(s(u) / u)``; where it does not converge, Newton's method from the
    last iterate that was finite.

    Parameters
    ----------
    s : complex (m,). Injections of constant power, per unit.
    loads : PortLoads, optional. Drawn besides, depending on the voltage.
    start : complex (m,), optional. Port currents to start from; default: no current.

    Raises PowerFlowError: There is no solution near the start.
    """
    i = np.zeros(len(network.ports), dtype=np.complex128) if start is None else start
    live = network.w_port != 0.0
    s = np.where(live, s, 0.0)
    safe = np.where(live, 0.0, 1.0)
    u = network.w_port + network.z_port @ i
    change = np.inf
    with np.errstate(all="ignore"):  # a diverging iteration ends in Newton's, then in our error
        for _ in range(_FIXED_POINT):
            drawn = 0.0 if loads is None else loads.drawn(u)
            found = np.where(live, np.conj((s - drawn) / (u + safe)), 0.0)
            if not np.isfinite(found).all():
                break
            i, before = found, u
            u = network.w_port + network.z_port @ i
            change = float(np.abs(u - before).max(initial=0.0))
            if change < TOLERANCE_PU:
                break
    if not change < TOLERANCE_PU:
        i = _newton(network, s, loads, start)
    return _state(network, i, loads)


def _state(network: PortNetwork, i: ComplexArray, loads: PortLoads | None) -> PortFlow:
    u = network.w_port + network.z_port @ i
    drawn = np.zeros_like(i) if loads is None else np.where(u != 0.0, loads.drawn(u), 0.0)
    injected = u * i.conj()
    s_import = network.source_power(i)
    loss = float(s_import.real + injected.real.sum())
    return PortFlow(i, u, network.w + network.z @ i, drawn, s_import, loss)


def jacobian(
    network: PortNetwork, i: ComplexArray, u: ComplexArray, loads: PortLoads | None = None
) -> FloatArray:
    """Return d(Re s, Im s) / d(Re i, Im i) of the constant-power injections, (2 m, 2 m).

    ``s = u conj(i) + drawn(|u|)`` with ``du = z_port di``.
    """
    dv = i.conj()[:, None] * network.z_port
    if loads is not None:
        # d|u| = Re(conj(u) du) / |u|: not analytic, so its real and imaginary part enter apart.
        size = np.abs(u)
        along = (u.conj() / np.where(size > 0.0, size, 1.0))[:, None] * network.z_port
        slope = loads.slope(u)[:, None]
        by_re, by_im = dv + slope * along.real, 1j * dv - slope * along.imag
    else:
        by_re, by_im = dv, 1j * dv
    by_re = by_re + np.diag(u)
    by_im = by_im - 1j * np.diag(u)
    return np.block([[by_re.real, by_im.real], [by_re.imag, by_im.imag]])


def _newton(
    network: PortNetwork, s: ComplexArray, loads: PortLoads | None, start: ComplexArray | None
) -> ComplexArray:
    m = len(s)
    live = np.flatnonzero(network.w_port != 0.0)
    keep = np.concatenate([live, live + m])
    i = np.zeros(m, dtype=np.complex128) if start is None else start.copy()
    for _ in range(_NEWTON):
        u = network.w_port + network.z_port @ i
        drawn = 0.0 if loads is None else loads.drawn(u)
        miss = np.where(network.w_port != 0.0, u * i.conj() + drawn - s, 0.0)
        if float(np.abs(miss).max(initial=0.0)) < TOLERANCE_PU:
            return i
        matrix = jacobian(network, i, u, loads)[np.ix_(keep, keep)]
        try:
            step = np.linalg.solve(matrix, np.concatenate([miss.real, miss.imag])[keep])
        except np.linalg.LinAlgError:
            break
        i[live] -= step[: live.size] + 1j * step[live.size :]
        if not np.isfinite(i).all():
            break
    raise PowerFlowError(
        "the power flow did not converge",
        where="current-injection model",
        expected="injections that the feeder can carry",
    )
