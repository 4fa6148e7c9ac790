"""Every help text ends with examples, and they are command lines that are understood."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from federates.cli import app
from federates.commands.examples import EXAMPLES


def _commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield above + name, command


COMMANDS = dict(_commands(typer.main.get_command(app)))


def test_every_command_has_examples_and_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    for name, command in COMMANDS.items():
        help_text = command.get_help(command.make_context(name, [], resilient_parsing=True))
        for line in EXAMPLES[name]:
            assert f"\n  feederate {line}\n" in f"{help_text}\n".replace("    ", "  ")


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_understood(line: str) -> None:
    words = shlex.split(line.partition(" >")[0])
    name = next(n for n in COMMANDS if words[: len(n.split())] == n.split())
    context = COMMANDS[name].make_context(name, words[len(name.split()) :])
    assert context.args == []
