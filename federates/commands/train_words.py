"""``feederate train``: arguments; what it does is in `federates.commands.train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from federates.commands.options import AsJson, ScenarioArgument, run_options
from federates.runs.options import RunOptions


@run_options("overrides", "seed", seed="Of the training: its days and random cases. Default: 1.")
def train(
    scenario: ScenarioArgument,
    options: RunOptions,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Policy file (.csv); its report is beside it.")
    ],
    minutes: Annotated[
        float,
        typer.Option(metavar="M", min=0.05, help="Processor time of the updates, at most."),
    ] = 1.0,
    randomise: Annotated[
        bool,
        typer.Option(
            "--randomise/--narrow", help="Vary loads and source voltage in training, or not."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Train local volt/var curves for the inverters of a scenario's feeder."""
    from federates.commands.train import train_command

    train_command(
        replace(options, scenario=scenario, seed=None),
        options.seed,
        out,
        minutes,
        randomised=randomise,
        as_json=as_json,
    )
