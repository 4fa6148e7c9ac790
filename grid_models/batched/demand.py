"""What loads and DERs draw at the ports, for a block of cases; N cases in columns.

Both classes give admittances (G, B) of the ports: the current into the feeder is ``(G - j B) u``.
`OwnDemand` holds while every voltage is in the range of the loads' own models, `AnyDemand`
always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.cases import Powers
from grid_models.batched.linear import RealArray
from grid_models.batched.load_curves import OWN_RANGE, IntArray, LoadCurves
from grid_models.current_injection.model import BASE_KVA

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_LEAST_PU = 1e-9


class Demand(Protocol):
    """Demand of N cases at m ports."""

    def admittance(self, u: RealArray) -> RealArray:
        """Return G and B (2, m, N) at voltages `u` (2, m, N)."""

    def slope(self, u: RealArray) -> RealArray:
        """Return the derivatives of G and B by ``|u|``, (2, m, N)."""

    def single(self) -> Demand:
        """Return the same in single precision."""

    def take(self, cases: IntArray) -> Demand:
        """Return the demand of some of the cases."""


def current_slope(demand: Demand, u: RealArray) -> RealArray:
    """Return d(Re i, Im i) / d(Re u, Im u) of the port currents, (2, 2, m, N)."""
    g, b = demand.admittance(u)
    dg, db = demand.slope(u)
    along = u / np.maximum(np.hypot(u[0], u[1]), _LEAST_PU)  # 0 without voltage
    by_size = np.stack([dg * u[0] + db * u[1], dg * u[1] - db * u[0]])
    slope: RealArray = np.array([[g, b], [-b, g]]) + by_size[:, None] * along[None]
    return slope


@dataclass(frozen=True)
class OwnDemand:
    """Constant impedance, current and power, summed by port.

    Attributes
    ----------
    rows : Ports that have loads of constant impedance, and of constant current.
    z, i : (2, len(rows), N). Active and reactive power at 1 pu, injected: loads are negative.
    p : (2, m, N). Constant power, injected, DERs included.
    """

    rows: tuple[IntArray, IntArray]
    z: RealArray
    i: RealArray
    p: RealArray

    def admittance(self, u: RealArray) -> RealArray:
        """See `Demand`."""
        inverse = np.reciprocal(u[0] * u[0] + u[1] * u[1])
        y: RealArray = self.p * inverse
        of_z, of_i = self.rows
        if of_i.size:
            y[:, of_i] += self.i * np.sqrt(inverse[of_i])
        if of_z.size:
            y[:, of_z] += self.z
        return y

    def slope(self, u: RealArray) -> RealArray:
        """See `Demand`."""
        inverse = np.reciprocal(u[0] * u[0] + u[1] * u[1])
        slope = -2.0 * self.p * inverse * np.sqrt(inverse)
        slope[:, self.rows[1]] -= self.i * inverse[self.rows[1]]
        return np.asarray(slope)

    def single(self) -> OwnDemand:
        """See `Demand`."""
        return OwnDemand(self.rows, *(x.astype(np.float32) for x in (self.z, self.i, self.p)))

    def take(self, cases: IntArray) -> OwnDemand:
        """See `Demand`."""
        return OwnDemand(self.rows, *(x[..., cases] for x in (self.z, self.i, self.p)))


@dataclass(frozen=True)
class AnyDemand:
    """Demand by the full curves of the loads, from sums over the K curves of each port.

    `power`: (2, K, N). Injected at rated voltage, over its square.
    """

    curves: LoadCurves
    at_port: csr_array
    power: RealArray

    def admittance(self, u: RealArray) -> RealArray:
        """See `Demand`."""
        return self._sums(self.curves.values(np.hypot(u[0], u[1])[self.curves.port])[0])

    def slope(self, u: RealArray) -> RealArray:
        """See `Demand`."""
        by_r = self.curves.values(np.hypot(u[0], u[1])[self.curves.port])[1]
        return self._sums(by_r / self.curves.u_rated[:, None])

    def _sums(self, values: RealArray) -> RealArray:
        return np.stack([self.at_port @ x for x in self.power * values])

    def single(self) -> AnyDemand:
        """See `Demand`."""
        return AnyDemand(self.curves, self.at_port, self.power.astype(np.float32))

    def take(self, cases: IntArray) -> AnyDemand:
        """See `Demand`."""
        return AnyDemand(self.curves, self.at_port, self.power[..., cases])


class DemandMaker:
    """Turns powers of the elements into demand at the m ports.

    Attributes
    ----------
    curves : Of the loads and DERs, in the order of the powers.
    """

    def __init__(self, curves: LoadCurves, n_ports: int) -> None:
        from scipy.sparse import csr_array, diags_array

        self.curves = curves
        k = len(curves.port)
        self._at_port = csr_array((np.ones(k), (curves.port, np.arange(k))), shape=(n_ports, k))
        low, high = curves.own_range(n_ports)
        self._low, self._high = low[:, None] ** 2, high[:, None] ** 2
        own = -curves.form[OWN_RANGE] / BASE_KVA
        rated = curves.u_rated
        whole = [
            [
                csr_array(
                    self._at_port @ diags_array(own[c, a] * rated ** (c - 2)) @ curves.of_element
                )
                for a in range(2)
            ]
            for c in range(3)
        ]
        rows = [np.flatnonzero((abs(p) + abs(q)).sum(axis=1)) for p, q in whole[:2]]
        self._rows = rows[0], rows[1]
        every = np.arange(n_ports)
        self._of = [
            [csr_array(of[at]) for of in pair]
            for at, pair in zip((*rows, every), whole, strict=True)
        ]

    def own(self, powers: Powers) -> OwnDemand:
        """Return the demand of elements that follow their own models."""
        z, i, p = (
            powers.combined(np.stack([of @ x for of, x in zip(pair, powers.basis, strict=True)]))
            for pair in self._of
        )
        return OwnDemand(self._rows, z, i, p)

    def any(self, power: RealArray) -> AnyDemand:
        """Return the demand of elements at any voltage.

        `power`: (2, n_elements, N). kW and kvar drawn at rated voltage.
        """
        curves = self.curves
        scale = (-1.0 / (BASE_KVA * curves.u_rated**2))[:, None]
        injected = np.stack([scale * (curves.of_element @ x) for x in power])
        return AnyDemand(curves, self._at_port, injected)

    @property
    def polynomial(self) -> bool:
        """Whether `own` holds anywhere at all."""
        return self.curves.polynomial

    def at(self, powers: Powers, u: RealArray) -> Demand:
        """Return the demand near voltages `u` (2, m, N), the simplest that holds."""
        if self.polynomial and self.in_own_range(u).all():
            return self.own(powers)
        return self.any(powers.all())

    def in_own_range(self, u: RealArray) -> NDArray[np.bool_]:
        """Return in which cases `own` holds at voltages `u` (2, m, N), (N,)."""
        square = u[0] * u[0] + u[1] * u[1]
        return np.asarray(((square > self._low) & (square <= self._high)).all(axis=0))
