"""YAML that is read strictly and remembers the line of each key, for the files of every room.

Strictly: a key given twice is refused (YAML would silently keep the last), ``1e-3`` is the number
that YAML 1.2 says it is (PyYAML's 1.1 makes it a string), ``12:00`` and ``0100`` are the text that
they are (1.1 makes them 720 and 64), and no few lines of aliases stand for more than memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

MAX_ALIASED = 100_000
"""Entries that aliases may add to a file."""
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_STR = "tag:yaml.org,2002:str"
_TYPES = {
    _INT: "a whole number",
    _FLOAT: "a number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:timestamp": "a date",
}


class YamlError(Exception):
    """A file or text is not the YAML that is wanted.

    Attributes
    ----------
    what : str
    line : int
        From 1; 0 where there is none.
    expected : str
    """

    def __init__(self, what: str, line: int = 0, expected: str = "") -> None:
        self.what, self.line, self.expected = what, line, expected
        super().__init__(what)


class _Loader(yaml.SafeLoader):
    text_keys = False

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Read a value; what its type does not allow has a line, like all that is wrong."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML's constructors check little: `2024-13-45`, `!!int foo`, `0x_`, `!!bool 3`.
            text = str(node.value) if isinstance(node, yaml.ScalarNode) else "what stands here"
            kind = _TYPES.get(node.tag, node.tag.rpartition(":")[2])
            raise yaml.MarkedYAMLError(
                problem=f"{_short(text)} is not {kind} (put text in quotes)",
                problem_mark=node.start_mark,
            ) from error


def _short(text: str) -> str:
    return f"'{text}'" if len(text) <= 40 else f"'{text[:37]}...' ({len(text)} characters)"


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if loader.text_keys and isinstance(key_node, yaml.ScalarNode):
            key_node.tag = _STR
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


_Loader.add_constructor(_STR, _text)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in (_INT, _FLOAT)]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER_STARTS = list("-+.0123456789")
_Loader.add_implicit_resolver(
    _INT,
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"),
    _NUMBER_STARTS,
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[0-9]+[eE][-+]?[0-9]+|\.inf|\.Inf|\.INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    _NUMBER_STARTS,
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def nearest_line(lines: Mapping[KeyPath, int], path: Sequence[str | int]) -> int:
    """Return the line of the nearest known ancestor of `path`; 0 where there is none."""
    known = (lines.get(tuple(path[:n])) for n in range(len(path), 0, -1))
    return next((line for line in known if line is not None), 0)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises
    ------
    YamlError
        It is missing, binary or unreadable.
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
    """Return what a text holds, and the line of every key path in it.

    Parameters
    ----------
    text : str
    text_keys : bool
        Whether a key is its text (``off``, ``on`` and ``701`` are names of registers); else keys
        that YAML does not read as text are refused.

    Raises
    ------
    YamlError
    """
    loader = None
    try:
        loader = _Loader(text)
        loader.text_keys = text_keys
        tree = loader.get_single_node()
        if tree is None:
            return None, {}
        _refuse_bomb(tree)
        data = loader.construct_document(tree)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(error.problem or "not valid YAML", line) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {error}") from None
    except RecursionError:
        raise YamlError("not valid YAML: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    lines: dict[KeyPath, int] = {}
    _collect_lines(tree, (), lines)
    return data, lines


def read_yaml(
    path: Path, text: str | None = None, *, text_keys: bool = False
) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Read a YAML mapping from `path` (or from `text`, as if it stood there), and its keys' lines.

    Raises
    ------
    YamlError
        The file cannot be read, or holds no mapping.
    """
    data, lines = parse_yaml(read_text(path) if text is None else text, text_keys=text_keys)
    if data is None:
        raise YamlError("the file is empty", expected="a YAML mapping")
    if not isinstance(data, dict):
        raise YamlError(f"holds a {type(data).__name__}", expected="a YAML mapping")
    return data, lines


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


def _refuse_bomb(tree: yaml.Node) -> None:
    """Refuse aliases that stand for more than anybody writes."""
    sizes: dict[int, int] = {}
    nodes: list[yaml.Node] = []

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0  # an alias of what it stands in is refused by the constructor
            inside: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                inside = node.value
            elif isinstance(node, yaml.MappingNode):
                inside = [part for pair in node.value for part in pair]
            sizes[id(node)] = 1 + sum(map(size, inside))
            nodes.append(node)
        return sizes[id(node)]

    added = size(tree) - len(nodes)
    if added > MAX_ALIASED:
        worst = next(node for node in nodes if sizes[id(node)] > MAX_ALIASED)
        raise yaml.MarkedYAMLError(
            problem=f"aliases make {sizes[id(worst)]} entries of this; expected at most "
            f"{MAX_ALIASED}",
            problem_mark=worst.start_mark,
        )
