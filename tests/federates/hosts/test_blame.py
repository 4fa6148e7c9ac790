"""Whom the process host blames when a program has ended: what a member said counts before that."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from federates.core.progress import Progress
from federates.hosts import process
from federates.hosts.outcome import Control, Outcome


@pytest.mark.parametrize(
    ("says", "blamed"),
    [
        ([], "lab"),
        ([{"failing": True}], None),  # which one, it says when it has closed its files
        ([{"failing": True}, {"failed": "too warm", "federate": "feeder"}], "feeder"),
    ],
)
def test_a_program_that_a_failing_member_has_ended_is_not_to_blame(
    says: list[dict[str, Any]], blamed: str | None, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading) as stdout, os.fdopen(writing, "w") as line:
        line.writelines(json.dumps(message) + "\n" for message in says)
        line.flush()
        member = process._Child(
            "feeder", cast(Any, SimpleNamespace(poll=lambda: None, stdout=stdout))
        )
        program = cast(Any, SimpleNamespace(poll=lambda: 1, returncode=1))
        control = Control(Progress(1, tmp_path / "heartbeat"), 60.0)
        broker = cast(Any, SimpleNamespace(died=lambda: None))
        process._look_for_trouble(
            ["feeder"], [member], broker, control, Outcome(), {"lab": program}, []
        )
    assert (control.failure.federate if control.failure else None) == blamed
