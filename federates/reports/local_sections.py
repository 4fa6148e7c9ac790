"""A local market on a run's page: prices of each level, and operators with their agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from federates.reports.blocks import Block, Drawing, Figures, PageSection, Text
from federates.reports.chart import Chart, ShadedBand, in_rows, side_by_side, small_multiples
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
    local_markets,
    mean_band,
    mean_over_time,
    most_band,
    price_map,
    single,
    smo_of,
)
from federates.runs.data import RunData
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
_MAPS = {"lmp_per_kwh": "Mean locational price", "tariff_per_kwh": "Mean tariff"}
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
    prices = market.read_all(*PRICES)
    means = [curve(PRICES[port], f.mean(), _STYLES[port]) for port, f in prices.items()]
    charts = [market.chart("Prices, mean of each level", PRICE, means)] if means else []
    charts += _import_chart(market)
    if charts:
        blocks.append(in_rows(charts, 2))
    ranges = [_price_range(market, port, f) for port, f in prices.items() if len(f.labels) > 1]
    if ranges:
        blocks.append(side_by_side(ranges))
    maps = [] if feeder is None else _maps(prices, feeder)
    if maps:
        blocks.append(Figures(maps, 2))
    blocks += market.lacks(prices, tuple(PRICES))
    return PageSection("Local market: prices", blocks)


def _maps(prices: Mapping[str, Recorded], feeder: Feeder) -> list[Drawing]:
    """Return the mean prices on the feeder's map."""
    found = [
        price_map(title, feeder, prices[port], "money per kWh")
        for port, title in _MAPS.items()
        if port in prices
    ]
    return [figure for figure in found if figure is not None]


def _import_chart(market: LocalMarket) -> Iterator[Chart]:
    run = market.run
    totals = [(plant, plant.total("import_kw")) for plant in run.plants]
    bands = [curve(run.label(p, "metered"), total, "s1") for p, total in totals if total]
    scheduled = market.read("scheduled_import_kw")
    bands += [curve("scheduled", scheduled.total(), "s2")] if scheduled else []
    if bands:
        yield market.chart("Import", POWER, bands)


def _price_range(market: LocalMarket, port: str, found: Recorded) -> Chart:
    """Return the range of a level's prices; of homes, which are many, that of most of them."""
    words = PRICES[port]
    title = words[0].upper() + words[1:]
    if port == "home_price_per_kwh":
        return market.chart(title, PRICE, [most_band("homes", found, _STYLES[port])])
    return market.chart(title, PRICE, [mean_band("SMOs", found, _STYLES[port])])


def _operator_sections(market: LocalMarket) -> Iterator[PageSection]:
    """Show all operators in sum, then some of them with their agents."""
    found = market.read_all(*_SMO, *_SMA, _METERED, *_SCORES)
    prices = market.read_all(*_MAPS)
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
    paid = [curve(PRICES[p], f.of(mine).total(), _STYLES[p]) for p, f in prices.items()]
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
            means = f", means of {steps} steps" if steps > 1 else ""
            yield Text(f"{title} of each of its {len(smas)} agents{means}.")
            yield small_multiples(charts)


def _small(band: ShadedBand) -> ShadedBand:
    """Return a curve with the points of a small chart; without a range, that of their means."""
    spread = band.spread.decimated(_SMALL_POINTS)
    return replace(band, spread=spread if band.fill else single(spread.time_s, spread.mid))


def _labelled(name: str) -> Callable[[str], bool]:
    return lambda label: label == name
