"""An intruder at devices: changes what is in their registers, past guard and scenario.

Thermostats: their set-points. Inverters: see `federates.kinds.device.settings_intruder`.

The registers of a simulated thermostat are written directly, those of an emulated one by a separate
Modbus/TCP client, which plain Modbus accepts. Real devices are never written to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from federates.attacks.physical.action import SETTINGS, THERMOSTAT_K
from federates.attacks.physical.plan import PhysicalPlan
from federates.attacks.physical.resolve import physical_plan
from federates.core.context import FederateContext
from federates.core.federate import FloatArray, Port
from federates.kinds.device.live import EMULATED, SIMULATED, Live
from federates.kinds.device.models import DeviceModel, ThermostatModel
from federates.kinds.device.roles import RoleName
from federates.kinds.device.settings_intruder import SettingsIntruder
from grid_models.feeder.model import Der

if TYPE_CHECKING:
    from hil.devices.spec import ConnectionSpec
    from hil.servers.pdu import Bank

_COOL, _HEAT = 0, 1  # holding registers of the thermostat's map, side by side
_PER_K = 10


class Registers(Protocol):
    """Access to one thermostat's set-points, in tenths of a degree."""

    def read(self) -> Sequence[int]:
        """Return the cooling and the heating set-point."""
        ...

    def write(self, words: Sequence[int]) -> None:
        """Write both at once."""
        ...


