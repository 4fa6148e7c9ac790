"""Synthetic weather, load and price of one day or more: documented, seeded, no download.

Everything is made at 1 s and averaged to the asked step, so one seed is one physical day whatever
the resolution. `time_s` is local solar time since midnight of the first day: the sun stands
highest at 43200 s.

Sources: solar geometry as in Duffie and Beckman, Solar Engineering of Thermal Processes, eqs.
1.6.1a and 1.6.5; clear-sky irradiance of Haurwitz (J. Meteorology 2, 1945), as in pvlib. Cloud,
temperature, load and price processes are this project's own; their parameters are the tables below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from grid_models.base.counter_rng import stream_id
from grid_models.base.errors import ProfileError, nearest_name

SkyKind = Literal["clear", "cloudy", "overcast"]
DAY_S = 86_400

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sky:
    """Cloud process of one kind of sky.

    A latent sum of two Ornstein-Uhlenbeck processes (cloud fields of `field_tau_s`, single clouds
    of `cloud_tau_s`) is squashed to a cover in 0..1 round the level `threshold`; `sharpness` sets
    how steep an edge is. The clear-sky index is ``kc_open`` without cover and ``kc_shaded`` under
    it; `edge_gain` adds light reflected by cloud edges. `swing` scales the day's temperature range.
    """

    kc_open: float
    kc_shaded: float
    threshold: float
    sharpness: float
    field_tau_s: float
    cloud_tau_s: float
    edge_gain: float
    swing: float


SKIES: dict[str, Sky] = {
    "clear": Sky(1.0, 0.97, 2.5, 1.0, 7200.0, 900.0, 0.0, 1.0),
    "cloudy": Sky(1.0, 0.30, 0.2, 6.0, 5400.0, 240.0, 0.5, 0.8),
    "overcast": Sky(0.45, 0.15, 0.0, 1.2, 7200.0, 1200.0, 0.0, 0.45),
}
# An edge passes over a plant's roofs, not over a point sensor: 10 s at 10 m/s is 100 m.
SMOOTHING_S = 10

# Residential demand by hour 0..23, share of the evening peak; own drawing after the usual two-peak
# shape (morning 7-8 h, evening 19-20 h, night valley 3-4 h).
LOAD_BY_HOUR = (
    0.46, 0.41, 0.38, 0.37, 0.38, 0.43, 0.55, 0.66, 0.66, 0.62, 0.60, 0.60,
    0.61, 0.60, 0.60, 0.62, 0.68, 0.79, 0.92, 1.00, 0.98, 0.88, 0.72, 0.57,
)  # fmt: skip
# Slopes per hour of the periodic cubic spline through it, as scipy.interpolate.CubicSpline gives
# them; a test compares. The import of scipy.interpolate takes longer than a short run.
LOAD_SLOPE_BY_HOUR = (
    -0.07752643341114844, -0.03536309286568356, -0.021021195126117383, -0.0005521266298468386,
    0.023229701645504742, 0.08763332004782785, 0.136237018163184, 0.057418607299436306,
    -0.03591144736092923, -0.03377281785571944, -0.008997281216193139, 0.009761942720491952,
    -5.048966577463987e-05, -0.009559984057393391, 0.00829042589534818, 0.03639828047600073,
    0.08611645220064912, 0.12913591072140293, 0.11733990491373911, 0.03150446962364056,
    -0.06335778340830152, -0.13807333599043445, -0.16434887262996078, -0.13453117348972263,
)  # fmt: skip
# Price by hour 0..23 in currency/kWh: cheap midday sun, dear evening ramp; own drawing.
PRICE_BY_HOUR = (
    0.14, 0.13, 0.13, 0.13, 0.14, 0.16, 0.19, 0.20, 0.17, 0.13, 0.10, 0.09,
    0.08, 0.08, 0.09, 0.11, 0.16, 0.24, 0.32, 0.35, 0.32, 0.26, 0.20, 0.16,
)  # fmt: skip


def clear_sky_irradiance_pu(time_s: Array, latitude_deg: float, day_of_year: int) -> Array:
    """Return the global horizontal irradiance under a clear sky, 1000 W/m2, (n,).

    ``sin(elevation) = sin(lat) sin(decl) + cos(lat) cos(decl) cos(hour angle)`` with Cooper's
    ``decl = 23.45 deg sin(360 deg (284 + n) / 365)``, and Haurwitz'
    ``ghi = 1098 W/m2 * s * exp(-0.057 / s)`` for ``s = sin(elevation) > 0``.

    Parameters
    ----------
    time_s : ndarray, shape (n,)
        Local solar time in s since midnight of `day_of_year`; later days go on from there.
    latitude_deg : North positive, degrees.
    day_of_year : 1 to 366.

    """
    day = day_of_year + np.floor(time_s / DAY_S)
    declination = np.deg2rad(23.45) * np.sin(2.0 * np.pi * (284.0 + day) / 365.0)
    hour_angle = 2.0 * np.pi * (time_s / DAY_S - 0.5)
    lat = np.deg2rad(latitude_deg)
    sine = np.sin(lat) * np.sin(declination)
    sine += np.cos(lat) * np.cos(declination) * np.cos(hour_angle)
    lit = sine > 1e-3
    safe = np.where(lit, sine, 1.0)
    return np.where(lit, 1.098 * safe * np.exp(-0.057 / safe), 0.0)


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a random stream of its own for each purpose, so that none shifts another."""
    return np.random.Generator(np.random.PCG64([seed, stream_id(purpose)]))


