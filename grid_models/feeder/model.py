"""The `Feeder`: what is known of a distribution feeder, independent of any solver.

Phases are node numbers of a bus as in OpenDSS: 1, 2, 3 (A, B, C), and higher ones where a user's
file has them. A number says nothing of the angle: a line may join phase 1 to phase 2. A *node* is
one phase of one bus; its label is ``bus.phase`` (``65.1``). Impedances are in ohm, totals over the
element (not per length).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Connection = Literal["wye", "delta"]
LoadModel = Literal["PQ", "I", "Z"]
DerKind = Literal["pv", "battery", "inverter", "flexible_load", "house", "vehicle"]


def node_label(bus: str, phase: int) -> str:
    """Return the label of one phase of a bus, ``'65.1'``."""
    return f"{bus}.{phase}"


@dataclass(frozen=True, slots=True)
class Bus:
    """A bus. `base_kv_ln` is its line-to-neutral base voltage in kV; `x_ft`, `y_ft` may be None.

    `neutral` is the node of its neutral conductor, 0 where there is none (ground). `base_fit` is
    the voltage without DERs over the base where the two do not fit, else 1.
    """

    name: str
    phases: tuple[int, ...]
    base_kv_ln: float
    x_ft: float | None = None
    y_ft: float | None = None
    neutral: int = 0
    base_fit: float = 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Node labels of this bus, in phase order."""
        return tuple(node_label(self.name, p) for p in self.phases)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A line section with its total series impedance and shunt susceptance matrices.

    Row i of the matrices is phase ``phases[i]`` at `from_bus` and ``to_phases[i]`` at `to_bus`
    (empty: the same). `z_ohm` is complex (n, n); `b_us` is the total line charging in
    microsiemens, real (n, n).
    """

    name: str
    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    z_ohm: NDArray[np.complex128]
    b_us: NDArray[np.float64]
    length_ft: float = 0.0
    norm_amps: float | None = None
    closed: bool = True
    to_phases: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch of negligible impedance; an open one carries nothing. `to_phases` as in `Line`."""

    name: str
    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    closed: bool
    to_phases: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Winding:
    """One winding: `nodes` are its terminal nodes (0 = neutral/ground), `kv` its rated voltage.

    `kv` is line to line for two- and three-phase transformers, the winding's own voltage for
    single-phase ones (the OpenDSS rule).
    """

    bus: str
    nodes: tuple[int, ...]
    connection: Connection
    kv: float
    kva: float
    r_pct: float
    tap_pu: float = 1.0


@dataclass(frozen=True, slots=True)
class Transformer:
    """A two- or three-winding transformer; `x_pct` is (xhl,) or (xhl, xht, xlt) in percent."""

    name: str
    n_phases: int
    windings: tuple[Winding, ...]
    x_pct: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Regulator:
    """One regulator unit: a transformer with a tap changer on `phases` (several when ganged).

    A step of `tap_step` is 0.00625 pu of boost at the `to_bus` side. Settings are on a 120 V base.
    """

    name: str
    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    tap_step: int
    monitored_phase: int
    v_set_v: float
    bandwidth_v: float
    pt_ratio: float
    ct_primary_a: float
    r_set_v: float
    x_set_v: float

    @property
    def tap_pu(self) -> float:
        """Voltage ratio to_bus : from_bus."""
        return 1.0 + 0.00625 * self.tap_step


def phases_at(element: Line | Switch | Regulator, bus: str) -> tuple[int, ...]:
    """Return the phases that an element joins at one of its buses, conductor by conductor."""
    if isinstance(element, Regulator) or not element.to_phases or bus != element.to_bus:
        return element.phases
    return element.to_phases


@dataclass(frozen=True, slots=True)
class Capacitor:
    """A shunt capacitor bank: `kvar` in all at rated voltage, equally on `phases`."""

    name: str
    bus: str
    phases: tuple[int, ...]
    connection: Connection
    kvar: float
    kv_ln: float
    closed: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """A load drawing `kw` + j `kvar` in all at nominal voltage, equally over its phases.

    A wye load sits between each phase and neutral. A delta load with two phases sits between
    them; one with three phases is a closed delta. `kv` follows the OpenDSS rule (phase to
    neutral for a single-phase wye load, line to line otherwise).
    """

    name: str
    bus: str
    phases: tuple[int, ...]
    connection: Connection
    model: LoadModel
    kw: float
    kvar: float
    kv: float
    fixed: bool = False
    """Whether the power stays, whatever the profile says."""


