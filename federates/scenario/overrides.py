"""Overrides: single keys set from the command line, ``grid.ders[0].kind=pv``."""

from __future__ import annotations

import re
from typing import Any

from federates.errors import ScenarioError
from grid_models.base.yaml_lines import KeyPath, YamlError, dotted, parse_yaml
from grid_models.ders.rules import SIZES

# No list has a position of ten digits, and Python does not read one of five thousand.
_KEY_PART = re.compile(r"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")
_POSITION = re.compile(r"[0-9]{1,9}")


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
                node.pop("taps", None)  # they name regulators of the model that was there
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
