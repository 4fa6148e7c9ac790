"""Forecasts of a consumer market: weather, price and requests of the intervals ahead."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.market.agents.consumer.options import ConsumerMarketOptions
from controllers.market.consumer.forecast_errors import with_errors
from controllers.market.consumer.homes import HomeForecast
from grid_models.base import counter_rng

_MINUTE_S, _HOUR_S, _DAY_S, _HOURS = 60.0, 3600.0, 86_400.0, 24


class Outlook:
    """The site's day, averaged over market intervals; interval 0 begins at the run's time 0."""

    def __init__(self, site: ControlSite, options: ConsumerMarketOptions) -> None:
        self._site, self._options = site, options
        self._streams = counter_rng.stream_ids(["request"])

    def window(self, interval: int, count: int) -> dict[str, FloatArray]:
        """Return the columns of `count` intervals from `interval` on, each (count,)."""
        step_s = self._options.interval_s
        minutes = np.arange(0.0, count * step_s, _MINUTE_S) + interval * step_s
        fine = self._site.forecast(minutes)
        return {name: values.reshape(count, -1).mean(axis=1) for name, values in fine.items()}

    def forecast(self, names: tuple[str, ...], base_kw: FloatArray, interval: int) -> HomeForecast:
        """Return what homes expect from `interval` on.

        Parameters
        ----------
        base_kw : (h,). Consumption of each home at nominal load that is not planned.
        """
        options = self._options
        day, at_s = divmod(self._site.start_s + interval * options.interval_s, _DAY_S)
        known = self.window(interval, options.horizon)
        exact = HomeForecast(
            step_s=options.interval_s,
            start_s=at_s,
            irradiance_pu=np.clip(known["irradiance_pu"], 0.0, 1.0),
            temp_c=known["temp_c"],
            base_kw=base_kw[:, None] * known["load_pu"],
            price_per_kwh=known["price_per_kwh"],
        )
        return with_errors(exact, names, self._site.seed, int(day), options.errors)

    def price(self, interval: int) -> float:
        """Return the price of the grid, money per kWh."""
        return float(self.window(interval, 1)["price_per_kwh"][0])

    def request(self, interval: int) -> float:
        """Return what the grid asks for, as a part of what is offered."""
        options = self._options
        if options.request is not None:
            hour = (self._site.start_s + interval * options.interval_s) // _HOUR_S
            return float(options.request[int(hour) % _HOURS])
        low, high = options.request_range
        uniform = counter_rng.uniform(self._site.seed, self._streams, interval, 0)
        return float(low + (high - low) * uniform[0])
