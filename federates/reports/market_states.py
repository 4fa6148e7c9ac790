"""Metered states of an attack on a market: before, under attack, mitigated.

Everything is read from recorded signals of the feeder, as OpenDSS solved it; only the coefficients
of the cost are those of the bids (`market_parties`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from federates.attacks.labels import attack_windows
from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.reports.market_parties import Means, market_options, parties_of
from federates.runs.data import live_voltages, stretches
from federates.runs.manifest import read_manifest
from federates.runs.replay import scenario_of_run

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
    load_kw : All that draws, also what an attack switches on: import and generation less losses.
    cost : The market's objective under the coefficients as they were bid, money per hour:
        generation, curtailment, losses and import, and critical load shed at the market's
        `shed_price`. Operators without supply cost nothing.
    nodes_curtailing : Market operators whose load is below that before the attack by more than 0.5
        % of its demand, and who are still supplied.
    curtailed_min_kw, curtailed_max_kw : Least and largest curtailment of one of them; 0 for none.
    nodes_out : Market operators with less than 1 % of their demand.
    helper_kw, helper : float, str
        Largest rise of one operator's generation above that before the attack, and its bus.
    v_min_pu, v_max_pu : Extremes of live nodes from the attack's begin to the end of the window
        (``pre``: in the window).
    node_minutes_out_of_band : Voltages outside the scenario's band in that time.
    unit_kw, shed_kw : float or None
        Of an island: power of its grid-forming unit, and critical load that is not served, be it
        by the market, the unit's relay or the attack.
    """

    import_kw: float
    load_kw: float
    generation_kw: float
    losses_kw: float
    cost: float
    nodes_curtailing: int
    curtailed_min_kw: float
    curtailed_max_kw: float
    nodes_out: int
    helper_kw: float
    helper: str
    v_min_pu: float
    v_max_pu: float
    node_minutes_out_of_band: float
    unit_kw: float | None = None
    shed_kw: float | None = None


