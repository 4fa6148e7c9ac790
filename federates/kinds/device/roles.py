"""What a device is to the federation: which port is which point, by the kind of the DER.

A role is a table, so that a device with other points needs a device file and not code: the names
on the right are those of the device files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grid_models.feeder.model import Der

if TYPE_CHECKING:
    from hil.devices.spec import DeviceSpec

RoleName = Literal["inverter", "battery", "thermostat"]
_PER_PORT_UNIT = {"W": 1e-3, "var": 1e-3, "kW": 1.0, "kvar": 1.0}


@dataclass(frozen=True)
class PortPoint:
    """One port and the point behind it: port value = point value * `scale`.

    Attributes
    ----------
    port, unit : Of the federation.
    point : Of the device file.
    scale : With the sign: a thermostat's power is a consumption, the port's an injection.
    per : Rating of the DER that a percentage refers to: port value = point / 100 * rating.
    initial : What is read before the first value. NaN: nothing was asked for, so nothing is sent.
    """

    port: str
    unit: str
    point: str
    scale: float = 1.0
    per: Literal["", "p_max_kw", "kva"] = ""
    initial: float = float("nan")

    def factor(self, der: Der) -> float:
        """Return what a point's value is multiplied by to give the port's."""
        if not self.per:
            return self.scale
        return self.scale * float(getattr(der, self.per)) / 100.0

    def factor_in(self, spec: DeviceSpec | None, der: Der) -> float:
        """Return the factor of a point whose device file may say in which unit it is.

        A set-point in W is no percentage.
        """
        point = None if spec is None else spec.points.get(self.point)
        factor = _PER_PORT_UNIT.get(point.unit) if point is not None else None
        return self.factor(der) if factor is None else math.copysign(factor, self.scale)


@dataclass(frozen=True)
class Role:
    """A kind of device: its set-points, its measurements."""

    name: RoleName
    inputs: tuple[PortPoint, ...]
    outputs: tuple[PortPoint, ...]


ROLES: Mapping[RoleName, Role] = {
    "inverter": Role(
        "inverter",
        inputs=(
            PortPoint("q_set_kvar", "kvar", "var_set_pct", per="kva"),
            PortPoint("p_set_kw", "kW", "w_limit_pct", per="p_max_kw"),
            PortPoint("volt_var_ref_pu", "pu", "volt_var_ref_pct", 0.01),
        ),
        outputs=(PortPoint("p_kw", "kW", "p_w", 1e-3), PortPoint("q_kvar", "kvar", "q_var", 1e-3)),
    ),
    "battery": Role(
        "battery",
        inputs=(PortPoint("p_set_kw", "kW", "w_set_pct", per="p_max_kw"),),
        outputs=(
            PortPoint("p_kw", "kW", "p_w", 1e-3),
            PortPoint("q_kvar", "kvar", "q_var", 1e-3),
            PortPoint("soc_pct", "%", "soc_pct"),
        ),
    ),
    "thermostat": Role(
        "thermostat",
        inputs=(PortPoint("verb", "1", "verb"), PortPoint("cool_set_c", "degC", "cool_set_c")),
        outputs=(
            PortPoint("p_kw", "kW", "total_w", -1e-3),
            PortPoint("temp_c", "degC", "temp_in_c"),
        ),
    ),
}

_KIND_ROLES: Mapping[str, RoleName] = {
    "pv": "inverter",
    "inverter": "inverter",
    "battery": "battery",
    "house": "thermostat",
    "flexible_load": "thermostat",
}


def role_of(ders: Sequence[Der]) -> RoleName | None:
    """Return the role that all DERs have; None where they differ or there is none."""
    roles = {_KIND_ROLES.get(der.kind) for der in ders}
    return roles.pop() if len(roles) == 1 else None
