"""What was not made safe, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec

Unsafe = Sequence[tuple[str, str, float]]
"""Device, point, and the value it last stood at, nan where that is not known."""


def unsafe_text(unsafe: Unsafe, specs: Iterable[DeviceSpec]) -> str:
    """Return a sentence with device, point and value; '' where everything is safe."""
    points = {spec.name: spec.points for spec in specs}
    parts = []
    for device in dict.fromkeys(name for name, _, _ in unsafe):
        of_device = [(p, v) for name, p, v in unsafe if name == device]
        parts += [f"{device}.{p} {_standing(points[device][p], v)}" for p, v in of_device]
    return "not safe: " + "; ".join(parts) if parts else ""


def _standing(point: PointSpec, value: float) -> str:
    unit = f" {point.unit}" if point.unit else ""
    at = f"last stood at {value:.10g}{unit}" if math.isfinite(value) else "was not confirmed"
    if point.release or point.safe_value is None:
        return f"{at}, control should be handed back"
    return f"{at}, should be {point.safe_value:.10g}{unit}"
