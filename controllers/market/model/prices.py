"""Distribution locational marginal prices and what they are made of.

Let lambda_j, mu_j be the prices of active and reactive load at bus j, nu_j the multiplier of the
voltage drop of line ij (i the parent), rho_j that of its cone, and kappa_j, sigma_j (upper minus
lower) those of its current limit and of the voltage band of bus j. The clearing's Lagrangian is
stationary in P_j, Q_j, l_j and v_j, which gives for every line and bus but the root::

    lambda_j - lambda_i - 2 r nu_j - 2 P_j rho_j                             = 0
    mu_j     - mu_i     - 2 x nu_j - 2 Q_j rho_j                             = 0
    v_i rho_j - r lambda_j - x mu_j + (r^2 + x^2) nu_j                       = xi r + kappa_j
    nu_j - sum_k (nu_k + l_k rho_k) - b_j mu_j                               = -sigma_j

with k the children of j, lambda_root the import price and mu_root 0. This is linear in the prices:
the adjoint of the power flow, linearised at the dispatch. Its right-hand side is a sum (import
price, xi, kappa, sigma), so its solution is one, too:

energy
    the import price, at every bus;
losses
    the answer to import price and xi, less the energy: what the marginal loss costs to import and
    at the price of losses;
voltage, congestion
    the answers to sigma and to kappa.

The four add up to the price by construction. The solver's own duals of the balances satisfy the
same equations to its tolerance; `Clearing.price_mismatch` compares the two at every clearing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.errors import MarketError
from controllers.market.model.problem import ClearingProblem
from grid_models.branch_flow.model import BranchNetwork


@dataclass(frozen=True)
class PriceParts:
    """Prices of load at each bus, arrays of shape (n,), money per pu and hour; they add up.

    `voltage_objective` is what voltages away from their set-points cost; it is zero (the default)
    in markets that do not pay for voltages.
    """

    energy: FloatArray
    losses: FloatArray
    voltage: FloatArray
    congestion: FloatArray
    voltage_objective: FloatArray = field(default_factory=lambda: np.zeros(()))

    def __post_init__(self) -> None:
        whole = np.broadcast_to(self.voltage_objective, self.energy.shape)
        object.__setattr__(self, "voltage_objective", whole)

    def at(self, rows: IntArray, per: float) -> PriceParts:
        """Return the prices of some buses, per `per` units of power."""
        return PriceParts(*(getattr(self, f.name)[rows] / per for f in fields(self)))

    @property
    def total(self) -> FloatArray:
        """The price."""
        return np.asarray(
            self.energy + self.losses + self.voltage + self.congestion + self.voltage_objective
        )

    def mixed(self, weights: FloatArray) -> PriceParts:
        """Return ``weights @ price`` of each part, (k,), for `weights` (k, n)."""
        return PriceParts(*(weights @ getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Prices:
    """Prices of active and of reactive load."""

    p: PriceParts
    q: PriceParts

    def at(self, rows: IntArray, per: float) -> Prices:
        """Return the prices of some buses, per `per` units of power."""
        return Prices(self.p.at(rows, per), self.q.at(rows, per))

    def of_load(self, tangent: FloatArray) -> FloatArray:
        """Return the price of one pu of load at its power factor, ``lambda + tan(phi) mu``."""
        return np.asarray(self.p.total + tangent * self.q.total)


@dataclass(frozen=True)
class Flows:
    """Where prices are taken: flows and squared magnitudes, (n,), as in `Dispatch`."""

    p_line: FloatArray
    q_line: FloatArray
    l_line: FloatArray
    v_sq: FloatArray


class PriceModel:
    """The adjoint equations of one network; the pattern is made once."""

    def __init__(self, network: BranchNetwork) -> None:
        self.network = network
        m = self._m = network.size - 1
        line = np.arange(m)
        self._inner = np.flatnonzero(network.parent[1:] > 0)
        up = network.parent[1:][self._inner] - 1
        self._p, self._q, self._nu, self._rho = (line + k * m for k in range(4))
        inner = self._inner
        blocks = [
            (self._p, self._p),
            (self._p[inner], self._p[up]),
            (self._p, self._nu),
            (self._p, self._rho),
            (self._q, self._q),
            (self._q[inner], self._q[up]),
            (self._q, self._nu),
            (self._q, self._rho),
            (self._nu, self._rho),
            (self._nu, self._p),
            (self._nu, self._q),
            (self._nu, self._nu),
            (self._rho, self._nu),
            (self._rho[up], self._nu[inner]),
            (self._rho[up], self._rho[inner]),
            (self._rho, self._q),
        ]
        rows = np.concatenate([b[0] for b in blocks])
        cols = np.concatenate([b[1] for b in blocks])
        # Each entry holds its number: where the values go in column order, found once.
        self._pattern = sparse.csc_array(
            (np.arange(1.0, len(rows) + 1), (rows, cols)), shape=(4 * m, 4 * m)
        )
        self._order = self._pattern.data.astype(np.intp) - 1

    def prices(
        self,
        problem: ClearingProblem,
        at: Flows,
        sigma: FloatArray,
        kappa: FloatArray,
        p_import: float = 0.0,
    ) -> Prices:
        """Return the prices at the flows `at` under the multipliers `sigma` and `kappa`, (n,).

        `p_import`: at which the import's price is taken where it has a slope.

        Raises MarketError: The power flow has no sensitivity here: at its voltage collapse.
        """
        net, m = self.network, self._m
        right = np.zeros((4 * m, 3))
        energy_price = problem.marginal_import_price(p_import)
        right[self._p[net.parent[1:] == 0], 0] = energy_price
        right[self._nu, 0] = problem.xi * net.r_pu[1:]
        right[self._rho, 1] = -sigma[1:]
        right[self._nu, 2] = kappa[1:]
        found = self._solve(at, right) if m else right
        energy = np.full(net.size, energy_price)
        p, q = (np.vstack([np.zeros((1, 3)), found[k]]) for k in (self._p, self._q))
        p[0, 0] = energy_price
        return Prices(
            PriceParts(energy, p[:, 0] - energy, p[:, 1], p[:, 2]),
            PriceParts(np.zeros(net.size), q[:, 0], q[:, 1], q[:, 2]),
        )

    def _solve(self, at: Flows, right: FloatArray) -> FloatArray:
        net, m, inner = self.network, self._m, self._inner
        r, x = net.r_pu[1:], net.x_pu[1:]
        ones, some = np.ones(m), np.ones(len(inner))
        values = [
            ones,
            -some,
            -2 * r,
            -2 * at.p_line[1:],
            ones,
            -some,
            -2 * x,
            -2 * at.q_line[1:],
            at.v_sq[net.parent[1:]],
            -r,
            -x,
            r**2 + x**2,
            ones,
            -some,
            -at.l_line[1:][inner],
            -net.b_pu[1:],
        ]
        self._pattern.data = np.concatenate(values)[self._order]
        try:
            # A tree hardly fills in: supernodes and panels would only cost time.
            return np.asarray(splu(self._pattern, relax=1, panel_size=1).solve(right))
        except RuntimeError:
            raise MarketError(
                "the power flow is singular at this dispatch, so there are no prices",
                where="prices",
                expected="a dispatch away from voltage collapse",
            ) from None
