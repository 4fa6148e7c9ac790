"""What a report needs of a run's ``manifest.json`` and ``summary.json``, checked before it is used.

A folder may come from another version, another program or a broken disk; what is shown of it must
not depend on luck.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federates.errors import ScenarioError
from federates.scenario.kinds import KINDS, section_class

STATUSES = ("finished", "failed", "interrupted", "not finished")
UNKNOWN = "unknown"
_Key = tuple[str, ...]

_REQUIRED: tuple[tuple[_Key, type], ...] = (
    (("scenario", "time", "start_s"), float),
    (("scenario", "time", "step_s"), float),
    (("scenario", "band", "v_min_pu"), float),
    (("scenario", "band", "v_max_pu"), float),
    (("scenario", "federates"), dict),
)
_OPTIONAL: tuple[tuple[_Key, type], ...] = (
    (("scenario", "grid"), dict),
    (("steps",), int),
    (("warm_up_s",), float),
    (("warm_up_note",), str),
    (("changes",), list),
    (("versions",), dict),
    (("host",), dict),
    (("name",), str),
    (("base_dir",), str),
)
_SUMMARY: tuple[tuple[str, type], ...] = (
    ("steps", int),
    ("wall_s", float),
    ("stepping_s", float),
    ("steps_per_s", float),
    ("metrics", dict),
)
_WORDS = {
    float: "a number",
    int: "a whole number",
    dict: "a mapping",
    list: "a list",
    str: "text",
}

# Runs recorded before each kind had its own section hold the keys of all kinds: where a key was not
# used it has this value.
_UNUSED: dict[str, Any] = {
    "controller": None, "detector": None, "ders": None, "split": 1, "areas": 4, "options": {},
    "inputs": {}, "outputs": {}, "devices": {}, "not_good": "hold", "command": None,
}  # fmt: skip


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a run, with all that a report reads from it in its place.

    Raises
    ------
    ScenarioError
        The folder holds no run, or its manifest lacks something or has it of another kind.
    """
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest.get("scenario"), dict):
        raise ScenarioError(
            "not the folder of a run",
            where=str(folder),
            expected="a folder with a manifest.json, as 'feederate run' writes it",
        )
    for key, kind in _REQUIRED:
        _check(folder, key, kind, _find(manifest, key))
    for key, kind in _OPTIONAL:
        value = _find(manifest, key)
        if value is not None:
            _check(folder, key, kind, value)
    for name, spec in manifest["scenario"]["federates"].items():
        _check(folder, ("scenario", "federates", name), dict, spec)
        _drop_keys_of_other_kinds(spec)
    if not manifest["scenario"]["time"]["step_s"] > 0.0:
        raise _error(folder, ("scenario", "time", "step_s"), "is not above 0", "seconds")
    return manifest


def _drop_keys_of_other_kinds(spec: dict[str, Any]) -> None:
    if (kind := str(spec.get("kind"))) in KINDS:
        fields = section_class(kind).model_fields
        for key, value in _UNUSED.items():
            if key not in fields and spec.get(key, ...) == value:
                del spec[key]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a run; empty without one. What is not a number of its kind is left out.

    Metrics that are no numbers are None, as those that a run could not tell.
    """
    summary = read_json(folder / "summary.json")
    for key, kind in _SUMMARY:
        if key in summary and not _is(summary[key], kind):
            del summary[key]
    metrics = summary.get("metrics", {})
    summary["metrics"] = {k: v if _is(v, float) else None for k, v in metrics.items()}
    return summary


def known_status(status: Any) -> str:
    """Return how a run ended, one of `STATUSES` or `UNKNOWN`; one that goes on is not finished."""
    if status in ("running", None):
        return "not finished"
    return str(status) if status in STATUSES else UNKNOWN


def read_json(path: Path) -> dict[str, Any]:
    """Return a mapping from a file; empty where there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _find(data: Any, key: _Key) -> Any:
    for part in key:
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _is(value: Any, kind: type) -> bool:
    if kind in (dict, list, str):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) if kind is int else math.isfinite(value)


def _check(folder: Path, key: _Key, kind: type, value: Any) -> None:
    if value is None:
        raise _error(folder, key, "is missing", _WORDS[kind])
    if not _is(value, kind):
        raise _error(folder, key, f"is {json.dumps(value)[:60]}", _WORDS[kind])


def _error(folder: Path, key: _Key, what: str, expected: str) -> ScenarioError:
    return ScenarioError(
        f"{'.'.join(map(str, key))} {what}",
        where=str(folder / "manifest.json"),
        expected=f"{expected}, as 'feederate run' writes it",
    )