def metered_states(
    attacked: Path,
    mitigated: Path,
    before: Window | None = None,
    during: Window | None = None,
    *,
    market: str = "market",
    feeder: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the table of an attack.

    Parameters
    ----------
    attacked, mitigated : Run folders of the same scenario and attack without and with a defence.
    before, during : (from_s, to_s); Windows before the attack began and while it lasts; in the
        second one the mitigation should have settled. Default: `metered_windows` of each run.
    market, feeder : Names of the federates; default of `feeder`: the plant of the market.

    Returns
    -------
    dict
        ``pre``, ``attacked`` and ``mitigated``, each the fields of `MeteredState` that it has.
        Where the operators of a local market let agents make up for others, ``attacked`` is the
        first interval under attack, and ``secondary`` what the agents have made of it without the
        manager.

    Raises ScenarioError: A run has no such market, was not attacked, or its signals do not cover a
    window.
    """
    study = _Study(attacked, market, feeder)
    # An attack that waits for a signal may begin at another time where there is a defence.
    spans = {
        run: (before, during) if before and during else metered_windows(run, market)
        for run in (attacked, mitigated)
    }
    first, late = spans[attacked]
    windows = {"pre": (attacked, first), "attacked": (attacked, late)}
    if study.parties.redispatches:
        until_s = min(first[1] + study.parties.interval_s, late[1])
        windows["attacked"] = (attacked, (first[1], until_s))
        windows["secondary"] = (attacked, late)
    windows["mitigated"] = (mitigated, spans[mitigated][1])
    out, pre = {}, study.means(attacked, first, first)
    for name, (run, window) in windows.items():
        voltages = window if name == "pre" else (spans[run][0][1], window[1])
        mean = study.means(run, window, voltages)
        state = asdict(study.state(mean, pre, study.cost(run, window, mean)))
        out[name] = {key: value for key, value in state.items() if value is not None}
    return out


def node_roles(
    attacked: Path, mitigated: Path, *, market: str = "market", feeder: str | None = None
) -> dict[str, tuple[str, ...]]:
    """Return which buses lost supply and which helped, for the map.

    Returns
    -------
    dict
        ``out``: the load or half of the generation lost to the attack; ``generating``: 5 % and a
        kilowatt more generation than before; ``curtailing``: less load than before, as
        `MeteredState` counts.
    """
    study = _Study(attacked, market, feeder)
    before, during = metered_windows(attacked, market)
    late = metered_windows(mitigated, market)[1]
    pre, post = (study.means(attacked, window, window) for window in (before, during))
    after = study.means(mitigated, late, late)
    lost = (post.load_mw < _SUPPLIED * study.parties.demand_mw) | (
        post.generation_mw < 0.5 * pre.generation_mw
    )
    roles = {
        "out": lost,
        "generating": ~lost & (after.generation_mw > 1.05 * pre.generation_mw + _HELPS_MW),
        "curtailing": ~lost & (after.load_mw < pre.load_mw - _CURTAILS * study.parties.demand_mw),
    }
    # A three-phase market's operators have the labels of terminals, such as 48.1.2.3.
    buses = np.array([label.partition(".")[0] for label in study.parties.buses])
    return {name: tuple(dict.fromkeys(buses[m].tolist())) for name, m in roles.items()}


def metered_windows(run: Path, market: str = "market") -> tuple[Window, Window]:
    """Return the last two market periods before a run's attack, and the last three under it.

    They follow the run's events, so they hold for attacks that wait for a signal or for another
    step. Steps that overlap are one stretch of attack; of several stretches the longest counts, the
    first of equals. *Before* ends when it begins; where an earlier one reaches into those two
    periods, when the first one begins.

    Raises ScenarioError: No step of an attack began in the run, or it has no such market.
    """
    return attack_spans(run, market_options(scenario_of_run(run)[0], market).interval_s)


def attack_spans(run: Path, period_s: float) -> tuple[Window, Window]:
    """Return two periods before a run's attack and the last three under it; `metered_windows`."""
    scenario = scenario_of_run(run)[0]
    end_s = (read_manifest(run).get("steps") or scenario.n_steps) * scenario.time.step_s
    found = stretches([(begin, min(end, end_s)) for _, begin, end in attack_windows(run)])
    if not found:
        raise ScenarioError(
            "the attack never began", where=str(run), expected="a run in which a step was at work"
        )
    begin, end = max(found, key=lambda s: s[1] - s[0])
    since, clean_s = begin, _PERIODS_BEFORE * period_s
    if any(begin - clean_s < other_end <= begin for _, other_end in found):
        since = found[0][0]
    before = (max(0.0, since - clean_s), since)
    return before, (max(begin, end - _PERIODS_DURING * period_s), end)


class _Study:
    """The market and the feeder of a scenario, and their states over windows of its runs."""

    def __init__(self, run: Path, market: str, feeder: str | None) -> None:
        self._scenario = scenario_of_run(run)[0]
        self._market = market
        self._feeder = feeder or self._scenario.plant_of(market) or "feeder"
        grid = GridSite(self._scenario, self._feeder)
        self._island = grid.grid.grid_forming is not None
        ders = grid.feeder.ders
        site = ControlSite(grid.feeder, ders, 1.0, seed=self._scenario.seed, ports=grid.ports)
        self.parties = parties_of(self._scenario, market, site)

    def means(self, run: Path, window: Window, voltages: Window) -> Means:
        """Return means of the feeder's signals over a window, and its voltages over another."""
        who, feeder = self.parties, self._feeder
        labels, p_kw = self._rows(run, f"{feeder}.p_kw", window)
        of = dict(zip(labels, p_kw.mean(axis=0), strict=True))
        p_mw = np.array([of[name] for name in who.ders]) / 1000.0
        n = len(who.buses)
        load_mw = np.bincount(who.owner, np.where(who.is_load, -p_mw, 0.0), n).astype(float)
        generation_mw = np.bincount(who.owner, np.where(who.is_load, 0.0, p_mw), n).astype(float)
        return Means(
            float(self._rows(run, f"{feeder}.import_kw", window)[1].mean()),
            float(self._rows(run, f"{feeder}.losses_kw", window)[1].mean()),
            load_mw + who.fixed_mw,
            generation_mw,
            live_voltages(self._rows(run, f"{feeder}.v_pu", voltages)[1]),
        )

    def cost(self, run: Path, window: Window, mean: Means) -> float:
        """Return the cost of a state, money/h."""

        def read(port: str) -> FloatArray:
            return np.asarray(self._rows(run, f"{self._market}.{port}", window)[1].mean(axis=0))

        return self.parties.cost(mean, self.shed_mw(mean), read)

    def shed_mw(self, mean: Means) -> FloatArray:
        """Return the load of each operator that an island has shed below what was offered, (n,)."""
        return np.maximum(self.parties.least_mw - mean.load_mw, 0.0) * self._island

    def _rows(self, run: Path, name: str, window: Window) -> tuple[tuple[str, ...], FloatArray]:
        try:
            time_s, labels, values = read_signal(run / "signals", name)
        except FileNotFoundError as error:
            raise ScenarioError(
                f"the run has no signal '{name}'",
                where=str(run),
                expected=f"a scenario that records {name}",
            ) from error
        start, stop = window
        rows = values[(time_s >= start) & (time_s < stop)]
        if not len(rows):
            raise ScenarioError(
                f"nothing recorded from {start:g} to {stop:g} s",
                where=str(run),
                expected=f"a window within 0 to {time_s[-1] if len(time_s) else 0:g} s",
            )
        return labels, rows

    def state(self, mean: Means, pre: Means, cost: float) -> MeteredState:
        """Return a state, compared with that before the attack."""
        band, demand_mw = self._scenario.band, self.parties.demand_mw
        supplied = (mean.load_mw > _SUPPLIED * demand_mw) & (demand_mw > 0.0)
        given_mw = pre.load_mw - mean.load_mw
        curtailing = supplied & (given_mw > _CURTAILS * demand_mw)
        given_kw = 1000.0 * given_mw[curtailing]
        shed_kw = 1000.0 * float(self.shed_mw(mean).sum())
        generation_kw = 1000.0 * float(mean.generation_mw.sum())
        rise = mean.generation_mw - pre.generation_mw
        most = int(np.argmax(rise))
        out = np.count_nonzero((mean.v_pu < band.v_min_pu) | (mean.v_pu > band.v_max_pu))
        sample_s = self._scenario.time.step_s * self._scenario.record.every
        return MeteredState(
            import_kw=mean.import_kw,
            load_kw=mean.import_kw + generation_kw - mean.losses_kw,
            generation_kw=generation_kw,
            losses_kw=mean.losses_kw,
            cost=cost,
            nodes_curtailing=int(curtailing.sum()),
            curtailed_min_kw=float(given_kw.min()) if given_kw.size else 0.0,
            curtailed_max_kw=float(given_kw.max(initial=0.0)),
            nodes_out=int(((demand_mw > 0.0) & ~supplied).sum()),
            helper_kw=1000.0 * float(max(rise[most], 0.0)),
            helper=self.parties.buses[most],
            v_min_pu=float(np.fmin.reduce(mean.v_pu, axis=None)),
            v_max_pu=float(np.fmax.reduce(mean.v_pu, axis=None)),
            node_minutes_out_of_band=float(out) * sample_s / 60.0,
            unit_kw=mean.import_kw if self._island else None,
            shed_kw=shed_kw if self._island else None,
        )
