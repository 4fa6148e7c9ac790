"""YAML files that remember where each key stands, so that an error can name the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from federates.errors import ScenarioError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlSource:
    """A parsed YAML mapping with the line (from 1) of every key path."""

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: Sequence[str | int]) -> str:
        """Return ``file:line: key.path`` for the nearest known ancestor of `path`."""
        for n in range(len(path), 0, -1):
            line = self.lines.get(tuple(path[:n]))
            if line is not None:
                return f"{self.name}:{line}: {dotted(path)}"
        return f"{self.name}: {dotted(path)}" if path else self.name


def dotted(path: Sequence[str | int]) -> str:
    """Write a key path as the user would: ``grid.ders[0].at``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice (YAML would silently keep the last)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _collect_lines(node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            here = (*path, str(key_node.value))
            lines[here] = key_node.start_mark.line + 1
            _collect_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*path, i)] = value.start_mark.line + 1
            _collect_lines(value, (*path, i), lines)


def read_text(path: Path) -> str:
    """Read a text file; a missing, binary or unreadable one is a `ScenarioError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"not a text file (byte {error.start} is not UTF-8)",
            where=str(path),
            expected="a YAML file",
        ) from None
    except OSError as error:
        raise ScenarioError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if "\0" in text:
        raise ScenarioError(
            "not a text file (contains NUL)", where=str(path), expected="a YAML file"
        )
    return text


def load_yaml(path: Path, text: str | None = None) -> YamlSource:
    """Read a YAML mapping from `path` (or from `text`, as if it stood there)."""
    text = read_text(path) if text is None else text
    try:
        data = yaml.load(text, Loader=_Loader)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ScenarioError(error.problem or "not valid YAML", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ScenarioError(f"not valid YAML: {error}", where=str(path)) from None
    if data is None:
        raise ScenarioError("the file is empty", where=str(path), expected="a YAML mapping")
    if not isinstance(data, dict):
        raise ScenarioError(
            f"holds a {type(data).__name__}", where=str(path), expected="a YAML mapping"
        )
    lines: dict[KeyPath, int] = {}
    _collect_lines(tree, (), lines)
    return YamlSource(str(path), data, lines)
