"""YAML files that remember where each key stands, so that an error can name the line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from federates.errors import ScenarioError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlSource:
    """A parsed YAML mapping with the line (from 1) of every key path.

    `overrides` holds the keys that the command line set, with the words that set them: an error
    there must not point to a line of the file that is right.
    """

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def where(self, path: Sequence[str | int]) -> str:
        """Return ``file:line: key.path`` for the nearest known ancestor of `path`."""
        path = tuple(path)
        inside = ""
        for key, words in self.overrides.items():
            below = path == key[: len(path)]
            if path[: len(key)] == key or (below and path not in self.lines):
                return f"--set {words}"
            if below and path:
                inside = f" (with --set {words})"
        return self._in_file(path) + inside

    def line(self, path: KeyPath) -> int:
        """Return the line of the nearest known ancestor of `path`; 0 where there is none."""
        known = (self.lines.get(path[:n]) for n in range(len(path), 0, -1))
        return next((line for line in known if line is not None), 0)

    def _in_file(self, path: KeyPath) -> str:
        line = self.line(path)
        if line:
            return f"{self.name}:{line}: {dotted(path)}"
        return f"{self.name}: {dotted(path)}" if path else self.name


def dotted(path: Sequence[str | int]) -> str:
    """Write a key path as the user would: ``grid.ders[0].at``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice (YAML would silently keep the last).

    It reads ``1e-3`` as the number that YAML 1.2 says it is; PyYAML's 1.1 makes it a string.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f"a key must be text, found {key!r:.60} (put it in quotes)",
                problem_mark=key_node.start_mark,
            )
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    value = str(loader.construct_scalar(node))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # "\\ud800" in quotes: a string that no file can hold
            raise yaml.MarkedYAMLError(
                problem="half a surrogate pair is not text", problem_mark=node.start_mark
            ) from None
    return value


_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
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


def parse_value(text: str) -> Any:
    """Read one YAML value, as it would stand behind a key."""
    return yaml.load(text, Loader=_Loader)


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