@lru_cache(maxsize=1)
def _unit_rows(n: int) -> tuple[Array, Array, NDArray[np.int32]]:
    """Return diagonal, upper diagonal and pivots of a unit lower bidiagonal matrix."""
    return np.ones(n), np.zeros(n - 1), np.arange(1, n + 1, dtype=np.int32)


def _ornstein_uhlenbeck(rng: np.random.Generator, n: int, tau_s: float) -> Array:
    """Return a stationary process of unit variance and correlation time `tau_s`, sampled at 1 s."""
    decay = np.exp(-1.0 / tau_s)
    noise = rng.standard_normal(n)
    noise[1:] *= np.sqrt(1.0 - decay * decay)
    # y[k] = decay y[k - 1] + x[k] as the solution of a lower bidiagonal system: the bits of a loop
    # and of scipy.signal.lfilter, whose import takes longer than a short run.
    from scipy.linalg.lapack import dgttrs

    one, none, rows = _unit_rows(n)
    y, _ = dgttrs(np.full(n - 1, -decay), one, none, none[1:], rows, noise)
    return np.asarray(y, dtype=np.float64)


def _smooth(values: Array, width: int) -> Array:
    """Return the running mean over the last `width` samples (fewer at the start)."""
    total = np.cumsum(values)
    total[width:] = total[width:] - total[:-width]
    total /= np.minimum(np.arange(1, len(values) + 1), width)
    return total


def _clear_sky_index(n: int, kind: str, seed: int) -> Array:
    """Return irradiance over clear-sky irradiance at 1 s, shape (n,)."""
    sky = SKIES[kind]
    rng = _stream(seed, f"sky/{kind}")
    latent = 0.8 * _ornstein_uhlenbeck(rng, n, sky.field_tau_s)
    latent += 0.6 * _ornstein_uhlenbeck(rng, n, sky.cloud_tau_s)
    cover = 1.0 / (1.0 + np.exp(-sky.sharpness * (latent - sky.threshold)))
    index = sky.kc_open + (sky.kc_shaded - sky.kc_open) * cover
    # Reflection is strongest beside a cloud, where the cover is small but not nil.
    index += sky.edge_gain * cover * (1.0 - cover) ** 4
    return _smooth(index, SMOOTHING_S)


# What is the same in every day of every seed is computed once in a process.
_SECONDS = np.arange(DAY_S, dtype=np.float64)


@cache
def _warmth() -> Array:
    """Return the daily wave of the temperature at 1 s, 1 at 15 h."""
    return np.cos(2.0 * np.pi * (_SECONDS / 3600.0 - 15.0) / 24.0)


@cache
def _fade() -> Array:
    """Return 1 by day and 0 at midnight, so that noise drawn day by day meets without a jump."""
    return np.minimum(1.0, np.minimum(_SECONDS, DAY_S - _SECONDS) / 1800.0)


@cache
def _demand() -> Array:
    """Return `load_shape` at 1 s."""
    return load_shape((_SECONDS / 3600.0) % 24.0)


@lru_cache(maxsize=4)
def _sun(day: int, latitude_deg: float, day_of_year: int) -> Array:
    """Return the clear sky's irradiance at 1 s, `day` days after `day_of_year`."""
    return clear_sky_irradiance_pu(_SECONDS + day * DAY_S, latitude_deg, day_of_year)


def _temperature(kind: str, seed: int, mean_c: float, amplitude_k: float) -> Array:
    """Return outdoor temperature at 1 s: a daily wave, highest at 15 h, plus slow weather noise."""
    noise = _smooth(_ornstein_uhlenbeck(_stream(seed, "temperature"), DAY_S, 7200.0), 300)
    return mean_c + SKIES[kind].swing * amplitude_k * _warmth() + 0.5 * noise * _fade()


