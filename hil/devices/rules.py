"""What a device file must hold beyond its schema: rules between keys, and SunSpec names.

`hil.devices.point_rules` and `hil.devices.device_rules` have the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath
from hil.devices import device_rules, point_rules, sunspec_models
from hil.devices.rule import Rule
from hil.devices.rule_facts import PointFacts
from hil.devices.rule_uses import CurveFacts, DeviceFacts, Pair, Use, unused_points, uses_of
from hil.devices.spec import DeviceSpec

Found = tuple[KeyPath, str, str, str]


def rule_problems(spec: DeviceSpec) -> list[Found]:
    """Return (key path, what, expected, nearest) for everything that breaks a rule."""
    found = [p for i, m in enumerate(spec.sunspec) for p in _model_problem(("sunspec", i), m)]
    for model, curve in spec.curves.items():
        found += _broken(device_rules.CURVE, CurveFacts(model, curve), ("curves", str(model)))
    placed: list[PointFacts] = []
    for name, point in spec.points.items():
        facts = PointFacts(spec, name, point)
        wrong = _staged(
            (point_rules.WHERE, point_rules.TYPE, point_rules.PLACE), facts, ("points", name)
        )
        if not wrong:
            placed.append(facts)
            stages = (point_rules.ACCESS, point_rules.SET_POINT if point.writable else ())
            wrong = _staged(stages, facts, ("points", name))
        found += wrong
    found += _broken(device_rules.DEVICE, DeviceFacts(spec, placed), ())
    for pair in _sharing(placed):
        found += _broken(device_rules.PAIR, pair, ("points", pair.second.name))
    names = {facts.name for facts in placed}
    for use in uses_of(spec):
        found += _use_problems(use, names)
    return found + list(_missing_files(spec))


def rule_hints(spec: DeviceSpec) -> list[Found]:
    """Return what can work but is often a slip; `spec` has no problems."""
    found: list[Found] = []
    for name, point in spec.points.items():
        found += _broken(device_rules.HINTS, PointFacts(spec, name, point), ("points", name))
    for name in sorted(unused_points(spec), key=list(spec.points).index):
        text = "nothing in this file writes the point"
        found.append(
            (("points", name), text, "its name in enable, reversion or heartbeat_point", "")
        )
    return found


def _broken(rules: Iterable[Rule], facts: Any, at: KeyPath) -> Iterator[Found]:
    return (rule.found(facts, at) for rule in rules if rule.applies(facts))


def _staged(stages: Iterable[Sequence[Rule]], facts: Any, at: KeyPath) -> list[Found]:
    """Return what breaks the rules of the first stage that something breaks."""
    return next((found for rules in stages if (found := list(_broken(rules, facts, at)))), [])


def _sharing(points: Sequence[PointFacts]) -> Iterator[Pair]:
    """Return the pairs of points that share registers."""
    seen: dict[str, list[PointFacts]] = {}
    for point in points:
        where, start, end = point.span
        for other in seen.get(where, []):
            if start < other.span[2] and other.span[1] < end:
                yield Pair(other, point)
        seen.setdefault(where, []).append(point)


def _use_problems(use: Use, placed: set[str]) -> Iterator[Found]:
    if use.other is None:
        what, near = f"there is no point '{use.target}'", nearest_name(use.target, use.spec.points)
        yield use.key, what, "a name under points", near or ""
    elif use.target in placed and (use.by is None or use.by.name in placed):
        for rule in device_rules.USED:
            if rule.applies(use):
                at = use.value_key if rule.key == "value" else use.key
                yield rule._replace(key="").found(use, at)


def _model_problem(key: KeyPath, model: int) -> list[Found]:
    known = sunspec_models.model_ids()
    if model in known:
        return []
    near = nearest_name(str(model), map(str, known)) or ""
    return [(key, f"there is no SunSpec model {model}", "a model of pysunspec2", near)]


def _missing_files(spec: DeviceSpec) -> Iterator[Found]:
    if spec.connection.tls is not None:
        for key in ("ca", "cert", "key"):
            path = getattr(spec.connection.tls, key)
            if not path.is_file():
                yield ("connection", "tls", key), f"no such file: {path}", "", ""
