"""A local market on a run's page: prices of each level, and operators with their agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from federates.reports.blocks import Block, Figures, PageSection, Text
from federates.reports.chart import Chart, ShadedBand, in_rows, small_multiples
from federates.reports.feeder import feeder_of
from federates.reports.local_books import account_section, home_section, message_section
from federates.reports.local_market import (
    POWER,
    PRICE,
    PRICES,
    LocalMarket,
    Recorded,
    bid_bands,
    bus_of,
    curve,
    distinct,
    local_markets,
    mean_band,
    mean_over_time,
    middle_band,
    price_map,
    single,
    smo_of,
    without_outliers,
)
from federates.runs.data import RunData, Spread
from grid_models.feeder.model import Feeder

_SMO = ("smo_bid_kw", "smo_bid_min_kw", "smo_bid_max_kw", "smo_award_kw")
_SMA = ("sma_bid_kw", "sma_bid_min_kw", "sma_bid_max_kw", "sma_set_kw")
_METERED = "sma_metered_kw"
_SCORES = {
    "commitment_load": ("commitment, loads", "s1"),
    "commitment_pv": ("commitment, PV", "s2"),
    "commitment_storage": ("commitment, storage", "s3"),
    "trustability": ("trustability", "phase-other"),
    "resilience": ("resilience", "s4"),
}
_OF_SLIDES = ("smo_7", "smo_17")
"""The operators that the slides of the thesis show."""
_OF_SMOS = ("lmp_per_kwh", "tariff_per_kwh")
_FLEX = "home_flex_price_per_kwh"
_OF_HOMES = {"home_price_per_kwh": "Price of homes", _FLEX: "Price of homes' flexibility"}
_STYLES = dict(zip(PRICES, ("s3", "s1", "s2", "s4"), strict=True))
_SMALL_POINTS = 160


def local_market_sections(run: RunData) -> Iterator[PageSection]:
    """Show each local market of a run."""
    found = local_markets(run)
    for market in found:
        of = "" if len(found) == 1 else f"{market.name}: "
        feeder = feeder_of(run, market.name)
        sections = (
            _price_section(market, feeder),
            *_operator_sections(market),
            account_section(market),
            message_section(market),
            home_section(market, feeder),
        )
        for section in sections:
            if section.blocks:
                yield PageSection(of + section.title, section.blocks)


def _price_section(market: LocalMarket, feeder: Feeder | None) -> PageSection:
    """Show the prices of each level over time and on the map, and the import."""
    blocks: list[Block] = []
    prices = market.read_all(*PRICES, _FLEX)
    homes = {port: words for port, words in _OF_HOMES.items() if port in prices}
    levels = distinct({port: found for port, found in prices.items() if port in PRICES})
    lines = [
        curve(*_level(port, words, found), _STYLES[port]) for port, (words, found) in levels.items()
    ]
    charts = [market.chart("Prices of each level", PRICE, lines)] if lines else []
    charts += _import_chart(market)
    if charts:
        blocks.append(in_rows(charts, 2))
    of_smos = {port: level for port, level in levels.items() if port in _OF_SMOS}
    drawn = [
        market.chart(_title(words), PRICE, [mean_band("SMOs", found, _STYLES[port])]).drawing()
        for port, (words, found) in of_smos.items()
    ]
    for words, found in of_smos.values():
        title = f"{_title(words)}: mean"
        if feeder and (figure := price_map(title, feeder, found, "money per kWh")):
            drawn.append(figure)
    if drawn:
        blocks.append(Figures(drawn, 2, shared_axis=True))
    of_homes = [
        market.chart(title, PRICE, [without_outliers(middle_band("homes", prices[port], "s4"))])
        for port, title in homes.items()
    ]
    if of_homes:
        blocks.append(in_rows(of_homes, 2))
    blocks += market.lacks(prices, (*PRICES, _FLEX))
    return PageSection("Local market: prices", blocks)


def _level(port: str, words: str, found: Recorded) -> tuple[str, Spread]:
    """Return a level's price: the mean over its operators; of homes, whose prices can be far
    apart, the median.
    """
    if len(found.labels) == 1:
        return words, found.mean()
    if port not in _OF_HOMES:
        return f"{words}, mean", found.mean()
    median = found.middle_80_percent()
    return f"{words}, median", single(median.time_s, median.mid)


def _title(words: str) -> str:
    return words[0].upper() + words[1:]


def _import_chart(market: LocalMarket) -> Iterator[Chart]:
    run = market.run
    totals = [(plant, plant.total("import_kw")) for plant in run.plants]
    bands = [curve(run.label(p, "metered"), total, "s1") for p, total in totals if total]
    scheduled = market.read("scheduled_import_kw")
    bands += [curve("scheduled", scheduled.total(), "s2")] if scheduled else []
    if bands:
        yield market.chart("Import", POWER, bands)


def _operator_sections(market: LocalMarket) -> Iterator[PageSection]:
    """Show all operators in sum, then some of them with their agents."""
    found = market.read_all(*_SMO, *_SMA, _METERED, *_SCORES)
    prices = market.read_all(*_OF_SMOS)
    blocks: list[Block] = []
    if bands := bid_bands(found, _SMO, lambda label: True, "award", found.get(_METERED)):
        blocks.append(in_rows([market.chart("All SMOs in sum", POWER, bands)]))
    blocks += market.lacks(found, (*_SMO, *_SMA, _METERED, *_SCORES))
    yield PageSection("Local market: bids, awards and response", blocks)
    for smo in _shown(found):
        yield _operator_section(market, smo, found, prices)


def _shown(found: Mapping[str, Recorded]) -> list[str]:
    """Return the operators of the slides, and the one with the largest range of its bids."""
    labels = next((found[port].labels for port in _SMO if port in found), ())
    shown = [smo for smo in _OF_SLIDES if smo in labels]
    low, high = found.get("smo_bid_min_kw"), found.get("smo_bid_max_kw")
    if low and high:
        room = np.nan_to_num(mean_over_time(high.values - low.values), nan=-1.0)
        shown.append(high.labels[int(np.argmax(room))])
    return list(dict.fromkeys(shown or labels[:1]))


def _operator_section(
    market: LocalMarket, smo: str, found: Mapping[str, Recorded], prices: Mapping[str, Recorded]
) -> PageSection:
    """Show an operator's bid, award, response and prices, and those of its agents."""
    mine = _labelled(smo)
    metered = found.get(_METERED)
    bands = bid_bands(found, _SMO, mine, "award", None)
    if metered is not None:
        of_smo = metered.of(lambda sma: smo_of(sma) == smo)
        bands.append(curve("metered, its agents in sum", of_smo.total(), "s4"))
    charts = [market.chart("Bid, award and response", POWER, bands)] if bands else []
    own = distinct({port: found.of(mine) for port, found in prices.items()})
    paid = [curve(words, f.total(), _STYLES[port]) for port, (words, f) in own.items()]
    charts += [market.chart("Prices", PRICE, paid)] if paid else []
    blocks: list[Block] = [in_rows(charts, 2)] if charts else []
    blocks += _agents(market, smo, found)
    return PageSection(f"Local market: SMO {bus_of(smo)}", blocks)


