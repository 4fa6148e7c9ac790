"""``feederate device``: the commands' arguments; what they do is in `federates.commands.device`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from federates.commands import complete
from federates.commands.options import Arm, AsJson, print_json

device_app = typer.Typer(
    help="One device: check its file, scan, read, watch, write, test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DeviceFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A device file, or the name of a shipped one.",
        autocompletion=complete.device,
    ),
]
DeviceTarget = Annotated[
    str,
    typer.Argument(
        metavar="URL_OR_FILE",
        help="HOST:PORT/UNIT, or a device file.",
        autocompletion=complete.device,
    ),
]
Points = Annotated[
    list[str] | None, typer.Argument(metavar="[POINT]...", help="Only these points.")
]


@device_app.command("check")
def device_check(file: DeviceFile) -> None:
    """Say what is wrong with a device file, line by line."""
    from federates.commands.device import check

    check(file)


@device_app.command("import")
def device_import(
    registry: Annotated[
        Path, typer.Argument(metavar="REGISTRY.csv", help="A Modbus registry of VOLTTRON.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")
    ] = None,
) -> None:
    """Make a device file from a VOLTTRON registry, and say what it cannot hold."""
    from federates.commands.device import import_file

    import_file(registry, out)


@device_app.command("scan")
def device_scan(target: DeviceTarget) -> None:
    """Show the SunSpec models that a device has."""
    from federates.commands.device import scan_device

    scan_device(target)


@device_app.command("read")
def device_read(
    target: DeviceTarget,
    points: Points = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also points that the device does not implement.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read a device once."""
    from federates.commands.device import read

    read(target, tuple(points or ()), every=every, as_json=as_json)


@device_app.command("watch")
def device_watch(
    target: DeviceTarget,
    points: Points = None,
    period: Annotated[float, typer.Option(min=0.1, help="Seconds between two readings.")] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="Readings; default: endless.")] = None,
    held: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="POINT=VALUE", help="Hold this set-point meanwhile."),
    ] = None,
    arm: Arm = None,
) -> None:
    """Read a device again and again, until Ctrl-C; with --set hold set-points meanwhile."""
    from federates.commands.device import watch

    watch(target, tuple(points or ()), period, count, tuple(held or ()), tuple(arm or ()))


@device_app.command("write", context_settings={"ignore_unknown_options": True})
def device_write(
    file: DeviceFile,
    point: Annotated[str, typer.Argument(metavar="POINT")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A number, or a name of the enum.")],
    arm: Arm = None,
    hold: Annotated[
        float, typer.Option(min=0.0, help="Keep the value for this long, in seconds.")
    ] = 0.0,
) -> None:
    """Write one point through the guard; the device must be armed by name."""
    from federates.commands.device import write

    write(file, point, value, tuple(arm or ()), hold)


@device_app.command("test")
def device_test(
    file: DeviceFile,
    procedure: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="volt-var, volt-watt, constant-pf, constant-q, limit-active-power, ride-through, "
            "frequency-watt or priority.",
        ),
    ],
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT_OR_CMD",
            help="Grid simulator: HOST:PORT of an emulator's side channel, or a command with "
            "{v_pu} and {f_hz}, run per step. Without it a shipped FILE is tested on an emulator.",
        ),
    ] = None,
    arm: Arm = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for page and table; default runs/...")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="All characteristics and power levels, the standard's response times."
        ),
    ] = False,
    response_time: Annotated[
        float | None, typer.Option(min=0.2, max=90.0, help="Response time to set, s.")
    ] = None,
    category: Annotated[
        str, typer.Option(metavar="A|B", help="Normal category, if the device does not tell.")
    ] = "",
    abnormal: Annotated[
        str, typer.Option(metavar="I|II|III", help="Abnormal category, if it does not tell.")
    ] = "",
) -> None:
    """Run a type test of IEEE 1547.1-2020; exit code 3: the device did not pass."""
    from federates.commands.device_test import run_test

    for value, name, known in (
        (category, "--category", ("A", "B")),
        (abnormal, "--abnormal", ("I", "II", "III")),
    ):
        if value and value not in known:
            raise typer.BadParameter(
                f"found '{value}'; expected {', '.join(known)}", param_hint=name
            )
    done = run_test(
        file, procedure, grid=grid, armed=tuple(arm or ()), out=out, as_json=as_json, full=full,
        response_s=response_time, normal=category, abnormal=abnormal,
    )  # fmt: skip
    if as_json:
        print_json(done)
    if not done["passed"]:
        raise typer.Exit(3)