def load_shape(hours: Array) -> Array:
    """Return the periodic cubic spline through `LOAD_BY_HOUR` at `hours` in [0, 24)."""
    y, slope = np.array(LOAD_BY_HOUR), np.array(LOAD_SLOPE_BY_HOUR)
    rise = np.roll(y, -1) - y
    cubic = slope + np.roll(slope, -1) - 2.0 * rise
    square = rise - slope - cubic
    i = hours.astype(np.int64)
    s = hours - i
    shape: Array = y[i] + slope[i] * s + square[i] * (s * s) + cubic[i] * (s * s * s)
    return shape


def _load(seed: int, peak_pu: float) -> Array:
    """Return the residential shape at 1 s, evening peak near `peak_pu`, with 1.5 % slow noise."""
    noise = _smooth(_ornstein_uhlenbeck(_stream(seed, "load"), DAY_S, 600.0), 30)
    return peak_pu * _demand() * np.exp(0.015 * noise * _fade())


def _price(time_s: Array, seed: int) -> Array:
    """Return the price at 1 s: constant inside an hour, 5 % log-normal noise from hour to hour."""
    hour = (time_s // 3600.0).astype(np.int64)
    noise = _stream(seed, "price").standard_normal(int(hour[-1]) + 1)
    return np.asarray(PRICE_BY_HOUR)[hour % 24] * np.exp(0.05 * noise)[hour]


_LIMITS = {
    "step_s": (1, 900, " s"),
    "duration_s": (1, 366 * DAY_S, " s"),
    "seed": (0, 2**63 - 1, ""),
    "latitude_deg": (-90, 90, " degrees"),
    "day_of_year": (1, 366, ""),
    "temp_mean_c": (-40, 50, " degrees C"),
    "temp_amplitude_k": (0, 30, " K"),
    "load_peak_pu": (0, 10, ""),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a generated day depends on; see `Profiles.generate`."""

    kind: str
    seed: int
    latitude_deg: float
    day_of_year: int
    temp_mean_c: float
    temp_amplitude_k: float
    load_peak_pu: float


def synthesise(recipe: Recipe, step_s: int, duration_s: int) -> dict[str, Array]:
    """Return the columns of a generated profile, each (ceil(duration_s / step_s),).

    `time_s` is the start of each interval, the other columns are means over it.

    Raises ProfileError: A parameter is out of range.
    """
    where = "profile generation"
    if recipe.kind not in SKIES:
        raise ProfileError(
            f"unknown kind of day '{recipe.kind}'",
            where=where,
            expected=" | ".join(get_args(SkyKind)),
            nearest=nearest_name(recipe.kind, SKIES),
        )
    if int(step_s) != step_s or int(duration_s) != duration_s:
        raise ProfileError(
            f"step_s is {step_s}, duration_s is {duration_s}", where=where, expected="whole seconds"
        )
    given = {"step_s": step_s, "duration_s": duration_s}
    for name, (low, high, unit) in _LIMITS.items():
        value = given[name] if name in given else getattr(recipe, name)
        if not low <= value <= high:
            expected = f"a number from {low:g} to {high:g}{unit}"
            raise ProfileError(f"{name} is {value}", where=where, expected=expected)
    step, n_steps = int(step_s), -(-int(duration_s) // int(step_s))
    # Whole days, so that a longer run of the same seed starts with the same day.
    days = [_day(recipe, day) for day in range(-(-n_steps * step // DAY_S))]
    columns = {"time_s": np.arange(n_steps, dtype=np.float64) * step}
    for name in days[0]:
        fine = np.concatenate([day[name] for day in days])[: n_steps * step]
        columns[name] = fine.reshape(n_steps, step).mean(axis=1)
    return columns


def _day(recipe: Recipe, day: int) -> dict[str, Array]:
    """Return the 1 s columns of one day, which does not depend on how many days follow."""
    r = recipe
    key = stream_id(f"{r.seed}/day {day}") >> 1
    sun = _sun(day, r.latitude_deg, r.day_of_year)
    return {
        "irradiance_pu": sun * _clear_sky_index(DAY_S, r.kind, key),
        "temp_c": _temperature(r.kind, key, r.temp_mean_c, r.temp_amplitude_k),
        "load_pu": _load(key, r.load_peak_pu),
        "price_per_kwh": _price(_SECONDS, key),
    }
