"""Write docs/scenario.md and docs/attack-reference.md from the schema.

``python docs/generate_scenario_reference.py``. A test compares the committed pages with
`reference()` and `attack_reference()`, so they cannot drift apart.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from controllers.core import registry
from controllers.safety.settings import SafetySection
from federates.environment.rewards import REWARDS
from federates.hosting.methods import KEYS_ELSEWHERE, hosting_options
from federates.kinds.external import ExternalPort
from federates.kinds.feeder.commands import INPUTS
from federates.kinds.feeder.federate import FeederFederate
from federates.kinds.feeder.ports import ISLAND_OUTPUTS, OUTPUTS
from federates.kinds.feeders.federate import FeedersFederate
from federates.kinds.feeders.section import FeederGroup
from federates.scenario import attack_schema as attacks
from federates.scenario.attack_actions import shipped_actions
from federates.scenario.attack_files import load_attack, shipped_attacks
from federates.scenario.attack_techniques import TECHNIQUES, VERSION
from federates.scenario.environment import Environment, ForgedVoltages
from federates.scenario.hosting_section import HostingSection
from federates.scenario.kinds import KINDS, FederateSection, GridUserSection, section_class
from federates.scenario.schema import Scenario, shipped_dir, shipped_scenarios
from federates.scenario.sections import Connection, GridForming, LinkRule
from grid_models.catalog import shipped_feeders
from grid_models.ders.rules import DerRule
from grid_models.hosting.limits import Limits
from grid_models.profiles.table import Profiles

PAGE = Path(__file__).with_name("scenario.md")
ATTACK_PAGE = Path(__file__).with_name("attack-reference.md")
_HEAD = """\
# The scenario file

A scenario is one YAML file that describes a whole run. This page is generated from the schema
(`python docs/generate_scenario_reference.py`); `feederate schema` prints the same schema as JSON
Schema, for an editor. Unknown keys are errors. `feederate check FILE` reads a file, wires it and
says what it amounts to, or everything that is wrong with it; `feederate new scenario NAME` writes a
commented one to start from.

Any key can be changed for one run: `feederate run FILE --set time.duration_s=3600 --set
grid.ders.0.total_kw=3000`. Positions in lists are numbers; a size that is set replaces the other
size of a rule. What `--set grid.model=Master.dss` takes of a user's own feeder:
[feeders.md](feeders.md). Relative paths are looked up beside the
scenario file, then in the current folder; that of an attack beside the scenario file only, unless
`--set` gives it. Injections are positive (generation minus load); units are in the names. A time is
a number of seconds: `12:00` is text, and refused where a number is wanted.
"""
_ATTACK_HEAD = """\
# The attack file

An attack is one YAML file, apart from any scenario; [attacks.md](attacks.md) says how to write and
run one. This page is generated from the schema (`python docs/generate_scenario_reference.py`);
`feederate schema attack` prints the same schema as JSON Schema, for an editor. Unknown keys are
errors. `feederate attack check FILE SCENARIO` says whether a file fits a scenario, or everything
that is wrong with it; `feederate attack explain` says what it would touch.

