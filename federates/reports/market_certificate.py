"""How far a run's three-phase dispatch can be from the global optimum, computed after the run.

The market's bids follow from the scenario and what the run recorded. They are cleared again, which
gives the dispatch of the interval without the errors of devices, and the schedule that the run
recorded must be that one. A semidefinite relaxation gives what no dispatch can beat
(`controllers.market.three_phase.certificate`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.options import parse_options
from controllers.core.protocol import ControlSite
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.schedule import PortTerms
from controllers.market.agents.site import named_clearing, site_participants, site_terms
from controllers.market.agents.smo import by_bus
from controllers.market.clearing import is_three_phase
from controllers.market.model.participants import Participants, aggregate, bid_column
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.certificate import certify
from controllers.market.three_phase.exact import ThreePhaseMarket
from controllers.market.three_phase.objective import P_GEN, P_LOAD, Q_GEN, PortObjective
from controllers.market.three_phase.result import flow_at
from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.runs.data import RunData
from federates.runs.replay import scenario_of_run
from federates.scenario.schema import Scenario
from grid_models.base.errors import PowerFlowError, nearest_name

# Schedules that differ by more are not of the same bids.
_SAME_KW = 0.1
_OBJECTIVE = ("weights", "voltage_price", "v_set_pu")


@dataclass(frozen=True)
class CertifiedInterval:
    """One interval of a run.

    Attributes
    ----------
    interval, time_s : The interval, and the simulated time of the set-points, at its end.
    cost, lower_bound, gap : Of the dispatch as cleared, money per hour; the gap is relative.
    rank_ratio, rank_at : Of the relaxation; where it is small, the bound is the optimum.
    set_points_cost, set_points_gap : As carried out: of the set-points that the run recorded.
    import_kw, recorded_import_kw : Of the dispatch by the power flow; of the run's schedule.
    replay_pu : Largest difference of a node's voltage between the clearing and the power flow.
    solve_s : Time of the solver.
    notes : What the bound leaves out, and what in the run is not in the bids.
    """

    market: str
    clearing: str
    interval: int
    time_s: float
    cost: float
    lower_bound: float
    gap: float
    rank_ratio: float
    rank_at: str
    set_points_cost: float
    set_points_gap: float
    import_kw: float
    recorded_import_kw: float
    replay_pu: float
    solve_s: float
    notes: tuple[str, ...]


def certified_interval(
    folder: Path, interval: int | None = None, time_s: float | None = None
) -> CertifiedInterval:
    """Return the certificate of an interval of a run.

    Parameters
    ----------
    interval, time_s : Which one, from 0, or that of a simulated time. Default: the last whole one.

    Raises
    ------
    ScenarioError
        The run is not finished, has no three-phase market or no such interval, or did not record
        what is needed.
    TopologyError, FeederError: The feeder is meshed, or not one of two-ports.
    """
    scenario, run = scenario_of_run(folder)
    if run.status != "finished":
        raise ScenarioError(
            f"the run is {run.status}", where=str(folder), expected="a finished run"
        )
    study = _Study(scenario, run)
    return study.certified(study.interval(interval, time_s))


class _Study:
    """A run's market on its network."""

    def __init__(self, scenario: Scenario, run: RunData) -> None:
        from grid_models.opendss.ports import port_network

        self._scenario, self._run = scenario, run
        self.name, self.options = _three_phase_market(scenario)
        self._plant = scenario.plant_of(self.name) or "feeder"
        grid = GridSite(scenario, self._plant)
        self._circuit = grid.take_circuit()
        self._network = network = port_network(self._circuit)
        band = scenario.band
        site = ControlSite(
            grid.feeder, grid.feeder.ders, 1.0, band.v_min_pu, band.v_max_pu, scenario.seed,
            ports=lambda closed: network,
        )  # fmt: skip
        self.table: Participants = site_participants(site, self.options)[0]
        terms = site_terms(site, self.options, self.table, network)
        assert isinstance(terms, PortTerms)
        self._terms = terms

    def interval(self, interval: int | None, time_s: float | None) -> int:
        """Return the number of the interval that is meant.

        Raises ScenarioError: The run has no such one.
        """
        length = self.options.interval_s
        end_s = (self._run.manifest.get("steps") or self._scenario.n_steps) * (
            self._scenario.time.step_s
        )
        whole = int(end_s // length)
        if time_s is not None:
            interval = int(time_s // length)
        found = whole - 1 if interval is None else interval
        if not 0 <= found < whole:
            asked = "an interval" if interval is None else f"interval {interval}"
            raise ScenarioError(
                f"the run has no {asked} that is whole",
                where=str(self._run.folder),
                expected=f"0 to {whole - 1}, of {length:g} s" if whole else f"{length:g} s or more",
            )
        return found

    def certified(self, interval: int) -> CertifiedInterval:
        """Return the certificate of an interval."""
        from grid_models.opendss.branches import branch_tree

        o, end_s = self.options, (interval + 1) * self.options.interval_s
        bids = aggregate(self.table, self._demand(interval), self._overstated())
        problem = self._terms.problem(self.table.rows, bids)
        # What may be refused comes before what takes long.
        own = {key: o.clearing_options[key] for key in _OBJECTIVE if key in o.clearing_options}
        recorded = float(self._last(f"{self.name}.scheduled_import_kw", end_s)[1][0])
        carried_out, notes = self._set_points_cost(problem, own, bids, end_s)
        tree = branch_tree(self._circuit, self._network)
        made = named_clearing(o)
        # A clearing of many agents has its optimum in common with the one at one place.
        market = (
            made(self._network, **o.clearing_options)
            if hasattr(made, "clear")
            else ThreePhaseMarket(self._network, **own)
        )
        d = market.clear(problem).dispatch
        bound = certify(tree, problem, **own)
        scheduled = d.p_import * self._network.base_kva
        notes = [*bound.notes, *notes]
        if abs(scheduled - recorded) > _SAME_KW:
            notes.append(
                f"the run's schedule imports {recorded:.2f} kW, these bids {scheduled:.2f} kW: "
                "weights of a manager, an attack or lost mail were at work"
            )
        return CertifiedInterval(
            market=self.name,
            clearing=o.clearing,
            interval=interval,
            time_s=end_s,
            cost=d.cost,
            lower_bound=bound.lower_bound,
            gap=bound.gap(d.cost),
            rank_ratio=bound.rank_ratio,
            rank_at=bound.rank_at,
            set_points_cost=carried_out,
            set_points_gap=bound.gap(carried_out),
            import_kw=scheduled,
            recorded_import_kw=recorded,
            replay_pu=self._replay_pu(problem, d),
            solve_s=bound.solve_s,
            notes=tuple(notes),
        )

    def _replay_pu(self, problem: PortProblem, dispatch: Any) -> float:
        s = dispatch.p_gen - dispatch.p_load + 1j * (dispatch.q_gen - dispatch.q_load)
        return float(np.abs(flow_at(problem, s).v - dispatch.voltage).max())

    def _set_points_cost(
        self, problem: PortProblem, own: dict[str, Any], bids: FloatArray, end_s: float
    ) -> tuple[float, list[str]]:
        """Return what the recorded set-points cost, and what is to be said of them."""
        table, mw, size = self.table, self._terms.mw, self._network.size
        p_kw = self._of_ders(f"{self.name}.p_set_kw", end_s)
        q_kvar = self._of_ders(f"{self.name}.q_set_kvar", end_s)
        per_terminal = np.zeros((4, size))
        load = table.per_smo(np.where(table.is_load, -p_kw, 0.0)) / 1000.0 + table.fixed_p_mw
        per_terminal[P_LOAD, table.rows] = load / mw
        per_terminal[P_GEN, table.rows] = (
            table.per_smo(np.where(table.is_load, 0.0, p_kw)) / 1000.0 / mw
        )
        per_terminal[Q_GEN, table.rows] = table.per_smo(q_kvar) / 1000.0 / mw
        objective = PortObjective(self._network, **own)
        devices = objective.devices(problem)
        try:
            flow = flow_at(problem, devices.injection(per_terminal))
        except PowerFlowError:
            return float("inf"), ["the recorded set-points have no power flow"]
        less = float((bid_column(bids, "p_load_min") - load).max(initial=0.0))
        notes = [] if less < 1e-6 else [f"up to {1e3 * less:.2f} kW of a load below its bid"]
        return objective.cost(problem, devices, per_terminal, flow), notes

    def _of_ders(self, signal: str, end_s: float) -> FloatArray:
        """Return recorded values of the market's DERs, (m,); 0 for those that it has none of."""
        labels, values = self._last(signal, end_s)
        of = dict(zip(labels, values.tolist(), strict=True))
        return np.array([of.get(der.name, 0.0) for der in self.table.ders])

    def _demand(self, interval: int) -> FloatArray | float:
        """Return the demand of the DERs in an interval, multiple of nominal."""
        if not self.options.follow_demand:
            return 1.0
        # Taken at the interval's first step.
        begin_s = interval * self.options.interval_s + self._scenario.time.step_s
        port = f"{self.name}.demand_pu"
        sources = [str(c.source) for c in self._scenario.wires if str(c.target) == port]
        labels, values = self._last(sources[0] if sources else port, begin_s)
        of = dict(zip(labels, values.tolist(), strict=True))
        return np.array([of.get(der.name, 1.0) for der in self.table.ders])

    def _overstated(self) -> FloatArray:
        return by_bus(self.table.buses, self.options.overstated, "overstated", 1.0)

    def _last(self, name: str, before_s: float) -> tuple[tuple[str, ...], FloatArray]:
        """Return the last row of a recorded signal before a time.

        Raises ScenarioError: The run has no such signal, or none before that time.
        """
        try:
            time_s, labels, values = read_signal(self._run.folder / "signals", name)
        except FileNotFoundError:
            raise ScenarioError(
                f"the run has no signal '{name}'",
                where=str(self._run.folder),
                expected=f"a scenario that records {name} (record.signals)",
                nearest=nearest_name(name, self._run.recorded),
            ) from None
        rows = np.flatnonzero(time_s < before_s)
        if not rows.size:
            raise ScenarioError(
                f"'{name}' has nothing before {before_s:g} s",
                where=str(self._run.folder),
                expected="an interval that the run recorded",
            )
        return labels, values[rows[-1]]


def _three_phase_market(scenario: Scenario) -> tuple[str, MarketOptions]:
    """Return the federate that clears a three-phase market, and its options."""
    others = []
    for name, spec in scenario.federates.items():
        if getattr(spec, "controller", None) != "market":
            continue
        options = parse_options(MarketOptions, getattr(spec, "options", {}), name)
        if is_three_phase(named_clearing(options)):
            return name, options
        others.append(f"'{name}' clears '{options.clearing}'")
    raise ScenarioError(
        "no three-phase market to certify" + (f": {', '.join(others)}" if others else ""),
        where=scenario.where("federates"),
        expected="a federate with 'controller: market' and 'clearing: three-phase'",
    )


def as_data(found: CertifiedInterval) -> dict[str, Any]:
    """Return the certificate for JSON."""
    return {**asdict(found), "notes": list(found.notes)}
