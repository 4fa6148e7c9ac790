"""A federate that is not ours: any HELICS program that publishes and subscribes by topic."""

from __future__ import annotations

from collections.abc import Mapping

from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.federate import Link
from federates.scenario.schema import ExternalPort, FederateSpec


class ExternalFederate:
    """The ports a foreign program declares in the scenario. It is wired and checked, never run."""

    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()

    def __init__(self, name: str, timing: Timing, spec: FederateSpec) -> None:
        self.name = name
        self.timing = timing
        self.command = spec.command
        self.inputs = _ports(spec.inputs)
        self.outputs = _ports(spec.outputs)
        self.topics = {port: _topic(name, port, decl) for port, decl in spec.outputs.items()}


def _ports(declared: Mapping[str, ExternalPort]) -> tuple[Port, ...]:
    return tuple(
        Port(name, port.unit, tuple(port.labels), port.initial) for name, port in declared.items()
    )


def _topic(federate: str, port: str, declared: ExternalPort) -> str:
    return declared.topic or f"{federate}/{port}"
