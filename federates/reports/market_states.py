"""The thesis' table of an attack on a market, as metered: before, under attack, mitigated.

Everything is read from recorded signals of the feeder (what OpenDSS gave, not what the market
planned); only the coefficients of the cost come from the bids, which the scenario fixes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.options import parse_options
from controllers.core.protocol import ControlSite
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.primary import market_parties
from controllers.market.model.parties import PartyTable, aggregate, bid_column
from federates.attacks.labels import attack_windows
from federates.core.context import GridSite
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.runs.data import live_voltages
from federates.runs.manifest import read_manifest
from federates.scenario.schema import Scenario

Window = tuple[float, float]
"""Simulated time, from and to, s."""

# Market periods before the attack, and at its end, that the table takes its means over.
_PERIODS_BEFORE, _PERIODS_DURING = 2, 3
_CURTAILS = 0.005
_SUPPLIED = 0.01
_HELPS_MW = 0.001


@dataclass(frozen=True)
class MeteredState:
    """One state of the feeder, means over a window.

    Attributes
    ----------
    import_kw, load_kw, generation_kw, losses_kw : float
    cost : float
        The market's objective under the coefficients as they were bid, money per hour: generation,
        curtailment, losses and import. Who is off the grid costs nothing.
    nodes_curtailing : int
        Market operators whose load is below that before the attack by more than 0.5 % of its
        demand, and who are still supplied.
    nodes_out : int
        Market operators with less than 1 % of their demand.
    helper_kw : float
        Most that one operator's generation rose above that before the attack.
    helper : str
        Its bus.
    v_min_pu, v_max_pu : float
        Extremes of live nodes from the attack's begin to the end of the window (``pre``: in the
        window).
    node_minutes_out_of_band : float
        Voltages outside the scenario's band in that time.
    """

    import_kw: float
    load_kw: float
    generation_kw: float
    losses_kw: float
    cost: float
    nodes_curtailing: int
    nodes_out: int
    helper_kw: float
    helper: str
    v_min_pu: float
    v_max_pu: float
    node_minutes_out_of_band: float


def metered_states(
    attacked: Path,
    mitigated: Path,
    before: Window | None = None,
    during: Window | None = None,
    *,
    market: str = "market",
    feeder: str = "feeder",
) -> dict[str, dict[str, Any]]:
    """Return the table of an attack.

    Parameters
    ----------
    attacked, mitigated : Path
        Run folders of the same scenario and attack without and with a defence.
    before, during : (from_s, to_s), optional
        Windows before the attack began and while it lasts; in the second one the mitigation should
        have settled. Default: `metered_windows` of each run.
    market, feeder : str
        Names of the federates.

    Returns
    -------
    dict
        ``pre``, ``attacked`` and ``mitigated``, each the fields of `MeteredState`.

    Raises
    ------
    ScenarioError
        A run has no such market, was not attacked, or its signals do not cover a window.
    """
    scenario = recorded_scenario(attacked)
    table = market_of(scenario, market)
    prices = _options(scenario, market)
    # An attack that waits for a signal may begin at another time where somebody defends.
    spans = {
        name: (before, during) if before and during else metered_windows(run, market)
        for name, run in (("attacked", attacked), ("mitigated", mitigated))
    }
    first = spans["attacked"][0]
    means = {"pre": _Means(attacked, feeder, first, first, scenario)}
    for name, run in (("attacked", attacked), ("mitigated", mitigated)):
        (_, begin), late = spans[name]
        means[name] = _Means(run, feeder, late, (begin, late[1]), scenario)
    base = means["pre"].per_smo(table)
    return {
        name: asdict(_state(mean, mean.per_smo(table), base, table, prices))
        for name, mean in means.items()
    }


def node_roles(
    attacked: Path, mitigated: Path, *, market: str = "market", feeder: str = "feeder"
) -> dict[str, tuple[str, ...]]:
    """Return who lost what and who helped, for a picture: buses by role.

    Returns
    -------
    dict
        ``out``: the load or half of the generation lost to the attack; ``generating``: 5 % and a
        kilowatt more generation than before; ``curtailing``: less load than before, as
        `MeteredState` counts.
    """
    scenario = recorded_scenario(attacked)
    table = market_of(scenario, market)
    before, during = metered_windows(attacked, market)
    late = metered_windows(mitigated, market)[1]
    pre = _Means(attacked, feeder, before, before, scenario).per_smo(table)
    post = _Means(attacked, feeder, during, during, scenario).per_smo(table)
    after = _Means(mitigated, feeder, late, late, scenario).per_smo(table)
    demand = bid_column(aggregate(table), "p_load0")
    lost = (post[0] < _SUPPLIED * demand) | (post[1] < 0.5 * pre[1])
    roles = {
        "out": lost,
        "generating": ~lost & (after[1] > 1.05 * pre[1] + _HELPS_MW),
        "curtailing": ~lost & (after[0] < pre[0] - _CURTAILS * demand),
    }
    return {name: tuple(np.array(table.buses)[who].tolist()) for name, who in roles.items()}


def metered_windows(run: Path, market: str = "market") -> tuple[Window, Window]:
    """Return the last two market periods before a run's attack, and the last three under it.

    From the run's events, so it holds for attacks that wait for a signal or for another step.
    Steps that overlap are one stretch of attack; of several stretches the longest counts, the first
    of equals. *Before* ends when it begins; where an earlier one reaches into those two periods,
    when the first one begins.

    Raises
    ------
    ScenarioError
        No step of an attack began in the run, or it has no such market.
    """
    scenario = recorded_scenario(run)
    period_s = _options(scenario, market).interval_s
    stretches = _stretches(attack_windows(run), _end_s(run, scenario))
    if not stretches:
        raise ScenarioError(
            "the attack never began", where=str(run), expected="a run in which a step was at work"
        )
    begin, end = max(stretches, key=lambda s: s[1] - s[0])
    since, clean_s = begin, _PERIODS_BEFORE * period_s
    if any(begin - clean_s < other_end <= begin for _, other_end in stretches):
        since = stretches[0][0]
    before = (max(0.0, since - clean_s), since)
    return before, (max(begin, end - _PERIODS_DURING * period_s), end)


def _stretches(windows: Sequence[tuple[str, float, float]], end_s: float) -> list[Window]:
    """Return the stretches of time in which any step was at work, in order."""
    out: list[Window] = []
    for _, begin, end in windows:  # by their begin
        end = min(end, end_s)
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return out


def _end_s(run: Path, scenario: Scenario) -> float:
    """Return when a run ended: steps may have been left out."""
    steps = read_manifest(run).get("steps") or scenario.n_steps
    return float(steps) * scenario.time.step_s


def recorded_scenario(run: Path) -> Scenario:
    """Return the scenario of a run from its manifest."""
    try:
        manifest: Mapping[str, Any] = json.loads((run / "manifest.json").read_text("utf-8"))
        scenario = Scenario.model_validate(manifest["scenario"])
    except (OSError, ValueError, KeyError) as error:
        raise ScenarioError(
            f"no readable manifest ({type(error).__name__})",
            where=str(run),
            expected="a run folder, as 'feederate run' writes it",
        ) from error
    scenario._base_dir = Path(manifest.get("base_dir", "."))
    scenario._name = str(manifest.get("name", run.name))
    return scenario


def market_of(scenario: Scenario, market: str = "market") -> PartyTable:
    """Return the market operators and resources of a scenario's market."""
    feeder = GridSite(scenario).feeder
    site = ControlSite(feeder, feeder.ders, 1.0, seed=scenario.seed)
    return market_parties(site, _options(scenario, market))[0]


