"""Changes of a scenario: single keys, ``grid.ders[0].kind=pv``, and the patches of defences."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from federates.errors import ScenarioError
from federates.scenario.yaml_source import YamlSource
from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath, YamlError, dotted, parse_yaml
from grid_models.ders.rules import SIZES

# No list has a position of ten digits, and Python does not read one of five thousand.
_KEY_PART = re.compile(r"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")
_BARE = re.compile(r"[\w./-]+")
_POSITION = re.compile(r"[0-9]{1,9}")


class Given(NamedTuple):
    """What a scenario was read from: the arguments of `load_scenario`."""

    path: str = ""
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    attack: str | None = None
    defence: str | None = None


def override_words(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return changes as overrides, ``key=value``, in their order.

    Parameters
    ----------
    changes : mapping
        Dotted keys or nested mappings: ``{"grid.ders.0.total_kw": 3000}``,
        ``{"time": {"step_s": 5}}``. Values are plain data, numpy numbers and arrays, and paths.

    Raises ScenarioError: A value that a scenario file cannot hold.
    """
    if not isinstance(changes, Mapping):
        raise ScenarioError(
            f"is a {type(changes).__name__}", where="set", expected="a dict: {'time.step_s': 5}"
        )
    return tuple(f"{key}={_yaml_word(key, value)}" for key, value in _leaves("", changes))


def _leaves(above: str, changes: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(path, value)
        else:
            yield path, value


def _yaml_word(key: str, value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and parse_yaml(value)[0] == value:
        return value  # without quotes, as on the command line
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ScenarioError(
            f"{value!r:.60} cannot be set",
            where=f"set: {key}",
            expected="text, finite numbers, true or false, lists and mappings of them",
        ) from None


def _plain(value: Any) -> Any:
    """Return a numpy number or array, or a path, as plain data."""
    return value.tolist() if hasattr(value, "tolist") else os.fspath(value)


def apply_override(data: dict[str, Any], override: str) -> KeyPath:
    """Set one key, ``grid.ders[0].kind`` or ``grid.ders.0.kind``; return its path."""
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    parts = [name or int(index) for name, index in _KEY_PART.findall(key)]
    if not equals or not parts or _KEY_PART.sub("", key):
        raise ScenarioError("not of the form key=value", where=where, expected="grid.model=ieee13")
    try:
        value = parse_yaml(text)[0]
    except YamlError as error:
        raise ScenarioError(f"'{text}' is not a YAML value: {error.what}", where=where) from None
    path: list[str | int] = []
    node: Any = data
    for n, part in enumerate(parts):
        last = n == len(parts) - 1
        step: str | int = part
        if isinstance(node, list):
            if not _POSITION.fullmatch(str(part)) or int(part) >= len(node):
                raise ScenarioError(
                    f"'{part}' is not an entry of {dotted(path)}",
                    where=where,
                    expected=f"a number below {len(node)}",
                )
            step = int(part)
        elif not isinstance(node, dict):
            raise ScenarioError(f"'{dotted(path)}' is not a section", where=where)
        else:
            step = str(part)
            if not last and node.get(step) is None:
                node[step] = {}
        path.append(step)
        if last:
            if path == ["grid", "model"] and node.get(step) != value:
                for key in ("taps", "ratings"):  # they name parts of the model that was there
                    node.pop(key, None)
            if path[-4:-2] == ["grid", "ders"]:
                _drop_other_size(node, str(step))
            node[step] = value
        else:
            node = node[step]
    return tuple(path)


def _drop_other_size(rule: dict[str, Any], key: str) -> None:
    """Take out the size that another one replaces: a rule has one in kW and one in kVA."""
    for other in next((keys for keys in SIZES if key in keys), ()):
        rule.pop(other, None)


def merged(old: Any, new: Any) -> Any:
    """Return `old` changed by `new`: mappings key by key, lists appended, all else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = {key: merged(value, new[key]) if key in new else value for key, value in old.items()}
        return both | {key: value for key, value in new.items() if key not in old}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    return new


def defended(
    data: dict[str, Any], name: str, source: YamlSource
) -> tuple[dict[str, Any], YamlSource]:
    """Return the scenario with a defence's patch, and where its keys stand: some in the patch."""
    defences = data.get("defences") or {}
    known = list(defences) if isinstance(defences, dict) else []
    if name not in known:
        raise ScenarioError(
            f"no defence is called '{name}'",
            where=source.where(("defences",)),
            expected=f"one of {', '.join(known)}" if known else "a scenario with defences",
            nearest=nearest_name(name, known),
        )
    defence = defences[name]
    patch = defence.get("patch") if isinstance(defence, dict) else None
    changed = merged(data, patch if isinstance(patch, dict) else {})
    assert isinstance(changed, dict)
    at: KeyPath = ("defences", name, "patch")
    inside = {key[len(at) :]: n for key, n in source.lines.items() if key[: len(at)] == at}
    moved = {_appended(key, data): line for key, line in inside.items() if key}
    return changed, dataclasses.replace(source, lines=source.lines | moved)


def _appended(key: KeyPath, data: Any) -> KeyPath:
    """Return where a key of a patch stands in the patched data: entries of lists come last."""
    for n, part in enumerate(key):
        if isinstance(data, list) and isinstance(part, int):
            return (*key[:n], part + len(data), *key[n + 1 :])
        data = data.get(part) if isinstance(data, dict) else None
    return key
