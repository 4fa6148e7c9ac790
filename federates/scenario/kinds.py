"""Federate kinds by name: the section that a kind brings, its class, and what it is.

A kind is one row of `KINDS`, or a user's ``module:Class``. Both name a federate class and the
section that checks the federate's keys. Classes are named by text and imported on first use.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from federates.errors import ScenarioError
from federates.scenario.named_classes import named_class
from grid_models.base.schema_errors import problem, section_error
from grid_models.base.sections import Duration, Section, StepPeriod

_WHAT = "federate kind"
RUNNABLE = "runnable"
"""Key of a validation context: the scenario is to be run, so users' own classes are imported."""


@dataclass(frozen=True)
class Kind:
    """A row of the registry; `section` and `federate` are ``module:Class``."""

    section: str
    federate: str
    text: str


def _row(module: str, name: str, text: str, section: str | None = None) -> Kind:
    place = "federates.kinds"
    section = section or f"{module}:{name}Section"
    return Kind(f"{place}.{section}", f"{place}.{module}:{name}Federate", text)


KINDS: Mapping[str, Kind] = {
    "feeder": _row(
        "feeder.federate",
        "Feeder",
        "OpenDSS power flow of the grid with its loads, DERs and day",
        "feeder.section:FeederSection",
    ),
    "feeders": _row(
        "feeders.federate",
        "Feeders",
        "many feeders alike: the first in OpenDSS, all others solved at once in arrays",
        "feeders.section:FeedersSection",
    ),
    "controller": _row(
        "controller",
        "Controller",
        "a distributed controller, in one federate or split over several",
    ),
    "device": _row(
        "device.federate",
        "Device",
        "inverters, batteries or thermostats: simulated, emulated or real, behind Modbus/TCP",
        "device.section:DeviceFederateSection",
    ),
    "signal": _row("signal", "Signal", "values by the clock, such as a price or an order"),
    "detector": _row(
        "detector",
        "Detector",
        "watches what the operator sees: scores and alarms, for forged or odd values",
    ),
    "transmission": _row(
        "transmission.federate",
        "Transmission",
        "a transmission system: machines, their controls and frequency, feeders at its buses",
        "transmission.section:TransmissionSection",
    ),
    "circuit": _row("circuit", "Circuit", "circuit dynamics of lines and buses at milliseconds"),
    "external": _row(
        "external", "External", "any HELICS program that is not ours, by its topic names"
    ),
}


class FederateSection(Section):
    """Keys of every federate.

    A plant simulates a grid: by default it steps at offset 0 of each period, and every other
    federate half a step of the scenario later.
    """

    is_plant: ClassVar[bool] = False
    has_elements: ClassVar[bool] = False
    """Whether physical steps of an attack can act on it; see `federates.attacks.physical`."""

    kind: str = Field(description="A shipped kind, or module:Class of your own.")
    period_s: StepPeriod | None = Field(None, description="Default: time.step_s.")
    offset_s: Duration | None = Field(
        None, description="Default: 0 for a plant, half of time.step_s for every other federate."
    )

    def default_connections(self, name: str, plant: str) -> tuple[tuple[str, str], ...]:
        """Return (source, target) of connections that exist where the scenario gives none.

        Those of the federate `name` with the plant whose grid it uses; a target that the scenario
        feeds keeps its own.
        """
        return ()


class GridUserSection(FederateSection):
    """Keys of a federate that reads the grid of a plant: its feeder, DERs and day."""

    plant: str | None = Field(
        None,
        description="Plant whose grid it uses. Default: the one it is connected to, or the only "
        "one.",
    )


class UserSection(GridUserSection):
    """Keys of a user's own federate class that brings no section of its own."""

    kind: str = Field(pattern=r"^[\w.]+:\w+$", description="module:Class of your own.")
    options: dict[str, Any] = Field({}, description="Keyword arguments of the class.")


class RecordedSection(UserSection):
    """Keys of a user's own federate in a recorded run, where its class may be missing."""

    model_config = ConfigDict(extra="allow")

    kind: str


def federate_class(kind: str) -> type:
    """Return the class of a federate kind.

    Raises ScenarioError: No kind has this name, or the user's module or class cannot be found.
    """
    return named_class(kind, {name: row.federate for name, row in KINDS.items()}, _WHAT)


def section_class(kind: str) -> type[FederateSection]:
    """Return the section that checks the keys of a federate kind; errors as `federate_class`."""
    found = named_class(kind, {name: row.section for name, row in KINDS.items()}, _WHAT)
    if kind in KINDS:
        assert issubclass(found, FederateSection)
        return found
    if not all(hasattr(found, name) for name in ("step", "summary", "close")):
        raise ScenarioError(f"'{kind}' is not a federates.core.federate.Federate")
    section = getattr(found, "Section", UserSection)
    if not (isinstance(section, type) and issubclass(section, FederateSection)):
        raise ScenarioError(
            f"'{kind}.Section' is not accepted",
            expected="a subclass of federates.scenario.kinds.FederateSection",
        )
    return section


class ByKind:
    """Annotation of a federate's section: its ``kind`` decides which keys it has."""

    def validate(self, value: Any, info: ValidationInfo) -> Any:
        """Return the section of the kind that `value` names, checked."""
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(kind, str):
            return value  # the base section says what is wrong
        if not (info.context or {}).get(RUNNABLE):
            return _recorded(kind, value)
        try:
            section = section_class(kind)
        except ScenarioError as error:
            found = problem(error.what, error.expected or "", error.nearest or "")
            raise ValidationError.from_exception_data(
                "kind", [{"type": found, "loc": ("kind",), "input": kind}]
            ) from None
        try:
            return section.model_validate(value, context=info.context)
        except ValidationError as error:
            raise section_error(section, error, _kind_with) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self.validate, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        shipped = functools.reduce(operator.or_, map(section_class, KINDS))
        by_kind = Annotated[shipped, Field(discriminator="kind")]  # type: ignore[valid-type]
        return handler(TypeAdapter(by_kind | UserSection).core_schema)


def _kind_with(key: str) -> str:
    """Return the kind that has a key; '' where none or several have it.

    Of a kind and those that only add keys to it, as `feeders` to `feeder`, it is the first.
    """
    having = {kind: section_class(kind) for kind in KINDS}
    having = {kind: section for kind, section in having.items() if key in section.model_fields}
    for kind, section in having.items():
        if all(issubclass(other, section) for other in having.values()):
            return f"kind: {kind}"
    return ""


def _recorded(kind: str, value: Mapping[str, Any]) -> FederateSection:
    """Return a recorded section: nothing of the user's is imported, keys of other versions go."""
    if kind not in KINDS:
        return RecordedSection.model_validate(value)
    section = section_class(kind)
    return section.model_validate({k: v for k, v in value.items() if k in section.model_fields})
