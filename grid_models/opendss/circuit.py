"""An OpenDSS circuit for the inner loop of a co-simulation: set, solve, read, in arrays.

Each `Circuit` has an engine context of its own and belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import FeederError, PowerFlowError, nearest_name
from grid_models.feeder.model import Der, Feeder, node_label
from grid_models.opendss import edit as dss_edit
from grid_models.opendss.admittance import shunt_conductance
from grid_models.opendss.commands import (
    check_der,
    der_command,
    element_names,
    feeder_commands,
    floating_buses,
)
from grid_models.opendss.engine import MAX_CONTROL_ITERATIONS, MAX_ITERATIONS, DssError, Engine
from grid_models.opendss.powers import PowerBank
from grid_models.opendss.shapes import mean_shapes
from grid_models.opendss.solution import RegulatorMode, SnapshotSolution, Solution
from grid_models.opendss.source import SourceVoltage, source_phases

# Change between two iterations, per unit, at which a power flow counts as solved. The engine's own
# 1e-4 leaves a dependence on the previous step that a feedback controller can see.
TOLERANCE_PU, LOOSEST_TOLERANCE_PU = 1e-6, 1e-4
_DER_PREFIX = "feederate_der_"


class Circuit:
    """A feeder in the engine. Build it with `from_feeder`, `open_master` or `open_circuit`.

    Attributes
    ----------
    feeder : What the circuit holds, DERs included.
    node_labels : Labels ``bus.phase`` of the energised phases, in the order of `v_pu`.
        Neutrals and nodes without voltage at the first solution have no label.
    load_names, der_names : tuple of str
        Loads and DERs in the order of `set_loads` and `set_ders`; as `all_loads` and `ders` of
        `feeder`.
    load_kw, load_kvar : (n_loads,). Nominal consumption.
    bindings, solutions : Count how often the nodes changed, and the solutions.
    """

    def __init__(
        self,
        engine: Engine,
        feeder: Feeder,
        solution: Solution,
        tolerance_pu: float = TOLERANCE_PU,
    ) -> None:
        self._engine = engine
        self.name = feeder.name
        self._solution = solution
        self._source: SourceVoltage | None = None
        self._times_counted = engine.times_counted()
        self._voltage_pointer = engine.ffi.new("double**")
        self._gather: NDArray[np.intp] | None = None
        self.bindings = self.solutions = 0
        self.feeder = feeder
        self.der_names: tuple[str, ...] = ()
        self._bind_loads(feeder)
        self._bind_ders(feeder.ders)
        for option, most in (
            ("maxiterations", MAX_ITERATIONS),
            ("maxcontroliter", MAX_CONTROL_ITERATIONS),
        ):
            engine.command(f"set {option}={most}")
        self.set_tolerance(tolerance_pu)

    # ---------------------------------------------------------------- building

    @classmethod
    def from_feeder(
        cls,
        feeder: Feeder,
        *,
        regulators: RegulatorMode = "fixed",
        tolerance_pu: float = TOLERANCE_PU,
    ) -> Circuit:
        """Build the circuit of a feeder, its DERs at rest and its loads nominal, and solve it.

        `regulators`: {'fixed', 'auto'} Taps stay where the feeder has them, or regulator controls
        act within each `solve`.

        Raises FeederError: The engine refuses an element.
        Raises PowerFlowError: The power flow does not converge.
        """
        engine = Engine(own=True)
        for command in feeder_commands(feeder):
            try:
                engine.command(command)
            except DssError as error:
                raise FeederError(str(error), where=f"feeder '{feeder.name}', {command}") from None
        circuit = cls(engine, feeder, SnapshotSolution(engine, regulators), tolerance_pu)
        circuit.solve()
        return circuit

    def place_ders(self, ders: Sequence[Der]) -> None:
        """Add DERs to those of the circuit, all at rest, and solve it.

        Raises FeederError: A DER stands on a bus or phase that the feeder does not have.
        Raises PowerFlowError: The power flow does not converge.
        """
        if ders:
            self._bind_ders(ders)
            self._gather = None
            self.solve()

    def _bind_ders(self, ders: Sequence[Der]) -> None:
        """Add DERs to the engine's circuit and bind the powers of all."""
        engine, feeder, n = self._engine, self.feeder, len(self.der_names)
        floating = floating_buses(feeder) if ders else set()
        elements = [f"{_DER_PREFIX}{i}" for i in range(n + len(ders))]
        for element, der in zip(elements[n:], ders, strict=True):
            bus = feeder.buses[check_der(der, feeder)]
            engine.command(der_command(element, der, bus, floating=bus.name in floating))
        self.feeder = feeder.with_ders((*(feeder.ders if n else ()), *ders))
        self.der_names = tuple(der.name for der in self.feeder.ders)
        self._elements = element_names(self.feeder, elements)
        self._ders = PowerBank(engine, elements)

    def _bind_loads(self, feeder: Feeder) -> None:
        """Bind nodes and loads to the engine's objects."""
        engine = self._engine
        self.node_labels: tuple[str, ...] = feeder.node_labels
        self._base_v = np.array(
            [b.base_kv_ln * 1e3 for b in feeder.buses.values() for _ in b.phases]
        )
        loads = feeder.all_loads
        self.load_names = tuple(load.name for load in loads)
        self.load_kw = np.array([load.kw for load in loads], dtype=np.float64)
        self.load_kvar = np.array([load.kvar for load in loads], dtype=np.float64)
        self._loads = PowerBank(engine, self.load_names)
        self._loads.kw[:], self._loads.kvar[:] = self.load_kw, self.load_kvar

    # ---------------------------------------------------------------- per step

    def set_loads(self, kw: ArrayLike, kvar: ArrayLike) -> None:
        """Set the consumption of every load, arrays of shape (n_loads,) in order of `load_names`.

        This is the power at nominal voltage; loads of model I or Z draw it scaled by the voltage.
        """
        self._loads.fill(kw, kvar, f"loads of circuit '{self.name}'")
        self._loads.write()

    def set_ders(self, p_kw: ArrayLike, q_kvar: ArrayLike) -> None:
        """Set the injection of every DER, arrays of shape (n_ders,) in order of `der_names`."""
        bank = self._ders
        bank.fill(p_kw, q_kvar, f"DERs of circuit '{self.name}'")
        np.negative(bank.kw, out=bank.kw)
        np.negative(bank.kvar, out=bank.kvar)
        bank.write()

    @property
    def source_phases(self) -> tuple[int, ...]:
        """Phases of the source bus, in the order of `set_source`."""
        return source_phases(self.feeder)

    @property
    def source_v_pu(self) -> float:
        """Voltage of the circuit's own source, until `set_source` takes its place."""
        self._engine.dss.Vsources.First()
        return float(self._engine.dss.Vsources.PU())

    @source_v_pu.setter
    def source_v_pu(self, v_pu: float) -> None:
        self._engine.dss.Vsources.First()
        self._engine.dss.Vsources.PU(v_pu)

    def set_source(self, v_pu: ArrayLike, deg: ArrayLike) -> None:
        """Set the voltage behind the source's impedance, from the next `solve` on.

        `v_pu`, `deg`: array, shape (n_source_phases,) Magnitude in per unit, angle in degrees; NaN
        keeps the circuit's own value.

        Raises FeederError: The source has fewer phases than its bus.
        """
        self._set_source().set(
            np.asarray(v_pu, dtype=np.float64), np.asarray(deg, dtype=np.float64)
        )

    def shift_source(self, dv_pu: float) -> None:
        """Change the source's voltage on all phases; see `set_source`."""
        self._set_source().shift(dv_pu)

    def _set_source(self) -> SourceVoltage:
        if self._source is None:
            self._source = SourceVoltage(self._engine, self.feeder)
            self._gather = None
        return self._source

    def set_time(self, time_s: float) -> None:
        """Set the time of the next `solve`, in s, where a user's file has shapes and controls.

        In the file's storage and controls the time from the last solution to this one passes.
        """
        self._solution.set_time(time_s)

    def set_sun(self, irradiance_pu: float) -> None:
        """Set the irradiance (of 1000 W/m2) of the file's PVSystems that follow the profile."""
        self._solution.set_sun(irradiance_pu)

    @property
    def controls_settled(self) -> bool:
        """Whether the controls had nothing left to do at the end of the last solution."""
        return self._engine.controls_settled

    def mean_shapes(self, times_s: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Return ``load_pu`` and ``irradiance_pu`` of the file's load shapes; see `mean_shapes`."""
        return mean_shapes(self._engine, np.asarray(times_s, dtype=np.float64))

    def solve(self) -> None:
        """Solve the power flow at the present settings.

        Raises PowerFlowError: It did not converge, the controls did not settle, or a voltage is not
        finite.
        """
        while (message := self._try_to_solve()) is not None:
            # Some circuits (thousands of nodes, floating neutrals) cannot be solved to 1e-6 in
            # double precision. They stay at the looser tolerance from then on.
            if message or self.tolerance_pu >= LOOSEST_TOLERANCE_PU:
                raise PowerFlowError(
                    f"the power flow did not converge{': ' + message if message else ''}",
                    where=f"circuit '{self.name}'",
                    expected=f"a solution within {MAX_ITERATIONS} iterations",
                )
            self.set_tolerance(float(f"{10.0 * self.tolerance_pu:.0e}"))
        self.solutions += 1
        if self._gather is None:
            self._bind_nodes()
        v = self._voltages()
        if not np.isfinite(v).all():
            raise PowerFlowError(
                "the power flow gave a voltage that is not finite", where=f"circuit '{self.name}'"
            )
        self._v_pu: NDArray[np.float64] = np.abs(v) / self._base_v

    def _try_to_solve(self) -> str | None:
        """Return None when solved, else the engine's message ('' when it only ran on too long)."""
        self._solution.solve()
        return self._engine.solution_error()

    def set_tolerance(self, tolerance_pu: float) -> None:
        """Set the largest change between two iterations of a solution, per unit."""
        self.tolerance_pu = tolerance_pu
        self._engine.command(f"set tolerance={tolerance_pu!r}")

    def v_pu(self) -> NDArray[np.float64]:
        """Return the voltage magnitudes of the last solution, shape (n_nodes,), per unit."""
        return np.array(self._v_pu)

    def v_ln_pu(self) -> NDArray[np.float64]:
        """Return voltages from phase to the bus's neutral (ground where there is none), (n_nodes,).

        As `v_pu` otherwise.
        """
        everything, phases = self.node_volts(), self._gather
        return np.asarray(np.abs(everything[phases] - everything[self._neutrals]) / self._base_v)

    def v_complex_pu(self) -> NDArray[np.complex128]:
        """Return the complex voltages of the last solution, shape (n_nodes,), per unit."""
        return np.asarray(self._voltages() / self._base_v)

    def unloaded_v_pu(self) -> NDArray[np.complex128]:
        """Return `v_complex_pu` without loads and DERs; the circuit has them again afterwards."""
        lib, ctx = self._engine.lib, self._engine.ctx
        with self._loads.at_zero(), self._ders.at_zero():
            lib.ctx_Solution_SolveNoControl(ctx)
            v = self.v_complex_pu()
        lib.ctx_Solution_SolveNoControl(ctx)
        return v

    def source_kw_kvar(self) -> tuple[float, float]:
        """Return the power that the source feeds in: ``(p_kw, q_kvar)``."""
        lib, ctx = self._engine.lib, self._engine.ctx
        lib.ctx_Circuit_Get_TotalPower_GR(ctx)
        power = lib.ctx_DSS_GR_DataPtr_PDouble(ctx)
        return -float(power[0]) / self._times_counted, -float(power[1]) / self._times_counted

    def losses_kw(self) -> float:
        """Return the losses of lines, transformers, reactors and capacitors, in kW."""
        lib, ctx = self._engine.lib, self._engine.ctx
        lib.ctx_Circuit_Get_Losses_GR(ctx)
        series_kw = float(lib.ctx_DSS_GR_DataPtr_PDouble(ctx)[0]) / (1e3 * self._times_counted)
        if self._shunts is None:
            return series_kw
        # The engine leaves out what shunt elements dissipate.
        v = self.node_volts()
        lost_w = np.vdot(v, np.asarray(self._shunts @ v)).real
        return series_kw + float(lost_w) / 1e3

    @property
    def engine(self) -> Engine:
        """The engine, for what reads its elements."""
        return self._engine

    @property
    def der_elements(self) -> tuple[str, ...]:
        """Return the engine's full names of the DERs, in the order of `der_names`."""
        return tuple(self._elements[name.lower()] for name in self.der_names)

    def engine_nodes(self) -> tuple[str, ...]:
        """Return the engine's names of all nodes; node i is entry i + 1 of `node_volts`."""
        if self._gather is None:
            self._bind_nodes()
        return self._engine_nodes

    def _voltages(self) -> NDArray[np.complex128]:
        """Voltages in volt in the order of `node_labels`; a node that is gone has 0 V."""
        return self.node_volts()[self._gather]

    def node_volts(self) -> NDArray[np.complex128]:
        """Return all node voltages in volt, entry 0 for ground; valid until the next solution."""
        engine = self._engine
        engine.lib.ctx_YMatrix_getVpointer(engine.ctx, self._voltage_pointer)
        buffer = engine.ffi.buffer(self._voltage_pointer[0], 16 * (len(self._engine_nodes) + 1))
        return np.frombuffer(buffer, dtype=np.complex128)

    def _bind_nodes(self) -> None:
        """Find each label in the engine's node vector, whose entry 0 is ground (always 0 V)."""
        order = [str(n).lower() for n in self._engine.dss.Circuit.YNodeOrder()]
        place = {label: i for i, label in enumerate(order, start=1)}
        self._engine_nodes = tuple(order)
        self._shunts = shunt_conductance(self._engine)
        self.bindings += 1
        self._gather = np.array([place.get(n, 0) for n in self.node_labels], dtype=np.intp)
        neutrals = (
            node_label(bus.name, bus.neutral)
            for bus in self.feeder.buses.values()
            for _ in bus.phases
        )
        self._neutrals = np.array([place.get(n, 0) for n in neutrals], dtype=np.intp)

    # ---------------------------------------------------------------- taps and switching

    def tap_steps(self) -> dict[str, int]:
        """Return the tap of every regulator, in steps of 0.00625 pu, by transformer name."""
        return dss_edit.tap_steps(self._engine)

    def set_taps(self, taps: Mapping[str, int]) -> None:
        """Move regulators to given taps; regulators that are not named stay.

        Raises FeederError: There is no such regulator, or the step is outside -16 to 16.
        """
        dss_edit.set_taps(self._engine, self.name, taps)

    def adjusted(self, taps: Mapping[str, int] | None, source_v_pu: float | None) -> Circuit:
        """Return the circuit, solved again with other taps and another source voltage.

        Raises FeederError: There is no such regulator, or a value is out of range.
        """
        if source_v_pu is not None:
            if not 0.5 <= source_v_pu <= 1.5:
                raise FeederError(f"source voltage {source_v_pu} pu", expected="0.5 to 1.5")
            self.source_v_pu = source_v_pu
        if taps:
            self.set_taps(taps)
        if taps or source_v_pu is not None:
            self.solve()
        return self

    def enable(self, element: str, on: bool) -> None:
        """Put an element in or out of service (a trip), from the next `solve` on.

        Parameters
        ----------
        element : Name of a DER, load, line, switch, transformer, regulator or capacitor of the
            feeder, or ``class.name`` as OpenDSS says it.
        on : False takes it out of service.
        """
        full = self._resolve(element)
        self._engine.command(f'edit "{full}" enabled={"yes" if on else "no"}')
        self._gather = None

    def set_switch(self, name: str, closed: bool) -> None:
        """Open or close a switch (or any line), all phases, from the next `solve` on."""
        full = self._resolve(name)
        if closed:
            self._engine.command(f'edit "{full}" enabled=yes')
            self._engine.command(f'close "{full}" 2')
        self._engine.command(f'{"close" if closed else "open"} "{full}" 1')
        self._gather = None

    def _resolve(self, element: str) -> str:
        wanted = element.lower()
        if wanted in self._elements:
            return self._elements[wanted]
        all_names = [str(n).lower() for n in self._engine.dss.Circuit.AllElementNames()]
        if wanted in all_names:
            return wanted
        raise FeederError(
            f"no element '{element}'",
            where=f"circuit '{self.name}'",
            expected="a name of the feeder, or class.name",
            nearest=nearest_name(wanted, [*self._elements, *all_names]),
        )
