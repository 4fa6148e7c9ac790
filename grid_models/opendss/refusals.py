"""What OpenDSS says about a command that it refuses, in short and with the nearest valid name."""

from __future__ import annotations

import re

from grid_models.base.errors import FeederError, nearest_name
from grid_models.opendss.engine import DssError, Engine

_DESCRIPTION = re.compile(r"Error Description: (.*?) *(?:Probable Cause|$)")
_PROPERTY = re.compile(r'Unknown parameter "(.+?)" .*for object "(\w+)\.')
_CLASS = re.compile(r'Object Type "(.+?)" not found')
_OBJECT = re.compile(r': (\w+) object "(.+?)" not found')
_ELEMENT = re.compile(r"(?:\b\w+=)?\b(\w+)\.([^\s,.=\"')\]}]+)")


def refused(engine: Engine, text: str, error: DssError, where: str) -> FeederError:
    """Return the error for a command `text` that the engine refused."""
    said = str(error)
    described = _DESCRIPTION.search(said)
    message = described[1].rstrip(".") if described else said
    twice = "Duplicate new element" in said
    return FeederError(
        f"OpenDSS: {message}",
        where=where,
        expected="'edit', or 'set allowduplicates=yes' before" if twice else None,
        nearest=_nearest(engine, text, said),
    )


def is_missing(engine: Engine, element: str) -> bool:
    """Whether ``class.name`` names nothing; the engine edits such an element without a word."""
    kind, _, name = element.partition(".")
    try:
        return bool(engine.handles(kind, [name])[0] == engine.ffi.NULL)
    except DssError:
        return False


def nearest_element(engine: Engine, element: str) -> str | None:
    """Return the name nearest to that of ``class.name`` among the elements of its class."""
    kind, _, name = element.partition(".")
    return nearest_name(name, _names(engine, kind))


def _nearest(engine: Engine, text: str, said: str) -> str | None:
    if not engine.circuit_name():
        return None
    if found := _PROPERTY.search(said):
        engine.lib.ctx_DSS_SetActiveClass(engine.ctx, found[2].encode())
        engine.dss.ActiveClass.First()
        return nearest_name(found[1], [str(n) for n in engine.dss.Element.AllPropertyNames()])
    if found := _CLASS.search(said):
        return nearest_name(found[1], [str(n) for n in engine.dss.Basic.Classes()])
    if found := _OBJECT.search(said):
        return nearest_name(found[2], _names(engine, found[1]))
    if "not found" in said or "not set" in said:
        # The engine does not say which; of the elements in the command it is one that is missing.
        for kind, name in _ELEMENT.findall(text):
            if is_missing(engine, f"{kind}.{name}"):
                return nearest_element(engine, f"{kind}.{name}")
    return None


def _names(engine: Engine, kind: str) -> list[str]:
    if engine.lib.ctx_DSS_SetActiveClass(engine.ctx, kind.encode()) <= 0:
        engine.take_error()
        return []
    return [str(n) for n in engine.dss.ActiveClass.AllNames()]
