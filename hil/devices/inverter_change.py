"""A change of an inverter's settings: what becomes of which setting, and what the standard allows.

The ranges of adjustability are those of IEEE Std 1547-2018, normal category B, abnormal category
II: table 8 (volt-var), table 10 (volt-watt), table 12 (voltage trip), table 18 (frequency trip);
of the power factor, what the reactive capability of table 7 holds at rated power. Voltages are per
unit of the nominal voltage and, of the volt-var curve, relative to its reference voltage.
doi:10.1109/IEEESTD.2018.8332112
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from grid_models.base.sections import Section

Points = Annotated[list[float], Field(min_length=2, max_length=8)]
Percent = Annotated[float, Field(ge=-100.0, le=100.0)]
Percents = Annotated[list[Percent], Field(min_length=2, max_length=8)]
TripName = Literal[
    "over_voltage_2", "over_voltage_1", "under_voltage_2", "under_voltage_1",
    "over_frequency_2", "over_frequency_1", "under_frequency_2", "under_frequency_1",
]  # fmt: skip

Range = tuple[float, float]
Q_CAPABILITY_PCT = 44.0
LEAST_POWER_FACTOR = math.sqrt(1.0 - (Q_CAPABILITY_PCT / 100.0) ** 2)
V_REF_RANGE: Range = (0.95, 1.05)
V_REF_AUTO_S: Range = (300.0, 5000.0)
VOLT_VAR_RESPONSE_S: Range = (1.0, 90.0)
VOLT_WATT_RESPONSE_S: Range = (0.5, 60.0)
#: Limit (pu, Hz) and clearing time (s) of each trip.
TRIP_RANGES: dict[str, tuple[Range, Range]] = {
    "over_voltage_2": ((1.20, 1.20), (0.16, 0.16)),
    "over_voltage_1": ((1.10, 1.20), (1.0, 13.0)),
    "under_voltage_2": ((0.0, 0.50), (0.16, 2.0)),
    "under_voltage_1": ((0.0, 0.88), (2.0, 21.0)),
    "over_frequency_2": ((61.8, 66.0), (0.16, 1000.0)),
    "over_frequency_1": ((61.0, 66.0), (180.0, 1000.0)),
    "under_frequency_2": ((50.0, 57.0), (0.16, 1000.0)),
    "under_frequency_1": ((50.0, 59.0), (180.0, 1000.0)),
}
_ROUNDING = 1e-9


class CurveChange(Section):
    """A curve of voltage: its points and its open-loop response time (to 90 % of a step)."""

    v_pu: Points | None = Field(None, description="Voltages of the points, rising.")
    response_s: Annotated[float, Field(ge=0.0, le=1000.0)] | None = Field(
        None, description="Open-loop response time."
    )

    def points(self) -> tuple[list[float], list[float]] | None:
        """Return voltages (pu) and values (%); None where the points stay."""
        values: list[float] | None = getattr(self, self._values)
        return None if self.v_pu is None or values is None else (self.v_pu, values)

    @property
    def _values(self) -> str:
        return "q_pct" if isinstance(self, VoltVarChange) else "p_pct"

    @model_validator(mode="after")
    def _whole(self) -> CurveChange:
        values = getattr(self, self._values)
        if (self.v_pu is None) != (values is None):
            raise ValueError(f"v_pu and {self._values} together")
        if self.v_pu is not None:
            if len(self.v_pu) != len(values):
                raise ValueError(f"as many values of v_pu as of {self._values}")
            if any(b <= a for a, b in pairwise(self.v_pu)) or self.v_pu[0] <= 0.0:
                raise ValueError("rising values of v_pu above 0")
        return self


class VoltVarChange(CurveChange):
    """The volt-var function; it is switched on."""

    q_pct: Percents | None = Field(
        None, description="Reactive power of the points, % of the rated kVA; above 0 is injected."
    )
    v_ref_pu: Annotated[float, Field(gt=0.5, lt=1.5)] | None = Field(
        None, description="Reference voltage; the curve moves with it."
    )
    v_ref_auto_s: Annotated[float, Field(gt=0.0, le=1e5)] | None = Field(
        None,
        description="The reference follows the terminal voltage with this time constant (from 0.95 "
        "to 1.05 pu).",
    )

    def beyond(self) -> Iterator[str]:
        """Yield what the standard does not allow."""
        yield from _outside("volt_var.v_ref_pu", self.v_ref_pu, V_REF_RANGE)
        yield from _outside("volt_var.v_ref_auto_s", self.v_ref_auto_s, V_REF_AUTO_S)
        yield from _outside("volt_var.response_s", self.response_s, VOLT_VAR_RESPONSE_S)
        points = self.points()
        if points is None:
            return
        if len(points[0]) != 4:
            yield f"volt_var has {len(points[0])} points (the standard has 4)"
            return
        (v1, v2, v3, v4), (q1, q2, q3, q4) = points
        yield from _outside("volt_var.v_pu[1]", v2, (0.97, 1.0))
        yield from _outside("volt_var.v_pu[2]", v3, (1.0, 1.03))
        yield from _outside("volt_var.v_pu[0]", v1, (0.82, v2 - 0.02))
        yield from _outside("volt_var.v_pu[3]", v4, (v3 + 0.02, 1.18))
        yield from _outside("volt_var.q_pct[0]", q1, (0.0, Q_CAPABILITY_PCT))
        for i, q in ((1, q2), (2, q3)):
            yield from _outside(f"volt_var.q_pct[{i}]", q, (-Q_CAPABILITY_PCT, Q_CAPABILITY_PCT))
        yield from _outside("volt_var.q_pct[3]", q4, (-Q_CAPABILITY_PCT, 0.0))


class VoltWattChange(CurveChange):
    """The volt-watt function; it is switched on."""

    p_pct: Percents | None = Field(
        None, description="Active power of the points, % of the rated power."
    )

    def beyond(self) -> Iterator[str]:
        """Yield what the standard does not allow."""
        yield from _outside("volt_watt.response_s", self.response_s, VOLT_WATT_RESPONSE_S)
        points = self.points()
        if points is None:
            return
        if len(points[0]) != 2:
            yield f"volt_watt has {len(points[0])} points (the standard has 2)"
            return
        (v1, v2), (p1, p2) = points
        yield from _outside("volt_watt.v_pu[0]", v1, (1.05, 1.09))
        yield from _outside("volt_watt.v_pu[1]", v2, (v1 + 0.01, 1.10))
        yield from _outside("volt_watt.p_pct[0]", p1, (100.0, 100.0))
        yield from _outside("volt_watt.p_pct[1]", p2, (0.0, 100.0))


class TripChange(Section):
    """One trip limit and its clearing time."""

    limit: Annotated[float, Field(ge=0.0, le=100.0)] | None = Field(
        None, description="Voltage in pu, or frequency in Hz."
    )
    clear_s: Annotated[float, Field(ge=0.0, le=1000.0)] | None = Field(
        None, description="Clearing time."
    )


class InverterChange(Section):
    """What becomes of an inverter's settings; what is not named stays."""

    volt_var: VoltVarChange | None = Field(None, description="Volt-var curve, switched on.")
    volt_watt: VoltWattChange | None = Field(None, description="Volt-watt curve, switched on.")
    power_factor: Annotated[float, Field(ge=-1.0, le=1.0)] | None = Field(
        None,
        description="Constant power factor, switched on, before volt-var; below 0 it absorbs "
        "reactive power.",
    )
    trips: dict[TripName, TripChange] = Field(
        {}, description="Trip limits; number 2 is the outer one."
    )
    beyond_standard: bool = Field(
        False, description="Whether settings may be outside what IEEE 1547-2018 allows."
    )

    @model_validator(mode="after")
    def _allowed(self) -> InverterChange:
        if self.power_factor is not None and abs(self.power_factor) < 0.01:
            raise ValueError("a power_factor of 0.01 to 1, or of -1 to -0.01")
        if not (self.volt_var or self.volt_watt or self.power_factor or self.trips):
            raise ValueError("at least one of volt_var, volt_watt, power_factor, trips")
        if self.volt_var and self.power_factor:
            raise ValueError("one of volt_var and power_factor, which goes before the curve")
        if not self.beyond_standard and (problems := list(self.beyond())):
            raise ValueError(
                f"settings that IEEE 1547-2018 allows, or beyond_standard: true; outside are "
                f"{'; '.join(problems)}"
            )
        return self

    def beyond(self) -> Iterator[str]:
        """Yield which settings the standard does not allow."""
        for curve in (self.volt_var, self.volt_watt):
            if curve is not None:
                yield from curve.beyond()
        if self.power_factor is not None:
            yield from _outside(
                "size of power_factor", abs(self.power_factor), (LEAST_POWER_FACTOR, 1.0)
            )
        for name, trip in self.trips.items():
            limits, times = TRIP_RANGES[name]
            yield from _outside(f"trips.{name}.limit", trip.limit, limits)
            yield from _outside(f"trips.{name}.clear_s", trip.clear_s, times)


def _outside(what: str, value: float | None, allowed: Range) -> Iterator[str]:
    low, high = allowed
    if value is not None and not low - _ROUNDING <= value <= high + _ROUNDING:
        yield f"{what} = {value:g} (allowed: {low:.4g} to {high:.4g})"
