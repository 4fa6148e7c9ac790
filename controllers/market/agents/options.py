"""Options of the market and of the resilience manager, with their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.core.errors import ControllerError
from controllers.core.options import checked_number, checked_whole


@dataclass(frozen=True)
class MarketOptions:
    """Options of the controller ``market``.

    Attributes
    ----------
    interval_s : float
        Market period: between two clearings. A multiple of the controller's own period, at least
        four of them: bids, clearing, awards and their way to the devices take a step each.
    gate : int
        Steps after the beginning of an interval at which it is cleared; bids are sent every step,
        so a gate of 2 forgives one lost bid.
    import_price : float
        Money per MWh at the point of common coupling.
    loss_price : float
        xi, money per MWh of losses.
    generator_cost : mapping of glob to float
        Marginal cost at full output by name of the DER, money per MWh.
    load_cost : (float, float)
        Range that each SMO's marginal cost at full curtailment is drawn from, money per MWh; above
        0, for what costs nothing has no best amount.
    fixed_load_pu : float
        Multiple of nominal at which the feeder's own loads stand (``grid.load_scale``).
    follow_demand : bool
        Whether there is an input ``demand_pu`` per flexible load, its demand as a multiple of
        nominal; without it demand is taken to be nominal.
    response_s : float
        Time constant with which devices follow a set-point; 0: at once.
    response_error : float
        Standard deviation of the error of what a device does, relative to what it was asked to
        change, drawn once per device and interval.
    unfaithful : mapping of bus to float
        SMOs that promise more than they deliver: the part that their devices do, 0 to 1.
    overstated : mapping of bus to float
        SMOs that bid more flexibility than they have: the factor.
    silent_after_s : float
        An SMO that was not heard for this long is no longer dispatched.
    manager : str, optional
        Name of the resilience manager's agent; None: there is none.
    clearing : str
        How the market is cleared: 'central', 'pac', 'pac-anchored', 'nst-pac', 'admm', or
        ``module:Class`` (`controllers.market.clearing`).
    clearing_options : mapping
        Options of the algorithm.
    mail_rounds : int
        Distributed clearing: steps of the controller within a ``period_s``, each a round of mail
        between buses.
    agreed_kw, agreed_price : float
        Distributed clearing: the buses stop when none's balances are off by more than this, kW and
        kvar (voltages: per mille), and no reduced cost is more than this part of the import price.
    start_rounds : int, optional
        Distributed clearing: rounds of sweeps before the first iteration; default two and a half
        times the depth of the tree, and two. Twice as many in the first clearing of all.
    """

    interval_s: float = 60.0
    gate: int = 2
    import_price: float = 60.0
    loss_price: float = 3.0
    generator_cost: Mapping[str, float] = field(default_factory=lambda: {"*": 72.0})
    load_cost: Sequence[float] = (144.6, 397.8)
    fixed_load_pu: float = 1.0
    follow_demand: bool = False
    response_s: float = 0.0
    response_error: float = 0.0
    unfaithful: Mapping[str, float] = field(default_factory=dict)
    overstated: Mapping[str, float] = field(default_factory=dict)
    silent_after_s: float = 12.0
    manager: str | None = None
    clearing: str = "central"
    clearing_options: Mapping[str, Any] = field(default_factory=dict)
    mail_rounds: int = 40
    agreed_kw: float = 0.5
    agreed_price: float = 1e-3
    start_rounds: int | None = None

    def __post_init__(self) -> None:
        for name in ("interval_s", "import_price", "silent_after_s", "agreed_kw", "agreed_price"):
            checked_number(name, getattr(self, name), low=0.0, open_low=True)
        for name in ("loss_price", "fixed_load_pu", "response_s", "response_error"):
            checked_number(name, getattr(self, name), low=0.0)
        if not isinstance(self.gate, int) or isinstance(self.gate, bool) or self.gate < 1:
            raise ControllerError(
                f"is {self.gate!r}", where="option gate", expected="a whole number from 1"
            )
        checked_whole("mail_rounds", self.mail_rounds, low=1)
        if self.start_rounds is not None:
            checked_whole("start_rounds", self.start_rounds, low=1)
        if not isinstance(self.clearing_options, Mapping):
            raise ControllerError(
                f"is {self.clearing_options!r}",
                where="option clearing_options",
                expected="a mapping of the algorithm's options",
            )
        _check_range("load_cost", self.load_cost, open_low=True)
        _check_factors("generator_cost", self.generator_cost, 0.0, math.inf)
        _check_factors("unfaithful", self.unfaithful, 0.0, 1.0)
        _check_factors("overstated", self.overstated, 0.0, math.inf)


@dataclass(frozen=True)
class ManagerOptions:
    """Options of the controller ``resilience-manager``.

    Attributes
    ----------
    interval_s : float
        Market period, as the market has it.
    fixed_load_pu : float
        As the market has it: nodes with fixed load only have an SMO, too.
    sample_s : float
        How often the import is a new measurement (the feeder's step).
    sigma_kw : float
        Standard deviation of import against schedule when nothing is wrong, at its worst: at the
        end of an interval in the hour in which the load moves most.
    false_alarm_days : float
        Mean time between false alarms; the detector's thresholds follow from it.
    learn_s : float
        Time from the start in which the schedule's constant error is learnt; no alarms before.
    settle_s : float
        Time devices are given to follow before the import is judged again; four to five times
        their response time.
    tolerance : float
        Relative to the import before the attack.
    mu_mw : float
        First mu, in MW.
    max_clearings : int
        Of one search.
    relax : float
        Part of the way back to the target that is taken at once when too little comes in.
    score_prior : (float, float)
        Range that each SMO's prior score is drawn from.
    score_priors : mapping of bus to float
        Priors known better.
    prior_weight, memory : float
        Of the scores, in market intervals.
    silent_after_s : float
        An SMO that was not heard for this long does not count as answering.
    operator : str
        Name of the market operator's agent.
    """

    interval_s: float = 60.0
    fixed_load_pu: float = 1.0
    sample_s: float = 4.0
    sigma_kw: float = 5.0
    false_alarm_days: float = 30.0
    learn_s: float = 120.0
    settle_s: float = 28.0
    tolerance: float = 0.0025
    mu_mw: float = 0.01
    max_clearings: int = 12
    relax: float = 0.5
    score_prior: Sequence[float] = (0.4, 1.0)
    score_priors: Mapping[str, float] = field(default_factory=dict)
    prior_weight: float = 20.0
    memory: float = 40.0
    silent_after_s: float = 12.0
    operator: str = "operator"

    def __post_init__(self) -> None:
        positive = ("interval_s", "sample_s", "sigma_kw", "false_alarm_days", "settle_s",
                    "tolerance", "mu_mw", "prior_weight", "silent_after_s")  # fmt: skip
        for name in positive:
            checked_number(name, getattr(self, name), low=0.0, open_low=True)
        checked_number("learn_s", self.learn_s, low=0.0)
        checked_number("relax", self.relax, low=0.0, high=1.0, open_low=True)
        checked_number("memory", self.memory, low=1.0, open_low=True)
        checked_number("max_clearings", self.max_clearings, low=1.0)
        _check_range("score_prior", self.score_prior, high=1.0)
        _check_factors("score_priors", self.score_priors, 0.0, 1.0)


def whole_steps(option: str, value_s: float, period_s: float, least: int = 1) -> int:
    """Return how many periods make up `value_s`.

    Raises
    ------
    ControllerError
        It is no whole number of them, or fewer than `least`.
    """
    steps = round(value_s / period_s)
    if steps < least or abs(steps * period_s - value_s) > 1e-6 * period_s:
        raise ControllerError(
            f"is {value_s:g} s with a period_s of {period_s:g}",
            where=f"option {option}",
            expected=f"a whole multiple of the federate's period_s, at least {least} times it",
        )
    return steps


def _check_range(name: str, pair: Any, high: float = math.inf, *, open_low: bool = False) -> None:
    numbers = isinstance(pair, list | tuple) and len(pair) == 2
    numbers = numbers and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in pair
    )
    if not numbers or not 0.0 <= pair[0] <= pair[1] <= high or (open_low and pair[0] == 0.0):
        bound = "" if math.isinf(high) else f" <= {high:g}"
        raise ControllerError(
            f"is {pair!r}",
            where=f"option {name}",
            expected=f"[low, high], finite, with 0 {'<' if open_low else '<='} low <= high{bound}",
        )


def _check_factors(name: str, table: Mapping[str, float], low: float, high: float) -> None:
    if not isinstance(table, Mapping):
        raise ControllerError(f"is {table!r}", where=f"option {name}", expected="a mapping")
    for key, value in table.items():
        checked_number(f"{name}.{key}", value, low=low, high=high)