@dataclass(frozen=True, slots=True)
class VoltVarCurve:
    """Reactive power over voltage, linear between the points and constant beyond them.

    `v_pu` increases; `q_pu` is the injection over the reactive power that the active power leaves
    (``sqrt(kva**2 - p**2)``), or over the rating where `of_rating`.
    """

    v_pu: tuple[float, ...]
    q_pu: tuple[float, ...]
    of_rating: bool = False


@dataclass(frozen=True, slots=True)
class VehicleUse:
    """How an electric vehicle is used; what is None is drawn by its name, or a default.

    It is away from `leave_h` to `return_h` (hours of day) and uses `trip_kwh` then. `soc_target` is
    the share of its energy that it should have when it leaves, `soc_start` that of a run's start.
    """

    leave_h: float | None = None
    return_h: float | None = None
    trip_kwh: float | None = None
    soc_target: float | None = None
    soc_start: float | None = None


@dataclass(frozen=True, slots=True)
class Der:
    """A distributed energy resource behind one point of connection, equal power on its phases.

    `kva` bounds the apparent power; `p_max_kw` is the largest injection (PV at full sun, battery
    discharge), `p_min_kw` the smallest (negative: a battery charging, a flexible load). A vehicle
    with `p_max_kw` 0 only charges (V1G), one with more also feeds the grid (V2G).
    Reactive headroom at injection p is ``sqrt(kva**2 - p**2)``.
    """

    name: str
    kind: DerKind
    bus: str
    phases: tuple[int, ...]
    kva: float
    p_max_kw: float
    p_min_kw: float = 0.0
    energy_kwh: float = 0.0
    count: int = 1
    volt_var: VoltVarCurve | None = None
    """Curve that the resource follows while nobody commands its reactive power."""
    vehicle: VehicleUse | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Node labels the resource is connected to."""
        return tuple(node_label(self.bus, p) for p in self.phases)


@dataclass(frozen=True, slots=True)
class Source:
    """The slack bus: a voltage of `v_pu` behind a short-circuit impedance (0 means stiff).

    `phases` are its nodes in the order of their angles, 0, -120 and -240 degrees (empty: 1, 2, 3).
    """

    bus: str
    base_kv_ll: float
    v_pu: float = 1.0
    angle_deg: float = 0.0
    r_ohm: float = 0.0
    x_ohm: float = 0.0
    phases: tuple[int, ...] = ()


@dataclass(frozen=True)
class Feeder:
    """A distribution feeder. All collections are keyed or ordered as in their source."""

    name: str
    source: Source
    buses: Mapping[str, Bus]
    lines: tuple[Line, ...] = ()
    switches: tuple[Switch, ...] = ()
    transformers: tuple[Transformer, ...] = ()
    regulators: tuple[Regulator, ...] = ()
    capacitors: tuple[Capacitor, ...] = ()
    loads: tuple[Load, ...] = ()
    ders: tuple[Der, ...] = ()
    other_loads: tuple[Load, ...] = ()
    """Loads that only the circuit has: without voltage, or not as a `Load` can say."""
    origin: str = ""
    notes: tuple[str, ...] = ()
    """One sentence for each kind of content of the user's file that is not used or was changed."""

    @property
    def all_loads(self) -> tuple[Load, ...]:
        """The loads of the circuit: `loads`, then `other_loads`."""
        return (*self.loads, *self.other_loads)

    @property
    def node_labels(self) -> tuple[str, ...]:
        """Labels of every node, bus by bus in the feeder's order."""
        return tuple(label for bus in self.buses.values() for label in bus.labels)

    def with_ders(self, ders: Iterable[Der]) -> Feeder:
        """Return a copy that carries `ders` instead of its own."""
        return replace(self, ders=tuple(ders))
