"""YAML mappings that remember the line of each key, so that a problem can name it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]


class YamlError(Exception):
    """The text is not a YAML mapping; `line` counts from 1, 0 where there is none."""

    def __init__(self, what: str, line: int = 0) -> None:
        self.what = what
        self.line = line
        super().__init__(what)


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice; reads ``1e-3`` as the number that YAML 1.2 says it is."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        # `off`, `on` and 701 are keys in a device file: a key is its text.
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a key must be text", problem_mark=key_node.start_mark
            )
        key_node.tag = "tag:yaml.org,2002:str"
        if key_node.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"key '{key_node.value}' is given twice",
                problem_mark=key_node.start_mark,
            )
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return {str(k): v for k, v in loader.construct_mapping(node, deep=True).items()}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _collect(node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            here = (*path, str(key_node.value))
            lines[here] = key_node.start_mark.line + 1
            _collect(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*path, i)] = value.start_mark.line + 1
            _collect(value, (*path, i), lines)


def nearest_line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """Return the line of the nearest known ancestor of `path`; 0 where there is none."""
    known = (lines.get(path[:n]) for n in range(len(path), 0, -1))
    return next((line for line in known if line is not None), 0)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Read a YAML mapping and the lines of its keys.

    Raises
    ------
    YamlError
        The file is missing, unreadable, not text or not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise YamlError("no such file") from None
    except UnicodeDecodeError as error:
        raise YamlError(f"not a text file (byte {error.start} is not UTF-8)") from None
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(error.problem or "not valid YAML", line) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(f"not valid YAML: {error}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise YamlError(f"holds {found}, not a mapping of keys to values")
    lines: dict[KeyPath, int] = {}
    _collect(tree, (), lines)
    return data, lines
