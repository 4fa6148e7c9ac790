"""Strict YAML with the line of every key, for scenarios, attacks and device files.

A key given twice is refused. Plain text is read as YAML 1.2 reads it, with two differences:
``yes``, ``no``, ``on`` and ``off`` are booleans (YAML 1.1), and ``0100`` is text. ``12:00`` is
text. Aliases may not expand a file beyond `MAX_ALIASED` entries.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import VersionedResolver

from grid_models.base.yaml_words import deepest_line, plain_problem

KeyPath = tuple[str | int, ...]

MAX_ALIASED = 100_000
"""Entries that aliases may add to a file."""
MAX_DEPTH = 100
"""Lists and mappings in one another that a message names where the parser cannot read more."""
_TAG = "tag:yaml.org,2002:"
_LONG_ESCAPE = re.compile(r"\\U([0-9a-fA-F]{8})")


class YamlError(Exception):
    """A file or text is not the YAML that is expected.

    `line`: From 1; 0 where there is none.
    """

    def __init__(self, what: str, line: int = 0, expected: str = "") -> None:
        self.what, self.line, self.expected = what, line, expected
        super().__init__(what)


def nearest_line(lines: Mapping[KeyPath, int], path: Sequence[str | int]) -> int:
    """Return the line of the nearest known ancestor of `path`; 0 where there is none."""
    known = (lines.get(tuple(path[:n])) for n in range(len(path), 0, -1))
    return next((line for line in known if line is not None), 0)


def dotted(path: Sequence[str | int]) -> str:
    """Write a key path as the user would: ``grid.ders[0].at``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_text(path: Path) -> str:
    """Read a text file.

    Raises YamlError: It is missing, binary or unreadable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise YamlError("no such file") from None
    except UnicodeDecodeError as error:
        what = f"not a text file (byte {error.start} is not UTF-8)"
        raise YamlError(what, expected="a YAML file") from None
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from None
    if "\0" in text:
        raise YamlError("not a text file (contains NUL)", expected="a YAML file")
    return text


def parse_yaml(text: str, *, text_keys: bool = False) -> tuple[Any, dict[KeyPath, int]]:
    """Return the value of a YAML text, and the line (from 1) of every key path in it.

    `text_keys`: Whether a key is its text (``off``, ``on`` and ``701`` are names of registers);
    else keys that YAML does not read as text are refused.

    Raises YamlError.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ReusedAnchorWarning)
            tree = _compose(yaml, text)
        if tree is None:
            return None, {}
        values = _Values(text_keys)
        return values.read(tree, ()), values.lines
    except ReusedAnchorWarning as error:
        line = int(re.findall(r"line (\d+)", str(error))[-1])
        anchor = re.findall(r"anchor '([^']*)'", str(error))[0]
        raise YamlError(f"the anchor '&{anchor}' is given twice", line) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(plain_problem(error), line) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        raise YamlError(f"not valid YAML: the control character U+{code:04X}", line) from None
    except YAMLError:
        raise YamlError("not valid YAML") from None
    except RecursionError:
        line = deepest_line(YAML(typ="safe", pure=True), text, MAX_DEPTH)
        what = "lists and mappings are nested too deeply"
        raise YamlError(what, line, f"at most {MAX_DEPTH} in one another") from None


def read_yaml(
    path: Path, text: str | None = None, *, text_keys: bool = False
) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Read a YAML mapping from `path` (or from `text` in its place), and the lines of its keys.

    Raises YamlError: The file cannot be read, or holds no mapping.
    """
    data, lines = parse_yaml(read_text(path) if text is None else text, text_keys=text_keys)
    if data is None:
        raise YamlError("the file is empty", expected="a YAML mapping")
    if not isinstance(data, dict):
        kind = {list: "a list", str: "a text", bool: "true or false"}.get(type(data), "one value")
        raise YamlError(f"holds {kind}", expected="a YAML mapping")
    return data, lines


def yaml_text(data: Any) -> str:
    """Write plain values (mappings, lists, text, numbers) as YAML in block style."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = False, True, 88
    yaml.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def _compose(yaml: YAML, text: str) -> Any:
    try:
        return yaml.compose(text)
    except (OverflowError, ValueError):  # of chr, in the scanner
        found = (m for m in _LONG_ESCAPE.finditer(text) if int(m[1], 16) > sys.maxunicode)
        escape = next(found, None)
        line = text.count("\n", 0, escape.start()) + 1 if escape else 0
        what = f"'{escape[0]}' is no character" if escape else "not valid YAML"
        raise YamlError(what, line, "at most \\U0010FFFF" if escape else "") from None


