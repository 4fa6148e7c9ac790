"""The actions of attack steps: their common base, and the classes that ship by layer and name.

A class is imported only when a step names it, so that the schema does not import the attacks. To
add an action, write one class (see `federates.attacks` for the interface of each layer) and one
line here. A user's own is named ``module:Class`` in the attack file and found beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from federates.errors import ScenarioError
from federates.scenario.attack_wording import in_unit, span
from federates.scenario.named_classes import named_class
from grid_models.base.errors import nearest_name
from grid_models.base.schema_errors import problem, section_error
from grid_models.base.sections import Duration, Section

RECORDED = "recorded"
"""Key of a validation context: the attack is that of a recorded run."""
Layer = Literal["signal", "link", "modbus", "physical"]

ACTIONS: Mapping[str, Mapping[str, str]] = {
    "signal": {
        "bias": "federates.attacks.signal.actions:Bias",
        "scale": "federates.attacks.signal.actions:Scale",
        "set": "federates.attacks.signal.actions:SetValue",
        "ramp": "federates.attacks.signal.actions:Ramp",
        "freeze": "federates.attacks.signal.actions:Freeze",
        "noise": "federates.attacks.signal.actions:Noise",
        "drop": "federates.attacks.signal.actions:DropValues",
        "delay": "federates.attacks.signal.actions:DelayValues",
        "replay": "federates.attacks.signal.replay:ReplayValues",
        "swap": "federates.attacks.signal.actions:Swap",
        "adaptive": "federates.attacks.signal.adaptive:AdaptiveForgery",
    },
    "link": {
        "drop": "federates.attacks.link.actions:DropMail",
        "delay": "federates.attacks.link.actions:DelayMail",
        "jam": "federates.attacks.link.actions:Jam",
        "tamper": "federates.attacks.link.actions:Tamper",
        "replay": "federates.attacks.link.memory:ReplayMail",
        "impersonate": "federates.attacks.link.memory:Impersonate",
        "partition": "federates.attacks.link.actions:Partition",
    },
    "modbus": {
        "rewrite": "federates.attacks.modbus.actions:Rewrite",
        "write": "federates.attacks.modbus.actions:WritePoint",
        "exception": "federates.attacks.modbus.actions:ForgeException",
        "delay": "federates.attacks.modbus.actions:DelayFrames",
        "drop": "federates.attacks.modbus.actions:DropFrames",
        "flood": "federates.attacks.modbus.actions:Flood",
    },
    "physical": {
        "trip": "federates.attacks.physical.actions:Trip",
        "close": "federates.attacks.physical.actions:CloseBranch",
        "load": "federates.attacks.physical.actions:AlterLoad",
        "thermostat": "federates.attacks.physical.actions:MoveThermostat",
        "settings": "federates.attacks.physical.settings:ChangeSettings",
        "adaptive": "federates.attacks.physical.adaptive:AdaptiveLoad",
    },
}


class PastWindow(Section):
    """A window of the past that is played again."""

    from_s: Duration = Field(description="Begin of the window.")
    to_s: Duration = Field(description="End of the window, before the step begins.")

    @model_validator(mode="after")
    def _forward(self) -> PastWindow:
        if not self.from_s < self.to_s:
            raise ValueError("to_s after from_s")
        return self


class Action(Section):
    """Base of every action: its options are fields, its behaviour follows its layer's interface.

    Subclass the base of a layer, not this class: `SignalAction`, `LinkAction`, `ModbusAction` or
    `PhysicalAction` of `federates.attacks`.
    """

    layer: ClassVar[str] = ""
    words: ClassVar[str] = ""
    """What it does: a format of its options, of `unit` (with a space), and of options in seconds
    as lengths of time without the suffix, ``{delay}`` for `delay_s`."""
    needs_all_targets: ClassVar[bool] = False
    """Whether it must handle all targets of its step at one moment, in one federate."""

    kind: str

    def describe(self, unit: str = "") -> str:
        """Say what it does, for tables and pages: ``adds 0.02 pu``; without `words` its options."""
        options = {k: v for k, v in self if v is not None}
        if self.words:
            spans = {k.removesuffix("_s"): span(v) for k, v in options.items() if k.endswith("_s")}
            return self.words.format(**options, **spans, unit=in_unit(unit))
        more = ", ".join(f"{k} {v}" for k, v in options.items() if k != "kind")
        return f"{self.kind} {more}".strip()

    def reads(self) -> Sequence[str]:
        """Return globs over ``federate.port`` that it reads besides its targets (key `sees`)."""
        return ()

    def past_window(self) -> PastWindow | None:
        """Return the window of the past that it plays (key `window`), if any."""
        return None

    def locate(self, folder: Path) -> None:
        """Make relative paths absolute; `folder` is that of the attack file."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong) for what the fields' types cannot say."""
        yield from ()


class RecordedAction(Action):
    """An action of a recorded run whose class cannot be found any more."""

    model_config = ConfigDict(extra="allow")


def action_class(layer: str, kind: str) -> type[Action]:
    """Return the class of an action by its name in a layer, or as ``module:Class``.

    Raises
    ------
    ScenarioError: There is none.
    """
    names = ACTIONS[layer]
    if kind not in names and ":" not in kind:
        expected = f"one of {', '.join(names)} for layer {layer}"
        near = nearest_name(kind, names)
        raise ScenarioError(f"found '{kind}'", expected=expected, nearest=near)
    found: Any = named_class(kind, names, "action")
    if not (issubclass(found, Action) and found.layer == layer):
        base = f"federates.attacks.{layer}.action.{layer.capitalize()}Action"
        raise ScenarioError(f"'{kind}' is no action", expected=f"a subclass of {base}")
    cls: type[Action] = found
    return cls


def shipped_actions(layer: str) -> Iterator[type[Action]]:
    """Yield the classes of a layer's actions in the order of the table."""
    return (action_class(layer, kind) for kind in ACTIONS[layer])


def read_action(layer: str, value: Any, *, recorded: bool = False) -> Action:
    """Validate an action of a layer; errors name the valid keys of its class.

    `recorded` says that the action is only to be shown: a user's class may be missing.

    Raises
    ------
    ValidationError: For a validator of the schema to pass on.
    """
    if isinstance(value, Action):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "a mapping of keys to values")
    kind = value.get("kind")
    try:
        if kind is None:
            expected = f"one of {', '.join(ACTIONS[layer])} for layer {layer}"
            raise ScenarioError("required key is missing", expected=expected)
        cls = action_class(layer, str(kind))
    except ScenarioError as error:
        if recorded and ":" in str(kind):
            return RecordedAction.model_validate(value)
        wrong = problem(error.what, error.expected or "", error.nearest or "")
        raise ValidationError.from_exception_data(
            "action", [{"type": wrong, "loc": ("kind",), "input": kind}]
        ) from None
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        raise section_error(cls, error) from None
