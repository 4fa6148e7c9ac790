"""A transmission model from the keys of its federate."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, gcd
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from federates.clock import Timing, to_s
from federates.core.context import FederateContext
from federates.core.federate import FloatArray
from federates.kinds.transmission.section import TransmissionSection
from grid_models.base.options import parse_options
from grid_models.transmission.machine_options import (
    Avr,
    Controls,
    Governor,
    LoadModel,
    Stabiliser,
)
from grid_models.transmission.machines import MachineDynamics
from grid_models.transmission.model import TransmissionError, TransmissionModel
from grid_models.transmission.protection import (
    GenerationControl,
    LoadShedding,
    MachineProtection,
)
from grid_models.transmission.swing import SwingNetwork
from grid_models.transmission.system import SHIPPED, TransmissionSystem, load_system

CONTROLS: Mapping[str, type[Any]] = {"avr": Avr, "stabiliser": Stabiliser, "governor": Governor}
AUTOMATIC: Mapping[str, type[Any]] = {
    "agc": GenerationControl,
    "load_shedding": LoadShedding,
    "machine_protection": MachineProtection,
}
SWING = ("inertia_pu", "damping_pu")
T = TypeVar("T")


def build(
    context: FederateContext, section: TransmissionSection
) -> tuple[TransmissionModel, FloatArray]:
    """Return the model in steady state, and the tables' demand, MW, (n_buses,).

    Raises ScenarioError, TransmissionError: Keys or tables that cannot be used.
    """
    _refuse_unused(context, section)
    with context.located(TransmissionError, "system"):
        system = load_system(_source(context, section.system))
    if section.model == "swing":
        return _swing(context, section, system), system.load_mw
    return _machines(context, section, system), system.load_mw


def _refuse_unused(context: FederateContext, section: TransmissionSection) -> None:
    """Refuse keys that the model has no use for."""
    swing = section.model == "swing"
    unused = (*CONTROLS, *AUTOMATIC, "load_model", "dynamics_step_s") if swing else SWING
    for key in unused:
        if getattr(section, key) != type(section).model_fields[key].default:
            raise context.error(
                f"{key} is not used with model '{section.model}'",
                key,
                expected=f"model '{'sixth' if swing else 'swing'}', or no {key}",
            )


def _source(context: FederateContext, name: str) -> str | Path:
    """Return a shipped name, or a folder beside the scenario file, or where the user stands."""
    if name.lower() in SHIPPED:
        return name.lower()
    beside = context.scenario.base_dir / Path(name).expanduser()
    return beside if beside.exists() else name


def _machines(
    context: FederateContext, section: TransmissionSection, system: TransmissionSystem
) -> MachineDynamics:
    assert section.model != "swing"
    controls, automatic = (
        {key: _options(context, key, made_of, getattr(section, key)) for key, made_of in of.items()}
        for of in (CONTROLS, AUTOMATIC)
    )
    load_model = _options(context, "load_model", LoadModel, section.load_model)
    with context.located(TransmissionError):
        return MachineDynamics(
            system,
            section.model,
            _step_s(context.timing, section.dynamics_step_s),
            controls=Controls(**controls),
            load_model=load_model,
            **automatic,
        )


def _options(
    context: FederateContext, key: str, made_of: type[T], given: Mapping[str, Any] | bool
) -> T | None:
    """Return the options of a control; None where there is none of it."""
    if given is False:
        return None
    return parse_options(made_of, {} if given is True else given, context.where(key))


def _step_s(timing: Timing, longest_s: float) -> float:
    """Return the longest step, at most `longest_s`, of which all steps of the federate are made."""
    exchange_s = to_s(gcd(timing.period_ns, timing.offset_ns))
    return exchange_s / ceil(exchange_s / longest_s - 1e-9)


def _swing(
    context: FederateContext, section: TransmissionSection, system: TransmissionSystem
) -> SwingNetwork:
    values = []
    for key, count in zip(SWING, (len(system.machines), len(system.buses)), strict=True):
        given = np.array(getattr(section, key), dtype=np.float64)
        if given.shape not in ((), (count,)) or not (given > 0.0).all():
            raise context.error(
                f"{key} is {getattr(section, key)}",
                key,
                expected=f"a number above 0, or {count} of them",
            )
        values.append(given)
    with context.located(TransmissionError):
        return SwingNetwork(system, *values)
