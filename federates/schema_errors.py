"""Pydantic's findings in the user's own terms: file, line and key, found, expected, nearest."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from federates.errors import ScenarioError
from federates.yaml_source import KeyPath, YamlSource
from grid_models.errors import nearest_name

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
    "string_pattern_mismatch": "letters, digits, '_' and '-', the first a letter",
}


def schema_error(
    source: YamlSource, root: type[BaseModel], error: ValidationError
) -> ScenarioError:
    """Say every problem in the user's own terms; the branches of a union become one line."""
    items = error.errors()
    found: dict[KeyPath, Any] = {}
    expected: dict[KeyPath, list[str]] = {}
    lines: dict[KeyPath, str] = {}
    for item in items:
        # A union's branches put their own names into the path; only what the user wrote is said.
        loc: KeyPath = tuple(p for p in item["loc"] if isinstance(p, int) or not _is_branch(str(p)))
        kind = item["type"]
        if kind == "extra_forbidden":
            names = _field_names(root, loc[:-1])
            near = nearest_name(str(loc[-1]), names)
            lines[loc] = f"unknown key; expected one of {', '.join(names)}"
            lines[loc] += f"; did you mean '{near}'?" if near else ""
        elif kind == "missing":
            lines[loc] = "required key is missing"
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


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_branch(part: str) -> bool:
    return part in {"str", "int", "Connection", "[key]"} or part.startswith("literal[")


def _field_names(section: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the valid keys of the section at `path` below `section`."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        inner = _section_of(annotation)
        if inner is not None:
            section = inner
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _section_of(arg)
        if found is not None:
            return found
    return None
