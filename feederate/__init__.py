"""Feederate from Python: run scenarios, read runs, and what own classes are built from.

>>> import feederate
>>> run = feederate.run("voltvar-ieee13", steps=20)
>>> run.signals["feeder.v_pu"].max().max()

This package is a facade: each name is one of the packages below it and is imported when it is
first used, so that ``import feederate`` loads none of them. The file ``__init__.pyi`` beside this
one is the list of the names, for type checkers and for `__getattr__` alike.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_PLACES = {
    alias.name: node.module
    for node in _STUB.body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}

__all__ = sorted(_PLACES)  # noqa: PLE0605 - strings, all of them


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'feederate' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
