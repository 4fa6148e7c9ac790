"""What the controller `local-market` recorded, as the pages of a run and of several runs use it.

Its agents may be split over several federates (``market_1``, ``market_2``); a port is then the
columns of all of them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal
from federates.reports.blocks import Drawing, Text
from federates.reports.chart import Chart, ShadedBand
from federates.reports.feeder import draw_map
from federates.runs.data import RunData, Spread
from grid_models.feeder.model import Feeder

PRICES = {
    "import_price_per_kwh": "import",
    "lmp_per_kwh": "locational price",
    "tariff_per_kwh": "tariff of SMOs",
    "home_price_per_kwh": "price of homes",
}
"""Ports with a price, from the top level down, and what they are."""

POWER, PRICE = "Power, kW", "Price, money per kWh"

_TELLS = ("import_price_per_kwh", "lmp_per_kwh", "tariff_per_kwh", "smo_bid_kw", "sma_bid_kw")
_MEAN = ("lowest", "mean", "highest")
_QUANTILES = ("10 %", "median", "90 %")
_CLASSES = 5


class Recorded(NamedTuple):
    """A port over time: `time_s` (n,), `labels` (m,), `values` (n, m)."""

    time_s: FloatArray
    labels: tuple[str, ...]
    values: FloatArray

    def of(self, chosen: Callable[[str], bool]) -> Recorded:
        """Return the elements whose label is chosen."""
        columns = [i for i, label in enumerate(self.labels) if chosen(label)]
        return Recorded(
            self.time_s, tuple(self.labels[i] for i in columns), self.values[:, columns]
        )

    def total(self) -> Spread:
        """Return the sum over the elements that have a value; a gap where none has."""
        some = np.where(np.isfinite(self.values).any(axis=1), 1.0, np.nan)
        return single(self.time_s, np.nansum(self.values, axis=1) * some)

    def mean(self) -> Spread:
        """Return the mean over the elements, as a curve."""
        return single(self.time_s, self.mean_and_range().mid)

    def mean_and_range(self) -> Spread:
        """Return the lowest, the mean and the highest element; a gap where there is none."""
        known = np.isfinite(self.values)
        count = known.sum(axis=1)
        some = np.where(count > 0, 1.0, np.nan)
        mean = np.where(known, self.values, 0.0).sum(axis=1) / np.maximum(count, 1) * some
        low = np.where(known, self.values, np.inf).min(axis=1) * some
        high = np.where(known, self.values, -np.inf).max(axis=1) * some
        return Spread(self.time_s, low, mean, high)

    def middle_80_percent(self) -> Spread:
        """Return the 10 % quantile, the median and the 90 % quantile of the elements."""
        known = np.isfinite(self.values).any(axis=1)
        rows = np.full((3, len(self.time_s)), np.nan)
        rows[:, known] = np.nanquantile(self.values[known], (0.1, 0.5, 0.9), axis=1)
        return Spread(self.time_s, *rows)


def read_begun(run: RunData, signals: Sequence[str]) -> Recorded | None:
    """Return signals of the same times as one; None where there is none, or all of it is zero.

    Steps in which all values are zero, before the first in which one is not, are NaN: the market
    had not begun.
    """
    parts = [read_signal(run.signals, signal) for signal in signals]
    rows = min((len(time_s) for time_s, *_ in parts), default=0)
    if not rows:
        return None
    labels = tuple(label for _, names, _ in parts for label in names)
    values = np.hstack([v[:rows] for *_, v in parts])
    begun = (np.nan_to_num(values) != 0.0).any(axis=1)
    if not begun.any():
        return None
    values[: int(np.argmax(begun))] = np.nan
    return Recorded(parts[0][0][:rows], labels, values)


class LocalMarket:
    """The recorded signals of one local market of a run.

    Parameters
    ----------
    name : The federate's name in the scenario.
    """

    def __init__(self, run: RunData, name: str) -> None:
        self.run, self.name = run, name
        part = re.compile(rf"{re.escape(name)}(_\d+)?")
        self._signals: dict[str, list[str]] = {}
        for signal in run.recorded:
            federate, _, port = signal.partition(".")
            if part.fullmatch(federate):
                self._signals.setdefault(port, []).append(signal)

    @property
    def signals(self) -> list[str]:
        """Names of its recorded signals."""
        return [signal for signals in self._signals.values() for signal in signals]

    def read(self, port: str) -> Recorded | None:
        """Return a port as `read_begun` does."""
        signals = sorted(self._signals.get(port, ()), key=_number)
        return read_begun(self.run, signals)

    def read_all(self, *ports: str) -> dict[str, Recorded]:
        """Return the ports that `read` gives."""
        found = {port: self.read(port) for port in ports}
        return {port: recorded for port, recorded in found.items() if recorded is not None}

    def chart(
        self,
        title: str,
        y_title: str,
        bands: Sequence[ShadedBand],
        include: Sequence[float] = (),
    ) -> Chart:
        """Return a chart of the market over the time of its run."""
        digits, run = 4 if y_title == PRICE else None, self.run
        return Chart(title, y_title, bands, (), include, run.start_s, digits, run.shade)

    def lacks(self, found: Mapping[str, object], wanted: Sequence[str]) -> Iterator[Text]:
        """Say which of the ports that a section wants were not recorded, or never had a value."""
        names = [f"{self.name}.{port}" for port in wanted if port not in found]
        if names:
            yield Text(
                f"Not recorded, or zero throughout, so left out here: {', '.join(names)}.",
                style="sub",
            )


def local_markets(run: RunData) -> list[LocalMarket]:
    """Return the local markets of a run: controllers that recorded a port of operators or agents.

    Homes alone are a consumer market, which has sections of its own.
    """
    specs = run.scenario.get("federates", {}).items()
    names = [name for name, spec in specs if spec.get("kind") == "controller"]
    found = [LocalMarket(run, name) for name in names]
    return [m for m in found if any(signal.partition(".")[2] in _TELLS for signal in m.signals)]


def curve(name: str, spread: Spread, style: str) -> ShadedBand:
    """Return a single curve."""
    return ShadedBand(name, spread, style, fill=False)


def mean_band(what: str, found: Recorded, style: str) -> ShadedBand:
    """Return the mean of a port's elements with their range; a line where there is one element."""
    if len(found.labels) == 1:
        return curve(what, found.mean_and_range(), style)
    return ShadedBand(f"{what}: mean and range", found.mean_and_range(), style, parts=_MEAN)


