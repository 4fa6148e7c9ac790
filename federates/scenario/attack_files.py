"""Attack files: found by path or shipped name, read, and checked without a scenario."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from federates.errors import ScenarioError
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import (
    Adaptive,
    AttackSpec,
    Layer,
    Replay,
    SignalStep,
    Step,
    Target,
)
from federates.scenario.attack_techniques import TECHNIQUES, VERSION
from federates.scenario.overrides import apply_override
from federates.scenario.schema_errors import schema_error
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import nearest_name
from grid_models.base.sections import not_json

FOLDER = "attacks"
_TARGET_KEYS: dict[Layer, tuple[str, ...]] = {
    "signal": ("port",),
    "link": ("links", "agents"),
    "modbus": ("devices",),
    "physical": ("elements",),
}


def shipped_attacks(folder: Path) -> dict[str, Path]:
    """Return the attacks that ship beside the scenarios in `folder`, by name."""
    return {path.stem: path for path in sorted((folder / FOLDER).glob("*.yaml"))}


def find_attack(name_or_path: str, shipped: dict[str, Path], beside: Path) -> Path:
    """Return the file of an attack given by path or shipped name.

    Parameters
    ----------
    name_or_path : str
    shipped : mapping of name to Path
    beside : Path
        Folder that a relative path starts from: the scenario's where a scenario names the attack,
        so that it means the same wherever it is run; the user's own on the command line.

    Raises
    ------
    ScenarioError
    """
    path = beside / name_or_path
    if path.is_file():
        return path
    if name_or_path in shipped:
        return shipped[name_or_path]
    what = f"'{path}' is a folder" if path.is_dir() else f"no file '{path}', no shipped attack"
    raise ScenarioError(
        what,
        where=name_or_path,
        expected=f"a path or one of {', '.join(shipped)}",
        nearest=nearest_name(Path(name_or_path).stem, shipped),
    )


def load_attack(path: Path, overrides: Sequence[str] = ()) -> AttackSpec:
    """Read, override (``attack.steps[0].action.value=0.1``) and check an attack file.

    Raises
    ------
    ScenarioError
        Naming file, line and key, what was found, what was expected and the nearest valid name.
    """
    source = load_yaml(path)
    data = copy.deepcopy(source.data)
    keys = {apply_override({"attack": data}, override)[1:]: override for override in overrides}
    source = dataclasses.replace(source, overrides=keys)
    try:
        spec = AttackSpec.model_validate(data)
    except ValidationError as error:
        raise attack_schema_error(source, error) from None
    adopt(spec, source, path.resolve().parent)
    return spec


def adopt(spec: AttackSpec, source: YamlSource, base_dir: Path) -> None:
    """Tell an attack where it comes from, and check it; paths in it become absolute."""
    spec._source = source
    spec._base_dir = base_dir
    for step in spec.steps:
        if isinstance(step.action, Replay) and step.action.file is not None:
            step.action.file = str(base_dir / step.action.file)
    problems = list(_problems(spec))
    if problems:
        raise ScenarioError("\n  ".join(problems))


def attack_schema_error(source: YamlSource, error: ValidationError) -> ScenarioError:
    """Say every problem of an attack file in the user's own terms."""
    return schema_error(source, AttackSpec, error)


def _problems(spec: AttackSpec) -> Iterator[str]:
    yield from _technique_problems(spec)
    seen: set[str] = set()
    for i, step in enumerate(spec.steps):
        if step.id in seen:
            yield f"{spec.where('steps', i, 'id')}: two steps are called '{step.id}'"
        seen.add(step.id)
        yield from _target_problems(spec, i, step)
        if isinstance(step.action, Adaptive):
            wrong = not_json(step.action.options)
            if wrong:
                yield f"{spec.where('steps', i, 'action', 'options')}: {wrong}"
    unknown = list(_after_problems(spec))
    yield from unknown
    if not unknown:
        yield from _window_problems(spec)


def _technique_problems(spec: AttackSpec) -> Iterator[str]:
    if spec.attack_version != VERSION:
        return  # ids of another version cannot be checked here; the version stays beside them
    for i, technique in enumerate(spec.techniques):
        if technique not in TECHNIQUES:
            near = nearest_name(technique, TECHNIQUES)
            yield (
                f"{spec.where('techniques', i)}: no technique of ATT&CK for ICS {VERSION} has the "
                f"id '{technique}'"
                + (f"; did you mean '{near}' ({TECHNIQUES[near]})?" if near else "")
            )


def _target_problems(spec: AttackSpec, i: int, step: Step) -> Iterator[str]:
    wanted = _TARGET_KEYS[step.layer]
    given = [
        k for k in Target.model_fields if k in _kinds() and getattr(step.target, k) is not None
    ]
    if given[0] not in wanted:
        yield (
            f"{spec.where('steps', i, 'target')}: found {given[0]}; a step of layer "
            f"{step.layer} expects {' or '.join(wanted)}"
        )


def _kinds() -> set[str]:
    return {key for keys in _TARGET_KEYS.values() for key in keys}


def _after_problems(spec: AttackSpec) -> Iterator[str]:
    position = {step.id: i for i, step in enumerate(spec.steps)}
    for i, step in enumerate(spec.steps):
        where = spec.where("steps", i, "trigger", "after")
        chain: list[str] = [step.id]
        at: Any = step
        while at.trigger.after is not None:
            name = at.trigger.after
            if name not in position:
                if at is step:
                    near = nearest_name(name, position)
                    yield f"{where}: no step is called '{name}'" + (
                        f"; did you mean '{near}'?" if near else ""
                    )
                break
            at = spec.steps[position[name]]
            if at.id in chain:
                yield f"{where}: never begins, '{step.id}' waits for itself"
                break
            chain.append(at.id)
            if at.duration_s is None:
                yield f"{where}: never begins, '{at.id}' has no duration_s and so no end"
                break


def _window_problems(spec: AttackSpec) -> Iterator[str]:
    """A window that is played again must lie before the step that plays it."""
    schedule = Schedule.of(spec)
    for i, step in enumerate(spec.steps):
        windows = [("conceal", n, "show", "window") for n, c in enumerate(step.conceal)]
        ends = [c.show.window.to_s if c.show.window else None for c in step.conceal]
        paths: list[tuple[str | int, ...]] = [*windows]
        if isinstance(step, SignalStep) and isinstance(step.action, Replay) and step.action.window:
            paths.append(("action", "window"))
            ends.append(step.action.window.to_s)
        for path, end in zip(paths, ends, strict=True):
            if end is not None and end > schedule.begin_s[i]:
                yield (
                    f"{spec.where('steps', i, *path)}: the window ends at {end:g} s, the step "
                    f"begins at {schedule.begin_s[i]:g} s; expected a window of the past"
                )
