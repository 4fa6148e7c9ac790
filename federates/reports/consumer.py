"""A consumer market on a run's page: injections, prices, money, and homes beside their plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal, signal_labels
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.books import once_cleared
from federates.reports.chart import Chart, ShadedBand, in_rows
from federates.reports.feeder import load_run_feeder
from federates.runs.data import RunData, Spread
from grid_models.ders.homes import homes_of

_CONTROLLER, _CMO = "consumer-market", "cmo"
_HOMES = 6
_KINDS = {
    "pv": "PV",
    "battery": "Battery",
    "vehicle": "Electric vehicle",
    "house": "House with its heat pump",
}


class _Curve(NamedTuple):
    """One element of a signal over time."""

    time_s: FloatArray
    value: FloatArray

    def band(self, name: str, style: str) -> ShadedBand:
        return ShadedBand(name, Spread(self.time_s, *(self.value,) * 3), style, fill=False)


class _Market:
    """What a consumer market recorded, over the federates that it is split over."""

    def __init__(self, run: RunData, name: str) -> None:
        self.run, self.name = run, name
        self.signals = [s for s in run.recorded if self._is_mine(s.partition(".")[0])]
        self._plant_time: FloatArray | None = None

    def _is_mine(self, federate: str) -> bool:
        rest = federate.removeprefix(self.name)
        return federate.startswith(self.name) and (not rest or rest[1:].isdigit())

    @property
    def plant(self) -> str:
        """Name of the plant whose meters it reads."""
        for wire in self.run.scenario.get("connections", ()):
            if wire["target"] == f"{self.name}.p_kw":
                return str(wire["source"].partition(".")[0])
        return ""

    def labels(self, port: str) -> list[str]:
        """Return all labels of a port."""
        mine = [s for s in self.signals if s.partition(".")[2] == port]
        return [label for s in mine for label in signal_labels(self.run.signals, s)]

    def curve(self, port: str, label: str) -> _Curve | None:
        """Return one element of a port at the time of the plant's step that it acts in."""
        for signal in self.signals:
            if signal.partition(".")[2] != port:
                continue
            time_s, labels, values = read_signal(self.run.signals, signal)
            if label not in labels or not len(time_s):
                continue
            value, acts = values[:, labels.index(label)], self._acts(time_s)
            return _Curve(acts[: len(value)], value[: len(acts)])
        return None

    def _acts(self, time_s: FloatArray) -> FloatArray:
        if self._plant_time is None:
            known = self.did("p_kw", None)
            self._plant_time = time_s if known is None else known.time_s
        later = np.searchsorted(self._plant_time, time_s, side="left")
        return self._plant_time[later[later < len(self._plant_time)]]

    def did(self, port: str, labels: Sequence[str] | None) -> _Curve | None:
        """Return the sum of some elements of a port of the plant; of all for None."""
        signal = f"{self.plant}.{port}"
        if not self.run.has(signal):
            return None
        time_s, known, values = read_signal(self.run.signals, signal)
        at = [known.index(x) for x in known if labels is None or x in labels]
        return _Curve(time_s, values[:, at].sum(axis=1)) if at else None

    def chart(self, title: str, y_title: str, bands: Sequence[ShadedBand | None]) -> Chart:
        """Return a chart of what there is of some curves."""
        return Chart(
            title,
            y_title,
            [band for band in bands if band is not None],
            start_s=self.run.start_s,
            shade=self.run.shade,
            digits=3 if y_title.endswith("kWh") and "Price" in y_title else 2,
            stepped=True,
        )

    def planned(self, port: str, label: str, name: str, style: str) -> ShadedBand | None:
        """Return a curve of the market."""
        found = self.curve(port, label)
        return None if found is None else found.band(name, style)

    def done(self, port: str, labels: Sequence[str], name: str = "metered") -> ShadedBand | None:
        """Return a curve of the plant."""
        found = self.did(port, labels)
        return None if found is None else found.band(name, "s2")


def consumer_markets(run: RunData) -> list[str]:
    """Return the names of the consumer markets of a run."""
    specs = run.scenario.get("federates", {}).items()
    return [name for name, spec in specs if spec.get("controller") == _CONTROLLER]


def consumer_signals(run: RunData) -> list[str]:
    """Return the recorded signals of the consumer markets."""
    return [s for name in consumer_markets(run) for s in _Market(run, name).signals]


