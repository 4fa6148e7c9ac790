"""Options of the market and of the resilience manager, with their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.core.errors import ControllerError
from controllers.core.options import ControllerOptions, checked_number, option


@dataclass(frozen=True)
class MarketOptions(ControllerOptions):
    """Options of the controller ``market``.

    Attributes
    ----------
    generator_cost : mapping of glob to float
        Marginal cost at full output by name of the DER, money per MWh.
    load_costs : mapping of bus to float
        Marginal cost at full curtailment of SMOs that do not draw it from `load_cost`.
    unfaithful : mapping of bus to float
        SMOs that promise more than they deliver: the part that their devices do, 0 to 1.
    overstated : mapping of bus to float
        SMOs that bid more flexibility than they have: the factor.
    clearing_options : mapping
        Options of the algorithm.
    """

    interval_s: float = option(
        60.0,
        "Market period: between two clearings. A multiple of the controller's own period, "
        "at least four of them: bids, clearing, awards and their way to the devices take a "
        "step each.",
        above=0.0,
    )
    gate: int = option(
        2,
        "Steps after the beginning of an interval at which it is cleared; bids are sent "
        "every step, so a gate of 2 forgives one lost bid.",
        low=1,
    )
    import_price: float = option(60.0, "Money per MWh at the point of common coupling.", above=0.0)
    loss_price: float = option(3.0, "xi, money per MWh of losses.", low=0.0)
    generator_cost: Mapping[str, float] = field(default_factory=lambda: {"*": 72.0})
    load_cost: Sequence[float] = option(
        (144.6, 397.8),
        "Range that each SMO's marginal cost at full curtailment is drawn from, money per "
        "MWh; above 0, for what costs nothing has no best amount.",
        shown="[low, high]",
    )
    load_costs: Mapping[str, float] = field(default_factory=dict)
    fixed_load_pu: float = option(
        1.0,
        "Multiple of nominal at which the feeder's own loads stand (``grid.load_scale``).",
        low=0.0,
    )
    follow_demand: bool = option(
        False,
        "Whether there is an input ``demand_pu`` per flexible load, its demand as a "
        "multiple of nominal; without it demand is taken to be nominal.",
    )
    response_s: float = option(
        0.0,
        "Time constant with which devices follow a set-point; 0: at once.",
        low=0.0,
    )
    response_error: float = option(
        0.0,
        "Standard deviation of the error of what a device does, relative to what it was "
        "asked to change, drawn once per device and interval.",
        low=0.0,
    )
    unfaithful: Mapping[str, float] = field(default_factory=dict)
    overstated: Mapping[str, float] = field(default_factory=dict)
    silent_after_s: float = option(
        12.0,
        "An SMO that was not heard for this long is no longer dispatched.",
        above=0.0,
    )
    trust_silent: bool = option(
        True,
        "Whether a silent SMO is assumed to follow its last award. False, for an island: its "
        "generation counts as zero, and its load as curtailable within its bid, since the relay of "
        "the grid-forming unit sheds what no award reaches; the operator clears at once when an "
        "SMO falls silent or returns. For clearings at one place only.",
    )
    manager: str | None = option(
        None,
        "Name of the resilience manager's agent; None: there is none.",
    )
    clearing: str = option(
        "central",
        "How the market is cleared: 'central', 'pac', 'pac-anchored', 'nst-pac', 'admm', "
        "'three-phase', 'three-phase-mccormick', 'three-phase-admm', or ``module:Class`` "
        "(`controllers.market.clearing`). A three-phase market has an SMO per connection point "
        "(bus, phases, wye or delta).",
    )
    clearing_options: Mapping[str, Any] = field(default_factory=dict)
    import_min_kw: float | None = option(
        None,
        "Three-phase clearing: least import, such as 0 for a grid-forming unit; None: any.",
    )
    import_max_kw: float | None = option(
        None, "Three-phase clearing: largest import, such as a unit's rating; None: any."
    )
    critical_load_pu: float = option(
        0.0,
        "Three-phase clearing: part of each flexible load's demand that is critical: not offered, "
        "and shed only at `shed_price`.",
        low=0.0,
        high=1.0,
    )
    shed_price: float | None = option(
        None,
        "Three-phase clearing: value of lost load, money per MWh. At this price the operator sheds "
        "critical load where no other dispatch is left; None: it sheds none.",
        above=0.0,
    )
    mail_rounds: int = option(
        40,
        "Distributed clearing: steps of the controller within a ``period_s``, each a round "
        "of mail between buses or areas.",
        low=1,
    )
    agreed_kw: float = option(
        0.5,
        "Distributed clearing: the buses stop when none's balances are off by more than "
        "this, kW and kvar (voltages: per mille), and no reduced cost is more than this "
        "part of the import price.",
        above=0.0,
    )
    agreed_price: float = option(
        1e-3,
        "Distributed clearing: the buses stop when none's balances are off by more than "
        "this, kW and kvar (voltages: per mille), and no reduced cost is more than this "
        "part of the import price.",
        above=0.0,
    )
    start_rounds: int | None = option(
        None,
        "Distributed clearing: rounds of sweeps before the first iteration; default two and "
        "a half times the depth of the tree, and two. Twice as many in the first clearing "
        "of all.",
        low=1,
    )

    def check(self) -> None:
        """Check ranges and tables."""
        if not isinstance(self.clearing_options, Mapping):
            raise ControllerError(
                f"is {self.clearing_options!r}",
                where="option 'clearing_options'",
                expected="a mapping of the algorithm's options",
            )
        low, high = self.import_min_kw, self.import_max_kw
        if low is not None and high is not None and low > high:
            raise ControllerError(
                f"is {low:g}",
                where="option import_min_kw",
                expected=f"at most import_max_kw, {high:g}",
            )
        check_range("load_cost", self.load_cost, open_low=True)
        check_factors("generator_cost", self.generator_cost, 0.0, math.inf)
        check_factors("load_costs", self.load_costs, math.ulp(0.0), math.inf)
        check_factors("unfaithful", self.unfaithful, 0.0, 1.0)
        check_factors("overstated", self.overstated, 0.0, math.inf)


@dataclass(frozen=True)
class ManagerOptions(ControllerOptions):
    """Options of the controller ``resilience-manager``.

    Attributes
    ----------
    score_priors : mapping of bus to float
        Priors known better.
    """

    market: str = option(
        "market",
        "Controller whose operators are watched: a shipped name, or ``module:Class``.",
    )
    interval_s: float = option(60.0, "Market period, as the market has it.", above=0.0)
    fixed_load_pu: float = option(
        1.0,
        "As the market has it: nodes with fixed load only have an SMO, too.",
    )
    clearing: str = option(
        "central",
        "As the market has it: a three-phase market has an SMO per connection point.",
    )
    sample_s: float = option(
        4.0,
        "How often the import is a new measurement (the feeder's step).",
        above=0.0,
    )
    sigma_kw: float = option(
        5.0,
        "Standard deviation of import against schedule when nothing is wrong, at its worst: "
        "at the end of an interval in the hour in which the load moves most.",
        above=0.0,
    )
    false_alarm_days: float = option(
        30.0,
        "Mean time between false alarms; the detector's thresholds follow from it.",
        above=0.0,
    )
    learn_s: float = option(
        120.0,
        "Time from the start in which the schedule's constant error is learnt; no alarms before.",
        low=0.0,
    )
    bias_samples: float = option(
        150.0,
        "Measurements that the schedule's constant error is averaged over. Many, for errors that "
        "stay; few, where the error moves: then steps of the import are found, and no slow rise.",
        low=1.0,
    )
    settle_s: float = option(
        28.0,
        "Time devices are given to follow before the import is judged again; four to five "
        "times their response time.",
        above=0.0,
    )
    confirm_s: float = option(
        0.0,
        "Least time from an alarm to the first search, in which others may respond first; never "
        "less than `silent_after_s`.",
        low=0.0,
    )
    tolerance: float = option(0.0025, "Relative to the import before the attack.", above=0.0)
    target_offset_kw: float = option(
        0.0,
        "Added to the import before the attack to give the target; below 0 where the feeder is to "
        "draw less than before.",
        high=0.0,
    )
    mu_mw: float = option(0.01, "First mu, in MW.", above=0.0)
    max_clearings: int = option(12, "Of one search.", low=1.0)
    relax: float = option(
        0.5,
        "Part of the way back to the target that is taken at once when too little comes in.",
        above=0.0,
        high=1.0,
    )
    score_prior: Sequence[float] = option(
        (0.4, 1.0),
        "Range that each SMO's prior score is drawn from.",
        shown="[low, high]",
    )
    score_priors: Mapping[str, float] = field(default_factory=dict)
    prior_weight: float = option(20.0, "Of the scores, in market intervals.", above=0.0)
    memory: float = option(40.0, "Of the scores, in market intervals.", above=1.0)
    silent_after_s: float = option(
        12.0,
        "An SMO that was not heard for this long does not count as answering.",
        above=0.0,
    )
    operator: str = option("operator", "Name of the market operator's agent.")

    def check(self) -> None:
        """Check ranges and tables."""
        check_range("score_prior", self.score_prior, high=1.0)
        check_factors("score_priors", self.score_priors, 0.0, 1.0)


def whole_steps(
    option: str, value_s: float, period_s: float, least: int = 1, period: str = "period_s"
) -> int:
    """Return how many periods make up `value_s`; `period` is what messages call it.

    Raises
    ------
    ControllerError
        It is no whole number of them, or fewer than `least`.
    """
    steps = round(value_s / period_s)
    if steps < least or abs(steps * period_s - value_s) > 1e-6 * period_s:
        raise ControllerError(
            f"is {value_s:g} s with {period} of {period_s:g}",
            where=f"option {option}",
            expected=f"a whole multiple of {period}, at least {least} times it",
        )
    return steps


def check_range(
    name: str, pair: Any, high: float = math.inf, *, low: float = 0.0, open_low: bool = False
) -> None:
    """Raise where an option is no pair [low, high] of numbers from `low` to `high`."""
    numbers = isinstance(pair, list | tuple) and len(pair) == 2
    numbers = numbers and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in pair
    )
    if not numbers or not low <= pair[0] <= pair[1] <= high or (open_low and pair[0] == low):
        bound = "" if math.isinf(high) else f" <= {high:g}"
        raise ControllerError(
            f"is {pair!r}",
            where=f"option {name}",
            expected=f"[low, high], finite, with {low:g} {'<' if open_low else '<='} low <= high"
            + bound,
        )


def check_factors(name: str, table: Mapping[str, float], low: float, high: float) -> None:
    """Raise where an option is no mapping to numbers from `low` to `high`."""
    if not isinstance(table, Mapping):
        raise ControllerError(f"is {table!r}", where=f"option {name}", expected="a mapping")
    for key, value in table.items():
        checked_number(f"{name}.{key}", value, low=low, high=high)
