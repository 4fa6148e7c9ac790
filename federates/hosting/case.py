"""The feeder of a scenario as a hosting study sees it: sites, day, limits, and its base case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from federates.core.sites import GridSite, located
from federates.errors import ScenarioError
from federates.hosting.referee import Finding, SolvedCases, findings, solve_again
from federates.kinds.feeder.day import GridDay
from federates.scenario.hosting_section import HostingSection
from federates.scenario.schema import Scenario
from grid_models.base.errors import nearest_name
from grid_models.base.options import parse_options
from grid_models.batched.power_flow import BatchedFeeder, BatchFlow
from grid_models.current_injection.model import ComplexArray
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.ratings import SHIPPED_RATINGS
from grid_models.hosting.balanced import PHASES, balanced_feeder
from grid_models.hosting.limits import LimitCheck, Limits
from grid_models.hosting.model import HostingModel
from grid_models.hosting.static import with_batteries_discharging
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.reader import feeder_from_engine

_PREFIX = "hosting"
_NO_VOLTAGE_PU = 0.1


@dataclass(frozen=True)
class HostingCase:
    """A feeder with sites at rest, to be searched by a method and to be solved by OpenDSS.

    Attributes
    ----------
    section : What the scenario says of the study.
    whole : What the methods search, at all T steps of the day.
    day : The feeder phase by phase, with the sites; its circuit is at the taps of the search.
    circuit : What OpenDSS solves for `whole`: that of `day`, or of the balanced equivalent.
    acting : The feeder with regulators that act, where the scenario has such; else None.
    held_h : Hour whose taps the search then holds.
    kept : (T,). Whether the search looks at a step. It leaves out those at which the base case
        keeps the limits with regulators that act, and not at the taps of the search.
    """

    scenario: Scenario
    section: HostingSection
    whole: HostingModel
    day: GridDay
    circuit: Circuit
    acting: GridDay | None
    held_h: float | None
    kept: NDArray[np.bool_]

    @property
    def model(self) -> HostingModel:
        """The model at the steps that the search looks at."""
        if self.kept.all():
            return self.whole
        names = ("load_kva", "der_kva", "hours", "pv_pu", "temp_c")
        some = {n: getattr(self.whole, n)[self.kept] for n in names}
        return replace(self.whole, peak_kva=self.whole.base_kva, **some)

    def solve_again(
        self,
        site_kva: ComplexArray,
        load_kva: ComplexArray | None = None,
        *,
        acting: bool = False,
        three_phase: bool = False,
    ) -> SolvedCases:
        """Return a design's day as OpenDSS solves it.

        Parameters
        ----------
        site_kva : complex (T, S). What all devices at the sites inject.
        load_kva : complex (T, n_loads). Demand, in place of the model's.
        acting : With regulators that act, from the taps of the search on.
        three_phase : Phase by phase, also where the model is balanced.
        """
        model = self.whole
        ders: ComplexArray = np.concatenate([model.der_kva, site_kva], axis=1)
        times_s = self.scenario.time.start_s + self.day.times_s
        load = model.load_kva if load_kva is None else load_kva
        if acting or three_phase:
            day = self.acting if acting else self.day
            assert day is not None
            network, taps = self.day.feeder.network, self.day.circuit.tap_steps()
            whole = np.array(day.load_kva)  # a balanced equivalent has not all of them
            whole[:, self._load_columns] = load
            return solve_again(day.circuit, network, whole, ders, times_s, taps)
        scale, network = model.watt_scale, model.feeder.network
        return solve_again(self.circuit, network, load / scale, ders / scale, times_s)

    @cached_property
    def _load_columns(self) -> NDArray[np.intp]:
        column = {name: k for k, name in enumerate(self.day.circuit.load_names)}
        return np.array([column[name] for name in self.circuit.load_names], dtype=np.intp)

    def findings(
        self, solved: SolvedCases, steps: NDArray[np.bool_] | None = None
    ) -> tuple[Finding, ...]:
        """Return the limits that a design's day passes, or some steps of it."""
        model, chosen = self.whole, np.arange(len(self.kept))
        if steps is not None:
            solved, chosen = solved.at(steps), chosen[steps]
        phase_by_phase = solved.network is self.day.feeder.network
        # The change when a plant is switched off takes other power flows: `switched_off`.
        limits = replace(model.limits, deviation_pu=None)
        scale = 1.0 if phase_by_phase else model.watt_scale
        check = LimitCheck(solved.network, limits, scale, model.step_h)
        excess = check.excess(cast(BatchFlow, solved), chosen)  # it reads what both have
        return findings(check, excess, model.hours[chosen])

    def switched_off(
        self, site_kva: ComplexArray, load_kva: ComplexArray | None, solved: SolvedCases
    ) -> tuple[Finding, ...]:
        """Return the change of voltages in OpenDSS when the site goes off that the search names.

        `site_kva`, `load_kva`: Of a design's day. `solved`: The same, solved again.
        """
        model = self.whole
        most = model.limits.deviation_pu
        if most is None:
            return ()
        steps = np.flatnonzero(self.kept)
        excess = model.check.excess(model.flow(site_kva, load_kva=load_kva))
        kind = model.check.kinds.index("deviation")
        t = int(steps[excess.value[steps, kind].argmax()])
        site = int(excess.element[t, kind])
        off = np.array(site_kva)
        off[t, site] = 0.0
        change = np.abs(self.solve_again(off, load_kva).v_pu[t] - solved.v_pu[t]).max()
        label = model.check.labels("deviation")[site]
        found = Finding("deviation", label, float(model.hours[t]), float(change) - most, 1)
        return (found,) if found.excess > 0.0 else ()