Times are seconds since the start of the run. Values are in the unit of the port, link or point
that they replace.
"""
# Keys whose field has no description in the schema; a description there wins.
_MEANINGS = {
    "Scenario.title": "One line for lists and reports.",
    "Scenario.description": "What the scenario shows, for its reader.",
    "Scenario.seed": "Seed of everything random in the run: sky, mail, noise, controllers.",
    "Scenario.federates": "The participants by name; see `federates.NAME` below.",
    "Scenario.connections": "Which output port feeds which input port; see below.",
    "VoltageBand.v_min_pu": "Lower end, per unit of the bus's nominal voltage.",
    "VoltageBand.v_max_pu": "Upper end.",
    "LoadStep.bus": "Bus of the circuit.",
    "LoadStep.time_s": "When it begins.",
    "LinkRule.latency_s": "Delay of every message.",
    "LinkRule.loss": "Probability that a message is lost.",
}


def reference() -> str:
    """Return the page."""
    parts = [_HEAD, *_top(), *_grid_parts(), *_federate_parts(), *_traffic_parts()]
    parts += [*_environment_parts(), *_hosting_parts(), *_names()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _top() -> Iterator[str]:
    yield "## The file\n"
    yield _table(Scenario)
    for section in ("time", "band", "record"):
        yield f"## `{section}`\n"
        yield _section(Scenario.model_fields[section])


def _grid_parts() -> Iterator[str]:
    grid = Scenario.model_fields["grid"]
    yield "## `grid`\n"
    yield _section(grid)
    yield "### `grid.profiles`\n"
    yield _section(_model_of(grid).model_fields["profiles"])
    yield f"The user's own table has the columns {_described(Profiles)['columns'][1]}\n"
    yield "### `grid.grid_forming`\n"
    yield _first_paragraph(GridForming) + " " + _paragraph(GridForming, 1) + "\n"
    yield _table(GridForming)
    yield "### `grid.ders[]`: rules that place DERs\n"
    yield _first_paragraph(DerRule) + "\n"
    yield _dataclass_table(DerRule)


def _federate_parts() -> Iterator[str]:
    yield "## `federates.NAME`\n"
    yield _first_paragraph(FederateSection) + " " + _paragraph(FederateSection, 1) + "\n"
    yield _table(FederateSection)
    yield "Federates of kind controller, device, signal and detector, and your own, have also:\n"
    yield _table(GridUserSection, but=FederateSection)
    yield "| kind | what it is |\n| --- | --- |"
    yield from (f"| `{name}` | {kind.text} |" for name, kind in KINDS.items())
    yield "| `module:Class` | your own `federates.core.federate.Federate`, beside the file |\n"
    for name in KINDS:
        section = section_class(name)
        yield f"### `kind: {name}`\n"
        yield _first_paragraph(section) + "\n"
        yield _table(section, but=GridUserSection)
        if name == "controller":
            yield "#### `safety` of a controller\n"
            yield _first_paragraph(SafetySection) + " [The page](safety-layer.md).\n"
            yield _table(SafetySection)
        if name == "feeders":
            yield "#### `groups[]` of feeders\n"
            yield _first_paragraph(FeederGroup) + "\n"
            yield _table(FeederGroup)
        field = section.model_fields.get("options")
        if field is not None and name != "controller":
            yield f"#### `options` of a {name}\n"
            yield _section(field)
    yield "### Ports of the feeder federate\n"
    yield _paragraph(FeederFederate, 1) + "\n"
    yield "Optional inputs exist where something is connected to them; NaN is no command:\n"
    yield "| input | unit | what it is |\n| --- | --- | --- |"
    yield from (f"| `{n}` | {unit} | {_cell(text)} |" for n, (unit, text) in INPUTS.items())
    yield "\nOptional outputs exist where a connection reads them or `record.ports` names them:\n"
    yield "| output | unit | what it is |\n| --- | --- | --- |"
    yield from (f"| `{n}` | {o.unit} | {_cell(o.text)} |" for n, o in OUTPUTS.items())
    yield "\nThose of an island, with `grid.grid_forming`:\n"
    yield "| output | unit | what it is |\n| --- | --- | --- |"
    yield from (f"| `{n}` | {o.unit} | {_cell(o.text)} |" for n, o in ISLAND_OUTPUTS.items())
    yield ""
    yield "### Ports of the feeders federate\n"
    yield _paragraph(FeedersFederate, 1) + "\n"
    yield "### `federates.NAME.inputs.PORT` and `outputs.PORT` of an external federate\n"
    yield _first_paragraph(ExternalPort) + "\n"
    yield _table(ExternalPort)
    for name in registry.descriptions():
        options = _options_of(name)
        if options is not None:
            yield f"### `options` of the controller `{name}`\n"
            yield _dataclass_table(options)


def _traffic_parts() -> Iterator[str]:
    yield "## `connections[]`\n"
    yield _first_paragraph(Connection) + "\n"
    yield "Short form: `feeder.v_pu -> volt_var.v_pu`. Labels are matched by name: the consumer may"
    yield "want fewer, in another order. A split controller is named once; the parts get theirs.\n"
    yield _table(Connection)
    yield "## `links[]`\n"
    yield _first_paragraph(LinkRule) + "\n"
    yield _table(LinkRule)


def _environment_parts() -> Iterator[str]:
    yield "## `environment`\n"
    yield _first_paragraph(Environment) + " " + _paragraph(Environment, 1) + "\n"
    yield _table(Environment)
    yield "### `environment.forged`\n"
    yield _first_paragraph(ForgedVoltages) + " " + _paragraph(ForgedVoltages, 1) + "\n"
    yield _table(ForgedVoltages)
    for name in REWARDS.descriptions():
        yield f"### `reward_options` of the reward `{name}`\n"
        reward = REWARDS.resolve(name)
        yield _first_paragraph(reward) + "\n"
        yield _dataclass_table(reward)


def _names() -> Iterator[str]:
    titles = {}
    for name, path in shipped_scenarios().items():
        found = re.search(r"^title: *(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        titles[name] = found.group(1).strip("\"'") if found else ""
    yield "## Names that ship\n"
    for heading, names in (
        ("feeder (`grid.model`)", shipped_feeders()),
        ("controller", registry.descriptions()),
        ("scenario", titles),
    ):
        yield f"| {heading} | |\n| --- | --- |"
        yield from (f"| `{name}` | {_cell(text)} |" for name, text in names.items())
        yield ""


def attack_reference() -> str:
    """Return the page on attack files."""
    parts = [_ATTACK_HEAD, *_attack_parts(), *_action_parts(), *_attack_names()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _attack_parts() -> Iterator[str]:
    yield "## The file\n"
    yield _table(attacks.AttackSpec)
    yield "## `steps[]`\n"
    yield "| layer | what it acts on |\n| --- | --- |"
    yield from (f"| `{layer}` | {_cell(text)} |" for layer, text in attacks.LAYERS.items())
    yield ""
    yield _table(attacks.Step)
    for heading, model in (
        ("`trigger`", attacks.Trigger),
        ("`trigger.when`", attacks.When),
        ("`target`", attacks.Target),
        ("`conceal[]`", attacks.Conceal),
        ("`conceal[].show`", attacks.Show),
        ("`published`", attacks.Published),
        ("`published.pre` and the other states", attacks.PublishedState),
    ):
        yield f"### {heading}\n"
        yield _first_paragraph(model) + "\n"
        yield _table(model)


def _action_parts() -> Iterator[str]:
    for layer in attacks.LAYERS:
        yield f"## Actions of layer `{layer}`\n"
        for action in shipped_actions(layer):
            kind = typing.get_args(action.model_fields["kind"].annotation)[0]
            yield f"### {layer}: `{kind}`\n"
            yield " ".join(inspect.cleandoc(action.__doc__ or "").replace("``", "`").split()) + "\n"
            rows = _table(action).splitlines()
            kept = [row for row in rows if not row.startswith("| `kind` |")]
            yield "\n".join(kept) + "\n" if len(kept) > 2 else ""
            for name, field in action.model_fields.items():
                for inner in _models_in(field.annotation):
                    yield f"#### {kind}: `{name}`\n\n{_table(inner)}"


def _attack_names() -> Iterator[str]:
    yield "## Attacks that ship\n"
    yield "| attack | scenario | what an analyst should see |\n| --- | --- | --- |"
    for name, path in shipped_attacks(shipped_dir()).items():
        spec = load_attack(path)
        text = f"{spec.title}. {' '.join(spec.description.split())}"
        yield f"| `{name}` | `{spec.scenario}` | {_cell(text)} |"
    yield f"\n## Techniques of MITRE ATT&CK for ICS {VERSION}\n"
    yield "| id | name |\n| --- | --- |"
    yield from (f"| `{key}` | {name} |" for key, name in TECHNIQUES.items())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _section(field: FieldInfo) -> str:
    model = _model_of(field)
    return f"{_first_paragraph(model)}\n\n{_table(model)}"


def _model_of(field: FieldInfo) -> type[BaseModel]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, BaseModel)
    return field.annotation


def _table(model: type[BaseModel], but: type[BaseModel] | None = None) -> str:
    """Return the keys of a section, without those of the section `but`."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if but is not None and name in but.model_fields:
            continue
        inner = field.annotation
        text = field.description or _MEANINGS.get(f"{model.__name__}.{name}", "")
        if not text and isinstance(inner, type) and issubclass(inner, BaseModel):
            text = f"{_first_paragraph(inner)} See `{name}` below."
        text += _limits(field)
        rows.append(
            f"| `{name}` | {_cell(_type_name(field.annotation))} | {_default(field)} "
            f"| {_cell(text.strip())} |"
        )
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "" or isinstance(value, BaseModel):
        return "-"
    return f"`{_literal(value)}`"


