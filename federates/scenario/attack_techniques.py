"""Techniques of MITRE ATT&CK for ICS, by id: https://attack.mitre.org/techniques/ics/."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

VERSION = "18.1"

with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _table:
    TECHNIQUES: Mapping[str, str] = {row["id"]: row["name"] for row in csv.DictReader(_table)}
