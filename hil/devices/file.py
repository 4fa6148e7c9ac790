"""Device files: read, and checked against schema and rules.

`load_device_file` reads one, `check_device_file` lists every problem with its line, `device_hints`
what may be a slip. `device_schema` is the published JSON Schema, `shipped_devices` are those that
come with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from grid_models.base.schema_errors import schema_problems
from grid_models.base.yaml_lines import KeyPath, YamlError, dotted, nearest_line, read_yaml
from hil.devices.errors import DeviceFileError, Problem
from hil.devices.rules import rule_hints, rule_problems
from hil.devices.spec import DeviceSpec


def _read(path: Path) -> tuple[DeviceSpec | None, list[Problem]]:
    try:
        # `off`, `on` and 701 are keys in a device file: a key is its text.
        data, lines = read_yaml(path, text_keys=True)
    except YamlError as error:
        return None, [Problem(str(path), error.line, "", error.what, error.expected)]
    _resolve_certificates(data, path.parent)
    try:
        spec = DeviceSpec.model_validate(data)
    except ValidationError as error:
        return None, placed(path, lines, schema_problems(DeviceSpec, error))
    return spec, placed(path, lines, rule_problems(spec))


def _resolve_certificates(data: dict[str, Any], folder: Path) -> None:
    connection = data.get("connection")
    tls = connection.get("tls") if isinstance(connection, dict) else None
    if isinstance(tls, dict):
        for key in ("ca", "cert", "key"):
            if isinstance(tls.get(key), str):
                tls[key] = str(folder / tls[key])


def placed(
    path: Path, lines: dict[KeyPath, int], found: Sequence[tuple[KeyPath, str, str, str]]
) -> list[Problem]:
    """Return problems of keys with their lines, in the order of the lines."""
    problems = [
        Problem(str(path), nearest_line(lines, key), dotted(key), what, expected, nearest)
        for key, what, expected, nearest in found
    ]
    return sorted(problems, key=lambda p: p.line)


def check_device_file(path: str | Path) -> list[Problem]:
    """Return every problem of a device file, in the order of its lines; empty if it is fine."""
    return _read(find_device_file(path))[1]


def device_hints(path: str | Path) -> list[Problem]:
    """Return what a file without problems may not mean as it stands, in the order of its lines."""
    plain = find_device_file(path)
    _, lines = read_yaml(plain, text_keys=True)
    return placed(plain, lines, rule_hints(load_device_file(plain)))


def load_device_file(path: str | Path) -> DeviceSpec:
    """Read a device file: a path, or the name of a shipped one.

    Raises DeviceFileError: The file has problems; the message has a line for each.
    """
    spec, problems = _read(find_device_file(path))
    if spec is None or problems:
        raise DeviceFileError(problems)
    return spec


def find_device_file(path: str | Path) -> Path:
    """Return the path itself, or that of the shipped device of this name."""
    plain = Path(path)
    if not plain.exists() and str(path) in (shipped := shipped_devices()):
        return shipped[str(path)]
    return plain


def shipped_devices() -> dict[str, Path]:
    """Return name -> path of the device files that come with the package."""
    folder = Path(__file__).parent
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def device_schema() -> dict[str, Any]:
    """Return the JSON Schema of a device file."""
    schema = DeviceSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Feederate device file"
    return schema
