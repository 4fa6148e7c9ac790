"""Changes to a compiled OpenDSS circuit that is about to be run by a co-simulation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grid_models.base.errors import FeederError, listed, nearest_name
from grid_models.feeder.model import Line
from grid_models.opendss.elements import each
from grid_models.opendss.engine import Engine
from grid_models.opendss.reader import TAP_STEP_PU, controls_by_transformer


def widen_load_limits(engine: Engine, limits_pu: tuple[float, float] | None) -> None:
    """Let every load keep its own model over at least `limits_pu`."""
    if limits_pu is None:
        return
    for _ in each(engine.dss.Loads):
        api = engine.dss.Loads
        api.Vminpu(min(api.Vminpu(), limits_pu[0]))
        api.Vmaxpu(max(api.Vmaxpu(), limits_pu[1]))


def take_out_open_loads(engine: Engine) -> tuple[str, ...]:
    """Put loads with all conductors open out of service; say how many loads have open ones.

    The engine leaves their injection out, but counts their power as if they were closed.
    """
    out: list[str] = []
    partly: list[str] = []
    is_open = engine.dss.CktElement.IsOpen
    for _ in each(engine.dss.Loads):
        n = int(engine.dss.CktElement.NumPhases())
        conductors = [bool(is_open(1, i)) for i in range(1, n + 1)]
        if any(conductors):
            (out if all(conductors) else partly).append(str(engine.dss.Loads.Name()))
    for name in out:
        engine.command(f'edit "load.{name}" enabled=no')
    return tuple(
        f"loads with {what} ({len(names)}): {listed(names, 4)}"
        for names, what in (
            (out, "all conductors open are out of service"),
            (partly, "some conductors open, whose power OpenDSS counts as if they were closed"),
        )
        if names
    )


def set_normal_amps(engine: Engine, lines: Iterable[Line]) -> None:
    """Take over the normal currents of lines of the circuit, where they have one."""
    for line in lines:
        if line.norm_amps:
            engine.command(f'edit "line.{line.name}" normamps={line.norm_amps!r}')


def tap_steps(engine: Engine) -> dict[str, int]:
    """Return the tap of every controlled transformer, in steps of 0.00625 pu."""
    steps = {}
    t = engine.dss.Transformers
    for name, control in controls_by_transformer(engine.dss).items():
        t.Name(name)
        t.Wdg(int(control["winding"]))
        steps[name] = round((float(t.Tap()) - 1.0) / TAP_STEP_PU)
    return steps


def set_taps(engine: Engine, circuit: str, taps: Mapping[str, int]) -> None:
    """Set the taps of controlled transformers, in steps of 0.00625 pu; others stay.

    Raises FeederError: The circuit has no such regulator, or a step is outside -16 to 16.
    """
    controls = controls_by_transformer(engine.dss)
    known = {name.lower(): name for name in controls}
    steps: dict[str, int] = {}
    for name, step in taps.items():
        where = f"circuit '{circuit}', regulator '{name}'"
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
    for name, step in steps.items():
        winding = int(controls[name]["winding"])
        tap = 1.0 + TAP_STEP_PU * step
        engine.command(f'edit "transformer.{name}" wdg={winding} tap={tap!r}')


def hold_taps_and_capacitors(engine: Engine) -> None:
    """Keep taps and switched capacitors where they are while other controls act."""
    for _ in each(engine.dss.RegControls):
        engine.dss.RegControls.MaxTapChange(0)
    names = [str(engine.dss.CapControls.Name()) for _ in each(engine.dss.CapControls)]
    for name in names:
        engine.command(f'edit "capcontrol.{name}" enabled=no')
