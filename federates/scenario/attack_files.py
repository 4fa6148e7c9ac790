"""Attack files: found by path or shipped name, read, and checked without a scenario."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from federates.errors import ScenarioError
from federates.scenario.attack_actions import PastWindow
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import TARGET_KEYS, AttackSpec, Step
from federates.scenario.attack_techniques import TECHNIQUES, VERSION
from federates.scenario.named_classes import make_importable
from federates.scenario.overrides import apply_override
from federates.scenario.schema_errors import schema_error
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import nearest_hint, nearest_name

FOLDER = "attacks"


def shipped_attacks(folder: Path) -> dict[str, Path]:
    """Return the attacks that ship beside the scenarios in `folder`, by name."""
    return {path.stem: path for path in sorted((folder / FOLDER).glob("*.yaml"))}


def find_attack(name_or_path: str, shipped: dict[str, Path], beside: Path) -> Path:
    """Return the file of an attack given by path or shipped name.

    Parameters
    ----------
    beside : Folder that a relative path starts from: the scenario's where a scenario names the
        attack, so that it means the same wherever it is run; the user's own on the command line.

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
        nearest=nearest_file(path, shipped),
    )


def nearest_file(path: Path, shipped: Iterable[str]) -> str | None:
    """Return what was meant by a file that is not there: a YAML file beside it, or a shipped name.

    A name without its suffix means the file.
    """
    with_suffix = Path(f"{path}.yaml")
    if with_suffix.is_file():
        return str(with_suffix)
    beside = {p.stem: str(p) for p in path.parent.glob("*.yaml")} if path.parent.is_dir() else {}
    near = nearest_name(path.stem, [*shipped, *beside])
    return beside.get(near, near) if near else None


def load_attack(path: Path, overrides: Sequence[str] = ()) -> AttackSpec:
    """Read, override (``attack.steps[0].action.value=0.1``) and check an attack file.

    Raises
    ------
    ScenarioError
        Naming file, line and key, what was found, what was expected and the nearest valid name.
    """
    make_importable([path.resolve().parent, Path.cwd()])
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
        step.action.locate(base_dir)
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
        for key, wrong in step.action.problems():
            yield f"{spec.where('steps', i, 'action', key)}: {wrong}"
    unknown = list(_after_problems(spec))
    yield from unknown
    if not unknown:
        yield from _window_problems(spec)


def _technique_problems(spec: AttackSpec) -> Iterator[str]:
    known = f"ATT&CK for ICS {VERSION}"
    if spec.attack_version != VERSION:
        known += f" (its ids are known here, not those of {spec.attack_version})"
    for i, technique in enumerate(spec.techniques):
        if technique not in TECHNIQUES:
            near = nearest_name(technique, TECHNIQUES)
            yield (
                f"{spec.where('techniques', i)}: no technique of {known} has the "
                f"id '{technique}'"
                + (f"; did you mean '{near}' ({TECHNIQUES[near]})?" if near else "")
            )


def _target_problems(spec: AttackSpec, i: int, step: Step) -> Iterator[str]:
    wanted = TARGET_KEYS[step.layer]
    if step.target.key not in wanted:
        yield (
            f"{spec.where('steps', i, 'target')}: found {step.target.key}; a step of layer "
            f"{step.layer} expects {' or '.join(wanted)}"
        )


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
                    yield f"{where}: no step is called '{name}'{nearest_hint(name, position)}"
                break
            at = spec.steps[position[name]]
            if at.id in chain:
                yield f"{where}: never begins, '{step.id}' waits for itself"
                break
            chain.append(at.id)
            if at.duration_s is None:
                yield f"{where}: never begins, '{at.id}' has no duration_s and so no end"
                break


def past_windows(step: Step) -> Iterator[tuple[int | None, tuple[str | int, ...], PastWindow]]:
    """Yield the windows of the past that a step plays.

    Each with the position of the concealment that plays it (None: the action) and its key.
    """
    window = step.action.past_window()
    if window is not None:
        yield None, ("action", "window"), window
    for n, conceal in enumerate(step.conceal):
        if conceal.show.window is not None:
            yield n, ("conceal", n, "show", "window"), conceal.show.window


def _window_problems(spec: AttackSpec) -> Iterator[str]:
    """A window that is played again must lie before the step that plays it."""
    begin_s = AttackSchedule.of(spec).begin_s
    for i, step in enumerate(spec.steps):
        for _, key, window in past_windows(step):
            if window.to_s > begin_s[i]:
                yield (
                    f"{spec.where('steps', i, *key)}: the window ends at {window.to_s:g} s, the "
                    f"step begins at {begin_s[i]:g} s; expected a window of the past"
                )
