"""A federate that is not ours: any HELICS program that publishes and subscribes by topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.core.context import FederateContext
from federates.scenario.kinds import FederateSection
from grid_models.base.sections import Section


class ExternalPort(Section):
    """A topic of a program that is not ours."""

    topic: str | None = Field(
        None, description="Outputs: the HELICS publication's full name; default federate/port."
    )
    unit: str = Field(description="Unit symbol, as in our ports: kW, kvar, pu.")
    labels: list[str] = Field(description="One label per element of the vector.")
    initial: float = Field(0.0, description="What readers see before the first publication.")


class ExternalSection(FederateSection):
    """A HELICS program that is not ours."""

    kind: Literal["external"]
    inputs: dict[str, ExternalPort] = Field({}, description="Topics it reads from us.")
    outputs: dict[str, ExternalPort] = Field({}, description="Topics it publishes.")
    command: list[str] | None = Field(
        None, description="Program to start; {broker}, {core}, {key} are filled in."
    )


class ExternalFederate:
    """The ports a foreign program declares in the scenario. It is wired and checked, never run."""

    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()

    def __init__(self, context: FederateContext) -> None:
        section = context.section
        assert isinstance(section, ExternalSection)
        self.name, self.timing = context.name, context.timing
        self.command = section.command
        self.inputs = _ports(section.inputs)
        self.outputs = _ports(section.outputs)
        self.topics = {
            port: declared.topic or f"{self.name}/{port}"
            for port, declared in section.outputs.items()
        }


def _ports(declared: Mapping[str, ExternalPort]) -> tuple[Port, ...]:
    return tuple(
        Port(name, port.unit, tuple(port.labels), port.initial) for name, port in declared.items()
    )
