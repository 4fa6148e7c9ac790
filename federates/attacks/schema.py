"""The attack schema: one YAML file that describes one attack, independent of any scenario.

The pydantic models below are the single source of the schema; ``feederate schema attack`` exports
them as JSON Schema, and their field descriptions are the reference documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from federates.section import Deviation, Duration, Name, Period, Probability, Section
from federates.yaml_source import YamlSource, dotted

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


class Window(Section):
    """A window of the past that is played again."""

    from_s: Duration
    to_s: Duration

    @model_validator(mode="after")
    def _forward(self) -> Window:
        if not self.from_s < self.to_s:
            raise ValueError("to_s after from_s")
        return self


class Bias(Section):
    """Adds a constant."""

    kind: Literal["bias"]
    value: float


class Scale(Section):
    """Multiplies."""

    kind: Literal["scale"]
    factor: float


class Set(Section):
    """Replaces by a constant."""

    kind: Literal["set"]
    value: float


class Ramp(Section):
    """Adds what grows with the time since the step began."""

    kind: Literal["ramp"]
    rate_per_s: float
    limit: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest size of what is added."
    )


class Freeze(Section):
    """Holds the last value before the step."""

    kind: Literal["freeze"]


class Noise(Section):
    """Adds normal noise."""

    kind: Literal["noise"]
    sigma: Deviation


class Drop(Section):
    """Signals: the reader keeps what it last got. Mail and frames: never delivered."""

    kind: Literal["drop"]


class Delay(Section):
    """Delivers late."""

    kind: Literal["delay"]
    delay_s: Period


class Replay(Section):
    """Plays a window of the past, or of a file, again and again.

    A file is a long table (CSV or Parquet) with the columns time_s (or time), port, label, value.
    """

    kind: Literal["replay"]
    window: Window | None = None
    file: str | None = Field(None, description="Path; relative means beside the attack file.")
    offset_s: float = Field(0.0, description="File: added to its times; 0 is the step's begin.")
    speed: Annotated[float, Field(gt=0)] = Field(1.0, description="File: its seconds per ours.")

    @model_validator(mode="after")
    def _one_source(self) -> Replay:
        if (self.window is None) == (self.file is None):
            raise ValueError("exactly one of window, file")
        return self


class Swap(Section):
    """Exchanges values in pairs: the first target with the last, and so on; sums stay."""

    kind: Literal["swap"]


class Adaptive(Section):
    """Asks an attacker at every step what it does.

    Signal layer: what the targets shall be. Physical layer: the demand it adds to loads and houses.
    """

    kind: Literal["adaptive"]
    attacker: str = Field(description="Name of a shipped attacker, or module:Class.")
    sees: list[str] = Field([], description="federate.port globs that the attacker reads, too.")
    options: dict[str, Any] = Field({})


class Jam(Section):
    """Noise on the channel: messages are lost at random, those that pass come late."""

    kind: Literal["jam"]
    loss: Probability = 0.5
    delay_s: Duration = Field(0.0, description="Largest extra delay, uniform.")


class Tamper(Section):
    """Changes the numbers in messages: ``factor * x + bias``, or `value` in their place."""

    kind: Literal["tamper"]
    bias: float = 0.0
    factor: float = 1.0
    value: float | None = None
    sigma: Deviation = 0.0


class ReplayMail(Section):
    """Puts the numbers of a message `lag_s` ago into each message."""

    kind: Literal["replay"]
    lag_s: Period


class Impersonate(Section):
    """Writes in a sender's name: the numbers of another agent's messages, or a constant."""

    kind: Literal["impersonate"]
    agent: str | None = Field(None, description="Agent whose numbers are sent in its place.")
    value: float | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Impersonate:
        if (self.agent is None) == (self.value is None):
            raise ValueError("exactly one of agent, value")
        return self


class Partition(Section):
    """Cuts the targeted agents off from all others; among themselves they still talk."""

    kind: Literal["partition"]


class Rewrite(Section):
    """Rewrites a point's registers on the wire, in what is read or in what is written."""

    kind: Literal["rewrite"]
    point: str = Field(description="Point of the device file.")
    direction: Literal["read", "write"] = "read"
    value: float | None = Field(None, description="In engineering units, in place of the true one.")
    factor: float = 1.0
    bias: float = 0.0
    hide: bool = Field(
        False,
        description="Writes: whoever reads the point meanwhile is shown what was asked for, so "
        "that reading back finds nothing.",
    )

    @model_validator(mode="after")
    def _hides_writes(self) -> Rewrite:
        if self.hide and self.direction == "read":
            raise ValueError("hide belongs to direction: write")
        return self


class WritePoint(Section):
    """Writes a point itself when the step begins; the adapter's own writes still come after it."""

    kind: Literal["write"]
    point: str = Field(description="Point of the device file.")
    value: float = Field(description="In engineering units.")


class ForgeException(Section):
    """Answers requests with a Modbus exception."""

    kind: Literal["exception"]
    code: Annotated[int, Field(ge=1, le=255)] = 4


class Flood(Section):
    """Sends further requests to the device."""

    kind: Literal["flood"]
    requests_per_s: Annotated[float, Field(gt=0, le=10_000)] = 100.0


class Trip(Section):
    """Disconnects a DER or a load, or opens a line or a switch."""

    kind: Literal["trip"]


class CloseElement(Section):
    """Closes a switch or a line that is open."""

    kind: Literal["close"]


class AlterLoad(Section):
    """Switches demand on: of loads, and of the HVAC of houses.

    `kw` is shared by the targets in proportion to their nominal power; `factor` multiplies it.
    """

    kind: Literal["load"]
    kw: float | None = Field(None, description="Extra demand of all targets together.")
    factor: Annotated[float, Field(ge=0)] | None = Field(None, description="Times the demand.")
    on_s: Period | None = Field(None, description="On and off in turn: time on.")
    off_s: Period | None = Field(None, description="On and off in turn: time off.")
    synchrony: Probability = Field(
        1.0, description="1: all targets switch at once; 0: spread over a whole on-off cycle."
    )

    @model_validator(mode="after")
    def _one_size(self) -> AlterLoad:
        if (self.kw is None) == (self.factor is None):
            raise ValueError("exactly one of kw, factor")
        if (self.on_s is None) != (self.off_s is None):
            raise ValueError("on_s and off_s together")
        return self


class Thermostat(Section):
    """Moves the set-point of the thermostats of houses."""

    kind: Literal["thermostat"]
    offset_k: float


SignalAction = Bias | Scale | Set | Ramp | Freeze | Noise | Drop | Delay | Replay | Swap | Adaptive
LinkAction = Drop | Delay | Jam | Tamper | ReplayMail | Impersonate | Partition
ModbusAction = Rewrite | WritePoint | ForgeException | Delay | Drop | Flood
PhysicalAction = Trip | CloseElement | AlterLoad | Thermostat | Adaptive


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