class BankRegisters:
    """Set-points of a simulated thermostat."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    def read(self) -> Sequence[int]:
        """See `Registers`."""
        from hil.servers.pdu import Table

        return self._bank.read(Table.holding, _COOL, 2)

    def write(self, words: Sequence[int]) -> None:
        """See `Registers`."""
        from hil.servers.pdu import Table

        self._bank.write(Table.holding, _COOL, list(words))


class RemoteRegisters:
    """Set-points of a thermostat behind Modbus/TCP; a connection for each access."""

    def __init__(self, connection: ConnectionSpec) -> None:
        self._connection = connection

    def read(self) -> Sequence[int]:
        """See `Registers`."""
        data = asyncio.run(self._exchange(None))
        return [int.from_bytes(data[i : i + 2], "big") for i in (0, 2)]

    def write(self, words: Sequence[int]) -> None:
        """See `Registers`."""
        asyncio.run(self._exchange(words))

    async def _exchange(self, words: Sequence[int] | None) -> bytes:
        from hil.modbus.client import ModbusClient

        link, unit = ModbusClient(self._connection), self._connection.unit
        try:
            if words is None:
                return await link.read(unit, "holding", _COOL, 2)
            await link.write(unit, 16, _COOL, words)
            return b""
        finally:
            link.close()
            await asyncio.sleep(0)


class ThermostatIntruder:
    """Moves the set-points of some thermostats.

    Parameters
    ----------
    plan : With thermostats to move.
    ders : Devices of the federate; those that the plan does not name are not touched.
    """

    def __init__(self, plan: PhysicalPlan, ders: Sequence[Der]) -> None:
        self.plant = plan.plant
        labels = plan.labels[THERMOSTAT_K]
        place = {label: i for i, label in enumerate(labels)}
        self.port = Port(THERMOSTAT_K, "K", labels, 0.0, required=False)
        self._element = {
            i: place[label] for i, der in enumerate(ders) if (label := f"der.{der.name}") in place
        }
        self._registers: dict[int, list[Registers]] = {i: [] for i in self._element}
        self._before: dict[int, list[Sequence[int]]] = {}
        self._offset_k = np.zeros(len(labels))

    @property
    def devices(self) -> tuple[int, ...]:
        """Positions of the devices that it moves."""
        return tuple(self._element)

    def connect(
        self,
        model: DeviceModel | None,
        modelled: Sequence[int],
        live: Sequence[tuple[Sequence[int], Live]],
    ) -> None:
        """Get access to the devices, and to the models that replace some of them."""
        if isinstance(model, ThermostatModel):
            for i, bank in zip(modelled, model.plant.banks, strict=True):
                self._add(i, BankRegisters(bank))
        for index, group in live:
            for i, connection in zip(index, group.connections, strict=True):
                self._add(i, RemoteRegisters(connection))

    def _add(self, i: int, registers: Registers) -> None:
        if i in self._registers:
            self._registers[i].append(registers)

    def obeyed(self, asked: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        """Return the set-points that arrive: all of them."""
        return asked

    def move(self, inputs: Mapping[str, FloatArray]) -> None:
        """Write the set-points whose offset changed, per label in K; 0 restores.

        Both set-points move by the same amount, within the range of the registers. The original
        values are those of the registers, in tenths of a degree.
        """
        offset_k = inputs[THERMOSTAT_K]
        if np.array_equal(offset_k, self._offset_k):
            return
        for i, element in self._element.items():
            offset = float(offset_k[element])
            if offset != self._offset_k[element] and self._write(i, offset):
                self._offset_k[element] = offset

    def _write(self, i: int, offset_k: float) -> bool:
        """Return whether the device took it; what it did not is tried again in the next step."""
        from hil.devices.errors import ExchangeError
        from hil.servers.pdu import Refused

        try:
            if i not in self._before:
                self._before[i] = [registers.read() for registers in self._registers[i]]
            for registers, before in zip(self._registers[i], self._before[i], strict=True):
                registers.write(moved(before, offset_k))
        except (ExchangeError, Refused):
            return False
        if not offset_k:
            del self._before[i]
        return True


def moved(words: Sequence[int], offset_k: float) -> list[int]:
    """Return the registers of both set-points, moved within the range that is accepted."""
    from hil.servers.thermostat_map import SET_MAX_C, SET_MIN_C

    lowest = _PER_K * SET_MIN_C - words[_HEAT]
    highest = _PER_K * SET_MAX_C - words[_COOL]
    by = round(min(max(_PER_K * offset_k, lowest), highest))
    return [word + by for word in words]


class Intruder(Protocol):
    """What acts on the devices of a federate from inside."""

    plant: str
    port: Port
    """Input of the federate: what is done to each device."""

    @property
    def devices(self) -> tuple[int, ...]:
        """Positions of the devices that it acts on."""
        ...

    def connect(
        self,
        model: DeviceModel | None,
        modelled: Sequence[int],
        live: Sequence[tuple[Sequence[int], Live]],
    ) -> None:
        """Get access to the devices, and to the models that replace some of them."""
        ...

    def move(self, inputs: Mapping[str, FloatArray]) -> None:
        """Do what the port says, or undo it."""
        ...

    def obeyed(self, asked: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        """Return the set-points that arrive at the devices."""
        ...


_INTRUDERS: Mapping[str, tuple[type[Intruder], str]] = {
    THERMOSTAT_K: (ThermostatIntruder, "moves the thermostat"),
    SETTINGS: (SettingsIntruder, "changes the settings"),
}


def find_intruder(
    context: FederateContext, ders: Sequence[Der], kinds: Sequence[str], role: RoleName
) -> Intruder | None:
    """Return what acts on some DERs from inside in the scenario's attack, None for nothing.

    Parameters
    ----------
    kinds : What each DER is: simulated, emulated, or a device file.

    Raises
    ------
    ScenarioError: One of them is a real device, or cannot have the settings.
    """
    plan = physical_plan(context.scenario, context.site.plant or "", context.site.feeder)
    port = THERMOSTAT_K if role == "thermostat" else SETTINGS
    if plan is None or port not in plan.labels:
        return None
    cls, does = _INTRUDERS[port]
    intruder = cls(plan, ders)  # type: ignore[call-arg]
    for i in intruder.devices:
        if kinds[i] not in (SIMULATED, EMULATED):
            raise context.error(
                f"the attack {does} of '{ders[i].name}', a real device",
                "devices",
                expected="simulated or emulated: a real device is attacked on its wire only (layer "
                "modbus)",
            )
    if isinstance(intruder, SettingsIntruder):
        emulated = [ders[i].name for i in intruder.devices if kinds[i] == EMULATED]
        intruder.check(emulated, context)
    return intruder if intruder.devices else None
