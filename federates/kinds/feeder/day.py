"""A scenario's feeder and its day as arrays, for studies that solve many power flows at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from federates.core.federate import FloatArray
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.kinds.feeder.demand import Demand
from federates.scenario.schema import Scenario
from grid_models.batched.power_flow import BatchedFeeder
from grid_models.current_injection.model import ComplexArray
from grid_models.ders.plant import DerFleet


class GridDay:
    """The feeder of one plant at fixed taps, and what its loads and DERs do over the day.

    Parameters
    ----------
    scenario : With one plant, or one named by `plant`.
    times_s : (T,). Instants since the run's start; default: its steps.
    site : The plant's grid, where it is not the scenario's own.

    Attributes
    ----------
    circuit : OpenDSS, solved; its taps stay.
    columns : The profile at the instants, by column, (T,) each: `irradiance_pu`, `temp_c`,
        `load_pu`, `price_per_kwh` and the user's own.

    Raises ScenarioError: OpenDSS runs the load shapes of the user's file.
    """

    def __init__(
        self,
        scenario: Scenario,
        times_s: FloatArray | None = None,
        *,
        plant: str | None = None,
        site: GridSite | None = None,
    ) -> None:
        self.scenario = scenario
        self.site = site = GridSite(scenario, plant) if site is None else site
        if site.grid.profiles.kind == "master":
            raise ScenarioError(
                "the load shapes of an OpenDSS file are run by OpenDSS alone",
                where=site.where("profiles", "kind"),
                expected="a generated day, or grid.profiles.path",
            )
        every = np.arange(scenario.n_steps, dtype=np.float64) * scenario.time.step_s
        self.times_s: FloatArray = every if times_s is None else times_s
        self.circuit = site.take_circuit()
        self.profiles = site.profiles()
        start_s = scenario.time.start_s
        self.columns = self.profiles.sample(
            start_s + self.times_s, repeat_daily=site.grid.profiles.repeat
        )
        self._demand = Demand(
            site, self.circuit, self.columns, self.profiles.origin, start_s, scenario.seed
        )

    @cached_property
    def feeder(self) -> BatchedFeeder:
        """The batched power flow of the circuit."""
        with self.site.located():
            return BatchedFeeder(self.circuit)

    @cached_property
    def load_kva(self) -> ComplexArray:
        """Demand of every load, complex (T, n_loads), kW + j kvar."""
        rows = [self._demand.powers(k, float(t), None) for k, t in enumerate(self.times_s)]
        kva = np.zeros((len(rows), len(self.circuit.load_names)), dtype=np.complex128)
        for k, (kw, kvar) in enumerate(rows):
            kva[k].real, kva[k].imag = kw, kvar
        return kva

    def der_kva(self, step_s: float) -> ComplexArray:
        """Return what the DERs inject when nobody commands them, complex (T, n_ders)."""
        fleet = DerFleet(
            self.site.feeder.ders, seed=self.scenario.seed, heat_pumps=self.site.grid.heat_pumps
        )
        kva = np.zeros((len(self.times_s), fleet.n), dtype=np.complex128)
        day, start_s = self.columns, self.scenario.time.start_s
        for k, t in enumerate(self.times_s.tolist()):
            p_kw, q_kvar = fleet.step(
                step_s,
                float(day["irradiance_pu"][k]),
                float(day["temp_c"][k]),
                load_pu=float(day["load_pu"][k]),
                time_s=start_s + t,
            )
            kva[k].real, kva[k].imag = p_kw, q_kvar
        return kva
