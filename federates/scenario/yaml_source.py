"""YAML files of scenarios and attacks: where each key stands, so that an error can name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federates.errors import ScenarioError
from grid_models.base.yaml_lines import KeyPath, YamlError, dotted, nearest_line, read_yaml


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
        changed = ""
        for key, words in self.overrides.items():
            below = path == key[: len(path)]
            if path[: len(key)] == key or (below and path not in self.lines):
                rest = dotted(path[len(key) :])
                return f"--set {words}: {rest}" if rest else f"--set {words}"
            if below and path:
                changed = f" (with --set {words})"
        return self._in_file(path) + changed

    def line(self, path: KeyPath) -> int:
        """Return the line of the nearest known ancestor of `path`; 0 where there is none."""
        return nearest_line(self.lines, path)

    def _in_file(self, path: KeyPath) -> str:
        line = self.line(path)
        if line:
            return f"{self.name}:{line}: {dotted(path)}"
        return f"{self.name}: {dotted(path)}" if path else self.name


def load_yaml(path: Path, text: str | None = None) -> YamlSource:
    """Read a YAML mapping from `path` (or from `text`, as if it stood there).

    Raises
    ------
    ScenarioError
    """
    try:
        data, lines = read_yaml(path, text)
    except YamlError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise ScenarioError(error.what, where=where, expected=error.expected or None) from None
    return YamlSource(str(path), data, lines)
