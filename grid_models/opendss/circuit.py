"""An OpenDSS circuit for the inner loop of a co-simulation: set, solve, read, in arrays.

Each `Circuit` has an engine context of its own and belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import FeederError, PowerFlowError, nearest_name
from grid_models.feeder.model import Der, Feeder
from grid_models.opendss import edit as dss_edit
from grid_models.opendss import reader as dss_reader
from grid_models.opendss import script as dss_script
from grid_models.opendss.commands import (
    check_der,
    der_command,
    element_names,
    feeder_commands,
    floating_buses,
)
from grid_models.opendss.engine import MAX_CONTROL_ITERATIONS, MAX_ITERATIONS, DssError, Engine
from grid_models.opendss.powers import PowerBank
from grid_models.opendss.source import SourceVoltage, source_phases

RegulatorMode = Literal["fixed", "auto"]

# Change between two iterations, per unit, at which a power flow counts as solved. The engine's own
# 1e-4 leaves a dependence on the previous step that a feedback controller can see.
TOLERANCE_PU, LOOSEST_TOLERANCE_PU = 1e-6, 1e-4
_DER_PREFIX = "feederate_der_"


class Circuit:
    """A feeder in the engine. Build it with `from_feeder`, `from_master` or `open_circuit`.

    Attributes
    ----------
    feeder : What the circuit holds, DERs included.
    node_labels : Labels ``bus.phase`` of the energised nodes 1 to 3, in the order of `v_pu`.
        Neutral nodes (4 and up) and nodes without voltage at the first solution have no label.
    load_names, der_names : tuple of str
        Loads and DERs in the order of `set_loads` and `set_ders`; as in `feeder`.
    load_kw, load_kvar : (n_loads,). Nominal consumption.
    """

    def __init__(self, engine: Engine, feeder: Feeder, regulators: RegulatorMode) -> None:
        self._engine = engine
        self.name = feeder.name
        self._regulators: RegulatorMode = regulators
        self._source: SourceVoltage | None = None
        self._solve_call = (
            engine.lib.ctx_Solution_Solve
            if regulators == "auto"
            else engine.lib.ctx_Solution_SolveNoControl
        )
        self._voltage_pointer = engine.ffi.new("double**")
        self._attach(feeder)
        self._configure()

    # ---------------------------------------------------------------- building

    @classmethod
    def from_feeder(cls, feeder: Feeder, *, regulators: RegulatorMode = "fixed") -> Circuit:
        """Build the circuit of a feeder, its DERs at rest and its loads nominal, and solve it.

        `regulators`: {'fixed', 'auto'} Taps stay where the feeder has them, or regulator controls
        act within each `solve`.

        Raises FeederError: The engine refuses an element.
        Raises PowerFlowError: The power flow does not converge.
        """
        engine = Engine()
        for command in feeder_commands(feeder):
            try:
                engine.command(command)
            except DssError as error:
                raise FeederError(str(error), where=f"feeder '{feeder.name}', {command}") from None
        circuit = cls(engine, feeder, regulators)
        circuit.solve()
        return circuit

    @classmethod
    def from_master(
        cls,
        path: str | Path,
        *,
        regulators: RegulatorMode = "auto",
        ders: Sequence[Der] = (),
        load_limits_pu: tuple[float, float] | None = (0.7, 1.3),
    ) -> Circuit:
        """Compile an OpenDSS master file and solve it once with the file's own controls.

        Commands that only show, plot, export or solve are passed over (a file may end with a
        year of solutions); everything else is run as it stands.

        Parameters
        ----------
        path : The master file.
        regulators : 'auto' leaves the file's controls acting in each `solve`; 'fixed' lets them
            settle once at the file's loads and then holds every tap and switched capacitor.
        ders : Resources to add. They are then the ones that `set_ders` moves, and the file's own
            (PVSystem, Storage, Generator) stay as they are. Without any, the file's own are taken
            over as constant-power injections, at the power of the first solution.
        load_limits_pu : Voltage range in which constant-power loads stay so; wider limits of the
            file are kept. None keeps the file's.

        Raises FeederError: The file cannot be read or does not give a usable circuit.
        Raises PowerFlowError: The power flow does not converge.
        """
        engine = Engine()
        name = dss_script.compile_master(engine, Path(path))
        dss_edit.widen_load_limits(engine, load_limits_pu)
        try:
            engine.first_solution(name)
            feeder = dss_reader.feeder_from_engine(engine, name=name, origin=str(path))
            taken = [] if ders else dss_edit.take_over_ders(engine, feeder.buses)
        except DssError as error:
            raise FeederError(str(error), where=str(path)) from None
        if ders:
            feeder = feeder.with_ders(ders)
        circuit = cls(engine, feeder, regulators)
        circuit.set_loads(circuit.load_kw, circuit.load_kvar)
        engine.command("set loadmult=1")
        if taken:
            circuit.set_ders(np.array([p for p, _ in taken]), np.array([q for _, q in taken]))
        circuit.solve()
        return circuit

    def _attach(self, feeder: Feeder) -> None:
        """Add the DERs and bind every array to the engine's objects."""
        engine = self._engine
        elements = []
        floating = floating_buses(feeder) if feeder.ders else set()
        for i, der in enumerate(feeder.ders):
            bus = feeder.buses[check_der(der, feeder)]
            elements.append(f"{_DER_PREFIX}{i}")
            engine.command(der_command(elements[-1], der, bus, floating=bus.name in floating))
        self.feeder = feeder
        self.node_labels: tuple[str, ...] = feeder.node_labels
        self._base_v = np.array(
            [b.base_kv_ln * 1e3 for b in feeder.buses.values() for _ in b.phases]
        )
        self.load_names = tuple(load.name for load in feeder.loads)
        self.der_names = tuple(der.name for der in feeder.ders)
        self.load_kw = np.array([load.kw for load in feeder.loads], dtype=np.float64)
        self.load_kvar = np.array([load.kvar for load in feeder.loads], dtype=np.float64)
        self._elements = element_names(feeder, elements)
        self._loads = PowerBank(engine, self.load_names)
        self._ders = PowerBank(engine, elements)
        self._loads.kw[:], self._loads.kvar[:] = self.load_kw, self.load_kvar

    def _configure(self) -> None:
        mode = "static" if self._regulators == "auto" else "off"
        for option in (
            "mode=snapshot",
            f"maxiterations={MAX_ITERATIONS}",
            f"maxcontroliter={MAX_CONTROL_ITERATIONS}",
            f"controlmode={mode}",
        ):
            self._engine.command(f"set {option}")
        self._set_tolerance(TOLERANCE_PU)
        self._gather: NDArray[np.intp] | None = None

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

    def set_source(self, v_pu: ArrayLike, deg: ArrayLike) -> None:
        """Set the voltage behind the source's impedance, from the next `solve` on.

        `v_pu`, `deg`: array, shape (n_source_phases,) Magnitude in per unit, angle in degrees; NaN
        keeps the circuit's own value.

        Raises FeederError: The source has fewer phases than its bus.
        """
        if self._source is None:
            self._source = SourceVoltage(self._engine, self.feeder)
            self._gather = None
        self._source.set(np.asarray(v_pu, dtype=np.float64), np.asarray(deg, dtype=np.float64))

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
            self._set_tolerance(float(f"{10.0 * self.tolerance_pu:.0e}"))
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
        engine = self._engine
        self._solve_call(engine.ctx)
        message = engine.take_error()
        if message is None and engine.lib.ctx_Solution_Get_Converged(engine.ctx):
            return None
        return message or ""

    def _set_tolerance(self, tolerance_pu: float) -> None:
        self.tolerance_pu = tolerance_pu
        self._engine.command(f"set tolerance={tolerance_pu!r}")

    def v_pu(self) -> NDArray[np.float64]:
        """Return the voltage magnitudes of the last solution, shape (n_nodes,), per unit."""
        return np.array(self._v_pu)

    def v_complex_pu(self) -> NDArray[np.complex128]:
        """Return the complex voltages of the last solution, shape (n_nodes,), per unit."""
        return np.asarray(self._voltages() / self._base_v)

    def source_kw_kvar(self) -> tuple[float, float]:
        """Return the power that the source feeds in: ``(p_kw, q_kvar)``."""
        lib, ctx = self._engine.lib, self._engine.ctx
        lib.ctx_Circuit_Get_TotalPower_GR(ctx)
        power = lib.ctx_DSS_GR_DataPtr_PDouble(ctx)
        return -float(power[0]), -float(power[1])

    def losses_kw(self) -> float:
        """Return the losses of lines, transformers and other series elements, in kW."""
        lib, ctx = self._engine.lib, self._engine.ctx
        lib.ctx_Circuit_Get_Losses_GR(ctx)
        return float(lib.ctx_DSS_GR_DataPtr_PDouble(ctx)[0]) / 1e3

    def _voltages(self) -> NDArray[np.complex128]:
        """Voltages in volt in the order of `node_labels`; a node that is gone has 0 V."""
        engine = self._engine
        engine.lib.ctx_YMatrix_getVpointer(engine.ctx, self._voltage_pointer)
        buffer = engine.ffi.buffer(self._voltage_pointer[0], 16 * (self._n_engine_nodes + 1))
        everything = np.frombuffer(buffer, dtype=np.complex128)
        return everything[self._gather]

    def _bind_nodes(self) -> None:
        """Find each label in the engine's node vector, whose entry 0 is ground (always 0 V)."""
        order = [str(n).lower() for n in self._engine.dss.Circuit.YNodeOrder()]
        place = {label: i for i, label in enumerate(order, start=1)}
        self._n_engine_nodes = len(order)
        self._gather = np.array([place.get(n, 0) for n in self.node_labels], dtype=np.intp)

    # ---------------------------------------------------------------- taps and switching

    def tap_steps(self) -> dict[str, int]:
        """Return the tap of every regulator, in steps of 0.00625 pu, by transformer name."""
        return dss_edit.tap_steps(self._engine)

    def set_taps(self, taps: Mapping[str, int]) -> None:
        """Move regulators to given taps; regulators that are not named stay.

        Raises FeederError: There is no such regulator, or the step is outside -16 to 16.
        """
        known = {name.lower(): name for name in self.tap_steps()}
        steps: dict[str, int] = {}
        for name, step in taps.items():
            where = f"circuit '{self.name}', regulator '{name}'"
            if name.lower() not in known:
                raise FeederError(
                    "no such regulator",
                    where=where,
                    expected="one of " + ", ".join(known.values()) if known else "no regulators",
                    nearest=nearest_name(name, known.values()),
                )
            if step != int(step) or abs(step) > 16:
                raise FeederError(f"tap step {step}", where=where, expected="-16 to 16")
            steps[known[name.lower()]] = int(step)
        dss_edit.set_taps(self._engine, steps)

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


def adjusted(
    circuit: Circuit, taps: Mapping[str, int] | None, source_v_pu: float | None
) -> Circuit:
    """Return the circuit, solved again with other taps and another source voltage."""
    if source_v_pu is not None:
        circuit._engine.dss.Vsources.First()
        circuit._engine.dss.Vsources.PU(source_v_pu)
    if taps:
        circuit.set_taps(taps)
    if taps or source_v_pu is not None:
        circuit.solve()
    return circuit
