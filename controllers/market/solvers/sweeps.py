"""The start of a distributed clearing: backward/forward sweeps with prices, by neighbours only.

Every bus answers its own prices, flows add up towards the root, voltages and marginal prices come
down from it. The equations are those of `controllers.market.solvers.tree_prices`, but each bus uses
what it heard last, so that one round is one message up and one down every line at the same time
(D. Shirmohammadi et al., "A compensation-based power flow method", IEEE Trans. Power Syst. 3(2),
1988, has the sweeps one after the other). After as many rounds as the tree is deep, all that was
said at one end is known at the other.

Where no limit binds the sweeps alone end at the optimum. What a binding voltage or rating is worth
they take from the clearing before; the algorithm that follows finds it.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.solvers.atoms import (
    BALANCE_P,
    BALANCE_Q,
    COPY,
    N_KINDS,
    N_ROWS,
    P_GEN,
    P_LOAD,
    Q_GEN,
    VOLTAGE,
    Atoms,
    L,
    P,
    Q,
    V,
    W,
)
from controllers.market.solvers.iteration import Mask
from controllers.market.solvers.warm_start import best_response


class Sweeps:
    """The sweeps of some atoms; arrays of shape (m,) per unit, prices in money per pu.

    Parameters
    ----------
    atoms : Atoms
    """

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        m = atoms.m
        self.devices: FloatArray = np.zeros((3, m))
        self.flow: FloatArray = np.zeros((3, m))
        v_sq = np.full(m, atoms.network.v_root_pu**2)
        self.price: FloatArray = np.array([np.full(m, atoms.import_price), np.zeros(m)])
        self.v, self.w, self.eta, self.kappa = v_sq, v_sq, np.zeros(m), np.zeros(m)
        self.v_worth, self.l_worth = np.zeros(m), np.zeros(m)

    def begin(self, where: Mask) -> None:
        """Let some atoms answer their prices with the bids at hand."""
        self._set(where, devices=best_response(self._atoms.bids, *self.price))

    def up(self) -> FloatArray:
        """Return P, Q and ``kappa l - eta`` of each line, (3, m)."""
        return np.stack([self.flow[0], self.flow[1], self.kappa * self.flow[2] - self.eta])

    def down(self) -> FloatArray:
        """Return v and minus the prices of each child's parent, (3, e)."""
        return np.stack([self.v, -self.price[0], -self.price[1]])[:, self._atoms.owner]

    def advance(self, where: Mask, below: FloatArray, above: FloatArray) -> None:
        """Do one round for some atoms; arguments as of `Iteration.half`."""
        a, inner = self._atoms, self._atoms.inner
        w = np.where(inner > 0.0, np.maximum(above[0], 0.04), 1.0)
        p_line, q_line, l_line = self.flow
        kappa = a.xi * a.r + self.l_worth + a.r * self.price[0] + a.x * self.price[1]
        kappa = inner * (kappa + a.z_sq * self.eta) / w
        price_p = -above[1] + 2.0 * (p_line * kappa - a.r * self.eta)
        price_q = -above[2] + 2.0 * (q_line * kappa - a.x * self.eta)
        price_p = np.where(inner > 0.0, price_p, a.import_price)
        price = np.stack([price_p, inner * price_q])
        devices = best_response(a.bids, *price)
        p_gen, q_gen, p_load = devices
        q_load = p_load * a.tangent + a.q_fixed
        p_line = a.over_children(below[0]) + p_load - p_gen + a.r * l_line
        q_line = a.over_children(below[1]) + q_load - q_gen - a.b * self.v + a.x * l_line
        eta = -self.v_worth - a.b * price[1] - a.over_children(below[2])
        l_line = inner * (p_line * p_line + q_line * q_line) / w
        v = w - 2.0 * (a.r * p_line + a.x * q_line) + a.z_sq * l_line
        v = np.where(inner > 0.0, np.maximum(v, 0.04), a.network.v_root_pu**2)
        self._set(
            where, devices=devices, flow=np.stack([p_line, q_line, l_line]), price=price, v=v, w=w,
            eta=eta, kappa=kappa,
        )  # fmt: skip

    def start(self) -> tuple[FloatArray, FloatArray]:
        """Return scaled variables (8, m) and duals (4, m) for an `Iteration`."""
        a = self._atoms
        x, y = np.zeros((N_KINDS, a.m)), np.zeros((N_ROWS, a.m))
        x[[P_GEN, Q_GEN, P_LOAD]] = self.devices
        x[[P, Q, L]] = self.flow
        x[V], x[W] = self.v, self.w * a.inner
        y[BALANCE_P], y[BALANCE_Q] = -self.price
        y[VOLTAGE] = self.eta * a.inner
        y[COPY] = (self.kappa * self.flow[2] - self.eta) * a.inner
        return x / a.scale, y / a.row_scale

    def keep(self, where: Mask, v_worth: FloatArray, l_worth: FloatArray) -> None:
        """Remember what limits were worth at the end of a clearing."""
        self._set(where, v_worth=v_worth, l_worth=l_worth)

    def _set(self, where: Mask, **arrays: FloatArray) -> None:
        for name, new in arrays.items():
            setattr(self, name, np.where(where, new, getattr(self, name)))