def _agents(market: LocalMarket, smo: str, found: Mapping[str, Recorded]) -> Iterator[Block]:
    """Show the bids, schedules, responses and scores of an operator's agents, small."""
    ports = [port for port in (*_SMA, _METERED, *_SCORES) if port in found]
    smas = [sma for sma in found[ports[0]].labels if smo_of(sma) == smo] if ports else []
    powers = {
        sma: bid_bands(found, _SMA, _labelled(sma), "schedule", found.get(_METERED)) for sma in smas
    }
    scores = {
        sma: [
            curve(words, found[port].of(_labelled(sma)).total(), style)
            for port, (words, style) in _SCORES.items()
            if port in found
        ]
        for sma in smas
    }
    for title, unit, of_agents in (("Power, kW,", POWER, powers), ("Scores", "Score", scores)):
        include = (1.0,) if of_agents is scores else ()
        charts = [
            market.chart(sma, unit, [_small(band) for band in bands], include)
            for sma, bands in of_agents.items()
            if bands
        ]
        if charts:
            steps = -(-len(found[ports[0]].time_s) // _SMALL_POINTS)
            means = f", means of {steps} recorded steps" if steps > 1 else ""
            yield Text(f"{title} of each of its {len(smas)} agents{means}.")
            yield small_multiples(charts)


def _small(band: ShadedBand) -> ShadedBand:
    """Return a curve with the points of a small chart; without a range, that of their means."""
    spread = band.spread.decimated(_SMALL_POINTS)
    return replace(band, spread=spread if band.fill else single(spread.time_s, spread.mid))


def _labelled(name: str) -> Callable[[str], bool]:
    return lambda label: label == name
