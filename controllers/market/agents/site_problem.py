"""The clearing problem of a control site: the feeder's loads and DERs bid, bus by bus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.options import checked_number
from controllers.core.protocol import ControlSite
from controllers.market.model.parties import LOAD_POWER_FACTOR
from controllers.market.model.problem import Bids, ClearingProblem
from grid_models.branch_flow.model import branch_network

# Reactive range of a category B inverter (IEEE 1547-2018, clause 5.2) per unit of its rating.
_Q_SHARE = 0.44
_GENERATORS = ("pv", "inverter", "battery")


@dataclass(frozen=True)
class SiteBids:
    """What loads and DERs ask for, money per MWh.

    Attributes
    ----------
    import_price : float
        At the point of common coupling.
    loss_price : float
        xi, of losses.
    generator_cost : float
        Marginal cost of a DER at full output.
    load_cost : float
        Marginal cost of a load at full curtailment.
    flexibility : float
        Part of a feeder's own load that may be curtailed, 0 to 1.
    reactive_cost : float
        alpha_q, money per hour and (Mvar)^2: what makes reactive power converge.
    """

    import_price: float = 60.0
    loss_price: float = 3.0
    generator_cost: float = 72.0
    load_cost: float = 240.0
    flexibility: float = 0.3
    reactive_cost: float = 50.0

    def __post_init__(self) -> None:
        for name in ("import_price", "generator_cost", "load_cost"):
            checked_number(name, getattr(self, name), low=0.0, open_low=True)
        for name in ("loss_price", "reactive_cost"):
            checked_number(name, getattr(self, name), low=0.0)
        checked_number("flexibility", self.flexibility, low=0.0, high=1.0)


def site_problem(site: ControlSite, asked: SiteBids) -> ClearingProblem:
    """Return the clearing of a site's nominal loads and of its DERs' whole ranges.

    Generators (PV, inverters, batteries) bid their range. Flexible loads without storage are load:
    they draw their full demand at the plant's power factor and may be curtailed down to their least
    at `load_cost`, beside the flexible part of the feeder's own loads at the bus. Where these feed
    in (a negative load) nothing of them is flexible. As in the market of operators
    (`controllers.market.model.parties`), houses and tanks take no part: no set-point makes them
    draw.

    Parameters
    ----------
    site : ControlSite
    asked : SiteBids
    """
    network = branch_network(site.feeder)
    mva = network.base_kva / 1e3
    n = network.size
    sums = {name: np.zeros(n) for name in ("p", "q", "low", "high", "kva", "demand", "room")}
    for load in site.feeder.loads:
        at = network.position(load.bus)
        sums["p"][at] += load.kw / network.base_kva
        sums["q"][at] += load.kvar / network.base_kva
    for der in site.ders:
        at = network.position(der.bus)
        low, high = der.p_min_kw / network.base_kva, der.p_max_kw / network.base_kva
        if der.kind in _GENERATORS:
            sums["low"][at] += low
            sums["high"][at] += high
            sums["kva"][at] += der.kva / network.base_kva
        elif der.kind == "flexible_load" and not der.energy_kwh:
            sums["demand"][at] -= low
            sums["room"][at] += high - low
    tan_phi = np.sqrt(1.0 - LOAD_POWER_FACTOR**2) / LOAD_POWER_FACTOR
    p_load = sums["p"] + sums["demand"]
    flexible = asked.flexibility * np.maximum(sums["p"], 0.0) + sums["room"]
    reach = np.maximum(sums["high"], -sums["low"])
    bids = Bids(
        p_load0=p_load,
        q_load0=sums["q"] + tan_phi * sums["demand"],
        p_load_min=p_load - flexible,
        p_load_max=p_load.copy(),
        p_gen_min=sums["low"],
        p_gen_max=sums["high"],
        q_gen_min=-_Q_SHARE * sums["kva"],
        q_gen_max=_Q_SHARE * sums["kva"],
        alpha_p=_per(asked.generator_cost * mva, reach),
        alpha_q=np.where(sums["kva"] > 0.0, asked.reactive_cost * mva**2, 0.0),
        beta=_per(0.5 * asked.load_cost * mva, flexible),
    )
    return ClearingProblem(
        network,
        bids,
        xi=asked.loss_price * mva,
        import_price=asked.import_price * mva,
        v_min_pu=site.v_min_pu,
        v_max_pu=site.v_max_pu,
    )


def _per(cost: float, reach: FloatArray) -> FloatArray:
    zero: FloatArray = np.zeros_like(reach)
    return np.divide(cost, reach, out=zero, where=reach > 0.0)
