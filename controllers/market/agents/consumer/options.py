"""Options of the consumer market as a controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from controllers.core.errors import ControllerError
from controllers.core.options import ControllerOptions, checked_number, option, parse_options
from controllers.market.agents.options import check_range
from controllers.market.consumer.forecast_errors import ForecastErrors
from controllers.market.consumer.game import POLICIES
from controllers.market.consumer.plan_model import PlanOptions
from grid_models.base.errors import GridModelError, nearest_name

T = TypeVar("T")

_MINUTE_S, _HOURS = 60.0, 24


@dataclass(frozen=True, slots=True)
class ConsumerMarketOptions(ControllerOptions):
    """Options of the controller ``consumer-market``."""

    interval_s: float = option(
        1800.0, "Market interval, whole minutes; a step of a home's plan.", above=0.0, high=86400.0
    )
    horizon: int = option(48, "Intervals of a plan.", low=1)
    gate: int = option(
        2,
        "Steps between the first bid and the clearing; a bid is sent in each of them, in "
        "case of loss.",
        low=1,
    )
    gamma: Any = option(
        (0.1, 0.3),
        "Range of a home's disutility, money/(kW^2 h); drawn per home.",
        shown="two numbers",
    )
    request: Any = option(
        None,
        "Request of the grid per hour of the day, as a share of the flexibility offered: 1 is all "
        "upward, -1 all downward flexibility. None: drawn from `request_range`.",
        shown="24 numbers",
    )
    request_range: Any = option(
        (0.0, 0.9), "Range of the requests, which are drawn per interval.", shown="two numbers"
    )
    policy: str = option(
        "allow",
        "Negative prices: allowed, or floored at 0, where the operator covers what the "
        "budget lacks.",
        choices=POLICIES,
    )
    plans_know_price: bool = option(
        True,
        "Whether a home compares prices with the price of the grid, which its plan "
        "includes, or with "
        "0, as on the slides.",
    )
    forecast_errors: Mapping[str, Any] | None = option(
        None,
        "See `controllers.market.consumer.forecast_errors.ForecastErrors`; None: no errors.",
        shown="mapping",
    )
    plan: Mapping[str, Any] | None = option(
        None, "See `controllers.market.consumer.plan_model.PlanOptions`.", shown="mapping"
    )

    def check(self) -> None:
        """Check ranges, the table of requests and the mappings."""
        if self.interval_s % _MINUTE_S:
            raise ControllerError(
                f"is {self.interval_s:g} s", where="option interval_s", expected="whole minutes"
            )
        check_range("gamma", self.gamma, 1e6, open_low=True)
        check_range("request_range", self.request_range, 1.0, low=-1.0)
        if self.request is not None:
            if not isinstance(self.request, list | tuple) or len(self.request) != _HOURS:
                raise ControllerError(
                    f"is {self.request!r}", where="option request", expected="24 numbers"
                )
            for number in self.request:
                checked_number("request", number, low=-1.0, high=1.0)
        _ = self.errors, self.plan_options

    @property
    def errors(self) -> ForecastErrors:
        """Errors of the homes' forecasts."""
        return _parsed(ForecastErrors, self.forecast_errors, "forecast_errors")

    @property
    def plan_options(self) -> PlanOptions:
        """Weights of stage I."""
        return _parsed(PlanOptions, self.plan, "plan")


def _parsed(options_type: type[T], given: Mapping[str, Any] | None, name: str) -> T:
    _check_keys(name, given, [f.name for f in fields(options_type)])  # type: ignore[arg-type]
    try:
        return parse_options(options_type, given or {}, name)
    except GridModelError as error:
        raise ControllerError(error.what, where=f"option {name}", expected=error.expected) from None


def _check_keys(name: str, given: Any, known: Any) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise ControllerError(f"is {given!r}", where=f"option {name}", expected="a mapping")
    for key in given:
        if key not in known:
            raise ControllerError(
                f"no key is called '{key}'",
                where=f"option {name}",
                expected=", ".join(known),
                nearest=nearest_name(str(key), known),
            )
