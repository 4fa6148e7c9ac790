"""The attack schema: one YAML file that describes one attack, independent of any scenario.

The pydantic models below are the single source of the schema; ``feederate schema attack`` exports
them as JSON Schema, and their field descriptions are the reference documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from federates.scenario.attack_actions import (
    RECORDED,
    Action,
    Layer,
    PastWindow,
    read_action,
    shipped_actions,
)
from federates.scenario.yaml_source import YamlSource
from grid_models.base.errors import nearest_name
from grid_models.base.schema_errors import problem
from grid_models.base.sections import Duration, Name, Period, Probability, Section, Seed
from grid_models.base.yaml_lines import dotted

LAYERS: dict[str, str] = {
    "signal": "Forges measurements or set-points between their producer and their reader.",
    "link": "Acts on mail between agents.",
    "modbus": "Stands as a proxy between the adapter and a device.",
    "physical": "Changes the grid itself.",
}
"""What the steps of each layer act on."""
TARGET_KEYS: dict[str, tuple[str, ...]] = {
    "signal": ("port",),
    "link": ("links", "agents"),
    "modbus": ("devices",),
    "physical": ("elements",),
}
"""Keys of `Target` that each layer takes."""
_TARGET_KEYS = tuple(key for keys in TARGET_KEYS.values() for key in keys)
Labels = Annotated[list[str], Field(min_length=1)]


class When(Section):
    """A condition on a signal, as the attacker sees it."""

    signal: str = Field(description="federate.port, as published (before any attack on it).")
    label: str = Field("*", description="Glob over labels; one that meets the condition is enough.")
    above: float | None = Field(None, description="Met while the value is above this.")
    below: float | None = Field(None, description="Met while the value is below this.")
    between: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Met while the value lies in [low, high]."
    )
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
    when: When | None = Field(None, description="Begins when a signal says so; see below.")
    after: str | None = Field(None, description="Id of the step whose end is waited for.")
    delay_s: Duration = Field(0.0, description="Further wait after the condition or the step.")

    @model_validator(mode="after")
    def _one_trigger(self) -> Trigger:
        if sum(x is not None for x in (self.at_s, self.when, self.after)) != 1:
            raise ValueError("exactly one of at_s, when, after")
        return self


class Target(Section):
    """What a step acts on. The layer decides which of port, links, agents, devices, elements."""

    port: str | None = Field(
        None,
        description="Signal layer: glob over federate.port. An output: all who read it are "
        "deceived; an input: only that reader is. An input without a source is fed by the attack.",
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
        "'load.NAME', 'machine.NAME'.",
    )
    plant: str | None = Field(
        None,
        description="Physical layer: the federate whose grid is meant, where there are several.",
    )
    fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Only this share of what matches, drawn by the attack's seed."
    )
    count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only so many of what matches, drawn by the attack's seed."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Target:
        if sum(getattr(self, key) is not None for key in _TARGET_KEYS) != 1:
            raise ValueError(f"exactly one of {', '.join(_TARGET_KEYS)}")
        if self.plant is not None and self.elements is None:
            raise ValueError("plant only together with elements")
        if self.fraction is not None and self.count is not None:
            raise ValueError("fraction or count, not both")
        return self

    @property
    def key(self) -> str:
        """The key that is given: port, links, agents, devices or elements."""
        return next(key for key in _TARGET_KEYS if getattr(self, key) is not None)


class Show(Section):
    """What is shown instead of the truth."""

    freeze: bool = Field(False, description="The last value before the step.")
    window: PastWindow | None = Field(None, description="A window of the past, again and again.")
    value: float | None = Field(None, description="This value.")

    @model_validator(mode="after")
    def _one_picture(self) -> Show:
        if int(self.freeze) + (self.window is not None) + (self.value is not None) != 1:
            raise ValueError("exactly one of freeze: true, window, value")
        return self


class Conceal(Section):
    """What the operator sees while a step is active."""

    port: str = Field(description="Glob over federate.port, as in a target.")
    labels: Labels = Field(["*"], description="Globs over the port's labels.")
    show: Show = Field(description="What is shown; see below.")


class Step(Section):
    """One step: what it acts on, when, and what it does."""

    id: Name = Field(description="Name of the step in events, truth and labels.")
    title: str = Field("", description="One line for tables.")
    layer: Layer = Field(description="What the step acts on; it decides which actions there are.")
    trigger: Trigger = Field(description="When it begins; see below.")
    duration_s: Period | None = Field(None, description="Default: to the end of the run.")
    target: Target = Field(description="What it touches; see below.")
    probability: Probability = Field(
        1.0, description="Of the action, for each value, message or frame by itself."
    )
    conceal: list[Conceal] = Field([], description="What others are shown meanwhile; see below.")
    on_end: Literal["restore", "leave"] = Field(
        "restore", description="At the step's end: as it was before, or as the step left it."
    )
    action: SerializeAsAny[Action] = Field(description="What it does; see below.")

    @field_validator("layer", mode="before")
    @classmethod
    def _known_layer(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in LAYERS:
            near = nearest_name(value, LAYERS) or ""
            raise problem(f"found '{value}'", f"one of {', '.join(LAYERS)}", near)
        return value

    @field_validator("action", mode="before")
    @classmethod
    def _of_layer(cls, value: Any, info: ValidationInfo) -> Action:
        layer, recorded = info.data.get("layer"), (info.context or {}).get(RECORDED, False)
        if layer is None:
            return Action(kind="")  # the step is refused for its layer
        return read_action(layer, value, recorded=recorded)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with the actions of each layer: those that ship, or any of a user."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        user = {"properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
        schema["oneOf"] = [
            {
                "properties": {
                    "layer": {"const": layer},
                    "action": {
                        "oneOf": [
                            *(handler(a.__pydantic_core_schema__) for a in shipped_actions(layer)),
                            user,
                        ]
                    },
                }
            }
            for layer in LAYERS
        ]
        schema["properties"]["action"] = {"type": "object"}
        return schema


class PublishedState(Section):
    """Figures of one state of an attack on a market."""

    import_kw: float | None = Field(None, description="Import at the substation.")
    import_change_kw: float | None = Field(None, description="Import less that before the attack.")
    load_kw: float | None = Field(None, description="Load of the feeder.")
    generation_kw: float | None = Field(None, description="Generation of the feeder.")
    curtailed_min_kw: float | None = Field(None, description="Least curtailment of a node.")
    curtailed_max_kw: float | None = Field(None, description="Largest curtailment of a node.")


class Published(Section):
    """What a publication reports of the attack; shown in brackets in the table of states."""

    source: str = Field(description="Where the figures are from.")
    pre: PublishedState = Field(PublishedState(), description="Before the attack.")
    attacked: PublishedState = Field(PublishedState(), description="Without a defence.")
    mitigated: PublishedState = Field(PublishedState(), description="With the defence `mitigated`.")

    def figure(self, state: str, metric: str) -> float | None:
        """Return a figure; None where the publication has none."""
        return getattr(getattr(self, state, None), metric, None)


class AttackSpec(Section):
    """A whole attack."""

    id: Name = Field(description="Name in tables, folders and events.")
    kind: Literal["attack", "disturbance"] = Field(
        "attack",
        description="A disturbance is wired and recorded like an attack, and called so in reports; "
        "it is no attack to labels and detectors.",
    )
    title: str = Field("", description="One line for lists and reports.")
    description: str = Field("", description="What happens, and what an analyst should see.")
    scenario: str | None = Field(None, description="The scenario it was written for.")
    seed: Seed = Field(
        0, description="Seed of everything random in the attack: targets, noise, chance."
    )
    techniques: list[str] = Field([], description="Ids of MITRE ATT&CK for ICS, such as T0856.")
    attack_version: str = Field(
        "18.1",
        description="Version of ATT&CK that the ids are of; those of 18.1 are known here.",
    )
    steps: list[Step] = Field(min_length=1, description="What happens; see below.")
    published: Published | None = Field(
        None, description="What a publication reports of the attack; see below."
    )

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
