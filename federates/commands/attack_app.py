"""``feederate attack``: the commands' arguments; what they do is in `federates.commands.attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from federates.commands import complete
from federates.commands.options import (
    AsJson,
    Defence,
    LiveCommand,
    Overrides,
    print_json,
    run_options,
)
from federates.runs.options import RunOptions

attack_app = typer.Typer(
    help="An attack on a scenario: check it, explain it, run it beside the baseline.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
AttackFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="An attack file or a shipped attack; left out where the scenario names its attack.",
        autocompletion=complete.either,
    ),
]
OnScenario = Annotated[
    str | None,
    typer.Argument(
        metavar="[SCENARIO]",
        help="Left out where the attack names its scenario.",
        autocompletion=complete.scenario,
    ),
]


@attack_app.command("check")
def attack_check(
    file: AttackFile,
    scenario: OnScenario = None,
    overrides: Overrides = None,
    defence: Defence = None,
) -> None:
    """Say that an attack fits a scenario, or what is wrong with it."""
    from federates.commands.attack import check

    check(file, scenario, tuple(overrides or ()), defence)


@attack_app.command("explain")
def attack_explain(
    file: AttackFile,
    scenario: OnScenario = None,
    overrides: Overrides = None,
    defence: Defence = None,
    as_json: AsJson = False,
) -> None:
    """Show what an attack would touch in a scenario; nothing is started."""
    from federates.commands.attack import as_data, explain, print_explained
    from federates.commands.terminal import output

    found = explain(file, scenario, tuple(overrides or ()), defence)
    if as_json:
        print_json(as_data(found))
    else:
        print_explained(found, output())


@attack_app.command("mitm")
def attack_mitm(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An attack file or a shipped attack.",
            autocompletion=complete.attack,
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Device file, or the name of a shipped one.",
            autocompletion=complete.device,
        ),
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any free one.")
    ] = "127.0.0.1:0",
    target: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT[/UNIT]", help="The device, if not as its file says."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What the attack calls the device.")
    ] = None,
    pcap: Annotated[Path | None, typer.Option(help="Capture to write, NAME.pcapng.")] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Attack this device although it is not on loopback."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds; default: until Ctrl-C.")
    ] = None,
) -> None:
    """Carry out an attack's modbus steps before one device, by the wall clock."""
    from federates.commands.mitm import mitm_command

    mitm_command(
        file,
        listen=listen,
        device=device,
        target=target,
        name=name,
        pcap=pcap,
        armed=tuple(arm or ()),
        duration_s=duration,
    )


@attack_app.command("run", cls=LiveCommand)
@run_options(
    *("out", "steps", "overrides", "seed", "placement", "armed", "live"),
    out="Folder of the runs. Default: runs/attack-NAME-TIME.",
    steps="Stop each run after this many feeder steps.",
    seed="Seed of the runs.",
    placement="As for run. Default: shared.",
    live="Serve a page of the attacked run while it goes on; see run.",
)
def attack_run(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A scenario; left out where the attack names its scenario.",
            autocompletion=complete.either,
        ),
    ],
    options: RunOptions,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="An attack file or a shipped attack; left out where the scenario names it.",
            autocompletion=complete.attack,
        ),
    ] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With this defence; repeatable. Default: all.",
            autocompletion=complete.defence,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run with and without the attack, and the same with each defence; compare the runs."""
    from federates.commands.paired import paired_command

    paired_command(scenario, file, options, defence, as_json=as_json)
