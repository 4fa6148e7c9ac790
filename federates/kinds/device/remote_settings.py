"""Settings of an inverter behind Modbus/TCP, changed through SunSpec models 704, 705 and 706."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from federates.errors import RunError
from hil.devices.inverter_sunspec import AXES, STORED, Values, wanted_curves, wanted_points

if TYPE_CHECKING:
    from hil.adapter.sunspec import SunSpecMap
    from hil.devices.inverter_change import InverterChange
    from hil.devices.spec import ConnectionSpec, DeviceSpec
    from hil.mitm.rules import WirePoint
    from hil.modbus.client import ModbusClient

_COMPLETED = 1


class SunSpecDevice:
    """One connection to a device whose map is known."""

    def __init__(self, link: ModbusClient, unit: int, found: SunSpecMap) -> None:
        self._link, self._unit, self._found = link, unit, found

    async def read(self, names: list[str]) -> Values:
        """Return values of points, in their units, by SunSpec name."""
        from hil.adapter.sunspec import read_registers

        out = {}
        for name in names:
            at = self._at(name)
            where = at.place.address, at.place.words
            out[name] = at.value(await read_registers(self._link, self._unit, *where), at.sf)
        return out

    async def write(self, values: Values) -> None:
        """Write points one by one, in their order."""
        for name, value in values.items():
            at = self._at(name)
            encoded = at.words(value, at.sf, None)
            if encoded is None:
                raise RunError(f"{name} = {value:g} cannot be written", federate="attack")
            await self._link.write(self._unit, 16, at.place.address, encoded[0])

    def _at(self, name: str) -> WirePoint:
        from hil.mitm.rules import WirePoint

        place = self._found.points[name].place
        sf = self._found.factors[place.sf] if isinstance(place.sf, str) else float(place.sf or 0)
        return WirePoint(place, sf)


class RemoteSettings:
    """See `federates.kinds.device.settings_intruder.Target`; a connection for each access."""

    def __init__(self, connection: ConnectionSpec) -> None:
        self._connection = connection
        self._before: Values = {}

    def change(self, change: InverterChange) -> None:
        """Write the settings; those of before are read first."""

        async def work(device: SunSpecDevice) -> None:
            curves = wanted_curves(change)
            flat = wanted_points(change)
            names = [*flat, *(f"{model}.Ena" for model in curves)]
            self._before = await device.read(names)
            for model, wanted in curves.items():
                before = await _curve(device, model)
                self._before |= before
                await _adopt(device, model, {**before, **wanted})
            await device.write({**flat, **{f"{model}.Ena": 1.0 for model in curves}})

        self._run(work)

    def restore(self) -> None:
        """Write what was read before the change."""

        async def work(device: SunSpecDevice) -> None:
            curves = {name.partition(".")[0] for name in self._before if ".Crv[" in name}
            for model in map(int, sorted(curves)):
                head = f"{model}.Crv["
                await _adopt(
                    device, model, {k: v for k, v in self._before.items() if k.startswith(head)}
                )
            await device.write({k: v for k, v in self._before.items() if ".Crv[" not in k})

        self._run(work)

    def _run(self, work: Callable[[SunSpecDevice], Awaitable[None]]) -> None:
        from hil.adapter.sunspec import scan
        from hil.devices.errors import DeviceError
        from hil.modbus.client import ModbusClient

        async def whole() -> None:
            link, unit = ModbusClient(self._connection), self._connection.unit
            try:
                found = await scan(link, unit, wanted=(704, *AXES))
                await work(SunSpecDevice(link, unit, found))
            finally:
                link.close()
                await asyncio.sleep(0)

        try:
            asyncio.run(whole())
        except DeviceError as error:
            raise RunError(f"the attack's settings: {error}", federate="attack") from None


async def _curve(device: SunSpecDevice, model: int) -> Values:
    """Return the curve in force, under the names of the stored one."""
    here, stored = f"{model}.Crv[1].", f"{model}.Crv[{STORED}]."
    count = (await device.read([f"{here}ActPt"]))[f"{here}ActPt"]
    names = ["ActPt", "DeptRef", "RspTms"]
    if model == 705:
        names += ["Pri", "VRef", "VRefAutoEna", "VRefAutoTms"]
    names += [f"Pt[{i}].{axis}" for i in range(1, int(count) + 1) for axis in AXES[model]]
    values = await device.read([here + name for name in names])
    return {stored + name: values[here + name] for name in names}


async def _adopt(device: SunSpecDevice, model: int, values: Values) -> None:
    """Write the stored curve and let the device take it over."""
    await device.write({**values, f"{model}.AdptCrvReq": float(STORED)})
    result = (await device.read([f"{model}.AdptCrvRslt"]))[f"{model}.AdptCrvRslt"]
    if result != _COMPLETED:
        raise RunError(f"the device did not adopt the curve of model {model}", federate="attack")


def refusal(change: InverterChange, spec: DeviceSpec) -> tuple[str, str] | None:
    """Say why a device cannot have a change, and what is expected; None where it can."""
    from hil.adapter.curves import admit_curve
    from hil.devices.errors import GuardError

    if change.trips:
        return "its registers have no trip limits", "trips of simulated devices only"
    for model, curve in ((705, change.volt_var), (706, change.volt_watt)):
        points = None if curve is None else curve.points()
        if points is not None:
            pairs = [(100.0 * v_pu, y_pct) for v_pu, y_pct in zip(*points, strict=True)]
            try:
                admit_curve(spec, model, pairs, {})
            except GuardError as error:
                return error.what, error.expected or "a curve within the device file"
    return None
