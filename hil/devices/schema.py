"""Writes the published JSON Schema of device files: ``python -m hil.devices.schema``."""

from __future__ import annotations

import json
from pathlib import Path

from hil.devices.file import device_schema

SCHEMA_PATH = Path(__file__).parent / "device.schema.json"


def schema_text() -> str:
    """Return the schema as it stands in the file."""
    return json.dumps(device_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
