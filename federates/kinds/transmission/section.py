"""Keys of a transmission federate."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from federates.scenario.kinds import FederateSection
from grid_models.base.sections import StepPeriod

ControlOptions = bool | dict[str, Any]
"""True: with its defaults; False: none; or its options by name."""


class TransmissionSection(FederateSection):
    """A transmission system with its machines; feeders stand at its buses.

    Of controls and protection `true` takes the defaults, `false` leaves them out, and a mapping
    gives options by name.
    """

    is_plant: ClassVar[bool] = True
    has_elements: ClassVar[bool] = True

    kind: Literal["transmission"]
    system: str = Field(
        "kundur", description="kundur, ieee39, or the path of a folder of tables of your own."
    )
    model: Literal["sixth", "classical", "swing"] = Field(
        "sixth",
        description="Machines of sixth order with their controls, of second order behind a "
        "constant voltage, or the linear swing equation of a lossless network.",
    )
    dynamics_step_s: StepPeriod = Field(
        0.02,
        description="Longest step of the integration; the exchange step is the federate's period.",
    )
    avr: ControlOptions = Field(
        True, description="Exciters with voltage regulators; false: manual excitation."
    )
    stabiliser: ControlOptions = Field(True, description="Power system stabilisers (PSS).")
    governor: ControlOptions = Field(
        True, description="Turbines with governors; false: constant torque."
    )
    agc: ControlOptions = Field(
        False, description="Automatic generation control: tie flow and frequency return."
    )
    load_shedding: ControlOptions = Field(
        False, description="Under-frequency load shedding, a relay at every bus with demand."
    )
    machine_protection: ControlOptions = Field(
        False, description="Under- and over-frequency protection of every machine."
    )
    load_model: dict[str, float] = Field(
        {}, description="How the loads of the tables depend on voltage and frequency."
    )
    inertia_pu: float | list[float] = Field(
        8.0,
        description="Of `swing`: power of the system's base per rad/s2, of all machines or each.",
    )
    damping_pu: float | list[float] = Field(
        1.0,
        description="Of `swing`: power of the system's base per rad/s, of all buses or each.",
    )
