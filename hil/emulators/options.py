"""How emulated devices are made and served: one table for the command line, runs and tests."""

# ruff: noqa: RUF009 - the defaults are dataclass fields

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hil.devices.errors import ServerError

if TYPE_CHECKING:
    from hil.emulators.plant import Plant
    from hil.emulators.register_config import EmulatorConfig


class EmulatorRole(StrEnum):
    """Kinds of emulated devices."""

    inverter = "inverter"
    battery = "battery"
    thermostat = "thermostat"
    device = "device"


class Clock(StrEnum):
    """What makes time pass."""

    wall = "wall"
    grid = "grid"


_SUNSPEC = (EmulatorRole.inverter, EmulatorRole.battery)


def _option(
    default: Any,
    about: str,
    low: float | None = None,
    high: float | None = None,
    *,
    flag: str = "",
    metavar: str | None = None,
    argument: bool = False,
    roles: tuple[EmulatorRole, ...] = tuple(EmulatorRole),
    by_role: Mapping[str, Any] | None = None,
) -> Any:
    """Return a field with what the command line needs to know of it."""
    known = {
        "help": about, "min": low, "max": high, "flag": flag, "metavar": metavar, "roles": roles,
        "by_role": by_role or {}, "argument": argument,
    }  # fmt: skip
    return field(default=default, metadata=known)


