"""Pydantic's findings as problems of a device file: key, found, expected, nearest."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath

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
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list of two numbers",
}


def schema_problems(
    root: type[BaseModel], error: ValidationError
) -> list[tuple[KeyPath, str, str, str]]:
    """Return (key path, what, expected, nearest) for each finding."""
    problems: list[tuple[KeyPath, str, str, str]] = []
    for item in error.errors():
        loc: KeyPath = tuple(p for p in item["loc"] if p != "[key]")
        kind = item["type"]
        if kind == "extra_forbidden":
            names = _fields(root, loc[:-1])
            near = nearest_name(str(loc[-1]), names) or ""
            problems.append((loc, "unknown key", f"one of {', '.join(names)}", near))
        elif kind == "missing":
            problems.append((loc, "required key is missing", "", ""))
        else:
            text = _EXPECTED.get(kind) or item["msg"].removeprefix("Value error, ")
            text = text.removeprefix("Input should be ")
            near = _nearest_choice(kind, item)
            problems.append((loc, f"found {_shown(item['input'])}", text, near))
    return problems


def _nearest_choice(kind: str, item: Any) -> str:
    if kind != "literal_error":
        return ""
    choices = str(item["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    return nearest_name(str(item["input"]), [c.strip("'") for c in choices]) or ""


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(section: type[BaseModel], path: KeyPath) -> list[str]:
    for part in path:
        if part in section.model_fields:
            inner = _section_of(section.model_fields[str(part)].annotation)
            section = inner or section
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_of(arg) for arg in getattr(annotation, "__args__", ()))
    return next((s for s in inner if s is not None), None)
