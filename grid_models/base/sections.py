"""Strict pydantic sections for everything that users write in YAML, and the numbers they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
# A hundred years; HELICS' time, 64 bits of nanoseconds, ends at 292.
MAX_TIME_S = 3.2e9
Duration = Annotated[float, Field(ge=0.0, le=MAX_TIME_S)]
Period = Annotated[float, Field(ge=1e-6, le=MAX_TIME_S)]
# Limits of what is plausible: a value beyond them is a slip of the pen.
DAY_S = 86_400.0
StepPeriod = Annotated[float, Field(ge=1e-6, le=DAY_S)]
Delay = Annotated[float, Field(ge=0.0, le=DAY_S)]
Deviation = Annotated[float, Field(ge=0.0, le=1e9)]
Amount = Annotated[float, Field(ge=-1e9, le=1e9)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, and a value must have the right type.

    ``seed: yes`` is an error, not 1. A whole number is accepted where a real one is expected.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def not_json(options: Mapping[str, Any]) -> str:
    """Say why options for a class cannot be kept in a run's manifest; '' where they can."""
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        return (
            f"cannot be kept in the run's manifest: {error}; expected text, finite numbers, true "
            "or false, lists and mappings of them"
        )
    return ""
