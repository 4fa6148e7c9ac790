"""Emulator configurations: what a device of another manufacturer holds, allows and does.

A configuration is a YAML file; those of this package are in `configs/`, named like the device file
that they answer to. Its registers are written with the keys of a device file's points.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from grid_models.base.errors import nearest_name
from grid_models.base.schema_errors import schema_problems
from grid_models.base.yaml_lines import KeyPath, YamlError, read_yaml
from hil.devices.errors import DeviceFileError, Problem, ServerError
from hil.devices.file import placed
from hil.devices.points import DeviceFileSection, Finite, PointSpec, Positive

#: What a device can be told; W, var, percent of its rating, degrees Celsius, 0 or 1.
Command = Literal["p_w", "p_pct", "limit_w", "limit_pct", "q_var", "q_pct", "cool_set_c", "on"]
#: What a device can measure; `charging` and `running` are 0 or 1.
Measurement = Literal[
    "p_w", "p_abs_w", "q_var", "v_v", "f_hz", "soc_pct", "temp_c", "rated_w", "charging", "running"
]
Named = dict[str, Finite]


class HabitsSpec(DeviceFileSection):
    """Habits of the connection; see `hil.servers.habits.Habits`."""

    pause_s: Annotated[Finite, Field(ge=0, le=5)] = 0.0
    connect_delay_s: Annotated[Finite, Field(ge=0, le=60)] = 0.0
    connections: Annotated[int, Field(ge=1, le=64)] | None = None
    refuse_more: bool = False
    max_registers: int = Field(125, ge=1, le=125)
    borders: tuple[int, ...] = ()


class Reverts(DeviceFileSection):
    """What the device does by itself when a register is not written again in time."""

    after_s: Positive | str = Field(description="seconds, or the register that holds them; 0 never")
    set: dict[str, Finite | str] = Field(description="register to a value, or to another register")


class RegisterSpec(PointSpec):
    """One value in the device; `min` and `max` are what the device itself accepts."""

    value: Finite | str = Field(0.0, description="at the start, in the point's unit")
    functions: tuple[int, ...] = Field((), description="that may write it; default all")
    needs: Named = Field({}, description="registers and the values without which it is refused")
    refused_with: int = Field(4, ge=1, le=255, description="exception code where `needs` fails")
    outside: Literal["refuse", "clamp"] = Field("refuse", description="of min and max")
    reverts: Reverts | None = None


class Block(DeviceFileSection):
    """Registers that are there, read zero and cannot be written."""

    table: Literal["coil", "discrete", "input", "holding"]
    address: int = Field(ge=0, le=65535)
    count: int = Field(ge=1, le=65536)


class SunSpecSpec(DeviceFileSection):
    """SunSpec models of the device, in their order."""

    base: int = Field(40000, ge=0, le=65535)
    models: tuple[int, ...] = (1,)
    padded: bool = Field(True, description="model 1 has 66 registers, else 65 as in older devices")
    values: dict[str, Finite | str] = Field({}, description="MODEL.POINT, scale factors first")


class CommandSpec(DeviceFileSection):
    """A register that tells the device what to do."""

    what: Command
    point: str = Field(description="register that says it")
    factor: Finite = 1.0
    when: Named = Field({}, description="registers and the values that make it count")


class PhysicsSpec(DeviceFileSection):
    """The simple relation between set-points and measurements."""

    kind: Literal["inverter", "battery", "thermostat"]
    rated_w: Positive = 5000.0
    time_constant_s: Positive = 1.0
    energy_wh: Positive = 10_000.0
    soc_pct: Annotated[Finite, Field(ge=0, le=100)] = 50.0
    temp_c: Finite = 26.0
    commands: tuple[CommandSpec, ...] = ()
    shows: dict[str, Measurement] = Field({}, description="register to what it shows")


class EmulatorConfig(DeviceFileSection):
    """An emulator configuration."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]*$")
    device: str = Field(description="the device file that the emulator answers to")
    unit: int = Field(1, ge=0, le=247)
    absent: int = Field(2, ge=1, le=255, description="exception code of registers that are not")
    habits: HabitsSpec = HabitsSpec()
    sunspec: SunSpecSpec | None = None
    registers: dict[str, RegisterSpec] = Field(min_length=1)
    blocks: tuple[Block, ...] = ()
    physics: PhysicsSpec


def shipped_configs() -> dict[str, Path]:
    """Return name -> path of the configurations that come with the package."""
    folder = Path(__file__).parent / "configs"
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def load_emulator_config(name: str | Path) -> EmulatorConfig:
    """Read an emulator configuration: a path, or the name of a shipped one.

    Raises
    ------
    ServerError
        There is no such file.
    DeviceFileError
        It has problems; the message has a line for each.
    """
    path, shipped = Path(name), shipped_configs()
    if not path.exists():
        if str(name) not in shipped:
            raise ServerError(
                f"no such emulator configuration: '{name}'",
                where="emulator",
                expected=f"a path, or one of {', '.join(shipped)}",
                nearest=nearest_name(str(name), shipped),
            )
        path = shipped[str(name)]
    try:
        data, lines = read_yaml(path, text_keys=True)
    except YamlError as error:
        problem = Problem(str(path), error.line, "", error.what, error.expected)
        raise DeviceFileError([problem]) from None
    try:
        config = EmulatorConfig.model_validate(data)
    except ValidationError as error:
        raise DeviceFileError(placed(path, lines, schema_problems(EmulatorConfig, error))) from None
    if problems := placed(path, lines, list(_problems(config))):
        raise DeviceFileError(problems)
    return config


def _problems(config: EmulatorConfig) -> Iterable[tuple[KeyPath, str, str, str]]:
    """Yield names of registers that are not there, and keys that do not fit together."""
    named: list[tuple[KeyPath, Any]] = []
    for i, command in enumerate(config.physics.commands):
        where = ("physics", "commands", i)
        named += [((*where, "point"), command.point)]
        named += [((*where, "when", other), other) for other in command.when]
    named += [(("physics", "shows", shown), shown) for shown in config.physics.shows]
    for name, register in config.registers.items():
        here = ("registers", name)
        named += [((*here, "needs", other), other) for other in register.needs]
        if register.reverts is not None:
            revert = register.reverts
            values = (revert.after_s, *revert.set, *revert.set.values())
            named += [((*here, "reverts"), other) for other in values if isinstance(other, str)]
        is_text = register.type == "string"
        if isinstance(register.value, str) != is_text and (is_text or register.value):
            yield (
                (*here, "value"),
                f"found {register.value!r}",
                "text" if is_text else "a number",
                "",
            )
        for unused in ("scale_from", "sign_from"):
            if getattr(register, unused) is not None:
                yield (*here, unused), "not for an emulated register", "", ""
    for key, name in named:
        if name not in config.registers:
            near = nearest_name(str(name), config.registers) or ""
            yield key, f"there is no register '{name}'", "a name under registers", near
