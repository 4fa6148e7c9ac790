"""The modbus steps of an attack in a device federate: their plan, and proxies before devices."""

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
from federates.core.sites import GridSite
from federates.kinds.device.live import EMULATED, Flags
from federates.kinds.device.roles import PortPoint
from federates.scenario.schema import shipped_dir
from grid_models.feeder.model import Der

if TYPE_CHECKING:
    from federates.attacks.modbus.wire import ModbusWire
    from federates.core.run_store import RunStore
    from federates.kinds.device.live import DeviceGroup
    from hil.devices.spec import DeviceSpec


def devices_of(context: FederateContext) -> dict[str, str]:
    """Return all devices of a scenario, in its order, and what each of them is.

    Where devices on several plants have one name, those of this federate count.
    """
    scenario, out = context.scenario, dict[str, str]()
    own: dict[str, str] = {}
    for name, section in scenario.federates.items():
        if section.kind == "device":
            plant = scenario.plant_of(name)
            site = context.site if plant == context.site.plant else GridSite(scenario, plant)
            found = {
                der.name: what
                for der in site.feeder.ders
                for glob, what in getattr(section, "devices", {}).items()
                if fnmatchcase(der.name, glob)
            }
            own = found if name == context.group else own
            out |= found
    return out | own


def modbus_plan(
    context: FederateContext, federate: DeviceGroup
) -> tuple[ModbusPlan | None, list[str]]:
    """Return what the scenario's attack does to a federate's devices, and what is wrong with it."""
    spec = context.scenario.attack_spec
    if spec is None or not spec.of_layer("modbus"):
        return None, []

    def file_of(name: str) -> DeviceSpec:
        if name in federate.specs:
            return federate.specs[name]
        if name in federate.emulated_as:
            return federate.emulated_as[name].spec
        from hil.devices.file import load_device_file

        return load_device_file(shipped_dir() / "devices" / f"{EMULATED}-{federate.role.name}.yaml")

    return resolve_modbus(spec, devices_of(context), federate.names, file_of)


def open_wire(
    context: FederateContext, federate: DeviceGroup, store: RunStore
) -> ModbusWire | None:
    """Return the proxies of a federate; None where traffic is neither attacked nor captured."""
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
    """What devices truly inject while their readings are forged; the grid reads it.

    Parameters
    ----------
    measured : Outputs of the federate.
    tan_phi : Reactive over active power of devices that do not measure it.
    specs : Device files that say in which unit a point is.
    """

    def __init__(
        self,
        plan: ModbusPlan | None,
        ders: Sequence[Der],
        measured: Sequence[PortPoint],
        tan_phi: float,
        specs: Mapping[str, DeviceSpec],
    ) -> None:
        self._needed = plan is not None and plan.forges_readings
        self._names = [der.name for der in ders]
        self._tan_phi = tan_phi
        self._points = {
            p.port: (p.point, [p.factor_in(specs.get(der.name), der) for der in ders])
            for p in measured
            if p.port in TRUE_PORTS
        }
        self._held: dict[str, FloatArray] = {}

    def ports(
        self, wire: ModbusWire, values: Mapping[str, FloatArray], good: Flags
    ) -> dict[str, FloatArray]:
        """Return the true values beside the forged ports; none where nothing is forged."""
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
            # Where readings are no longer good, the last true value is kept, not the last forged.
            held = self._held.get(port)
            if held is not None:
                np.copyto(array, held, where=~good)
        self._held = {port: array.copy() for port, array in true.items()}
        return {TRUE_PORTS[port]: array for port, array in true.items()}
