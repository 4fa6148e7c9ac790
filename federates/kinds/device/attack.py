"""What a modbus attack means to a device federate: its plan, and the proxies before its devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from federates.attacks.modbus.layer import TRUE_PORTS, ModbusPlan, resolve_modbus
from federates.attacks.plan import begins_port
from federates.core.context import FederateContext
from federates.kinds.device.live import EMULATED, Flags
from federates.kinds.device.roles import PortPoint
from federates.scenario.schema import shipped_dir
from grid_models.feeder.model import Der

if TYPE_CHECKING:
    from federates.attacks.modbus.wire import ModbusWire
    from federates.core.run_store import RunStore
    from federates.kinds.device.federate import DeviceFederate
    from hil.devices.file import DeviceSpec


def devices_of(context: FederateContext) -> dict[str, str]:
    """Return all devices of a scenario, in its order, and what each of them is."""
    out: dict[str, str] = {}
    for spec in context.scenario.federates.values():
        if spec.kind != "device":
            continue
        for der in context.site.feeder.ders:
            for glob, what in getattr(spec, "devices", {}).items():
                if fnmatchcase(der.name, glob):
                    out[der.name] = what
    return out


def modbus_plan(
    context: FederateContext, federate: DeviceFederate
) -> tuple[ModbusPlan | None, list[str]]:
    """Return what the scenario's attack does to a federate's devices, None for nothing.

    Beside it every step that names what is not there or cannot be done.
    """
    spec = context.scenario.attack_spec
    if spec is None or not spec.of_layer("modbus"):
        return None, []

    def file_of(name: str) -> DeviceSpec:
        if name in federate.specs:
            return federate.specs[name]
        from hil.devices.file import load_device_file

        return load_device_file(shipped_dir() / "devices" / f"{EMULATED}-{federate.role.name}.yaml")

    return resolve_modbus(spec, devices_of(context), federate.names, file_of)


def lay_wire(
    context: FederateContext, federate: DeviceFederate, store: RunStore
) -> ModbusWire | None:
    """Return the proxies' side of a federate; None without a modbus attack or a capture."""
    if federate.modbus is None and not context.pcap:
        return None
    from federates.attacks.modbus.wire import ModbusWire

    return ModbusWire(federate.name, federate.modbus, store, pcap=context.pcap)


def attack_ports(
    plan: ModbusPlan | None, names: tuple[str, ...]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the further inputs and outputs of a federate whose devices are attacked."""
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    if plan is not None and plan.schedule.directed:
        inputs = (begins_port(plan.schedule),)
    if plan is not None and plan.forges_readings:
        units = {"p_kw": "kW", "q_kvar": "kvar"}
        outputs = tuple(Port(true, units[p], names, np.nan) for p, true in TRUE_PORTS.items())
    return inputs, outputs


class TrueInjections:
    """What devices truly inject while their readings are forged; the grid receives these values.

    Parameters
    ----------
    measured : Outputs of the federate.
    tan_phi : Reactive over active power of devices that do not measure it.
    """

    def __init__(
        self,
        plan: ModbusPlan | None,
        ders: Sequence[Der],
        measured: Sequence[PortPoint],
        tan_phi: float,
    ) -> None:
        self._needed = plan is not None and plan.forges_readings
        self._names = [der.name for der in ders]
        self._tan_phi = tan_phi
        self._points = {
            p.port: (p.point, [p.factor(der) for der in ders])
            for p in measured
            if p.port in TRUE_PORTS
        }
        self._held: dict[str, FloatArray] = {}

    def past(
        self, wire: ModbusWire, values: Mapping[str, FloatArray], good: Flags
    ) -> dict[str, FloatArray]:
        """Return the ports that stand beside the forged ones; none where nothing is forged."""
        if not self._needed:
            return {}
        true = {port: values[port].copy() for port in TRUE_PORTS}
        for port, (point, factors) in self._points.items():
            for i in np.flatnonzero(good).tolist():
                forged = wire.true_values(self._names[i])
                if point in forged:
                    true[port][i] = forged[point] * factors[i]
        if "q_kvar" not in self._points:
            true["q_kvar"] = self._tan_phi * true["p_kw"]
        for port, array in true.items():
            # Without a reply, the last true value is held, not the last forged one.
            held = self._held.get(port)
            if held is not None:
                np.copyto(array, held, where=~good)
        self._held = {port: array.copy() for port, array in true.items()}
        return {TRUE_PORTS[port]: array for port, array in true.items()}
