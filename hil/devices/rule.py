"""One rule of device files: what cannot work is refused before anything is connected.

`hil.devices.point_rules` and `hil.devices.device_rules` are the tables. Each rule is a row: its
name, the key it speaks of, when it applies, what it says, what was expected. Texts are format
strings of the facts ``c`` (`hil.devices.rule_facts`, `hil.devices.rule_uses`). A new rule needs a
row in ``tests/hil/devices/test_rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from grid_models.base.yaml_lines import KeyPath


class Rule(NamedTuple):
    """One rule.

    Parameters
    ----------
    name : For its test, and for reading.
    key : Key under the thing that it speaks of, with dots; '' for the thing itself.
    applies : Given the facts; True where the file breaks the rule.
    what, expected, nearest : str
        Format strings of the facts ``c``.
    """

    name: str
    key: str
    applies: Callable[[Any], Any]
    what: str
    expected: str = ""
    nearest: str = ""

    def found(self, facts: Any, at: KeyPath) -> tuple[KeyPath, str, str, str]:
        """Return the problem in words."""
        key = (*at, *filter(None, self.key.split(".")))
        what, expected, nearest = (
            text.format(c=facts) for text in (self.what, self.expected, self.nearest)
        )
        return key, what, expected, nearest


def unused(
    name: str, keys: str, applies: Callable[[Any], Any], what: str, expected: str
) -> list[Rule]:
    """Return one rule per key that has no meaning where `applies` holds."""

    def given(key: str) -> Callable[[Any], Any]:
        return lambda c: c.given(key) and applies(c)

    return [Rule(name, key, given(key), what, expected) for key in keys.split()]


def each(name: str, keys: str, fact: str, what: str, expected: str) -> list[Rule]:
    """Return one rule per key; the fact is a mapping of the wrong keys to their values."""

    def wrong(key: str) -> Callable[[Any], Any]:
        return lambda c: key in getattr(c, fact)

    return [
        Rule(name, key, wrong(key), what.replace("{value", f"{{c.{fact}[{key}]"), expected)
        for key in keys.split()
    ]
