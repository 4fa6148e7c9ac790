"""The power-flow federate: an OpenDSS feeder with its loads, DERs and day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from federates.attacks.physical.resolve import physical_plan
from federates.clock import to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.kinds.feeder.attack import GridAttack, branches_of
from federates.kinds.feeder.commands import INPUTS, GridCommands, used_inputs
from federates.kinds.feeder.demand import Demand
from federates.kinds.feeder.departures import Departures
from federates.kinds.feeder.grid_files import FOLDER, write_grid
from federates.kinds.feeder.island import Island
from federates.kinds.feeder.metrics import EquipmentMetrics, VoltageMetrics
from federates.kinds.feeder.ports import (
    CURRENT_OUTPUTS,
    GEAR_OUTPUTS,
    Measured,
    OptionalOutputs,
    available_outputs,
    used_outputs,
)
from federates.kinds.feeder.section import FeederSection
from federates.kinds.feeder.switchgear import Switchgear
from federates.kinds.feeder.topology import topology
from federates.scenario.kinds import FederateSection
from grid_models.base.errors import PowerFlowError
from grid_models.ders.plant import DerFleet
from grid_models.ders.volt_var import VoltVarResponse

if TYPE_CHECKING:
    from federates.core.run_store import RunStore
    from federates.scenario.schema import Scenario

SOURCE = ("source",)
DARK_PU = 0.3
"""Voltage of the source below which it supplies nothing: loads and DERs are off."""
_SOLVED_DARK_PU = 1e-3


class Applied(NamedTuple):
    """What a step has set: demand, (n_loads,), and injections, (n_ders,).

    `dark`: Whether the source is below `DARK_PU`.
    """

    load_kw: FloatArray
    load_kvar: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray
    dark: bool


class FeederFederate(Federate):
    """Solves the feeder once per step with the set-points that were published before it.

    Inputs (all optional): ``q_set_kvar`` and ``p_set_kw``, one element per DER, injections
    positive; ``p_meas_kw`` and ``q_meas_kvar``, measured injections, which where they are not NaN
    replace the model of the DER; ``temp_meas_c``, measured indoor temperatures of houses, which
    replace the model's in ``temp_c``; ``source_v_pu`` and ``source_deg``, magnitude and angle of
    the slack voltage, one element per phase of the source bus (labels ``1``, ``2``, ``3``), which
    where they are not NaN replace the grid's own. Outputs: ``v_pu`` per node; ``p_kw``, ``q_kvar``
    per DER as applied (after ratings and headroom, or as measured); ``import_kw``,
    ``import_kvar``, ``losses_kw`` of the feeder.

    A scenario whose attack has physical steps adds the inputs of `federates.attacks.physical.plan`.

    Attributes
    ----------
    physical : What the scenario's attack does to the grid.
    """

    Section: ClassVar[type[FederateSection]] = FeederSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        section = context.section
        assert isinstance(section, FeederSection)
        self._context, self._settling = context, context.settling_steps(section.settle_s)
        scenario, site = context.scenario, context.site
        grid, time = site.grid, scenario.time
        ders = site.feeder.ders
        circuit = site.take_circuit()
        self._circuit = circuit
        self.warnings = site.feeder.notes
        self._fleet = DerFleet(ders, seed=scenario.seed, heat_pumps=grid.heat_pumps)
        forming = grid.grid_forming
        self._island = None if forming is None else Island(forming, circuit, self._fleet)
        self._dt_s = context.period_s
        self._warm_up_s = context.warm_up_s
        self._start_s = time.start_s
        self._curves = VoltVarResponse(ders, circuit.node_labels)
        count = self.timing.steps_before(context.n_steps * scenario.step_ns)
        times = time.start_s + to_s(self.timing.offset_ns) + np.arange(count) * self._dt_s
        profiles = site.profiles()
        self._day = profiles.sample(times, repeat_daily=grid.profiles.repeat)
        self._demand = Demand(
            site, circuit, self._day, profiles.origin, time.start_s, scenario.seed
        )
        self._k, self._dark = 0, False
        ends = (wire.target.partition(".") for wire in scenario.wires)
        fed = {port for federate, _, port in ends if federate == self.name}
        vehicles = self._fleet.vehicles
        self._departures = Departures(vehicles) if vehicles.names else None
        self._measures = not fed.isdisjoint(("p_meas_kw", "q_meas_kvar"))
        self._feels = "temp_meas_c" in fed
        self._source_fed = not fed.isdisjoint(("source_v_pu", "source_deg"))
        der_names = tuple(der.name for der in ders)
        phases = tuple(map(str, circuit.source_phases))
        # DERs with a volt-var curve of their own follow it until they are commanded.
        no_command = np.nan if self._curves else 0.0
        self.inputs = (
            Port("q_set_kvar", "kvar", der_names, initial=no_command, required=False),
            Port("p_set_kw", "kW", der_names, initial=np.nan, required=False),
            Port("p_meas_kw", "kW", der_names, initial=np.nan, required=False),
            Port("q_meas_kvar", "kvar", der_names, initial=np.nan, required=False),
            Port("temp_meas_c", "degC", self._fleet.house_names, initial=np.nan, required=False),
            Port("source_v_pu", "pu", phases, initial=np.nan, required=False),
            Port("source_deg", "deg", phases, initial=np.nan, required=False),
        )
        self.outputs = (
            Port("v_pu", "pu", circuit.node_labels, initial=1.0),
            Port("p_kw", "kW", der_names),
            Port("q_kvar", "kvar", der_names),
            Port("import_kw", "kW", SOURCE),
            Port("import_kvar", "kvar", SOURCE),
            Port("losses_kw", "kW", SOURCE),
        )
        self._grid_folder = self.name if len(scenario.plants) > 1 else ""
        self.physical = physical_plan(scenario, self.name, site.feeder)
        self._add_optional_ports(scenario)
        self._add_metrics(scenario, auto=site.regulators == "auto")

    def _add_metrics(self, scenario: Scenario, *, auto: bool) -> None:
        """Prepare the run's metrics; `auto`: whether regulators follow their own controls."""
        band = (scenario.band.v_min_pu, scenario.band.v_max_pu)
        self._metrics = VoltageMetrics(band, len(self._circuit.node_labels), len(self._fleet.ders))
        ports = {port.name for port in (*self.inputs, *self.outputs)}
        self._equipment = EquipmentMetrics(
            self._measured,
            self._dt_s,
            switches=auto or bool(ports & {"tap_set", "cap_set"}),
            every_step=bool(ports & CURRENT_OUTPUTS),
        )

    def _settle(self) -> None:
        """Let the DERs live before the run; batteries rest meanwhile."""
        n = self._settling
        times_s = self._start_s + to_s(self.timing.offset_ns) - self._dt_s * np.arange(n, 0, -1)
        site = self._context.site
        repeat = site.grid.profiles.repeat
        day = site.profiles().sample(np.maximum(times_s, 0.0), repeat_daily=repeat)
        for k in range(n):
            sun, temp_c = float(day["irradiance_pu"][k]), float(day["temp_c"][k])
            load_pu = float(day["load_pu"][k])
            self._fleet.step(self._dt_s, sun, temp_c, load_pu=load_pu, time_s=float(times_s[k]))

    def _add_optional_ports(self, scenario: Scenario) -> None:
        """Add what the scenario reads, records, feeds or attacks."""
        circuit = self._circuit
        available = available_outputs(self._island is not None)
        used, fed = used_outputs(scenario, self.name, available), used_inputs(scenario, self.name)
        touched = {} if self.physical is None else self.physical.labels
        switched = bool(branches_of(touched)) or "switch_set" in fed
        switched = switched or not GEAR_OUTPUTS.isdisjoint(used)
        self._gear = Switchgear(circuit) if switched else None
        self._measured = Measured(circuit, self._gear, self._fleet, self._island)
        self._more = OptionalOutputs(self._measured, used)
        self._commands = GridCommands(self._measured, fed, self._gear)
        self._attack: GridAttack | None = None
        if self.physical is not None or self._gear is not None:
            self._attack = GridAttack(touched, circuit, self._gear)
        self.inputs += self._commands.ports
        if self.physical is not None:
            self.inputs += self.physical.ports()
        self.outputs += self._more.ports
        self.optional_inputs = tuple(name for name in INPUTS if name not in fed)
        self.optional_outputs = tuple(name for name in available if name not in used)

    def start(self, store: RunStore) -> None:
        """Let the DERs settle, write what the grid is, let its events reach the run's list."""
        self._settle()
        self._equipment.start(partial(store.event, self.name))
        if store.keeps:
            write_grid(store.folder / FOLDER / self._grid_folder, self._measured)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Apply profile and set-points, solve, measure."""
        day, k = self._day, self._k
        self._k += 1
        circuit, attack = self._circuit, self._attack
        circuit.set_time(self._start_s + time_s)
        circuit.set_sun(day["irradiance_pu"][k])
        self._commands.take(time_s, inputs, self._equipment.tell)
        counts = time_s >= self._warm_up_s
        demand_kw, load_kvar = self._demand.powers(k, time_s, self._commands.load_scale)
        load_kw = demand_kw
        if attack is not None:
            attack.take(inputs, self._dt_s if counts else 0.0)
            load_kw, load_kvar = attack.loads(load_kw, load_kvar)
        dark = self._source_fed and self._set_source(inputs["source_v_pu"], inputs["source_deg"])
        if dark != self._dark:
            self._equipment.tell("source_lost" if dark else "source_back", time_s)
            self._dark = dark
        if dark:
            load_kw, load_kvar = np.zeros_like(load_kw), np.zeros_like(load_kvar)
        circuit.set_loads(load_kw, load_kvar)
        p_kw, q_kvar = self._injections(k, time_s, inputs)
        if dark:
            p_kw, q_kvar = np.zeros_like(p_kw), np.zeros_like(q_kvar)
        if self._departures is not None:
            self._departures.tell(time_s, self._equipment.tell, counts)
        power_flow = partial(self._power_flow, np.isfinite(inputs["q_set_kvar"]) | dark)
        with self._located(time_s):
            if self._island is None:
                q_kvar = power_flow(p_kw, q_kvar)
            else:
                p_kw, q_kvar = self._island.hold(p_kw, q_kvar, load_kw, load_kvar, power_flow)
        self._applied = Applied(load_kw, load_kvar, p_kw, q_kvar, dark)
        v_pu, judged_pu, import_kva, losses_kw = self._read()
        if counts:
            self._metrics.add(self._dt_s, judged_pu, import_kva.real, losses_kw, q_kvar)
        if self._island is not None:
            self._island.count(time_s, self._dt_s if counts else 0.0, self._equipment.tell)
        cut = None if attack is None else ~attack.loads_on
        cut = np.ones(load_kw.shape, dtype=bool) if dark else cut
        self._equipment.add(time_s, import_kva.real, losses_kw, p_kw, demand_kw, cut, counts)
        return Step(
            {
                "v_pu": v_pu,
                "p_kw": p_kw,
                "q_kvar": q_kvar,
                "import_kw": np.array([import_kva.real]),
                "import_kvar": np.array([import_kva.imag]),
                "losses_kw": np.array([losses_kw]),
            }
            | self._more.values()
        )

    def _read(self) -> tuple[FloatArray, FloatArray, complex, float]:
        """Return voltages, those that count, import and losses; zeros and NaN in the dark."""
        circuit = self._circuit
        v_pu = judged_pu = circuit.v_pu()
        if self._applied.dark:
            return np.zeros_like(v_pu), np.full_like(v_pu, np.nan), 0j, 0.0
        if self._gear is not None:
            v_pu, judged_pu = self._gear.voltages(v_pu)
        return v_pu, judged_pu, complex(*circuit.source_kw_kvar()), circuit.losses_kw()

    def _injections(
        self, k: int, time_s: float, inputs: Mapping[str, FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return what the DERs inject, modelled or measured, kW and kvar."""
        day, attack = self._day, self._attack
        p_kw, q_kvar = self._fleet.step(
            self._dt_s,
            day["irradiance_pu"][k],
            day["temp_c"][k],
            inputs["p_set_kw"],
            inputs["q_set_kvar"],
            load_pu=day["load_pu"][k],
            disturbance=None if attack is None else attack.ders,
            time_s=self._start_s + time_s,
        )
        if self._measures:
            measured_p, measured_q = inputs["p_meas_kw"], inputs["q_meas_kvar"]
            p_kw = np.where(np.isnan(measured_p), p_kw, measured_p)
            q_kvar = np.where(np.isnan(measured_q), q_kvar, measured_q)
        if self._feels:
            self._measured.temp_meas_c = inputs["temp_meas_c"]
        return (p_kw, q_kvar) if attack is None else attack.injections(p_kw, q_kvar)

    @contextmanager
    def _located(self, time_s: float) -> Iterator[None]:
        """Let a power flow that fails say when, and what was done to the grid."""
        try:
            yield
        except PowerFlowError as error:
            error.where = f"{error.where or self._circuit.feeder.name} at time_s={time_s:g}"
            if self.physical is not None:
                error.where += ", under the scenario's attack"
            if self._gear is not None and self._gear.opened:
                error.where += f", with {', '.join(self._gear.opened)} open"
            raise

    def _set_source(self, v_pu: FloatArray, deg: FloatArray) -> bool:
        """Set the source's voltage where it is given; return whether it is too low to supply.

        In the dark the circuit is solved without loads and DERs at a trace of voltage, so that all
        that is read of it is next to 0 and the next solution has a start.
        """
        dark = bool((v_pu < DARK_PU).all())
        if not (np.isnan(v_pu).all() and np.isnan(deg).all()):
            self._circuit.set_source(np.full_like(v_pu, _SOLVED_DARK_PU) if dark else v_pu, deg)
        return dark

    def _power_flow(
        self, commanded: NDArray[np.bool_], p_kw: FloatArray, q_kvar: FloatArray
    ) -> FloatArray:
        """Solve with these injections; return the reactive power as volt-var curves make it."""
        if self._curves:
            return self._curves.settle(p_kw, q_kvar, commanded, partial(self._solve, p_kw))
        self._solve(p_kw, q_kvar)
        return q_kvar

    def _solve(self, p_kw: FloatArray, q_kvar: FloatArray) -> FloatArray:
        """Solve with these injections; return the voltages, pu."""
        self._circuit.set_ders(p_kw, q_kvar)
        self._circuit.solve()
        return self._circuit.v_pu()

    def topology(self) -> str:
        """Return the circuit, as it stands, as an OEDI-SI Topology in JSON."""
        return topology(self._circuit)

    def summary(self) -> dict[str, float]:
        """Return the run's metrics."""
        totals = self._metrics.totals() | self._equipment.totals()
        if self._departures is not None:
            totals |= self._departures.totals()
        if self._island is not None:
            totals |= self._island.totals()
        return totals if self._attack is None else totals | self._attack.summary()