def _limits(field: FieldInfo) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [
        f"{word} {getattr(item, key):g}"
        for item in field.metadata
        for key, word in words.items()
        if getattr(item, key, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _hosting_parts() -> Iterator[str]:
    yield "## `hosting`\n"
    yield _first_paragraph(HostingSection) + " " + _paragraph(HostingSection, 1) + "\n"
    yield _table(HostingSection)
    yield "### `hosting.limits`\n"
    yield _first_paragraph(Limits) + "\n"
    yield _dataclass_table(Limits)
    for name, options in hosting_options().items():
        yield f"### `hosting.{name}`\n"
        yield _first_paragraph(options) + "\n"
        yield _dataclass_table(options, KEYS_ELSEWHERE)


def _dataclass_table(cls: type, without: Collection[str] = ()) -> str:
    assert is_dataclass(cls)
    if not fields(cls):
        return "None.\n"
    entries = _described(cls)
    hints = typing.get_type_hints(cls)
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(cls):
        if field.name in without:
            continue
        default = "required" if field.default is MISSING else f"`{_literal(field.default)}`"
        if field.default is None or field.default_factory is not MISSING:
            default = "-"
        kind, meaning = entries.get(field.name, (_type_name(hints[field.name]), ""))
        if said := field.metadata:  # `grid_models.base.options.option`
            meaning = said["meaning"]
            kind = said["shown"] or " or ".join(f"`{c}`" for c in said["choices"]) or kind
        rows.append(f"| `{field.name}` | {_cell(kind)} | {default} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


def _options_of(controller: str) -> type | None:
    """Return the options dataclass that a shipped controller's module uses."""
    module = importlib.import_module(registry.resolve(controller).__module__)
    for name, value in inspect.getmembers(module, inspect.isclass):
        if name.endswith("Options") and is_dataclass(value):
            return value
    return None


def _described(cls: type) -> dict[str, tuple[str, str]]:
    """Read ``name, other : type`` entries of a numpy-style docstring: type and meaning."""
    found: dict[str, tuple[str, str]] = {}
    names: list[str] = []
    # A dataclass that extends another describes its own fields only.
    parents = [base for base in cls.__mro__[1:] if is_dataclass(base)]
    for parent in parents:
        found |= _described(parent)
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        entry = re.match(r"^([a-z_][a-z0-9_, ]*?) : (.+)$", line)
        if entry:
            names = [name.strip() for name in entry.group(1).split(",")]
            found |= dict.fromkeys(names, (_plain_type(entry.group(2)), ""))
        elif line.startswith("    ") and names:
            for name in names:
                kind, meaning = found[name]
                found[name] = (kind, f"{meaning} {line.strip()}".strip())
        elif line.strip():
            names = []
    return found


def _plain_type(text: str) -> str:
    text = text.removesuffix(", optional").strip("{}")
    for python, plain in (("float", "number"), ("int", "whole number"), ("bool", "yes or no")):
        text = re.sub(rf"\b{python}\b", plain, text)
    return re.sub(r"\b(sequence of )?str\b", r"\1text", text).replace("'", "`")


def _first_paragraph(cls: type) -> str:
    return _paragraph(cls, 0)


def _paragraph(cls: type, i: int) -> str:
    """Return a paragraph of a docstring, in Markdown."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[i].split()).replace("``", "`")


def _type_name(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(a) for a in args if a is not types.NoneType))
    if origin is dict:
        return f"name to {_type_name(args[1])}" if args[0] is not Any else "mapping"
    if origin in (list, tuple) or (origin and origin.__name__ == "Sequence"):
        return f"list of {_type_name(args[0])}"
    words = {str: "text", int: "whole number", float: "number", bool: "yes or no", Any: "anything"}
    if hint in words:
        return words[hint]
    return "section" if isinstance(hint, type) and issubclass(hint, BaseModel) else hint.__name__


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    ATTACK_PAGE.write_text(attack_reference(), encoding="utf-8")