def _options(scenario: Scenario, market: str) -> MarketOptions:
    spec = scenario.federates.get(market)
    if spec is None or spec.controller != "market":
        raise ScenarioError(
            f"no market is called '{market}'",
            where=scenario.where("federates"),
            expected="a federate with 'controller: market'",
        )
    return parse_options(MarketOptions, spec.options, "market")


class _Means:
    """Means of the feeder's signals over a window of one run, and its voltages over another."""

    def __init__(
        self, run: Path, feeder: str, window: Window, since: Window, scenario: Scenario
    ) -> None:
        self._run, self._feeder, self._window = run, feeder, window
        self.p_kw = dict(zip(*self._read("p_kw"), strict=True))
        self.import_kw = float(self._read("import_kw")[1][0])
        self.losses_kw = float(self._read("losses_kw")[1][0])
        _, v_pu = self._rows("v_pu", since)
        v_pu = live_voltages(v_pu)
        self.v_min_pu = float(np.fmin.reduce(v_pu, axis=None))
        self.v_max_pu = float(np.fmax.reduce(v_pu, axis=None))
        out = np.count_nonzero((v_pu < scenario.band.v_min_pu) | (v_pu > scenario.band.v_max_pu))
        self.out_min = float(out) * scenario.time.step_s * scenario.record.every / 60.0

    def _rows(self, port: str, window: Window) -> tuple[tuple[str, ...], FloatArray]:
        name = f"{self._feeder}.{port}"
        try:
            time_s, labels, values = read_signal(self._run / "signals", name)
        except FileNotFoundError as error:
            raise ScenarioError(
                f"the run has no signal '{name}'",
                where=str(self._run),
                expected=f"a scenario that records {name}",
            ) from error
        start, stop = window
        rows = values[(time_s >= start) & (time_s < stop)]
        if not len(rows):
            raise ScenarioError(
                f"nothing recorded from {start:g} to {stop:g} s",
                where=str(self._run),
                expected=f"a window within 0 to {time_s[-1] if len(time_s) else 0:g} s",
            )
        return labels, rows

    def _read(self, port: str) -> tuple[tuple[str, ...], FloatArray]:
        labels, rows = self._rows(port, self._window)
        return labels, rows.mean(axis=0)

    def per_smo(self, table: PartyTable) -> tuple[FloatArray, FloatArray]:
        """Return load and generation of each SMO, (n,), MW."""
        p_mw = np.array([self.p_kw[der.name] for der in table.ders]) / 1000.0
        load = table.per_smo(np.where(table.is_load, -p_mw, 0.0)) + table.fixed_p_mw
        return load, table.per_smo(np.where(table.is_load, 0.0, p_mw))


