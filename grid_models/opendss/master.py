"""A user's OpenDSS master file as a `Circuit`: its loads, DERs, controls and time series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError, listed
from grid_models.feeder.model import Feeder
from grid_models.opendss import edit as dss_edit
from grid_models.opendss import file_ders as dss_ders
from grid_models.opendss import reader as dss_reader
from grid_models.opendss import script as dss_script
from grid_models.opendss.circuit import TOLERANCE_PU, Circuit
from grid_models.opendss.engine import MAX_CONTROL_ITERATIONS, DssError, Engine
from grid_models.opendss.file_ders import FileDers
from grid_models.opendss.solution import FileOptions, RegulatorMode, TimedSolution

LOAD_LIMITS_PU = (0.7, 1.3)


def open_master(
    path: str | Path,
    *,
    regulators: RegulatorMode = "auto",
    file_ders: FileDers = "engine",
    load_shapes: bool = False,
    step_s: float = 60.0,
    load_limits_pu: tuple[float, float] | None = LOAD_LIMITS_PU,
    tolerance_pu: float = TOLERANCE_PU,
) -> Circuit:
    """Compile an OpenDSS master file and solve it once with the file's own controls.

    Commands that only show, plot, export or solve are passed over; all else is run as it stands.
    `Circuit.set_time` says at which time of the file's shapes and controls the next solution is.

    Parameters
    ----------
    path : The master file.
    regulators : 'auto' leaves the file's controls acting in each `solve`, in the file's control
        mode; 'fixed' lets them settle once at the file's loads and then holds every tap and
        switched capacitor.
    file_ders : Who runs the file's PVSystem, Storage and Generator elements. 'engine': OpenDSS with
        the file's controls; PVSystems with a load shape follow `Circuit.set_sun` instead of it.
        'ours': they become the DERs of the circuit, at the power of the first solution. 'none':
        they are out of service.
    load_shapes : Whether the file's load shapes act, in its solution mode. Without, loads have the
        power of `Circuit.set_loads`.
    step_s : Time between two solutions, s, for storage and controls.
    load_limits_pu : Voltage range in which constant-power loads stay so; wider limits of the
        file are kept. None keeps the file's.
    tolerance_pu : Largest change between two iterations of a solution.

    Raises FeederError: The file cannot be read or does not give a usable circuit.
    Raises PowerFlowError: It does not converge.
    """
    engine = Engine()
    master = dss_script.compile_master(engine, Path(path))
    options = FileOptions.of(engine)
    try:
        as_alone = load_shapes and regulators == "auto"
        first_mode = _first_control_mode(master, options, as_alone)
        engine.first_solution(master.name, control_mode=first_mode)
        notes = (*_notes(engine, file_ders), *dss_edit.take_out_open_loads(engine))
        dss_edit.widen_load_limits(engine, load_limits_pu)
        feeder = dss_reader.feeder_from_engine(engine, name=master.name, origin=str(path))
        feeder, powers = _with_ders(engine, feeder, file_ders)
        solution = TimedSolution(
            engine,
            options,
            step_s,
            controls=regulators == "auto",
            load_shapes=load_shapes,
            file_ders=file_ders == "engine",
        )
        notes = (*feeder.notes, *master.notes, *solution.notes, *notes)
        circuit = Circuit(engine, replace(feeder, notes=notes), solution, tolerance_pu)
    except DssError as error:
        raise FeederError(str(error), where=str(path)) from None
    _begin(circuit, powers, load_shapes)
    return circuit


def _first_control_mode(master: dss_script.MasterFile, options: FileOptions, as_alone: bool) -> str:
    """Return in which mode controls act in the first solution.

    `as_alone`: The file's own time series begins where OpenDSS alone would begin it: controls have
    acted before only where the file solves a snapshot. Else they settle, whatever their delays.
    """
    if as_alone:
        return master.solved_in or "off"
    return "off" if options.control_mode == "off" else "static"


def _notes(engine: Engine, file_ders: FileDers) -> tuple[str, ...]:
    """Return what the first solution tells of the file."""
    notes: tuple[str, ...] = ()
    if not engine.controls_settled and file_ders != "ours":
        unsettled = f"the controls do not settle in {MAX_CONTROL_ITERATIONS} iterations"
        notes += (f"{unsettled} at the loads of the file",)
    if engine.times_counted() > 1.0:
        notes += (
            "OpenDSS counts the powers of a positive-sequence circuit three times; here they "
            "count once, as those of its loads",
        )
    return notes


def _begin(circuit: Circuit, der_powers: NDArray[np.float64], load_shapes: bool) -> None:
    """Let the load multiplier be part of the loads, and solve if no time series begins here.

    `der_powers`: p_kw and q_kvar of adopted DERs, (2, n).
    """
    engine = circuit.engine
    if der_powers.size:
        circuit.set_ders(*der_powers)
    if not load_shapes or float(engine.dss.Solution.LoadMult()) != 1.0:
        circuit.set_loads(circuit.load_kw, circuit.load_kvar)
        engine.command("set loadmult=1")
    if not load_shapes:
        # The matrix still has the loads of the first solution; with those of now the iteration
        # converges faster.
        engine.command("buildy")
        circuit.solve()


def _with_ders(
    engine: Engine, feeder: Feeder, file_ders: FileDers
) -> tuple[Feeder, NDArray[np.float64]]:
    """Return the feeder with the DERs that it takes over, and their p_kw and q_kvar, (2, n)."""
    if file_ders == "ours":
        ders, powers, notes = dss_ders.adopt(engine, feeder.buses)
        return replace(feeder, ders=tuple(ders), notes=(*feeder.notes, *notes)), powers
    notes = ()
    if file_ders == "none" and (names := dss_ders.disable(engine)):
        notes = (f"{len(names)} DERs of the file are out of service ({listed(names, 4)})",)
    return replace(feeder, notes=(*feeder.notes, *notes)), np.zeros((2, 0))