def hosting_case(scenario: Scenario) -> HostingCase:
    """Build the feeder, its sites and its day.

    Raises ScenarioError: There is no feeder, no line has a rating, or the base case passes a limit.
    Raises GridModelError: A limit contradicts another, or the feeder does not suit the model.
    """
    section = scenario.hosting or HostingSection()
    limits = parse_options(Limits, section.limits, scenario.where("hosting", "limits"))
    plant = _plant(scenario, section)
    times_s = np.arange(0.0, scenario.time.duration_s, section.step_s)
    site = GridSite(scenario, plant)
    _refuse_unrated(site, limits)
    day = GridDay(scenario, times_s, plant=plant, site=site)
    acting = day if site.regulators == "auto" and _has_controls(day.circuit) else None
    held_h = None
    if acting is not None:
        site = GridSite(scenario, plant)
        site.grid = site.grid.model_copy(update={"regulators": "fixed"})
        day = GridDay(scenario, times_s, plant=plant, site=site)
        held_h = _hold_taps(acting, day, limits, section.step_s)
    with located(scenario.where("hosting", "at")):
        options = {"kind": "pv", "at": section.at, "kw": 1.0, "kva_per_kw": 1.0, "prefix": _PREFIX}
        sites = place(day.circuit.feeder, [DerRule.from_mapping(options)])
    for each in (day, acting):
        if each is not None:
            each.circuit.place_ders(sites)
    whole, circuit = _model(day, sites, section, limits, scenario.where("hosting", "model"))
    everything = np.ones(len(times_s), dtype=bool)
    case = HostingCase(scenario, section, whole, day, circuit, acting, held_h, everything)
    return replace(case, kept=_kept(case))


def _plant(scenario: Scenario, section: HostingSection) -> str:
    """Return the plant whose feeder is meant."""
    plants = list(scenario.plants)
    if section.plant is None and len(plants) == 1:
        return plants[0]
    if section.plant in plants:
        return str(section.plant)
    what = "names no plant" if section.plant is None else f"no plant is called '{section.plant}'"
    raise ScenarioError(
        what if plants else "the scenario has no feeder",
        where=scenario.where("hosting", "plant"),
        expected=f"one of {', '.join(plants)}" if plants else "a federate of kind feeder",
        nearest=nearest_name(section.plant or "", plants),
    )


def _refuse_unrated(site: GridSite, limits: Limits) -> None:
    lines = site.feeder.lines
    if limits.line_pu is None or any(line.norm_amps for line in lines):
        return
    raise ScenarioError(
        f"none of the {len(lines)} lines has a rating (OpenDSS' default of 400 A is none)",
        where=site.where("ratings"),
        expected="a table of normal currents with the columns line,normal_a, or one of "
        f"{', '.join(SHIPPED_RATINGS)}; or hosting.limits.line_pu: null for a study without limits "
        "of currents in lines",
    )


def _has_controls(circuit: Circuit) -> bool:
    """Return whether regulators or switched capacitors can act."""
    return bool(circuit.tap_steps() or circuit.engine.dss.CapControls.Count())


