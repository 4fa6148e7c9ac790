"""What a transmission system is to the federate that runs it, whichever model computes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import GridModelError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


class TransmissionError(GridModelError):
    """Tables, options or a state of a transmission system that cannot be."""


@dataclass(frozen=True)
class BusDemand:
    """Demand at the buses besides that of the tables, from one exchange to the next.

    At a voltage magnitude v it is ``p_mw + p_slope_mw * (v - v_pu)``, and likewise reactive.

    Attributes
    ----------
    p_mw, q_mvar : (n_buses,). At `v_pu`.
    p_slope_mw, q_slope_mvar : (n_buses,). Per unit of voltage.
    v_pu : (n_buses,). Where they hold.
    """

    p_mw: FloatArray
    q_mvar: FloatArray
    p_slope_mw: FloatArray
    q_slope_mvar: FloatArray
    v_pu: FloatArray

    @classmethod
    def none(cls, n: int) -> BusDemand:
        """Return no demand at `n` buses."""
        zero = np.zeros(n)
        return cls(zero, zero, zero, zero, np.ones(n))


@dataclass
class Disturbance:
    """What is done to the system from now on; the plant changes it, the model reads it.

    Attributes
    ----------
    load_mw : (n_buses,). Further demand at constant power.
    load_factor : (n_buses,). Times the demand of the tables, less what was separated from it.
    injection_mw : (n_buses,). In place of what generators and loads of the tables inject; NaN: as
        in the tables. Only `swing` can do this.
    branch_in, machine_in : bool (n_branches,), (n_machines,). In service.
    """

    load_mw: FloatArray
    load_factor: FloatArray
    injection_mw: FloatArray
    branch_in: NDArray[np.bool_]
    machine_in: NDArray[np.bool_]


@dataclass(frozen=True)
class TransmissionState:
    """The system at one time.

    Attributes
    ----------
    v : complex (n_buses,), per unit. 0 where a bus is dead.
    frequency_hz : (n_buses,)
    coi_hz : Frequency of the centre of inertia of what is energised; NaN after a collapse.
    speed_hz, p_mech_mw, p_mw, q_mvar : (n_machines,)
    load_mw, load_mvar : (n_buses,). All demand at each bus.
    flow_mw : (n_branches,). Into the branch at its first bus.
    """

    v: ComplexArray
    frequency_hz: FloatArray
    coi_hz: float
    speed_hz: FloatArray
    p_mech_mw: FloatArray
    p_mw: FloatArray
    q_mvar: FloatArray
    load_mw: FloatArray
    load_mvar: FloatArray
    flow_mw: FloatArray


@dataclass(frozen=True)
class TransmissionEvent:
    """Something that happened inside the system: a trip, shed load, an island, a collapse.

    `kind`: ``load_shed``, ``machine_tripped``, ``islanded``, ``island_collapsed``, ``collapsed``
    (of all). `details` are plain values, with units in the keys.
    """

    time_s: float
    kind: str
    details: dict[str, float | str] = field(default_factory=dict)


class TransmissionModel(Protocol):
    """A transmission system that can be advanced in time; it starts in steady state at time 0."""

    buses: tuple[str, ...]
    branches: tuple[str, ...]
    """``7-8-1``: ends and circuit."""
    machines: tuple[str, ...]
    tie: NDArray[np.bool_]
    """Branches between areas, (n_branches,); the tie flow is the sum of their `flow_mw` in the
    direction from the first area to the second."""
    nominal_hz: float

    @property
    def state(self) -> TransmissionState:
        """The system as it is."""
        ...

    def separate(self, p_mw: FloatArray, q_mvar: FloatArray) -> None:
        """Take demand out of the tables' loads that `advance` gets as its `demand` instead.

        p_mw, q_mvar : (n_buses,). What the feeders at each bus take at the voltages of time 0.
        """
        ...

    def advance(self, until_s: float, demand: BusDemand, done: Disturbance) -> TransmissionState:
        """Go on to a time; after a collapse the system stays dead and does not raise."""
        ...

    def take_events(self) -> list[TransmissionEvent]:
        """Return what happened since the last call."""
        ...