def middle_band(what: str, found: Recorded, style: str) -> ShadedBand:
    """Return the median of a port's elements and the range of the middle 80 % of them."""
    return ShadedBand(
        f"{what}: median, 10 to 90 %", found.middle_80_percent(), style, parts=_QUANTILES
    )


def without_outliers(band: ShadedBand) -> ShadedBand:
    """Return a curve without what lies far beyond the rest and would set the scale; it says so."""
    spread = band.spread
    rows = np.stack([spread.low, spread.mid, spread.high])
    if not np.isfinite(rows).any():
        return band
    low, high = np.nanquantile(rows, (0.05, 0.95))
    far = (rows < low - (high - low)) | (rows > high + (high - low))
    count = int(far.any(axis=0).sum())
    if not count:
        return band
    name = f"{band.name} ({count} of {len(spread.time_s)} samples lie beyond the axis)"
    kept = Spread(spread.time_s, *np.where(far, np.nan, rows))
    return replace(band, name=name, spread=kept)


def distinct(prices: Mapping[str, Recorded]) -> dict[str, tuple[str, Recorded]]:
    """Return the prices with their words; a tariff that equals the locational price is one."""
    words = dict(PRICES)
    lmp, tariff = prices.get("lmp_per_kwh"), prices.get("tariff_per_kwh")
    same = lmp and tariff and np.array_equal(lmp.values, tariff.values, equal_nan=True)
    if same:
        words["lmp_per_kwh"] += ", which is the tariff"
        del words["tariff_per_kwh"]
    return {port: (words[port], found) for port, found in prices.items() if port in words}


def bid_bands(
    found: Mapping[str, Recorded],
    ports: Sequence[str],
    chosen: Callable[[str], bool],
    set_words: str,
    metered: Recorded | None,
) -> list[ShadedBand]:
    """Return what chosen agents bid, were told and did, each in sum.

    Parameters
    ----------
    ports : Names of baseline, lowest and highest power of the bid, and of the set-point.
    """
    sums = {port: found[port].of(chosen).total() for port in ports if port in found}
    bid, low, high, told = (sums.get(port) for port in ports)
    bands = []
    if bid is not None and low is not None and high is not None:
        spread = Spread(bid.time_s, low.mid, bid.mid, high.mid)
        words = ("lowest", "baseline", "highest")
        bands.append(ShadedBand("bid: baseline and range", spread, "s1", parts=words))
    bands += [] if told is None else [curve(set_words, told, "s2")]
    bands += [] if metered is None else [curve("metered", metered.of(chosen).total(), "s4")]
    return bands


def price_map(
    title: str,
    feeder: Feeder,
    prices: Recorded,
    unit: str,
    span: tuple[float, float] | None = None,
) -> Drawing | None:
    """Return a map with each bus in the colour of its mean price, in classes of equal width.

    Parameters
    ----------
    prices : Its labels are operators, ``smo_BUS`` or the bus itself.
    span : Lowest and highest price of the classes; default: those of the map.
    """
    means = dict(zip(map(bus_of, prices.labels), mean_over_time(prices.values), strict=True))
    known = {bus: float(price) for bus, price in means.items() if np.isfinite(price)}
    if not known:
        return None
    low, high = span or (min(known.values()), max(known.values()))
    # Prices that differ by rounding only are one class.
    count = _CLASSES if high - low > 1e-9 * max(abs(low), abs(high)) else 1
    edges = np.linspace(low, high, count + 1)
    digits = 1 + max(0, -int(np.floor(np.log10((high - low) / count)))) if count > 1 else 4
    words = [f"{a:.{digits}f} to {b:.{digits}f}" for a, b in itertools.pairwise(edges)]
    classes = [(f"q{k}", words[k]) for k in range(count)]
    at = np.searchsorted(edges[1:-1], list(known.values()), side="right").tolist()
    states = {
        bus: (f"q{k}", f"{price:.{digits + 1}f} {unit}")
        for (bus, price), k in zip(known.items(), at, strict=True)
    }
    return draw_map(title, feeder, states, classes, f"Each bus in the colour of its price, {unit}")


def mean_over_time(values: FloatArray) -> FloatArray:
    """Return the mean of each column (n, m) -> (m,); NaN where it has no number."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def bus_of(smo: str) -> str:
    """Return the bus of an SMO, ``smo_BUS`` or at one of its terminals ``smo_BUS.PHASES``."""
    return smo.removeprefix("smo_").partition(".")[0]


def smo_of(sma: str) -> str:
    """Return the SMO of a secondary market agent, ``sma_BUS_K``."""
    return f"smo_{sma.removeprefix('sma_').rpartition('_')[0]}"


def single(time_s: FloatArray, values: FloatArray) -> Spread:
    """Return a curve as a spread."""
    return Spread(time_s, values, values, values)


def _number(signal: str) -> int:
    """Return which part of a split federate a signal is of."""
    last = signal.partition(".")[0].rpartition("_")[2]
    return int(last) if last.isdigit() else 0
