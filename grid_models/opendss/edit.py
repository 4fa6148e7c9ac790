"""Changes to a compiled OpenDSS circuit that is about to be run by a co-simulation."""

from __future__ import annotations

from collections.abc import Mapping

from grid_models.feeder.model import Bus
from grid_models.opendss.elements import as_complex, each
from grid_models.opendss.engine import Engine
from grid_models.opendss.reader import TAP_STEP_PU, controls_by_transformer, ders_of

DER_CONTROLS = ("invcontrol", "expcontrol", "storagecontroller")


def take_over_ders(engine: Engine, buses: Mapping[str, Bus]) -> list[tuple[float, float]]:
    """Put the file's own DERs and their controls out of service; return their injections.

    They are (p_kw, q_kvar) of the last solution, in the order of the feeder's `ders`.
    """
    dss = engine.dss
    injections = []
    taken = []
    for der, full in ders_of(engine):
        if der.bus not in buses:
            continue
        dss.Circuit.SetActiveElement(full)
        power = as_complex(dss.CktElement.TotalPowers())
        injections.append((-float(power[0].real), -float(power[0].imag)))
        taken.append(full)
    if taken:
        names = [str(n).lower() for n in dss.Circuit.AllElementNames()]
        taken += [n for n in names if n.split(".")[0] in DER_CONTROLS]
    for full in taken:
        engine.command(f'edit "{full}" enabled=no')
    return injections


def widen_load_limits(engine: Engine, limits_pu: tuple[float, float] | None) -> None:
    """Let every load keep its own model over at least `limits_pu`."""
    if limits_pu is None:
        return
    for _ in each(engine.dss.Loads):
        api = engine.dss.Loads
        api.Vminpu(min(api.Vminpu(), limits_pu[0]))
        api.Vmaxpu(max(api.Vmaxpu(), limits_pu[1]))


def tap_steps(engine: Engine) -> dict[str, int]:
    """Return the tap of every controlled transformer, in steps of 0.00625 pu."""
    steps = {}
    t = engine.dss.Transformers
    for name, control in controls_by_transformer(engine.dss).items():
        t.Name(name)
        t.Wdg(int(control["winding"]))
        steps[name] = round((float(t.Tap()) - 1.0) / TAP_STEP_PU)
    return steps


def set_taps(engine: Engine, steps: Mapping[str, int]) -> None:
    """Set the taps of controlled transformers, in steps of 0.00625 pu."""
    controls = controls_by_transformer(engine.dss)
    for name, step in steps.items():
        winding = int(controls[name]["winding"])
        tap = 1.0 + TAP_STEP_PU * step
        engine.command(f'edit "transformer.{name}" wdg={winding} tap={tap!r}')
