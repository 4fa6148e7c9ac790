"""Forecasts that are wrong: seeded errors, drawn per home by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controllers.market.consumer.batch_qp import Array
from controllers.market.consumer.homes import HomeForecast
from controllers.market.model.errors import MarketError
from grid_models.base.counter_rng import UIntArray, normal, stream_ids
from grid_models.base.options import Options, option


@dataclass(frozen=True)
class ForecastErrors(Options):
    """Standard deviations of a home's forecast errors; errors follow an AR(1) over the steps."""

    error = MarketError
    irradiance_std: float = option(0.0, "Of the irradiance, relative", low=0.0)
    base_std: float = option(0.0, "Of the consumption that is not planned, relative", low=0.0)
    price_std: float = option(0.0, "Of the price, relative", low=0.0)
    temp_std_k: float = option(0.0, "Of the outdoor temperature, K", low=0.0)
    persistence: float = option(0.9, "Correlation of one step to the next", low=0.0, high=1.0)


def with_errors(
    forecast: HomeForecast,
    names: Sequence[str],
    seed: int,
    day: int,
    errors: ForecastErrors,
) -> HomeForecast:
    """Return a forecast as each home believes it.

    The errors are a pure function of seed, home and time: they do not depend on the other homes,
    and two forecasts of one `day` share the draws of the steps that they share.

    Parameters
    ----------
    names : One per home.
    day : Which day `HomeForecast.start_s` belongs to.
    """
    if len(names) != forecast.shape[0]:
        raise MarketError(
            f"{len(names)} names", where="with_errors", expected=f"{forecast.shape[0]} homes"
        )
    streams = stream_ids(names)
    first = round((day * 86400.0 + forecast.start_s) / forecast.step_s)
    stds = errors.irradiance_std, errors.base_std, errors.price_std, errors.temp_std_k
    off = [
        std * _ar1(seed, streams, first, forecast.shape[1], channel, errors.persistence)
        for channel, std in enumerate(stds)
    ]
    return replace(
        forecast,
        irradiance_pu=np.clip(forecast.wide("irradiance_pu") * (1.0 + off[0]), 0.0, 1.0),
        base_kw=forecast.base_kw * np.maximum(1.0 + off[1], 0.0),
        price_per_kwh=forecast.wide("price_per_kwh") * (1.0 + off[2]),
        temp_c=forecast.wide("temp_c") + off[3],
    )


def _ar1(
    seed: int, streams: UIntArray, first: int, steps: int, channel: int, persistence: float
) -> Array:
    """Return a stationary AR(1) with standard deviation 1, (h, steps)."""
    counters = first + np.arange(steps, dtype=np.uint64)
    draws = normal(seed, streams[:, None], counters, 2 * channel)
    fresh = np.sqrt(1.0 - persistence**2)
    out = [draws[:, 0]]
    for k in range(1, steps):
        out.append(persistence * out[-1] + fresh * draws[:, k])
    return np.stack(out, axis=1)
