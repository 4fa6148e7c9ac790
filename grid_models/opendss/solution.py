"""How a circuit is solved: as a snapshot, or step by step in the time of a user's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from grid_models.base.errors import FeederError
from grid_models.opendss.edit import hold_taps_and_capacitors
from grid_models.opendss.elements import each
from grid_models.opendss.engine import Engine
from grid_models.opendss.file_ders import (
    DER_CONTROLS,
    SunDrivenPv,
    elements_of,
    has_shape,
)
from grid_models.opendss.reader import STATUS_FIXED

RegulatorMode = Literal["fixed", "auto"]
_MODE_OF_SHAPE = {"daily": "daily", "yearly": "yearly", "duty": "dutycycle"}
_CONTROL_MODES = {-1: "off", 0: "static", 1: "event", 2: "time", 3: "multirate"}
_SHAPED = ("load", "pvsystem", "generator", "storage")


class Solution(Protocol):
    """Solves the engine's circuit at its present settings."""

    def set_time(self, time_s: float) -> None:
        """Set the time of the next solution, in s."""

    def set_sun(self, irradiance_pu: float) -> None:
        """Set the irradiance of PVSystems that follow a profile, in units of 1000 W/m2."""

    def solve(self) -> None:
        """Solve once."""


class SnapshotSolution:
    """Solves a circuit that has no time.

    `regulators`: 'auto' lets the regulator controls settle in each solution.
    """

    def __init__(self, engine: Engine, regulators: RegulatorMode) -> None:
        self._engine = engine
        auto = regulators == "auto"
        lib = engine.lib
        self._solve = lib.ctx_Solution_Solve if auto else lib.ctx_Solution_SolveNoControl
        engine.command("set mode=snapshot")
        engine.command(f"set controlmode={'static' if auto else 'off'}")

    def set_time(self, time_s: float) -> None:
        """Nothing depends on time."""

    def set_sun(self, irradiance_pu: float) -> None:
        """There is no PVSystem."""

    def solve(self) -> None:
        """Solve once."""
        self._solve(self._engine.ctx)


@dataclass(frozen=True)
class FileOptions:
    """Solution options of a compiled file: ``mode`` and ``controlmode`` in OpenDSS's words."""

    mode: str
    control_mode: str

    @classmethod
    def of(cls, engine: Engine) -> FileOptions:
        """Read the options from the engine, before anything changes them."""
        solution = engine.dss.Solution
        mode = str(solution.ModeID()).lower()
        return cls(mode, _CONTROL_MODES.get(int(solution.ControlMode()), "static"))


class TimedSolution:
    """Solves a compiled file once per time step, in one of OpenDSS's time modes.

    Parameters
    ----------
    step_s : Time between two solutions, for storage and controls.
    controls : Whether regulators and capacitor controls act; DER controls always do.
    load_shapes : Whether load shapes of loads and PVSystems act.
    file_ders : Whether OpenDSS runs DERs of the file.

    Attributes
    ----------
    notes : What of the file is not used, one sentence for each kind.

    Raises FeederError: `load_shapes`, and the file has none.
    """

    def __init__(
        self,
        engine: Engine,
        options: FileOptions,
        step_s: float,
        *,
        controls: bool,
        load_shapes: bool,
        file_ders: bool,
    ) -> None:
        self._engine = engine
        self.load_shapes = load_shapes
        self.notes: tuple[str, ...] = ()
        self._time_s: float | None = None
        self._sun: SunDrivenPv | None = None
        mode = options.mode
        if mode not in _MODE_OF_SHAPE.values():
            mode = _mode_of_shapes(engine) if load_shapes else "daily"
        if not load_shapes:
            self.notes += _fix_loads(engine)
            if file_ders:
                self._sun = SunDrivenPv(engine)
                self.notes += self._sun.notes
        der_controls = file_ders and bool(elements_of(engine, DER_CONTROLS))
        control_mode = options.control_mode
        if not controls:
            hold_taps_and_capacitors(engine)
            control_mode = control_mode if der_controls else "off"
        # The mode comes first: it resets the time, the step and the queue of control actions.
        for option in (
            f"mode={mode}",
            "number=1",
            f"stepsize={step_s!r}s",
            f"controlmode={control_mode}",
        ):
            engine.command(f"set {option}")

    def set_time(self, time_s: float) -> None:
        """End the last step, in which storage and controls have moved on, and begin another."""
        lib, ctx = self._engine.lib, self._engine.ctx
        if self._time_s is not None and time_s != self._time_s:
            lib.ctx_Solution_Cleanup(ctx)
        self._time_s = time_s
        # Whole hours and seconds, as the engine counts: a fraction of an hour would be rounded.
        lib.ctx_Solution_Set_Hour(ctx, int(time_s // 3600.0))
        lib.ctx_Solution_Set_Seconds(ctx, time_s % 3600.0)

    def set_sun(self, irradiance_pu: float) -> None:
        """Set the irradiance of PVSystems whose load shape the profile replaces."""
        if self._sun is not None:
            self._sun.set(irradiance_pu)

    def solve(self) -> None:
        """Solve at the present time, with the controls."""
        self._engine.lib.ctx_Solution_SolveSnap(self._engine.ctx)


def _mode_of_shapes(engine: Engine) -> str:
    """Return the solution mode whose shapes most of the file's elements have."""
    elements = elements_of(engine, _SHAPED)
    counts = {
        mode: sum(bool(engine.value(full, shape).strip("[] ")) for full in elements)
        for shape, mode in _MODE_OF_SHAPE.items()
    }
    mode = max(counts, key=lambda one: counts[one])
    if not counts[mode]:
        raise FeederError(
            "the file has no load shapes",
            expected="loads or DERs with daily, yearly or duty shapes",
        )
    return mode


def _fix_loads(engine: Engine) -> tuple[str, ...]:
    """Take every load off its load shape and off the load multiplier; say how many had a shape."""
    loads = elements_of(engine, ("load",))
    shaped = sum(has_shape(engine, full) for full in loads)
    for _ in each(engine.dss.Loads):
        engine.dss.Loads.Status(STATUS_FIXED)
    if not shaped:
        return ()
    return (
        f"{shaped} of {len(loads)} loads have load shapes, which the scenario's profile replaces; "
        "'profiles: {kind: master}' uses them",
    )
