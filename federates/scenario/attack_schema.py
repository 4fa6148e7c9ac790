"""The attack schema: one YAML file that describes one attack, independent of any scenario.

The pydantic models below are the single source of the schema; ``feederate schema attack`` exports
them as JSON Schema, and their field descriptions are the reference documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from federates.scenario.attack_actions import (
    Adaptive,
    AlterLoad,
    Bias,
    CloseElement,
    Delay,
    Drop,
    Flood,
    ForgeException,
    Freeze,
    Impersonate,
    Jam,
    LinkAction,
    ModbusAction,
    Noise,
    Partition,
    PhysicalAction,
    Ramp,
    Replay,
    ReplayMail,
    Rewrite,
    Scale,
    Set,
    SignalAction,
    Swap,
    Tamper,
    Thermostat,
    Trip,
    Window,
    WritePoint,
)
from federates.scenario.yaml_source import YamlSource
from grid_models.base.sections import Duration, Name, Period, Probability, Section
from grid_models.base.yaml_lines import dotted

__all__ = [
    "Adaptive",
    "AlterLoad",
    "AttackSpec",
    "Bias",
    "CloseElement",
    "Conceal",
    "Delay",
    "Drop",
    "Flood",
    "ForgeException",
    "Freeze",
    "Impersonate",
    "Jam",
    "Labels",
    "Layer",
    "LinkAction",
    "LinkStep",
    "ModbusAction",
    "ModbusStep",
    "Noise",
    "Partition",
    "PhysicalAction",
    "PhysicalStep",
    "Ramp",
    "Replay",
    "ReplayMail",
    "Rewrite",
    "Scale",
    "Set",
    "Show",
    "SignalAction",
    "SignalStep",
    "Step",
    "Swap",
    "Tamper",
    "Target",
    "Thermostat",
    "Trigger",
    "Trip",
    "When",
    "Window",
    "WritePoint",
]

Layer = Literal["signal", "link", "modbus", "physical"]
Labels = Annotated[list[str], Field(min_length=1)]


class When(Section):
    """A condition on a signal, as the attacker sees it."""

    signal: str = Field(description="federate.port, as published (before any attack on it).")
    label: str = Field("*", description="Glob over labels; one that meets the condition is enough.")
    above: float | None = None
    below: float | None = None
    between: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    for_s: Duration = Field(0.0, description="How long the condition must hold without a break.")

    @model_validator(mode="after")
    def _one_condition(self) -> When:
        if sum(x is not None for x in (self.above, self.below, self.between)) != 1:
            raise ValueError("exactly one of above, below, between")
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError("between: [low, high] with low below high")
        return self


class Trigger(Section):
    """When a step begins: at a time, when a signal says so, or after another step."""

    at_s: Duration | None = Field(None, description="Simulated time since the start of the run.")
    when: When | None = None
    after: str | None = Field(None, description="Id of the step whose end is waited for.")
    delay_s: Duration = Field(0.0, description="Further wait after the condition or the step.")

    @model_validator(mode="after")
    def _one_trigger(self) -> Trigger:
        if sum(x is not None for x in (self.at_s, self.when, self.after)) != 1:
            raise ValueError("exactly one of at_s, when, after")
        return self


class Target(Section):
    """What a step touches. Which of the first five keys applies is a matter of the layer."""

    port: str | None = Field(
        None,
        description="Signal layer: glob over federate.port. An output: all who read it are "
        "deceived; an input: only that reader is. An input nobody feeds is fed by the attack.",
    )
    labels: Labels = Field(["*"], description="Signal layer: globs over the port's labels.")
    links: Labels | None = Field(
        None, description="Link layer: globs over links, 'source>target' or 'source>target:kind'."
    )
    agents: Labels | None = Field(
        None, description="Link layer: globs over agents; every link that begins or ends at one."
    )
    devices: Labels | None = Field(None, description="Modbus layer: globs over devices.")
    elements: Labels | None = Field(
        None,
        description="Physical layer: globs over 'der.NAME', 'line.NAME', 'switch.NAME', "
        "'load.NAME'.",
    )
    fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Only this share of what matches, drawn by the attack's seed."
    )
    count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only so many of what matches, drawn by the attack's seed."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Target:
        kinds = (self.port, self.links, self.agents, self.devices, self.elements)
        if sum(x is not None for x in kinds) != 1:
            raise ValueError("exactly one of port, links, agents, devices, elements")
        if self.fraction is not None and self.count is not None:
            raise ValueError("fraction or count, not both")
        return self


class Show(Section):
    """What is shown instead of the truth."""

    freeze: bool = Field(False, description="The last value before the step.")
    window: Window | None = Field(None, description="A window of the past, again and again.")
    value: float | None = None

    @model_validator(mode="after")
    def _one_picture(self) -> Show:
        if int(self.freeze) + (self.window is not None) + (self.value is not None) != 1:
            raise ValueError("exactly one of freeze: true, window, value")
        return self


class Conceal(Section):
    """What the operator sees while a step is active."""

    port: str = Field(description="Glob over federate.port, as in a target.")
    labels: Labels = Field(["*"])
    show: Show


class _StepBase(Section):
    id: Name
    title: str = ""
    trigger: Trigger
    duration_s: Period | None = Field(None, description="Default: to the end of the run.")
    target: Target
    probability: Probability = Field(
        1.0, description="Of the action, for each value, message or frame by itself."
    )
    conceal: list[Conceal] = Field([])
    on_end: Literal["restore", "leave"] = Field(
        "restore", description="At the step's end: as it was before, or as the step left it."
    )


class SignalStep(_StepBase):
    """Forges measurements or set-points between their producer and their reader."""

    layer: Literal["signal"]
    action: Annotated[SignalAction, Field(discriminator="kind")]


class LinkStep(_StepBase):
    """Acts on mail between agents."""

    layer: Literal["link"]
    action: Annotated[LinkAction, Field(discriminator="kind")]


class ModbusStep(_StepBase):
    """Stands as a proxy between the adapter and a device."""

    layer: Literal["modbus"]
    action: Annotated[ModbusAction, Field(discriminator="kind")]


class PhysicalStep(_StepBase):
    """Changes the grid itself."""

    layer: Literal["physical"]
    action: Annotated[PhysicalAction, Field(discriminator="kind")]


Step = Annotated[SignalStep | LinkStep | ModbusStep | PhysicalStep, Field(discriminator="layer")]


class AttackSpec(Section):
    """A whole attack."""

    id: Name
    kind: Literal["attack", "disturbance"] = Field(
        "attack",
        description="A disturbance is wired and recorded like an attack, and called so in reports; "
        "it is no attack to labels and detectors.",
    )
    title: str = ""
    description: str = Field("", description="What happens, and what an analyst should see.")
    scenario: str | None = Field(None, description="The scenario it was written for.")
    seed: int = Field(0, ge=0)
    techniques: list[str] = Field([], description="Ids of MITRE ATT&CK for ICS, such as T0856.")
    attack_version: str = Field("18.1", description="Version of ATT&CK that the ids are of.")
    steps: list[Step] = Field(min_length=1)

    _source: YamlSource | None = PrivateAttr(None)
    _base_dir: Path = PrivateAttr(Path())

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths and user modules are looked up in."""
        return self._base_dir

    def where(self, *path: str | int) -> str:
        """Return the place of a key in the user's file."""
        return self._source.where(path) if self._source else f"attack {self.id}: {dotted(path)}"

    def of_layer(self, layer: Layer) -> list[tuple[int, Step]]:
        """Return the steps of a layer with their positions."""
        return [(i, step) for i, step in enumerate(self.steps) if step.layer == layer]
