"""Errors of pydantic in the user's terms: key, found, expected, nearest valid name."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath

_PROBLEM = "problem"
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list of two numbers",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "nothing",
    "string_too_short": "text",
    "string_unicode": "text",
    "string_pattern_mismatch": "letters, digits, '_' and '-', the first a letter",
}

_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}

Hint = Callable[[str], str]


class SchemaProblem(NamedTuple):
    """One thing that is wrong in a file.

    Parameters
    ----------
    path : The key, as the user wrote it.
    what, expected, nearest : str
        What is wrong, what would have been accepted, the nearest valid name ('' for none).
    """

    path: KeyPath
    what: str
    expected: str = ""
    nearest: str = ""


def problem(what: str, expected: str = "", nearest: str = "") -> PydanticCustomError:
    """Return an error for a validator to raise that becomes a `SchemaProblem` as it is."""
    parts = {"what": what, "expected": expected, "nearest": nearest}
    return PydanticCustomError(_PROBLEM, "{what}", parts)


def section_error(
    section: type[BaseModel], error: ValidationError, hint: Hint | None = None
) -> ValidationError:
    """Return the error of a section whose class was looked up by name, for a validator to raise.

    The schema around it does not know that class, so its problems are explained here. `hint` is
    as in `schema_problems`.
    """
    details: list[InitErrorDetails] = [
        {"type": problem(*found[1:]), "loc": found.path, "input": None}
        for found in schema_problems(section, error, hint)
    ]
    return ValidationError.from_exception_data(error.title, details)


def schema_problems(
    root: type[BaseModel], error: ValidationError, hint: Hint | None = None
) -> list[SchemaProblem]:
    """Return one problem for each wrong key; the branches of a union become one.

    `hint` returns what an unknown key of `root` itself could mean; '' where it does not know.
    """
    problems: dict[KeyPath, SchemaProblem] = {}
    wrong_values: dict[KeyPath, list[tuple[Any, str]]] = {}
    for item in error.errors():
        walk = _Walk(root, item["loc"])
        path = walk.path
        if item["type"] == "extra_forbidden":
            problems[path] = _unknown_key(walk, hint if len(path) == 1 else None)
        elif item["type"] == _PROBLEM:
            problems[path] = SchemaProblem(path, **item["ctx"])
        elif item["type"] == "missing":
            problems[path] = SchemaProblem(path, "required key is missing")
        elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            wrong_tag = _wrong_tag(item, walk)
            problems[wrong_tag.path] = wrong_tag
        else:
            wrong_values.setdefault(path, []).append((item, _expected(item, walk)))
    for path, items in wrong_values.items():
        # Text is the short form of a section; once it is a section, only its keys are wrong.
        inside = any(
            len(o) > len(path) and o[: len(path)] == path for o in (*problems, *wrong_values)
        )
        if not inside:
            problems[path] = _wrong_value(path, items)
    return list(problems.values())


def _unknown_key(walk: _Walk, hint: Hint | None) -> SchemaProblem:
    key = str(walk.path[-1])
    near = (hint and hint(key)) or nearest_name(key, walk.names) or ""
    return SchemaProblem(walk.path, "unknown key", f"one of {', '.join(walk.names)}", near)


def _wrong_value(path: KeyPath, items: list[tuple[Any, str]]) -> SchemaProblem:
    expected = dict.fromkeys(text for _, text in items)
    choices: list[str] = []
    for item, _ in items:
        if item["type"] == "literal_error":
            named = str(item["ctx"]["expected"]).replace(" or ", ", ").split(", ")
            choices += [c.strip("'") for c in named]
    found = items[-1][0]["input"]
    near = nearest_name(str(found), choices) or ""
    return SchemaProblem(path, f"found {_shown(found)}", " or ".join(expected), near)


def _expected(item: Any, walk: _Walk) -> str:
    """Return what would have been accepted, in our words: pydantic's are not for users."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "string_type" and isinstance(item["input"], (int, float, date)):
        return "text (put it in quotes)"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in ("too_short", "too_long"):
        side, n = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        n = context[n]
        return f"at {side} {'one entry' if n == 1 else f'{n} entries'}"
    if kind.startswith(("greater_than", "less_than")):
        return walk.limits() or item["msg"].removeprefix("Input should be ")
    text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return str(text).removeprefix("must be ")


