"""An intruder at inverters: changes their settings, past guard and owner.

The settings of a simulated inverter are those of its model. An emulated one is written to by a
separate Modbus/TCP client, in the order that SunSpec asks for: a stored curve, then its adoption.
The curve must be inside the limits of the device file. Real devices are never written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from federates.attacks.physical.action import SETTINGS
from federates.attacks.physical.plan import PhysicalPlan
from federates.attacks.physical.settings import ChangeSettings
from federates.core.context import FederateContext
from federates.core.federate import FloatArray, Port
from federates.kinds.device.live import EMULATED, Live
from federates.kinds.device.models import DeviceModel, InverterModel
from federates.scenario.schema import shipped_dir
from grid_models.feeder.model import Der

if TYPE_CHECKING:
    from hil.devices.inverter_change import InverterChange
    from hil.emulators.changed_settings import ChangedSettings

_HELD_PORT = "volt_var_ref_pu"


class Target(Protocol):
    """Access to the settings of one inverter, or of some in one process."""

    def change(self, change: InverterChange) -> None:
        """Put the settings into force."""
        ...

    def restore(self) -> None:
        """Put back those of before the first change."""
        ...


class SimulatedSettings:
    """Settings of one simulated inverter: a row of its model."""

    def __init__(self, changed: ChangedSettings, row: int) -> None:
        self._changed, self._rows = changed, np.array([row], dtype=np.intp)

    def change(self, change: InverterChange) -> None:
        """See `Target`."""
        self._changed.change(self._rows, change)

    def restore(self) -> None:
        """See `Target`."""
        self._changed.restore(self._rows)


class SettingsIntruder:
    """Changes the settings of some inverters, and holds what their owner commands.

    Parameters
    ----------
    plan : With inverters whose settings are changed.
    ders : Devices of the federate; those that the plan does not name are not touched.
    """

    def __init__(self, plan: PhysicalPlan, ders: Sequence[Der]) -> None:
        self.plant = plan.plant
        labels = plan.labels[SETTINGS]
        place = {label: i for i, label in enumerate(labels)}
        self.port = Port(SETTINGS, "1", labels, 0.0, required=False)
        pairs = [(i, place[x]) for i, d in enumerate(ders) if (x := f"der.{d.name}") in place]
        self._device, self._element = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        self._targets: dict[int, list[Target]] = {i: [] for i in self.devices}
        self._changes: dict[int, InverterChange] = {
            a.step + 1: a.action for a in plan.actions if isinstance(a.action, ChangeSettings)
        }
        self._now: NDArray[np.int64] = np.zeros(len(self._device), dtype=np.int64)
        self._held: FloatArray = np.full(len(ders), np.nan)

    @property
    def devices(self) -> tuple[int, ...]:
        """Positions of the devices that it changes."""
        return tuple(self._device.tolist())

    def connect(
        self,
        model: DeviceModel | None,
        modelled: Sequence[int],
        live: Sequence[tuple[Sequence[int], Live]],
    ) -> None:
        """Get access to the devices, and to the models that replace some of them."""
        if isinstance(model, InverterModel):
            from hil.emulators.changed_settings import ChangedSettings

            changed = ChangedSettings(model.fleet)
            for row, i in enumerate(modelled):
                self._add(i, SimulatedSettings(changed, row))
        for index, group in live:
            from federates.kinds.device.remote_settings import RemoteSettings

            for i, connection in zip(index, group.connections, strict=True):
                self._add(i, RemoteSettings(connection))

    def check(self, emulated: Sequence[str], context: FederateContext) -> None:
        """Refuse changes that emulated devices cannot have.

        Parameters
        ----------
        emulated : Names of those that it changes.

        Raises ScenarioError: The settings have no register, or a curve is beyond the device file.
        """
        if not emulated:
            return
        from federates.kinds.device.remote_settings import refusal
        from hil.devices.file import load_device_file

        spec = load_device_file(shipped_dir() / "devices" / f"{EMULATED}-inverter.yaml")
        for number, change in self._changes.items():
            why = refusal(change, spec)
            if why:
                raise context.error(
                    f"step {number} of the attack changes '{emulated[0]}', an emulated device: "
                    f"{why[0]}",
                    "devices",
                    expected=why[1],
                )

    def _add(self, i: int, target: Target) -> None:
        if i in self._targets:
            self._targets[i].append(target)

    def move(self, inputs: Mapping[str, FloatArray]) -> None:
        """Give each device the settings of the step whose number the port says; 0 restores."""
        now = inputs[SETTINGS][self._element].astype(np.int64)
        for k in np.flatnonzero(now != self._now).tolist():
            for target in self._targets[int(self._device[k])]:
                if self._now[k]:
                    target.restore()
                if now[k]:
                    target.change(self._changes[int(now[k])])
        self._now = now

    def obeyed(self, asked: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Return the set-points that arrive: an owner who is locked out changes no setting."""
        locked = self._device[self._now > 0]
        wanted = asked[_HELD_PORT].copy()
        wanted[locked] = self._held[locked]
        self._held = wanted
        return {**asked, _HELD_PORT: wanted}
