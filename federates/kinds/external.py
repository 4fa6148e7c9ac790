"""A federate that is not ours: any HELICS program that publishes and subscribes by topic."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.clock import to_ns
from federates.core.context import FederateContext
from federates.core.oedisi import LOADS, Topic, TypeName, codec_of
from federates.errors import MessageError
from federates.scenario.kinds import FederateSection
from grid_models.base.schema_errors import problem
from grid_models.base.sections import Period, Section


class ExternalPort(Section):
    """A topic of a program that is not ours: a HELICS vector, or a string with OEDI-SI's JSON."""

    oedisi: TypeName | None = Field(
        None,
        description="The topic carries messages of this OEDI-SI type; by default it is a vector.",
    )
    topic: str | None = Field(
        None,
        description="The HELICS publication's full name; default federate/port. A vector that the "
        "program reads has the name that its producer gives it.",
    )
    unit: str | None = Field(
        None,
        description="Unit symbol, as in our ports: kW, kvar, pu. Required, but follows from an "
        "OEDI-SI type other than MeasurementArray.",
    )
    labels: list[str] | Literal["loads"] | None = Field(
        None,
        description="One label per element of the vector. Required; default for an OEDI-SI type: "
        "all nodes for voltages, all DERs for powers; `loads` for the powers of all loads.",
    )
    initial: float = Field(0.0, description="What readers see before the first publication.")

    @model_validator(mode="after")
    def _complete(self) -> ExternalPort:
        if self.oedisi is None or self.oedisi == "MeasurementArray":
            lacks = [key for key in ("unit", "labels") if getattr(self, key) is None]
            if lacks:
                raise ValidationError.from_exception_data(
                    "port", [{"type": "missing", "loc": (key,), "input": self} for key in lacks]
                )
            if self.labels == LOADS:
                wrong = problem(f"found '{LOADS}'", "a list; only a power has this word")
                raise ValidationError.from_exception_data(
                    "port", [{"type": wrong, "loc": ("labels",), "input": self}]
                )
        return self


def _iso_date(value: Any) -> str:
    """Accept a date as YAML reads it, or as text."""
    return datetime.date.fromisoformat(str(value)).isoformat()


class ExternalSection(FederateSection):
    """A HELICS program that is not ours."""

    kind: Literal["external"]
    inputs: dict[str, ExternalPort] = Field({}, description="Topics it reads from us.")
    outputs: dict[str, ExternalPort] = Field({}, description="Topics it publishes.")
    topology: str | None = Field(
        None,
        description="Plant that publishes its OEDI-SI Topology on PLANT/topology, once, at time 0.",
    )
    date: Annotated[str, BeforeValidator(_iso_date)] = Field(
        "2000-01-01",
        description="Day on which the times in OEDI-SI messages begin; they have no time zone.",
    )
    max_silence_s: Period | None = Field(
        None,
        description="Longest time between two values of each of its topics; then the run fails. By "
        "default a silence of more than its period is an event and a warning.",
    )
    command: list[str] | None = Field(
        None, description="Program to start; {broker}, {core}, {key} are filled in."
    )


class ExternalFederate:
    """The ports a foreign program declares in the scenario. It is wired and checked, never run.

    Attributes
    ----------
    topics : mapping of output port to the topic that the program publishes
    messages : mapping of input port to the topic of the OEDI-SI messages that it reads
    topology : The plant whose topology it reads; None where it reads none.
    """

    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()

    def __init__(self, context: FederateContext) -> None:
        section = context.section
        assert isinstance(section, ExternalSection)
        self.name, self.timing = context.name, context.timing
        self.command = section.command
        self.max_silence_s = section.max_silence_s
        self.inputs, reads = _ports(context, section, "inputs")
        self.outputs, self.topics = _ports(context, section, "outputs")
        self.messages = {port: topic for port, topic in reads.items() if topic.codec is not None}
        for port, declared in section.inputs.items():
            if declared.topic is not None and declared.oedisi is None:
                expected = "no such key: the producer's own topic is read"
                raise context.error("used for a vector", "inputs", port, "topic", expected=expected)
        self.topology = section.topology

    @property
    def speaks_oedisi(self) -> bool:
        """Whether any of its topics carries messages of OEDI-SI."""
        out = any(topic.codec is not None for topic in self.topics.values())
        return out or bool(self.messages) or self.topology is not None


def _ports(
    context: FederateContext, section: ExternalSection, side: Literal["inputs", "outputs"]
) -> tuple[tuple[Port, ...], dict[str, Topic]]:
    declared: Mapping[str, ExternalPort] = getattr(section, side)
    # Time 0 of the run is `time.start_s` of that day.
    start = np.datetime64(section.date, "ns") + to_ns(context.scenario.time.start_s)
    ports, topics = [], {}
    for name, port in declared.items():
        if port.oedisi is not None:
            feeder = None if port.oedisi == "MeasurementArray" else context.site.feeder
            with context.located(MessageError, side, name):
                unit, labels, codec = codec_of(port.oedisi, port.unit, port.labels, feeder, start)
        else:
            assert port.unit is not None
            assert isinstance(port.labels, list)
            unit, labels, codec = port.unit, tuple(port.labels), None
        ports.append(Port(name, unit, labels, port.initial))
        topics[name] = Topic(port.topic or f"{context.name}/{name}", codec)
    return tuple(ports), topics
