"""Options of the controller ``local-market``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controllers.core.options import ControllerOptions, option
from controllers.market.agents.options import check_factors, check_range
from controllers.market.consumer.game import POLICIES, Policy

LEVELS = ("hierarchy", "primary", "none")


@dataclass(frozen=True)
class LocalMarketOptions(ControllerOptions):
    """Options of the controller ``local-market``.

    Attributes
    ----------
    unfaithful : mapping of glob over homes to float
        The part of an award that the devices of these homes follow, 0 to 1.
    """

    levels: str = option(
        "hierarchy",
        "Markets: 'hierarchy' is all three, with homes that plan; 'primary': homes do not plan, "
        "operators bid the sum of their devices and divide the award among them; 'none': nothing "
        "is awarded, and prices are those of the demand as it is.",
        choices=LEVELS,
    )
    interval_s: float = option(
        60.0,
        "Period of the secondary and the consumer market; at least four rounds of mail.",
        above=0.0,
    )
    primary_interval_s: float = option(
        300.0, "Period of the primary market, a multiple of `interval_s`.", above=0.0
    )
    mail_rounds: int = option(
        1,
        "Rounds of mail within the federate's ``period_s``; ports are read and written in "
        "the first.",
        low=1,
    )
    price_scale: float = option(
        1.0,
        "Factor on the profile's ``price_per_kwh``; "
        "the product is the import price at zero import.",
        above=0.0,
    )  # fmt: skip
    price_slope: float = option(
        0.0, "Rise of the import price, money per kWh and MW of import.", low=0.0
    )
    loss_price_per_kwh: float = option(
        0.003,
        "Weight xi of losses in the primary market, money per kWh, in addition to their import.",
        low=0.0,
    )
    price_cap_per_kwh: float = option(
        1.0,
        "Highest price per kWh that an agent pays or is paid in the secondary market.",
        above=0.0,
    )
    home_cost: Sequence[float] = option(
        (0.15, 0.4),
        "Range of the marginal cost, money per kWh, at which a home gives half the width of its "
        "range; drawn per home.",
        shown="[low, high]",
    )
    flexibility: Sequence[float] = option(
        (0.1, 0.5),
        "Range of the flexible share of each home's heat pump, battery and vehicle; drawn "
        "per home.",
        shown="[low, high]",
    )
    homes_per_agent: int = option(
        4, "Homes per secondary agent, as far as an operator then has 3 to 12 agents.", low=1
    )
    epsilon: float = option(
        0.01,
        "Relative amount by which a level of the secondary market may miss its optimum "
        "in favour of the next ones; 0: level 1 alone.",
        low=0.0, high=1.0,
    )  # fmt: skip
    negative_prices: Policy = option(
        "allow", "Policy of the consumer market for negative prices.", choices=POLICIES
    )
    forecast_error: float = option(
        0.0, "Relative standard deviation of a home's forecasts of sun, demand and price.", low=0.0
    )
    fixed_load_pu: float = option(
        1.0, "Power of the feeder's own loads that operators expect, over nominal.", low=0.0
    )
    response_s: float = option(
        0.0, "Time constant with which devices follow an award; 0: at once.", low=0.0
    )
    response_error: float = option(
        0.0,
        "Standard deviation of the error of what a home does, relative to what it was asked to "
        "change, drawn once per home and interval.",
        low=0.0,
    )
    unfaithful: Mapping[str, float] = field(default_factory=dict)
    score_prior: Sequence[float] = option(
        (0.8, 1.0), "Range that each agent's prior score is drawn from.", shown="[low, high]"
    )
    memory: float = option(
        20.0,
        "Time constant of the scores, in intervals; the prior weighs as much as that many.",
        above=1.0,
    )
    silent_after: int = option(
        3, "Intervals without mail after which a sender counts as silent.", low=1
    )
    manager: str | None = option(
        None, "Name of the resilience manager's agent; None: there is none."
    )
    clearing: str = option(
        "central",
        "How the primary market is cleared: 'central', 'three-phase', or another way that needs "
        "no mail (`controllers.market.clearing`). In a three-phase market there is an operator per "
        "connection point (bus, phases, wye or delta).",
    )
    make_up: bool = option(
        False,
        "Whether an operator lets other agents make up for PV and storage that, by their meters, "
        "deliver less than half of the least that was offered.",
    )

    flexible_homes: Sequence[str] | None = option(
        None,
        "Homes whose devices the market may move: names or globs; default: all. The others offer "
        "their baseline without a range.",
    )
    thermostats: Sequence[str] | None = option(
        None,
        "Houses that follow an award by their thermostat's set-point (output "
        "``cool_set_c``) instead "
        "of their power, as devices behind Modbus do: names or globs of DERs.",
    )

    def check(self) -> None:
        """Check ranges and tables."""
        check_range("home_cost", self.home_cost, open_low=True)
        check_range("flexibility", self.flexibility, high=1.0)
        check_range("score_prior", self.score_prior, high=1.0)
        check_factors("unfaithful", self.unfaithful, 0.0, 1.0)
