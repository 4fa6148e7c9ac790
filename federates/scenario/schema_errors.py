"""Pydantic's findings in the user's own terms: file, line and key, found, expected, nearest."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from federates.errors import ScenarioError
from federates.scenario.yaml_source import YamlSource
from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "string_pattern_mismatch": "letters, digits, '_' and '-', the first a letter",
}


def schema_error(
    source: YamlSource, root: type[BaseModel], error: ValidationError
) -> ScenarioError:
    """Say every problem in the user's own terms; the branches of a union become one line."""
    found: dict[KeyPath, Any] = {}
    expected: dict[KeyPath, list[str]] = {}
    lines: dict[KeyPath, str] = {}
    for item in error.errors():
        walk = _Walk(root, item["loc"])
        loc, kind = walk.path, item["type"]
        if kind == "extra_forbidden":
            near = nearest_name(str(loc[-1]), walk.names)
            lines[loc] = f"unknown key; expected one of {', '.join(walk.names)}"
            lines[loc] += f"; did you mean '{near}'?" if near else ""
        elif kind == "missing":
            lines[loc] = "required key is missing"
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            key, text = _wrong_tag(item, walk)
            lines[(*loc, key)] = text
        else:
            found[loc] = item["input"]
            text = _EXPECTED.get(kind) or item["msg"]
            text = text.removeprefix("Value error, ").removeprefix("Input should be ")
            expected.setdefault(loc, []).append(text.removeprefix("must be "))
    for loc, value in found.items():
        # Text is the short form of a section; once it is a section, only its keys are wrong.
        inside = any(len(o) > len(loc) and o[: len(loc)] == loc for o in (*lines, *found))
        if not inside:
            said = " or ".join(dict.fromkeys(expected[loc]))
            lines[loc] = f"found {_shown(value)}; expected {said}"
    ordered = sorted(lines.items(), key=lambda line: source.line(line[0]))
    return ScenarioError("\n".join(f"{source.where(loc)}: {text}" for loc, text in ordered))


def _wrong_tag(item: Any, walk: _Walk) -> tuple[str, str]:
    """Return the key that says what a section is, and what is wrong with it."""
    key = item["ctx"]["discriminator"].strip("'")
    tags = walk.tags(key)
    above = f" for {walk.tag[0]} {walk.tag[1]}" if walk.tag else ""
    said = f"expected one of {', '.join(tags)}{above}"
    given = item["input"].get(key) if isinstance(item["input"], dict) else None
    if given is None:
        return key, f"required key is missing; {said}"
    near = nearest_name(str(given), tags)
    return key, f"found {_shown(given)}; {said}" + (f"; did you mean '{near}'?" if near else "")


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Walk:
    """A location of pydantic's followed through the schema.

    A union's branches put their own names into the location; only what the user wrote is said.

    Attributes
    ----------
    path : tuple
        The location as the user wrote it.
    names : list of str
        Valid keys of the last section on the way.
    tag : (key, value) or None
        What the last section that says its own kind says.
    """

    def __init__(self, root: type[BaseModel], loc: tuple[str | int, ...]) -> None:
        self.path: KeyPath = ()
        self.names: list[str] = []
        self.tag: tuple[str, str] | None = None
        self._at: Any = root
        self._key: str | None = None
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
            tags_by = field.discriminator if field else None
            self._key = tags_by if isinstance(tags_by, str) else None
        else:
            arguments = typing.get_args(self._at)
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
