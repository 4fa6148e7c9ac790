"""Who pays and who receives what for one interval, at the prices of its clearing.

A load pays its bus's prices for its active and reactive power, a generator receives them, the
import is paid at its own price to whoever sells it at the root. What is left is the operator's
surplus. It is not profit: it is what losses, voltage and current limits are worth. By
complementarity of the cone program (multiply the four equations of `prices` with P, Q, l, v and
add)::

    surplus = xi sum(r l) + sum(kappa l_max) + sum(v_high v_max^2 - v_low v_min^2)
              + v_root^2 sum_first(nu + l rho)

with `first` the lines at the root; the tests hold it.

Amounts are whole numbers of the smallest unit of money, so books balance exactly, in any order of
addition. Rounding falls to the operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError
from controllers.market.model.prices import PriceParts, Prices
from controllers.market.model.whole_units import LARGEST, UNIT


class Quantities(Protocol):
    """What was cleared or metered: powers of n buses, (n,), and the import.

    A `Dispatch` has them per unit of the base power, a `Schedule` in MW; prices go with them.
    """

    @property
    def p_load(self) -> FloatArray:
        """Active load."""
        ...

    @property
    def q_load(self) -> FloatArray:
        """Reactive load."""
        ...

    @property
    def p_gen(self) -> FloatArray:
        """Active generation."""
        ...

    @property
    def q_gen(self) -> FloatArray:
        """Reactive generation."""
        ...

    @property
    def p_import(self) -> float:
        """Active power from above."""
        ...


@dataclass(frozen=True)
class Settlement:
    """The books of one interval, in whole `unit` of money.

    Attributes
    ----------
    load_pays, generation_receives : ndarray of int64, (n,)
        Active and reactive power together; negative where a price is.
    import_cost : int. What the import is paid.
    surplus : int. What the operator keeps; negative if it has to add.
    loss_rent, voltage_rent, congestion_rent, voltage_objective_rent : Parts of the surplus, in
        money: the price components times the net load, less the energy that the losses took. The
        last is that of a voltage objective; 0 in a market without one.
    unit : float. Money per unit of account.
    services : What each bus pays for each part of the price, by the parts' names; they add up to
        `net_pays`, the rounding is in the energy.
    """

    buses: tuple[str, ...]
    load_pays: NDArray[np.int64]
    generation_receives: NDArray[np.int64]
    import_cost: int
    surplus: int
    loss_rent: float
    voltage_rent: float
    congestion_rent: float
    unit: float
    voltage_objective_rent: float = 0.0
    services: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def net_pays(self) -> NDArray[np.int64]:
        """What each bus pays in all, (n,); negative where it receives."""
        return self.load_pays - self.generation_receives

    def money(self, amount: int | NDArray[np.int64]) -> FloatArray:
        """Return an amount of these books in money."""
        return np.asarray(amount * self.unit)


def settle(
    buses: tuple[str, ...],
    prices: Prices,
    quantities: Quantities,
    *,
    import_price: float,
    hours: float,
    unit: float = UNIT,
) -> Settlement:
    """Return the books of one interval.

    Parameters
    ----------
    buses : tuple of str. Names of the n buses.
    prices : Prices. Of the clearing.
    quantities : Quantities. What was cleared, or metered.
    hours : float. Length of the interval.
    unit : float. The smallest unit of money.

    Raises MarketError: Hours or unit are not positive, a quantity or price is not finite, or an
    amount has too many units to be exact.
    """
    for name, value in (("hours", hours), ("unit", unit)):
        if not 0 < value < np.inf:
            raise MarketError(f"{name} is {value}", where="settlement", expected="above 0")
    p, q = prices.p.total, prices.q.total
    to_units = hours / unit
    of = quantities
    load = _units((p * of.p_load + q * of.q_load) * to_units)
    generation = _units((p * of.p_gen + q * of.q_gen) * to_units)
    bought = int(_units(np.array([import_price * of.p_import * to_units]))[0])
    net_p, net_q = of.p_load - of.p_gen, of.q_load - of.q_gen
    parts = {
        name: hours * _rent(prices.p, prices.q, name, net_p, net_q)
        for name in (f.name for f in fields(PriceParts))
    }
    return Settlement(
        buses=buses,
        load_pays=load,
        generation_receives=generation,
        import_cost=bought,
        surplus=int(load.sum()) - int(generation.sum()) - bought,
        loss_rent=parts["losses"] + parts["energy"] - hours * import_price * of.p_import,
        voltage_rent=parts["voltage"],
        congestion_rent=parts["congestion"],
        unit=unit,
        voltage_objective_rent=parts["voltage_objective"],
        services=_services(prices, load - generation, net_p, net_q, to_units),
    )


def _services(
    prices: Prices,
    net_pays: NDArray[np.int64],
    net_p: FloatArray,
    net_q: FloatArray,
    to_units: float,
) -> dict[str, NDArray[np.int64]]:
    """Return what each bus pays for each part of its price; the rest of `net_pays` is energy."""
    rest = [f.name for f in fields(PriceParts) if f.name != "energy"]
    found = {
        name: _units((getattr(prices.p, name) * net_p + getattr(prices.q, name) * net_q) * to_units)
        for name in rest
    }
    energy = net_pays - np.sum(list(found.values()), axis=0, dtype=np.int64)
    return {"energy": energy, **found}


def _rent(p: PriceParts, q: PriceParts, name: str, net_p: FloatArray, net_q: FloatArray) -> float:
    return float(getattr(p, name) @ net_p + getattr(q, name) @ net_q)


def _units(amounts: FloatArray) -> NDArray[np.int64]:
    rounded = np.rint(amounts)
    if not np.isfinite(rounded).all() or np.abs(rounded).sum() > LARGEST:
        raise MarketError(
            "an amount is not finite, or has too many units to be exact",
            where="settlement",
            expected="finite powers and prices, and a larger unit of money",
        )
    return rounded.astype(np.int64)