def consumer_sections(run: RunData) -> Iterator[PageSection]:
    """Show each consumer market whose operator's signals were recorded."""
    for name in consumer_markets(run):
        market = _Market(run, name)
        if market.curve("request_kw", _CMO) is None:
            continue
        blocks: list[Block] = [in_rows([_injections(market), _prices(market)], 2)]
        if money := _money(market):
            blocks.append(money)
        yield PageSection("Consumer market", blocks)
        homes = market.labels("home_plan_kw")
        charts = [_home(market, home) for home in homes[:_HOMES]]
        if charts:
            more = len(homes) - len(charts)
            note = [Text(f"{more} further homes are in the run's folder.")] if more else []
            yield PageSection("Homes, as planned and as metered", [in_rows(charts), *note])
        yield from _coordination(market)


def _injections(market: _Market) -> Chart:
    low, high = (market.curve(f"offered_{end}_kw", _CMO) for end in ("min", "max"))
    bands: list[ShadedBand | None] = []
    if low is not None and high is not None:
        mid = 0.5 * (low.value + high.value)
        offered = once_cleared(Spread(low.time_s, low.value, mid, high.value))
        bands.append(ShadedBand("offered", offered, "s3"))
    for port, name, style in (("baseline_kw", "baseline", "s4"), ("request_kw", "request", "s1")):
        found = market.planned(port, _CMO, name, style)
        if found is not None:
            bands.append(ShadedBand(name, once_cleared(found.spread), style, fill=False))
    bands.append(market.done("p_kw", market.labels("device_plan_kw"), "delivered"))
    return market.chart("Injections of the operator's homes", "Power, kW", bands)


def _prices(market: _Market) -> Chart:
    bands = []
    for port, name, style in (
        ("mu_per_kwh", "energy", "s1"),
        ("mu_flex_per_kwh", "flexibility", "s2"),
        ("grid_price_per_kwh", "grid", "s4"),
    ):
        found = market.planned(port, _CMO, name, style)
        bands.append(
            None
            if found is None
            else ShadedBand(name, once_cleared(found.spread), style, fill=False)
        )
    return market.chart("Prices of energy and flexibility", "Price, money per kWh", bands)


def _money(market: _Market) -> TableBlock | None:
    rows = []
    for home in market.labels("home_pays_money"):
        found = market.curve("home_pays_money", home)
        if found is not None:
            rows.append((f"{home} pays", f"{found.value[-1]:,.6f}"))
    for port, words in (
        ("uplift_money", "the operator adds"),
        ("cmo_pays_money", "the operator pays the grid"),
    ):
        found = market.curve(port, _CMO)
        if found is not None:
            rows.append((words, f"{found.value[-1]:,.6f}"))
    return TableBlock(("Billed until the end of the run", "Money"), rows, (1,)) if rows else None


def _home(market: _Market, home: str) -> Chart:
    return market.chart(
        f"Injection of {home}",
        "Power, kW",
        [
            market.planned("home_plan_kw", home, "plan", "s4"),
            market.planned("home_set_kw", home, "after the clearing", "s1"),
            market.planned("home_metered_kw", home, "metered", "s2"),
        ],
    )


def _coordination(market: _Market) -> Iterator[PageSection]:
    """Show the devices of the first home that has the most kinds of them."""
    run, known = market.run, set(market.labels("device_plan_kw"))
    feeder = load_run_feeder(run, market.plant)
    if feeder is None or not known:
        return
    ders = [der for der in feeder.ders if der.name in known]
    table = homes_of(ders)
    kinds = [{d.kind for d, at in zip(ders, table.home, strict=True) if at == i}
             for i in range(len(table.names))]  # fmt: skip
    shown = max(range(len(kinds)), key=lambda i: (len(kinds[i]), -i))
    own = [der for der, at in zip(ders, table.home, strict=True) if at == shown]
    charts = [
        market.chart(
            f"{_KINDS[der.kind]} {der.name}",
            "Power, kW",
            [
                market.planned("device_plan_kw", der.name, "plan", "s4"),
                market.planned("p_set_kw", der.name, "after the clearing", "s1")
                if der.kind != "pv"
                else None,
                market.done("p_kw", [der.name]),
            ],
        )
        for der in own
    ]
    for der in own:
        if der.kind in ("battery", "vehicle"):
            charts.append(_state(market, der.name, "soc", "kWh", "Stored energy", "Energy, kWh"))
        elif der.kind == "house":
            charts.append(_state(market, der.name, "temp", "c", "Indoors", "Temperature, °C"))
    title = f"Devices of cma_{shown + 1} ({table.names[shown]}), as planned and as metered"
    yield PageSection(title, [in_rows(charts)])


def _state(market: _Market, name: str, port: str, unit: str, title: str, y_title: str) -> Chart:
    """Return a chart of a state, and of what the plan of each interval wants at its end."""
    unit = unit.lower()
    return market.chart(
        f"{title}, {name}",
        y_title,
        [
            market.planned(f"{port}_plan_{unit}", name, "plan for the interval's end", "s4"),
            market.done(f"{port}_{unit}", [name]),
        ],
    )