def _hold_taps(acting: GridDay, day: GridDay, limits: Limits, step_s: float) -> float:
    """Set `day` to taps that regulators choose in the base case of an hour; return the hour.

    That is the sunniest hour whose taps keep the voltage band all day, else the sunniest.
    """
    load_kva, der_kva = acting.load_kva, acting.der_kva(step_s)
    start_s = acting.scenario.time.start_s

    def solve(of: GridDay, k: int) -> None:
        of.circuit.set_time(start_s + float(of.times_s[k]))
        of.circuit.set_loads(load_kva[k].real, load_kva[k].imag)
        of.circuit.set_ders(der_kva[k].real, der_kva[k].imag)
        of.circuit.solve()

    def keeps_the_band(taps: Mapping[str, int]) -> bool:
        day.circuit.set_taps(taps)
        for k in range(len(day.times_s)):
            solve(day, k)
            v_pu = day.circuit.v_pu()
            v_pu = v_pu[v_pu > _NO_VOLTAGE_PU]
            if v_pu.min() < limits.v_min_pu or v_pu.max() > limits.v_max_pu:
                return False
        return True

    by_sun = np.argsort(-acting.columns["irradiance_pu"], kind="stable").tolist()
    chosen: dict[tuple[int, ...], tuple[int, dict[str, int]]] = {}
    for k in by_sun:
        solve(acting, k)
        taps = acting.circuit.tap_steps()
        chosen.setdefault(tuple(taps.values()), (k, taps))
    found = next((c for c in chosen.values() if keeps_the_band(c[1])), next(iter(chosen.values())))
    day.circuit.set_taps(found[1])
    solve(day, found[0])
    return float((start_s + acting.times_s[found[0]]) / 3600.0 % 24.0)


def _model(
    day: GridDay, sites: tuple[Der, ...], section: HostingSection, limits: Limits, where: str
) -> tuple[HostingModel, Circuit]:
    """Return the model at all steps, and the circuit that it was made from."""
    circuit, batched, loads, scale = day.circuit, day.feeder, day.load_kva, 1.0
    if section.model == "balanced":
        column = {name: k for k, name in enumerate(circuit.load_names)}
        with located(where):
            circuit = Circuit.from_feeder(balanced_feeder(_at_present_taps(circuit)))
            batched, scale = BatchedFeeder(circuit), float(PHASES)
        loads = loads[:, [column[name] for name in circuit.load_names]]
    model = HostingModel(
        feeder=batched,
        sites=sites,
        load_kva=loads,
        der_kva=day.der_kva(section.step_s),
        hours=(day.scenario.time.start_s + day.times_s) / 3600.0 % 24.0,
        step_h=section.step_s / 3600.0,
        pv_pu=np.asarray(day.columns["irradiance_pu"]),
        temp_c=np.asarray(day.columns["temp_c"]),
        limits=limits,
        watt_scale=scale,
    )
    if section.batteries == "discharging":
        model = with_batteries_discharging(model, day.circuit.feeder.ders[: -len(sites)])
    return model, circuit


def _at_present_taps(circuit: Circuit) -> Feeder:
    """Return the feeder of a circuit as it stands: taps of regulators, voltage of the source."""
    feeder, now = circuit.feeder, feeder_from_engine(circuit.engine, name=circuit.name)
    # Of a user's file, regulators with an impedance are transformers.
    taps = {unit.name: unit.windings for unit in now.transformers}
    transformers = (replace(x, windings=taps.get(x.name, x.windings)) for x in feeder.transformers)
    steps = circuit.tap_steps()
    regulators = (replace(x, tap_step=steps.get(x.name, x.tap_step)) for x in feeder.regulators)
    source = replace(feeder.source, v_pu=circuit.source_v_pu)
    return replace(
        feeder, regulators=tuple(regulators), transformers=tuple(transformers), source=source
    )


def _kept(case: HostingCase) -> NDArray[np.bool_]:
    """Return the steps that the search looks at.

    Raises ScenarioError: The base case passes a limit, also with regulators that act if they do.
    """
    model = case.whole
    excess = model.check.excess(model.flow(), np.arange(len(model.hours)))
    passed: tuple[Finding, ...] = ()
    if not excess.feasible.all() and case.acting is not None:
        nothing = np.zeros((len(model.hours), len(model.sites)), dtype=np.complex128)
        passed = case.findings(case.solve_again(nothing, acting=True))
        if not passed and not model.pv_pu[excess.feasible].any():
            passed = findings(model.check, excess, model.hours)
    elif not excess.feasible.all():
        passed = findings(model.check, excess, model.hours)
    if passed:
        raise ScenarioError(
            "the base case passes limits before any unit is added: " + "; ".join(map(str, passed)),
            where=case.scenario.where("hosting", "limits"),
            expected="a base case within the limits: other limits, taps, source voltage or loads",
        )
    return excess.feasible
