"""Outputs of a feeder federate that exist only where a scenario uses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

import numpy as np

from federates.core.federate import FloatArray, Port
from federates.kinds.feeder.island import SHED, Island
from federates.kinds.feeder.switchgear import Switchgear
from federates.scenario.schema import Scenario
from grid_models.ders.plant import DerFleet
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.node_voltages import NodeVoltages
from grid_models.opendss.readings import Readings
from grid_models.opendss.source_slopes import SourceSlopes
from grid_models.opendss.states import CapacitorStates, TapPositions


class Measured:
    """What can be read of a circuit, each part bound to the engine when it is first used.

    Parameters
    ----------
    gear : What opens and closes lines and switches; None where nothing does.
    fleet : The DERs; without it there are none.
    island : What holds the unit of an island; None where the grid is none.

    Attributes
    ----------
    temp_meas_c : Measured temperatures of the houses, NaN without one; None: nothing is fed.
    """

    def __init__(
        self,
        circuit: Circuit,
        gear: Switchgear | None = None,
        fleet: DerFleet | None = None,
        island: Island | None = None,
    ) -> None:
        self.circuit, self._gear, self._island = circuit, gear, island
        self.fleet = DerFleet(()) if fleet is None else fleet
        self.temp_meas_c: FloatArray | None = None

    def alive(self, values: FloatArray) -> FloatArray:
        """Return values of nodes with 0 for those that were cut off from the source."""
        return values if self._gear is None else np.where(self._gear.live, values, 0.0)

    def temp_c(self) -> FloatArray:
        """Return the indoor temperature of each house, as measured where it is."""
        own, measured = self.fleet.temp_c, self.temp_meas_c
        return own if measured is None else np.where(np.isnan(measured), own, measured)

    @property
    def gear(self) -> Switchgear:
        """What opens and closes lines and switches."""
        assert self._gear is not None
        return self._gear

    @property
    def island(self) -> Island:
        """The island that the grid is."""
        assert self._island is not None
        return self._island

    @cached_property
    def elements(self) -> Readings:
        """Currents and powers."""
        return Readings(self.circuit)

    @cached_property
    def nodes(self) -> NodeVoltages:
        """Voltages."""
        return NodeVoltages(self.circuit)

    @cached_property
    def taps(self) -> TapPositions:
        """Taps of regulators."""
        return TapPositions(self.circuit)

    @cached_property
    def source(self) -> SourceSlopes:
        """Slopes of the import."""
        return SourceSlopes(self.circuit)

    @cached_property
    def capacitors(self) -> CapacitorStates:
        """States of capacitors."""
        return CapacitorStates(self.circuit)


class OptionalOutput(NamedTuple):
    """An output: its unit, what it is, and how its labels and values are read."""

    unit: str
    text: str
    labels: Callable[[Measured], tuple[str, ...]]
    values: Callable[[Measured], FloatArray]


OUTPUTS: Mapping[str, OptionalOutput] = {
    "v_deg": OptionalOutput(
        "deg",
        "Angle of the voltage per node, to ground.",
        lambda m: m.circuit.node_labels,
        lambda m: m.alive(m.nodes.v_deg()),
    ),
    "v_ln_pu": OptionalOutput(
        "pu",
        "Voltage per node to the neutral of its bus; to ground where it has none.",
        lambda m: m.circuit.node_labels,
        lambda m: m.alive(m.circuit.v_ln_pu()),
    ),
    "unbalance_pct": OptionalOutput(
        "%",
        "Negative over positive sequence voltage (V2/V1, IEC 61000-4-30) per three-phase bus.",
        lambda m: m.nodes.three_phase,
        lambda m: m.nodes.unbalance_pct(),
    ),
    "i_a": OptionalOutput(
        "A",
        "Current per line and transformer, terminal and node: `line.l115.1.2` is phase 2 at the "
        "first terminal of line l115.",
        lambda m: m.elements.current_labels,
        lambda m: m.elements.current_a(),
    ),
    "loading_pct": OptionalOutput(
        "%",
        "Loading per line and transformer (`line.l115`) of its normal amps: phase and terminal "
        "with the highest. A line for which no rating is known has 400 A, as in OpenDSS.",
        lambda m: m.elements.rated,
        lambda m: m.elements.loading_pct(),
    ),
    "line_p_kw": OptionalOutput(
        "kW",
        "Active power into the first terminal of each line.",
        lambda m: m.elements.lines,
        lambda m: m.elements.line_kva().real,
    ),
    "line_q_kvar": OptionalOutput(
        "kvar",
        "Reactive power there.",
        lambda m: m.elements.lines,
        lambda m: m.elements.line_kva().imag,
    ),
    "load_p_kw": OptionalOutput(
        "kW",
        "Active power that each load draws.",
        lambda m: m.elements.loads,
        lambda m: m.elements.load_kva().real,
    ),
    "load_q_kvar": OptionalOutput(
        "kvar",
        "Reactive power that each load draws.",
        lambda m: m.elements.loads,
        lambda m: m.elements.load_kva().imag,
    ),
    "file_der_p_kw": OptionalOutput(
        "kW",
        "Active power that each DER of the user's file injects which OpenDSS runs "
        "(`pvsystem.roof`; `grid.file_ders: engine`).",
        lambda m: m.elements.file_ders,
        lambda m: m.elements.file_der_kva().real,
    ),
    "file_der_q_kvar": OptionalOutput(
        "kvar",
        "Reactive power that each of them injects.",
        lambda m: m.elements.file_ders,
        lambda m: m.elements.file_der_kva().imag,
    ),
    "tap": OptionalOutput(
        "step",
        "Tap per regulator, in steps from neutral (0.00625 pu where it has 32).",
        lambda m: m.taps.names,
        lambda m: m.taps.steps(),
    ),
    "cap_state": OptionalOutput(
        "step",
        "Steps in service per capacitor bank: 1 or 0 for a bank of one.",
        lambda m: m.capacitors.names,
        lambda m: m.capacitors.steps(),
    ),
    "switch_closed": OptionalOutput(
        "1",
        "1 for a line or switch that is closed, 0 for one that is open.",
        lambda m: m.gear.names,
        lambda m: m.gear.closed(),
    ),
    "switch_locked": OptionalOutput(
        "1",
        "1 for a line or switch that a fault or an attack holds, so that commands fail; else 0.",
        lambda m: m.gear.names,
        lambda m: m.gear.locked(),
    ),
    "p_avail_kw": OptionalOutput(
        "kW",
        "Largest active power that each DER could inject in the step: of PV, that of the sun.",
        lambda m: m.fleet.names,
        lambda m: m.fleet.p_high_kw,
    ),
    "temp_c": OptionalOutput(
        "degC",
        "Mean indoor temperature of each house DER at the end of the step, by the feeder's model "
        "or as `temp_meas_c` has it.",
        lambda m: m.fleet.house_names,
        lambda m: m.temp_c(),
    ),
    "soc_kwh": OptionalOutput(
        "kWh",
        "Energy in each battery and electric vehicle at the end of the step, likewise.",
        lambda m: m.fleet.storage_names,
        lambda m: m.fleet.soc_kwh,
    ),
    "plugged": OptionalOutput(
        "1",
        "1 for an electric vehicle that was at home the whole step, else 0.",
        lambda m: m.fleet.vehicles.names,
        lambda m: m.fleet.vehicles.home.astype(np.float64),
    ),
    # The last: it solves again.
    "import_kw_per_pu": OptionalOutput(
        "kW/pu",
        "By how much the import rises with the voltage of the source on all phases, DERs and taps "
        "being fixed: for a `transmission` federate.",
        lambda m: SHED[:1],
        lambda m: np.array([m.source.kva_per_pu().real]),
    ),
    "import_kvar_per_pu": OptionalOutput(
        "kvar/pu",
        "Likewise of the reactive import.",
        lambda m: SHED[:1],
        lambda m: np.array([m.source.kva_per_pu().imag]),
    ),
}

ISLAND_OUTPUTS: Mapping[str, OptionalOutput] = {
    "unit_kw": OptionalOutput(
        "kW",
        "Power of the grid-forming unit; equal to `import_kw`.",
        lambda m: SHED[:1],
        lambda m: np.array([m.island.unit_kw]),
    ),
    "shed_kw": OptionalOutput(
        "kW",
        "Load that is shed to keep it within its limits: `source` all, `flexible` and `critical` "
        "its parts.",
        lambda m: SHED,
        lambda m: m.island.shed_kw,
    ),
    "curtailed_kw": OptionalOutput(
        "kW",
        "Generation that is curtailed for that.",
        lambda m: SHED[:1],
        lambda m: np.array([m.island.curtailed_kw]),
    ),
}

CURRENT_OUTPUTS = frozenset({"i_a", "loading_pct", "line_p_kw", "line_q_kvar"})
"""Outputs that need the currents of lines and transformers."""

GEAR_OUTPUTS = frozenset({"switch_closed", "switch_locked"})
"""Outputs that need a `Switchgear`."""


def available_outputs(island: bool) -> Mapping[str, OptionalOutput]:
    """Return the optional outputs that a feeder can have."""
    return {**OUTPUTS, **ISLAND_OUTPUTS} if island else OUTPUTS


def used_outputs(
    scenario: Scenario, federate: str, available: Iterable[str] = OUTPUTS
) -> tuple[str, ...]:
    """Return which of the available outputs the scenario uses, in their order.

    A connection reads it, the attack names it, or a glob of ``record.ports`` or ``publish`` does.
    A glob that leaves the port open (``*``, ``feeder.*``) names none: recordings do not grow.
    """
    read = {wire.source for wire in scenario.wires}
    spec = scenario.attack_spec
    attack = "" if spec is None else spec.model_dump_json()
    named = (*scenario.record.ports, *scenario.publish)
    globs = [g for g in named if not re.fullmatch(r"[*?]*", g.rpartition(".")[2])]

    def used(port: str) -> bool:
        named = any(fnmatchcase(port, glob) for glob in globs)
        return named or port in read or f'"{port}"' in attack

    return tuple(name for name in available if used(f"{federate}.{name}"))


class OptionalOutputs:
    """The optional outputs that a scenario uses.

    Attributes
    ----------
    ports : What the federate adds to its outputs.
    """

    def __init__(self, measured: Measured, names: tuple[str, ...]) -> None:
        self._measured = measured
        every = {**OUTPUTS, **ISLAND_OUTPUTS}
        chosen = {name: every[name] for name in names}
        self.ports = tuple(Port(n, o.unit, o.labels(measured)) for n, o in chosen.items())
        self._values = {name: output.values for name, output in chosen.items()}

    def values(self) -> dict[str, FloatArray]:
        """Return the ports' values of the circuit's last solution."""
        return {name: values(self._measured) for name, values in self._values.items()}