def _wrong_tag(item: Any, walk: _Walk) -> SchemaProblem:
    """Return what is wrong with the key that says what kind a section is."""
    key = item["ctx"]["discriminator"].strip("'")
    tags = walk.tags(key)
    above = f" for {walk.tag[0]} {walk.tag[1]}" if walk.tag else ""
    given = item["input"].get(key) if isinstance(item["input"], dict) else None
    what = "required key is missing" if given is None else f"found {_shown(given)}"
    near = "" if given is None else nearest_name(str(given), tags) or ""
    return SchemaProblem((*walk.path, key), what, f"one of {', '.join(tags)}{above}", near)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, date):
        return f"the date {value}"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Walk:
    """A location of pydantic's followed through the schema.

    A union's branches put their own names into the location; only what the user wrote is said.

    Attributes
    ----------
    path : The location as the user wrote it.
    names : Valid keys of the last section on the way.
    tag : (key, value). What the last section that says its own kind says.
    """

    def __init__(self, root: type[BaseModel], loc: tuple[str | int, ...]) -> None:
        self.path: KeyPath = ()
        self.names: list[str] = []
        self.tag: tuple[str, str] | None = None
        self._at: Any = root
        self._key: str | None = None
        self._said: list[Any] = []
        for part in loc:
            key = self._settle()
            branches = _branches(self._at)
            if key is not None and part in self.tags(key):
                self.tag = (key, str(part))
                self._at = self._tagged(key)[str(part)]
                self._key = None
            elif len(branches) > 1:
                # The branch's name; one that is a section leads on to its keys.
                self._at = next((b for b in branches if _name(b) == str(part)), None)
            elif part != "[key]":
                self.path = (*self.path, part)
                self._descend(part)
        self._settle()

    def limits(self) -> str:
        """Return the range of a number here, in words; '' where it has none."""
        bounds = {
            key: f"{value:.10g}" if isinstance(value, float) else str(value)
            for m in self._said
            for key in _BOUNDS
            if (value := getattr(m, key, None)) is not None
        }
        if not bounds:
            return ""
        number = "a whole number" if self._at is int else "a number"
        if {"ge", "le"} <= set(bounds):
            return f"{number} from {bounds['ge']} to {bounds['le']}"
        words = [f"{text} {bounds[key]}" for key, text in _BOUNDS.items() if key in bounds]
        return f"{number} {' and '.join(words)}"

    def tags(self, key: str) -> list[str]:
        """Return the kinds that the sections here can say they are."""
        return list(self._tagged(key))

    def _tagged(self, key: str) -> dict[str, Any]:
        return {
            str(tag): branch
            for branch in _branches(self._at)
            if _is_section(branch) and key in branch.model_fields
            for tag in typing.get_args(branch.model_fields[key].annotation)
        }

    def _settle(self) -> str | None:
        """Step through what leaves no trace in a location; return the key of the tags here."""
        while True:
            if typing.get_origin(self._at) is typing.Annotated:
                inner, *more = typing.get_args(self._at)
                self._said += [x for m in more for x in getattr(m, "metadata", [m])]
                keys = [getattr(m, "discriminator", None) for m in more]
                self._key = next((k for k in keys if isinstance(k, str)), self._key)
                self._at = inner
            elif len(branches := _branches(self._at)) == 1 and branches[0] is not self._at:
                self._at = branches[0]
            else:
                return self._key

    def _descend(self, part: str | int) -> None:
        if _is_section(self._at):
            self.names = list(self._at.model_fields)
            field = self._at.model_fields.get(str(part))
            self._at = field.annotation if field else None
            self._said = list(field.metadata) if field else []
            tags_by = field.discriminator if field else None
            self._key = tags_by if isinstance(tags_by, str) else None
        else:
            arguments = typing.get_args(self._at)
            self._said = []
            self._at = arguments[-1] if arguments else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _branches(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(annotation) if a is not types.NoneType]
    return [annotation]


def _name(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return f"literal[{','.join(repr(a) for a in typing.get_args(annotation))}]"
    return getattr(annotation, "__name__", str(annotation))
