"""The device federate: DERs that are simulated, emulated or real, one word each in the scenario.

Set-points come in by port and go to points of the devices through the guard; what the devices
measure comes out by port, with its quality. The feeder takes the measured injections in place of
its own model of these DERs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from federates.clock import to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.errors import DeviceNotGoodError
from federates.kinds.device.attack import TrueInjections, attack_ports, modbus_plan, open_wire
from federates.kinds.device.intruder import find_intruder
from federates.kinds.device.live import (
    BAD,
    EMULATED,
    GOOD,
    SIMULATED,
    STALE,
    EmulatedAs,
    Flags,
    Live,
    is_emulated,
    read_device_file,
    read_emulated_as,
    require_points,
)
from federates.kinds.device.models import DeviceModel, Surroundings, build_model
from federates.kinds.device.roles import ROLES, PortPoint, Role, role_of
from federates.kinds.device.section import DeviceFederateSection
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Der, node_label
from hil.devices.errors import NotSafeError

if TYPE_CHECKING:
    from federates.attacks.modbus.wire import ModbusWire
    from federates.core.run_store import RunStore
    from hil.devices.spec import DeviceSpec

QUALITY_WORDS = {GOOD: "good", STALE: "stale", BAD: "bad"}


class DeviceFederate(Federate):
    """Devices of one role: inverters, batteries or thermostats.

    Parameters
    ----------
    context : FederateContext
        Its section is a `DeviceFederateSection`.
    """

    Section = DeviceFederateSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        section = context.section
        assert isinstance(section, DeviceFederateSection)
        self._context, self._not_good = context, section.not_good
        points, power_factor = section.options.points, section.options.power_factor
        self.ders, self.kinds_of = _chosen(context, section.devices)
        self.names = tuple(der.name for der in self.ders)
        self.role = _role(context, self.ders)
        _check_points(context, self.role, points)
        self._houses = section.options.houses
        _check_houses(context, self.ders, self._houses)
        self.set_points = _renamed(self.role.inputs, points)
        self.measured = _renamed(self.role.outputs, points)
        self._tan_phi = float(np.sqrt(1.0 - power_factor**2) / power_factor)
        self._build_ports()
        self._weather_of_steps(section.options.settle_s)
        self._dt_s = context.period_s
        n = len(self.ders)
        self._held = {name: np.full(n, np.nan) for name in self._values}
        self._quality = np.full(n, GOOD)
        self._ever = {p.port: np.zeros(n, dtype=bool) for p in self.set_points}
        self._k = 0
        self._not_good_s = 0.0
        self._live: list[tuple[list[int], Live]] = []
        self._store: RunStore | None = None
        self._is_simulated = np.array([kind == SIMULATED for kind in self.kinds_of])
        self._build_model()
        self.specs = self._read_files()
        self.hardware = {name: spec.connection.address for name, spec in self.specs.items()}
        self.wall_clock = bool(self.specs)
        self._intruder = find_intruder(self._context, self.ders, self.kinds_of, self.role.name)
        if self._intruder is not None:
            self.inputs += (self._intruder.port,)
            self.attacked_plant = self._intruder.plant
        self._require_real_time()
        self.modbus, self.modbus_problems = modbus_plan(context, self)
        self.wire: ModbusWire | None = None
        self._injected = TrueInjections(
            self.modbus, self.ders, self.measured, self._tan_phi, self._files()
        )
        inputs, outputs = attack_ports(self.modbus, self.names)
        self.inputs, self.outputs = (*self.inputs, *inputs), (*self.outputs, *outputs)

    def _build_ports(self) -> None:
        nodes = [[node_label(d.bus, p) for p in d.phases] for d in self.ders]
        labels = tuple(dict.fromkeys(x for row in nodes for x in row))
        self._v_mean = np.array([[x in row for x in labels] for row in nodes], dtype=np.float64)
        self._v_mean /= self._v_mean.sum(axis=1, keepdims=True)
        self.inputs = (
            Port("v_pu", "pu", labels, initial=1.0, required=False),
            *(Port(p.port, p.unit, self.names, p.initial, False) for p in self.set_points),
        )
        more = [p for p in self.measured if p.port not in ("p_kw", "q_kvar")]
        self.outputs = (
            Port("p_kw", "kW", self.names, np.nan),
            Port("q_kvar", "kvar", self.names, np.nan),
            *(Port(p.port, p.unit, self.names, np.nan) for p in more),
            Port("quality", "1", self.names, BAD),
        )
        self._values = tuple(port.name for port in self.outputs[:-1])

    def _build_model(self) -> None:
        """Build the model of the devices that are one, or may need one."""
        wanted = self._is_simulated | (self._not_good == "model")
        self._modelled = np.flatnonzero(wanted).tolist()
        self._model: DeviceModel | None = None
        if self._modelled:
            modelled = [self.ders[i] for i in self._modelled]
            seed = self._context.scenario.seed
            self._model = build_model(self.role.name, modelled, seed, self._houses)

    def _weather_of_steps(self, settle_s: float) -> None:
        """Sample the weather of the feeder step that each device step falls into."""
        context, timing = self._context, self.timing
        step_ns, start_s = context.scenario.step_ns, context.scenario.time.start_s
        count = timing.steps_before(context.n_steps * step_ns)
        self._settling = context.settling_steps(settle_s, "options")
        steps = np.arange(-self._settling, count)
        steps = (timing.offset_ns + steps * timing.period_ns) // step_ns
        times_s = np.maximum(start_s + steps * to_s(step_ns), 0.0)
        repeat = context.site.grid.profiles.repeat
        self._day = context.site.profiles().sample(times_s, repeat_daily=repeat)

    def _around(self, v_pu: FloatArray) -> Surroundings:
        """Return the surroundings of the devices in the next step."""
        k, day = self._k, self._day
        self._k += 1
        return Surroundings(
            v_pu, float(day["irradiance_pu"][k]), float(day["temp_c"][k]), float(day["load_pu"][k])
        )

    def _read_files(self) -> dict[str, DeviceSpec]:
        """Return the real devices by DER name; `--arm` takes the same name."""
        scenario = self._context.scenario
        base_dir, out = scenario.base_dir, {}
        fed = {c.target for c in scenario.wires}
        used = [p for p in self.set_points if f"{self.name}.{p.port}" in fed]
        self.emulated_as: dict[str, EmulatedAs] = {}
        where = self._context.scenario.where("federates", self.name, "devices")
        for name, kind in zip(self.names, self.kinds_of, strict=True):
            if kind in (SIMULATED, EMULATED):
                continue
            if is_emulated(kind):
                found = read_emulated_as(kind, base_dir, where)
                spec = found.spec.at(name=name)
                self.emulated_as[name] = found._replace(spec=spec)
            else:
                out[name] = spec = read_device_file(kind, base_dir, where).at(name=name)
            require_points(spec, (*used, *self.measured), where)
        return out

    def _files(self) -> dict[str, DeviceSpec]:
        """Return the device files by name of what is real or emulated from a configuration."""
        return {**self.specs, **{name: e.spec for name, e in self.emulated_as.items()}}

    def _require_real_time(self) -> None:
        if self.specs and self._context.scenario.time.real_time is None:
            name = next(iter(self.specs))
            raise self._context.error(
                f"'{name}' is a device, and the run does not keep its time",
                "devices",
                expected="time.real_time: {factor: 1.0}",
            )

    def start(self, store: RunStore) -> None:
        """Start emulators, connect to devices, read them once."""
        self._store = store
        if not self._is_simulated.all():
            from federates.kinds.device.adapters import connect

            self.wire = open_wire(self._context, self, store)
            self._live = connect(self._context, self, store)
        if self._intruder is not None:
            self._intruder.connect(self._model, self._modelled, self._live)
        nothing = {p.port: np.full(len(self.names), np.nan) for p in self.set_points}
        for _ in range(self._settling):
            around = self._around(np.ones(len(self.names)))
            self._from_model(around, nothing)
            for index, live in self._live:
                live.pass_time(around.at(index))

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Send the set-points, advance the devices, return what they measure."""
        if self._intruder is not None:
            self._intruder.move(inputs)
        around = self._around(self._v_mean @ inputs["v_pu"])
        asked: Mapping[str, FloatArray] = {p.port: inputs[p.port] for p in self.set_points}
        if self._intruder is not None:
            asked = self._intruder.obeyed(asked)
        if self.wire is not None:
            self.wire.begin_step(time_s, inputs)
        values, quality = self._from_model(around, asked)
        modelled = values["p_kw"].copy(), values["q_kvar"].copy()
        for index, live in self._live:
            got, good = live.exchange(around.at(index), self._given(index, asked))
            quality[index] = good
            for port, array in got.items():
                values[port][index] = array
            if "q_kvar" not in got:
                values["q_kvar"][index] = self._tan_phi * values["p_kw"][index]
            self._tell(time_s, live.events())
        self._replace(time_s, values, quality, modelled)
        true: Mapping[str, FloatArray] = {}
        if self.wire is not None:
            self.wire.end_step(time_s)
            true = self._injected.ports(self.wire, values, quality == GOOD)
        return Step({**values, "quality": quality, **true})

    def _from_model(
        self, around: Surroundings, asked: Mapping[str, FloatArray]
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """Return what the models give, NaN for devices without one; shape (n,) each."""
        n = len(self.names)
        values = {name: np.full(n, np.nan) for name in self._values}
        if self._model is not None:
            at = self._modelled
            nothing = np.full(n, np.nan)
            given = {p.port: asked.get(p.port, nothing)[at] for p in self.role.inputs}
            for port, array in self._model.step(self._dt_s, around.at(at), given).items():
                values[port][at] = array
            if "q_kvar" not in {p.port for p in self.measured}:
                values["q_kvar"] = self._tan_phi * values["p_kw"]
        return values, np.where(self._is_simulated, GOOD, BAD)

    def _given(
        self, index: Sequence[int], asked: Mapping[str, FloatArray]
    ) -> dict[str, tuple[FloatArray, Flags]]:
        """Return the set-points of some devices, and which of them there ever were."""
        out = {}
        for port, array in asked.items():
            self._ever[port] |= ~np.isnan(array)
            out[port] = array[index], self._ever[port][index]
        return out

    def _replace(
        self,
        time_s: float,
        values: dict[str, FloatArray],
        quality: FloatArray,
        modelled: tuple[FloatArray, FloatArray],
    ) -> None:
        """Put what the scenario says in place of what is not good; tell when that changes."""
        good = quality == GOOD
        for i in np.flatnonzero(quality != self._quality):
            word = QUALITY_WORDS[float(quality[i])]
            if self._store is not None:
                self._store.event(self.name, "quality", time_s, device=self.names[i], now=word)
        self._quality = quality.copy()
        if not good.all():
            bad = [self.names[i] for i in np.flatnonzero(~good)]
            self._not_good_s += self._dt_s * len(bad)
            if self._not_good == "fail":
                raise DeviceNotGoodError(
                    f"device '{bad[0]}' is {QUALITY_WORDS[float(quality[~good][0])]} at "
                    f"time_s={time_s:g} ({len(bad)} of {len(good)} devices are not good), and "
                    "not_good is 'fail'"
                )
            model = self._not_good == "model"
            stand_in = dict(zip(("p_kw", "q_kvar"), modelled, strict=True)) if model else {}
            for port, array in values.items():
                np.copyto(array, stand_in.get(port, self._held[port]), where=~good)
        for port, array in values.items():
            np.copyto(self._held[port], array, where=good)

    def _tell(self, time_s: float, events: Sequence[Mapping[str, Any]]) -> None:
        if self._store is not None:
            for event in events:
                self._store.event(self.name, "device", time_s, **event)

    def summary(self) -> dict[str, float]:
        """Return how long devices were not good, and what the adapters counted."""
        out = {"devices_not_good_s": self._not_good_s}
        for _, live in self._live:
            if self._store is not None:
                # Not a metric: it depends on the machine, and two adapters have no sum.
                self._store.event(self.name, "adapter", None, **live.link_quality())
            for key, value in live.summary().items():
                out[key] = out.get(key, 0.0) + value
        return out | (self.wire.summary() if self.wire is not None else {})

    def close(self) -> None:
        """Bring all devices to their safe state; end the emulators.

        Raises NotSafeError: A real device is not safe; the run then fails with exit code 3.
        """
        with ExitStack() as stack:
            if self.wire is not None:
                stack.callback(self.wire.close)
            for _, live in self._live:
                stack.callback(self._close_live, live)
            if self.wire is not None:
                self.wire.stop()  # an attack ends with its run, so that devices can be made safe

    def _close_live(self, live: Live) -> None:
        try:
            live.close()
        except NotSafeError as error:
            if self._store is not None:
                with suppress(OSError):  # a full disk
                    self._store.event(self.name, "not_safe", None, text=error.what)
            raise


def _chosen(
    context: FederateContext, devices: Mapping[str, str]
) -> tuple[tuple[Der, ...], list[str]]:
    """Return the DERs that are devices and what each of them is; later entries win."""
    found = context.ders(tuple(devices), "devices", keyed=True)
    chosen = tuple(der for der in context.site.feeder.ders if der.name in found)
    return chosen, [devices[found[der.name]] for der in chosen]


def _role(context: FederateContext, ders: Sequence[Der]) -> Role:
    name = role_of(ders)
    if name is None:
        kinds = ", ".join(sorted({der.kind for der in ders}))
        raise context.error(
            f"devices of {'several kinds' if ',' in kinds else 'this kind'} ({kinds})",
            "devices",
            expected="inverters, batteries or thermostats; one federate for each",
        )
    return ROLES[name]


def _check_houses(context: FederateContext, ders: Sequence[Der], houses: str) -> None:
    """Refuse devices that are not in one house of the feeder each, where they should be."""
    for der in ders if houses == "feeder" else ():
        if der.kind != "house" or der.count != 1:
            what = f"{der.count} houses" if der.kind == "house" else f"a {der.kind}"
            raise context.error(
                f"'{der.name}' is {what} of the feeder",
                "options",
                "houses",
                expected="DERs that are one house each, as in the model ieee123-der-rich-homes; "
                "or 'own'",
            )


def _check_points(context: FederateContext, role: Role, points: Mapping[str, str | None]) -> None:
    known = [p.port for p in (*role.inputs, *role.outputs)]
    for port in points:
        if port not in known:
            raise context.error(
                f"{role.name}s have no port '{port}'",
                "options",
                "points",
                port,
                expected=f"one of {', '.join(known)}",
                nearest=nearest_name(port, known),
            )


def _renamed(
    ports: tuple[PortPoint, ...],
    points: Mapping[str, str | None],
) -> tuple[PortPoint, ...]:
    """Return the ports that have a point, under the names that the device files use."""
    names = {p.port: p.point for p in ports} | dict(points)
    return tuple(replace(p, point=str(names[p.port])) for p in ports if names[p.port] is not None)