class _Resolver(VersionedResolver):
    """What plain text stands for."""

    _TABLE = (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        (
            "bool",
            "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
            [*"yYnNtTfFoO"],
        ),
        ("int", r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)", [*"-+0123456789"]),
        (
            "float",
            r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
            r"|[0-9]+[eE][-+]?[0-9]+|\.inf|\.Inf|\.INF)|\.(?:nan|NaN|NAN)",
            [*"-+.0123456789"],
        ),
        (
            "timestamp",
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}"
            r":[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?",
            [*"0123456789"],
        ),
        ("merge", "<<", ["<"]),
    )
    _by_first: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  filled below

    @property
    def versioned_resolver(self) -> Any:
        """Return first character -> [(tag, pattern)]."""
        return self._by_first


for _name, _pattern, _firsts in _Resolver._TABLE:
    for _first in _firsts:
        _Resolver._by_first.setdefault(_first, []).append(
            (_TAG + _name, re.compile(rf"(?:{_pattern})\Z"))
        )


def _boolean(text: str) -> bool:
    return {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}[
        text.lower()
    ]


def _number(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _date(text: str) -> date:
    return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)


def _string(text: str) -> str:
    text.encode()  # "\ud800" in quotes is a string that no file can hold
    return text


_SCALARS: dict[str, tuple[Any, str]] = {
    _TAG + "str": (_string, "text: half a surrogate pair"),
    _TAG + "null": (lambda text: None, "null"),
    _TAG + "bool": (_boolean, "true or false"),
    _TAG + "int": (lambda text: int(text.replace("_", ""), 0), "a whole number"),
    _TAG + "float": (_number, "a number"),
    _TAG + "timestamp": (_date, "a date"),
}


class _Values:
    """The plain values of a composed tree; `lines` maps each key path to its line."""

    def __init__(self, text_keys: bool) -> None:
        self.text_keys = text_keys
        self.lines: dict[KeyPath, int] = {}
        self._open: set[int] = set()
        self._known: set[int] = set()
        self._n_read = 0

    def read(self, node: Any, path: KeyPath) -> Any:
        """Return the value of a node that stands at `path`."""
        if isinstance(node, ScalarNode):
            return _scalar(node)
        kinds = ("map", "set") if isinstance(node, MappingNode) else ("seq",)
        if node.tag.removeprefix(_TAG) not in kinds:
            raise _unknown_tag(node)
        if id(node) in self._open:
            raise _marked("found a recursive alias", node)
        self._open.add(id(node))
        value: Any
        if isinstance(node, SequenceNode):
            self._count(node, len(node.value))
            value = []
            for i, item in enumerate(node.value):
                self.lines[(*path, i)] = item.start_mark.line + 1
                value.append(self.read(item, (*path, i)))
        else:
            value = {}
            for key, (key_node, item) in self._pairs(node).items():
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                value[key] = self.read(item, (*path, key))
        self._open.remove(id(node))
        return set(value) if node.tag == _TAG + "set" else value

    def _pairs(self, node: Any) -> dict[str, tuple[Any, Any]]:
        """Return key -> (key node, value node); merged keys first, own keys override them."""
        self._count(node, len(node.value))
        merged: dict[str, tuple[Any, Any]] = {}
        own: dict[str, tuple[Any, Any]] = {}
        for key_node, item in node.value:
            if key_node.tag == _TAG + "merge":
                for part in reversed(item.value if isinstance(item, SequenceNode) else [item]):
                    if not isinstance(part, MappingNode):
                        raise _marked("expected a mapping or a list of mappings to merge", part)
                    if id(part) in self._open:
                        raise _marked("found a recursive alias", part)
                    self._open.add(id(part))
                    merged |= self._pairs(part)
                    self._open.remove(id(part))
                continue
            key = self._key(key_node)
            if key in own:
                raise _marked(f"key '{key}' is given twice", key_node)
            own[key] = (key_node, item)
        return merged | own

    def _key(self, node: Any) -> str:
        if self.text_keys and isinstance(node, ScalarNode):
            node.tag = _TAG + "str"
        key = self.read(node, ())
        if not isinstance(key, str):
            raise _marked(f"a key must be text, found {key!r:.60} (put it in quotes)", node)
        return key

    def _count(self, node: Any, entries: int) -> None:
        """Refuse aliases that expand to more than `MAX_ALIASED` entries."""
        if id(node) in self._known:
            self._n_read += 1 + entries
            if self._n_read > MAX_ALIASED:
                raise _marked(
                    f"aliases make {self._n_read} entries of this; expected at most {MAX_ALIASED}",
                    node,
                )
        self._known.add(id(node))


def _scalar(node: Any) -> Any:
    try:
        read, kind = _SCALARS[node.tag]
    except KeyError:
        raise _unknown_tag(node) from None
    try:
        return read(node.value)
    except (LookupError, ValueError):
        text = node.value.encode(errors="backslashreplace").decode()
        short = text if len(text) <= 40 else text[:37] + "..."
        size = "" if len(text) <= 40 else f" ({len(text)} characters)"
        raise _marked(f"'{short}'{size} is not {kind} (put text in quotes)", node) from None


def _unknown_tag(node: Any) -> MarkedYAMLError:
    return _marked(f"could not determine a constructor for the tag '{node.tag}'", node)


def _marked(problem: str, node: Any) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