def _state(
    mean: _Means,
    here: tuple[FloatArray, FloatArray],
    base: tuple[FloatArray, FloatArray],
    table: PartyTable,
    prices: MarketOptions,
) -> MeteredState:
    (load, generation), (load_0, generation_0) = here, base
    bids = aggregate(table)
    demand = bid_column(bids, "p_load0")
    supplied = (load > _SUPPLIED * demand) & (demand > 0.0)
    curtailing = supplied & (load < load_0 - _CURTAILS * demand)
    disutility = bid_column(bids, "beta") * (load - demand) ** 2
    cost = (
        0.5 * float(bid_column(bids, "alpha_p") @ generation**2)
        + float(disutility[supplied].sum())
        + prices.loss_price * mean.losses_kw / 1000.0
        + prices.import_price * mean.import_kw / 1000.0
    )
    rise = generation - generation_0
    most = int(np.argmax(rise))
    return MeteredState(
        import_kw=mean.import_kw,
        load_kw=1000.0 * float(load.sum()),
        generation_kw=1000.0 * float(generation.sum()),
        losses_kw=mean.losses_kw,
        cost=cost,
        nodes_curtailing=int(curtailing.sum()),
        nodes_out=int(((demand > 0.0) & ~supplied).sum()),
        helper_kw=1000.0 * float(max(rise[most], 0.0)),
        helper=table.buses[most],
        v_min_pu=mean.v_min_pu,
        v_max_pu=mean.v_max_pu,
        node_minutes_out_of_band=mean.out_min,
    )