@dataclass(frozen=True)
class EmulatorOptions:
    """Emulated devices of one role; the help text of each field says what it means.

    With None, `kw`, `phases`, `volts` and `step_s` take the default of the role.
    """

    role: EmulatorRole = EmulatorRole.inverter
    config: str = _option(
        "", "Emulator configuration: a YAML file, or the name of a shipped one.",
        metavar="CONFIG", argument=True, roles=(EmulatorRole.device,),
    )  # fmt: skip
    port: int = _option(0, "Port of the first device; 0: any free one.", 0, 65535)
    count: int = _option(1, "Devices in this process.", 1, 1000)
    unit: int | None = _option(
        None, "Unit id of the first device; default 1, or that of CONFIG.", 0, 247
    )
    one_port: bool = _option(False, "Ascending unit ids behind one port, not a port each.")
    host: str = _option("127.0.0.1", "Address to listen on.")
    tls: str | None = _option(
        None, "Mutual TLS with ca.pem, server.pem and server.key.", metavar="CERTDIR"
    )
    fault: str = _option(
        "none",
        "silent, late, wrong_count, wrong_echo, reset, drift or stuck; see docs/emulators.md.",
        metavar="MODE[:VALUE][@START[+LENGTH]]",
    )
    grid_port: int | None = _option(
        None, "Port of the side channel that feeds the physics.", 0, 65535
    )
    time: Clock = _option(Clock.wall, "Time by the wall clock, or by the grid.")
    speed: float = _option(1.0, "Device seconds per second.", 0.001)
    step_s: float | None = _option(
        None, "Step of the physics, s.", 0.01, flag="--step", by_role={"thermostat": 1.0}
    )
    names: str | None = _option(
        None, "Names of the devices, instead of --count.", metavar="A,B,..."
    )
    end_with_parent: bool = _option(False, "End when standard input closes.", flag="--leash")
    kw: float | None = _option(
        None, "Active power rating, kW.", 0.001,
        by_role={"inverter": 10.0, "battery": 5.0, "thermostat": 7.0},
    )  # fmt: skip
    kva: float | None = _option(
        None, "Apparent power rating; default 1.1136 kW.", 0.001, roles=(EmulatorRole.inverter,)
    )
    kwh: float = _option(13.5, "Energy, kWh.", 0.001, roles=(EmulatorRole.battery,))
    soc: float = _option(0.5, "State of charge, pu.", 0.1, 1.0, roles=(EmulatorRole.battery,))
    phases: int | None = _option(
        None, "1 or 3.", 1, 3, roles=_SUNSPEC, by_role={"inverter": 3, "battery": 1}
    )
    volts: float | None = _option(
        None, "Nominal voltage, line to neutral, V.", 1.0, roles=_SUNSPEC,
        by_role={"inverter": 277.0, "battery": 240.0},
    )  # fmt: skip
    heartbeat_s: float = _option(
        0.0, "Longest time without 715 ControllerHb, s; 0: any.", 0.0, flag="--heartbeat",
        roles=_SUNSPEC,
    )  # fmt: skip
    cold: bool = _option(
        False, "Start out of service and wait, as after an outage.", roles=_SUNSPEC
    )
    seed: int = _option(1, "Seed of the houses.", 0, roles=(EmulatorRole.thermostat,))
    kw_each: tuple[float, ...] = ()
    """Ratings of thermostats' houses one by one, in place of `kw`; for runs, no flag."""
    houses: tuple[str, ...] = ()
    """Labels that thermostats' houses are drawn by, in place of the names; for runs, no flag."""
    temp_out_c: float = _option(
        32.0, "Outdoor temperature without a grid, deg C.", -50, 60, flag="--temp-out",
        roles=(EmulatorRole.thermostat,),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("kw", "phases", "volts", "step_s"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default_of(name, self.role))
        if self.time is Clock.grid and self.grid_port is None:
            raise _wrong("--time grid needs --grid-port", "a port, or 0 for any free one")
        if self.phases == 2:
            raise _wrong("found --phases 2", "1 or 3")
        labels = self.labels
        for what, each in (("ratings", self.kw_each), ("houses", self.houses)):
            if each and len(each) != len(labels):
                raise _wrong(f"found {len(each)} {what}", f"{len(labels)}, one per device")
        if not all(labels) or len(set(labels)) < len(labels):
            raise _wrong(f"found --names '{self.names}'", "distinct names, separated by commas")

    @property
    def first_unit(self) -> int:
        """Unit id of the first device."""
        if self.unit is None:
            return self._configuration().unit if self.role is EmulatorRole.device else 1
        return self.unit

    @property
    def labels(self) -> list[str]:
        """Names of the devices."""
        if self.names is None:
            device = self.role is EmulatorRole.device
            kind = self._configuration().name if device else self.role.value
            return [f"{kind}_{i + 1}" for i in range(self.count)]
        return [name.strip() for name in self.names.split(",")]

    def _configuration(self) -> EmulatorConfig:
        from hil.emulators.register_config import load_emulator_config

        return load_emulator_config(self.config)

    def plant(self) -> Plant:
        """Return the devices and their physics."""
        n, kw = len(self.labels), self.kw
        if self.role is EmulatorRole.device:
            from hil.emulators.register_plant import RegisterPlant

            return RegisterPlant(self._configuration(), n, kw)
        assert kw is not None
        if self.role is EmulatorRole.thermostat:
            from hil.emulators.thermostat_plant import thermostats

            houses, rated_kw = self.houses or self.labels, self.kw_each or kw
            return thermostats(houses, rated_kw, seed=self.seed, temp_out_c=self.temp_out_c)
        from grid_models.ders.rules import KVA_PER_KW
        from hil.emulators.inverter_plant import batteries, inverters

        common: dict[str, Any] = {
            "running": not self.cold, "phases": self.phases, "v_ln": self.volts,
            "heartbeat_s": self.heartbeat_s,
        }  # fmt: skip
        if self.role is EmulatorRole.battery:
            return batteries(n, kw, self.kwh, soc_start=self.soc, **common)
        return inverters(n, kw, self.kva or KVA_PER_KW * kw, **common)

    def to_json(self) -> str:
        """Return all as text; see `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EmulatorOptions:
        """Return the options that `to_json` wrote."""
        given = json.loads(text)
        return cls(**given | {"role": EmulatorRole(given["role"]), "time": Clock(given["time"])})


def options_of(role: EmulatorRole) -> Iterator[dataclasses.Field[Any]]:
    """Yield the fields that a role has, with `help`, `min`, `max`, `flag`, `metavar` each."""
    fields = dataclasses.fields(EmulatorOptions)
    return (f for f in fields if role in f.metadata.get("roles", ()))


def default_of(name: str, role: EmulatorRole) -> Any:
    """Return the default of an option."""
    known = EmulatorOptions.__dataclass_fields__[name]
    fallback = 0.1 if name == "step_s" else known.default
    return known.metadata["by_role"].get(role, fallback)


def _wrong(what: str, expected: str) -> ServerError:
    return ServerError(what, where="emulator", expected=expected)
