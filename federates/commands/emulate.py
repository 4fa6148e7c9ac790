"""``feederate emulate``: emulated devices behind real Modbus/TCP, in a process of their own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hil.emulators.host import HostOptions
    from hil.emulators.plant import Plant

emulate_app = typer.Typer(
    help="Emulated devices behind real Modbus/TCP, until SIGTERM or Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Clock(StrEnum):
    """What makes time pass."""

    wall = "wall"
    grid = "grid"


Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the first device; 0: any free one.")
]
Count = Annotated[int, typer.Option(min=1, max=1000, help="Devices in this process.")]
Unit = Annotated[int, typer.Option(min=0, max=247, help="Unit id of the first device.")]
OnePort = Annotated[
    bool, typer.Option("--one-port", help="Ascending unit ids behind one port, not a port each.")
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Tls = Annotated[
    Path | None,
    typer.Option(metavar="CERTDIR", help="Mutual TLS with ca.pem, server.pem and server.key."),
]
Fault = Annotated[
    str,
    typer.Option(
        metavar="MODE[:VALUE][@START[+LENGTH]]",
        help="silent, late, wrong_count, wrong_echo, reset, drift or stuck; see docs/emulators.md.",
    ),
]
GridPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port of the side channel that feeds the physics."),
]
Time = Annotated[Clock, typer.Option("--time", help="Time by the wall clock, or by the grid.")]
Speed = Annotated[float, typer.Option(min=0.001, help="Device seconds per second.")]
Step = Annotated[float, typer.Option("--step", min=0.01, help="Step of the physics, s.")]
Names = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Names of the devices, instead of --count.")
]
Leash = Annotated[bool, typer.Option("--leash", help="End when standard input closes.")]
Kw = Annotated[float, typer.Option(min=0.001, help="Active power rating, kW.")]
Phases = Annotated[int, typer.Option(min=1, max=3, help="1 or 3.")]
Volts = Annotated[float, typer.Option(min=1.0, help="Nominal voltage, line to neutral, V.")]
Heartbeat = Annotated[
    float, typer.Option(min=0.0, help="Longest time without 715 ControllerHb, s; 0: any.")
]
Cold = Annotated[
    bool, typer.Option("--cold", help="Start out of service and wait, as after an outage.")
]


def _options(
    port: int, host: str, unit: int, one_port: bool, tls: Path | None, fault: str,
    grid_port: int | None, time: Clock, speed: float, step: float, leash: bool,
) -> HostOptions:  # fmt: skip
    from hil.emulators.host import HostOptions
    from hil.servers.security import server_context

    if tls is None and host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo(f"warning: {host} is open to the network without TLS", err=True)
    if time is Clock.grid and grid_port is None:
        raise typer.BadParameter("--time grid needs --grid-port")
    return HostOptions(
        host=host, port=port, unit=unit, one_port=one_port,
        tls=server_context(tls) if tls is not None else None, fault=fault, grid_port=grid_port,
        by_grid=time is Clock.grid, speed=speed, step_s=step, leash=leash,
    )  # fmt: skip


def _named(kind: str, count: int, names: str | None) -> list[str]:
    if names is None:
        return [f"{kind}_{i + 1}" for i in range(count)]
    given = [name.strip() for name in names.split(",")]
    if not all(given) or len(set(given)) < len(given):
        raise typer.BadParameter(f"--names needs distinct names, found '{names}'")
    return given


def _serve(plant: Plant, names: list[str], options: HostOptions) -> None:
    from hil.emulators.host import serve

    serve(plant, names, options)


def _check_phases(phases: int) -> None:
    if phases == 2:
        raise typer.BadParameter("--phases is 1 or 3, found 2")


@emulate_app.command()
def inverter(
    port: Port = 0, count: Count = 1, unit: Unit = 1, one_port: OnePort = False,
    host: Host = "127.0.0.1", tls: Tls = None, fault: Fault = "none", grid_port: GridPort = None,
    time: Time = Clock.wall, speed: Speed = 1.0, step: Step = 0.1, names: Names = None,
    leash: Leash = False, kw: Kw = 10.0,
    kva: Annotated[
        float | None, typer.Option(min=0.001, help="Apparent power rating; default 1.1136 kW.")
    ] = None,
    phases: Phases = 3, volts: Volts = 277.0, heartbeat: Heartbeat = 0.0, cold: Cold = False,
) -> None:  # fmt: skip
    """PV inverters, SunSpec 701-706, 712, 713, 715, after IEEE 1547-2018."""
    from grid_models.ders.rules import KVA_PER_KW
    from hil.emulators.inverter_plant import inverters

    _check_phases(phases)
    options = _options(port, host, unit, one_port, tls, fault, grid_port, time, speed, step, leash)
    labels = _named("inverter", count, names)
    plant = inverters(
        len(labels), kw, kva or KVA_PER_KW * kw, running=not cold, phases=phases, v_ln=volts,
        heartbeat_s=heartbeat,
    )  # fmt: skip
    _serve(plant, labels, options)


@emulate_app.command()
def battery(
    port: Port = 0, count: Count = 1, unit: Unit = 1, one_port: OnePort = False,
    host: Host = "127.0.0.1", tls: Tls = None, fault: Fault = "none", grid_port: GridPort = None,
    time: Time = Clock.wall, speed: Speed = 1.0, step: Step = 0.1, names: Names = None,
    leash: Leash = False, kw: Kw = 5.0,
    kwh: Annotated[float, typer.Option(min=0.001, help="Energy, kWh.")] = 13.5,
    soc: Annotated[float, typer.Option(min=0.1, max=1.0, help="State of charge, pu.")] = 0.5,
    phases: Phases = 1, volts: Volts = 240.0, heartbeat: Heartbeat = 0.0, cold: Cold = False,
) -> None:  # fmt: skip
    """Batteries, SunSpec models of the inverter with 713 and 704 WSet."""
    from hil.emulators.inverter_plant import batteries

    _check_phases(phases)
    options = _options(port, host, unit, one_port, tls, fault, grid_port, time, speed, step, leash)
    labels = _named("battery", count, names)
    plant = batteries(
        len(labels), kw, kwh, soc_start=soc, running=not cold, phases=phases, v_ln=volts,
        heartbeat_s=heartbeat,
    )  # fmt: skip
    _serve(plant, labels, options)


@emulate_app.command()
def thermostat(
    port: Port = 0, count: Count = 1, unit: Unit = 1, one_port: OnePort = False,
    host: Host = "127.0.0.1", tls: Tls = None, fault: Fault = "none", grid_port: GridPort = None,
    time: Time = Clock.wall, speed: Speed = 1.0, step: Step = 1.0, names: Names = None,
    leash: Leash = False, kw: Kw = 7.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the houses.")] = 1,
    temp_out: Annotated[
        float, typer.Option(min=-50, max=60, help="Outdoor temperature without a grid, deg C.")
    ] = 32.0,
) -> None:  # fmt: skip
    """Thermostats with CTA-2045 verbs, each in a house."""
    from hil.emulators.thermostat_plant import thermostats

    options = _options(port, host, unit, one_port, tls, fault, grid_port, time, speed, step, leash)
    labels = _named("thermostat", count, names)
    _serve(thermostats(labels, kw, seed=seed, temp_out_c=temp_out), labels, options)
