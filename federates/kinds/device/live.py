"""Devices outside this process: what the device federate asks of them, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.errors import ScenarioError
from federates.kinds.device.models import Surroundings
from federates.kinds.device.roles import PortPoint, Role
from grid_models.base.errors import nearest_name

if TYPE_CHECKING:
    from federates.attacks.modbus.layer import ModbusPlan
    from federates.attacks.modbus.wire import ModbusWire
    from grid_models.feeder.model import Der
    from hil.devices.spec import ConnectionSpec, DeviceSpec

Flags = NDArray[np.bool_]
SIMULATED, EMULATED = "simulated", "emulated"
# As hil.devices.points.Quality; numbers, because quality is a port.
GOOD, STALE, BAD = 0.0, 1.0, 2.0


def is_emulated(kind: str) -> bool:
    """Tell whether a device is emulated by the run: ``emulated``, or ``emulated:CONFIG``."""
    return kind.partition(":")[0] == EMULATED


class Live(Protocol):
    """Devices that answer from outside this process."""

    @property
    def connections(self) -> Sequence[ConnectionSpec]:
        """Return the address of each device."""
        ...

    def exchange(
        self, around: Surroundings, asked: Mapping[str, tuple[FloatArray, Flags]]
    ) -> tuple[Mapping[str, FloatArray], FloatArray]:
        """Pass one step.

        Parameters
        ----------
        asked : mapping of port to (ndarray, ndarray of bool), shape (m,)
            Set-points, and which of them were ever given. Those go to the guard whatever they are
            now; a NaN after a number is a fault.

        Returns
        -------
        values : mapping of port to ndarray, shape (m,)
        quality : ndarray, shape (m,)
        """
        ...

    def pass_time(self, around: Surroundings) -> None:
        """Advance emulators by one period without set-points; real devices have their own time."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """Return and forget what happened: refusals, faults, lost connections."""
        ...

    def summary(self) -> dict[str, float]:
        """Return metrics."""
        ...

    def link_quality(self) -> dict[str, float]:
        """Return counts of polls and their lateness in ms, for an event at the end."""
        ...

    def close(self) -> None:
        """Bring the devices to their safe state and disconnect.

        Raises NotSafeError: A real device is not safe; device, point and value are in the message.
        """
        ...


class DeviceGroup(Protocol):
    """What adapters and attacks read of the device federate that they belong to."""

    name: str
    names: tuple[str, ...]
    ders: tuple[Der, ...]
    kinds_of: list[str]
    role: Role
    specs: dict[str, DeviceSpec]
    emulated_as: dict[str, EmulatedAs]
    set_points: tuple[PortPoint, ...]
    measured: tuple[PortPoint, ...]
    modbus: ModbusPlan | None
    wire: ModbusWire | None


class EmulatedAs(NamedTuple):
    """A device that the run emulates from a configuration: that, and its device file."""

    config: str
    spec: DeviceSpec


def read_emulated_as(kind: str, base_dir: Path, where: str) -> EmulatedAs:
    """Return what ``emulated:CONFIG`` names: a file beside the scenario, or a shipped one.

    Raises
    ------
    ScenarioError, DeviceFileError
    """
    from hil.devices.errors import ServerError
    from hil.emulators.register_config import load_emulator_config

    name = kind.partition(":")[2].strip()
    path = base_dir / name
    config = str(path) if path.is_file() else name
    try:
        device = load_emulator_config(config).device
    except ServerError as error:
        raise ScenarioError(
            error.what, where=where, expected=error.expected, nearest=error.nearest
        ) from None
    beside = Path(config).parent if path.is_file() else base_dir
    spec = read_device_file(device, beside, where)
    # The emulator speaks plain Modbus/TCP, whatever line leads to the device.
    plain = spec.connection.model_copy(update={"framing": "tcp", "serial": None, "tls": None})
    return EmulatedAs(config, spec.model_copy(update={"connection": plain}))


def read_device_file(name: str, base_dir: Path, where: str) -> DeviceSpec:
    """Return a device file that a scenario names: a path beside it, or a shipped file.

    Raises
    ------
    ScenarioError, DeviceFileError
    """
    # Imported here: a run whose devices are all simulated needs nothing of it.
    from hil.devices.file import find_device_file, load_device_file, shipped_devices

    beside = base_dir / name
    path = beside if beside.exists() else find_device_file(name)
    if not path.exists():
        shipped = ", ".join(shipped_devices())
        raise ScenarioError(
            f"no such device file: '{name}'",
            where=where,
            expected=f"simulated, emulated, emulated:CONFIG, a path, or one of {shipped}",
            nearest=nearest_name(name, ["simulated", "emulated", *shipped_devices()]),
        )
    return load_device_file(path)


def require_points(spec: DeviceSpec, wanted: Sequence[PortPoint], where: str) -> None:
    """Refuse a device file without a point that a port needs."""
    for p in wanted:
        # Points of whole SunSpec models are known only after the scan.
        if p.point not in spec.points and not p.point.partition(".")[0].isdigit():
            raise ScenarioError(
                f"the device file of '{spec.name}' has no point '{p.point}', which port "
                f"'{p.port}' is",
                where=where,
                expected=f"that point, or options: {{points: {{{p.port}: POINT}}}}",
                nearest=nearest_name(p.point, spec.points),
            )
