"""What the rules of device files ask of one point."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hil.devices import sunspec_models
from hil.devices.codec import encode
from hil.devices.errors import DeviceError
from hil.devices.places import TYPE_WORDS, Place, place_of, raw_range, sentinel_of
from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec

_DEFAULTS = {
    key: field.get_default(call_default_factory=True)
    for key, field in PointSpec.model_fields.items()
}


@dataclass(frozen=True)
class Wrong:
    """An error in words; '' where there is nothing to say."""

    what: str
    expected: str = ""
    nearest: str = ""

    @classmethod
    def of(cls, error: DeviceError) -> Wrong:
        """Return the words of an error."""
        return cls(error.what, error.expected or "", error.nearest or "")


@dataclass(frozen=True)
class PointFacts:
    """One point, with what follows from its keys."""

    spec: DeviceSpec
    name: str
    point: PointSpec

    def given(self, key: str) -> bool:
        """Return True where a key says something."""
        return bool(getattr(self.point, key) != _DEFAULTS[key])

    @cached_property
    def missing(self) -> dict[str, None]:
        """Keys of the place that are not there."""
        if self.point.sunspec is not None:
            return {}
        keys = ("table", "type") if self.point.word_addresses else ("table", "address", "type")
        return {key: None for key in keys if getattr(self.point, key) is None}

    # -- where it is ----------------------------------------------------------------------------

    @cached_property
    def sunspec_wrong(self) -> Wrong | None:
        """What is wrong with the name of a SunSpec point."""
        try:
            if self.point.sunspec is not None:
                sunspec_models.find_point(self.point.sunspec)
        except sunspec_models.UnknownPointError as error:
            return Wrong.of(error)
        return None

    @cached_property
    def sunspec_is_written(self) -> bool:
        """Return True where SunSpec lets it be written; curve 1 of 705 to 712 is read-only."""
        name = str(self.point.sunspec)
        first_curve = re.match(r"7(0[5-9]|1[0-2])(#\d+)?\.Crv\[1\]", name)
        return sunspec_models.find_point(name).get("access") == "RW" and not first_curve

    @cached_property
    def sentinel_wrong(self) -> Wrong | None:
        """What is wrong with `not_implemented`."""
        try:
            if self.point.not_implemented is not None and self.kind != "string":
                sentinel_of(self.kind, self.point.not_implemented, self.point.mask)
        except DeviceError as error:
            return Wrong.of(error)
        return None

    @cached_property
    def kind(self) -> str:
        """Raw type."""
        if self.point.sunspec is not None:
            return sunspec_models.place_in_model(self.point.sunspec).kind
        return str(self.point.type)

    @cached_property
    def is_bit(self) -> bool:
        """Return True for coils and discrete inputs."""
        return self.point.table in ("coil", "discrete")

    @cached_property
    def is_integer(self) -> bool:
        """Return True for binary integers."""
        return "int" in self.kind

    @cached_property
    def is_plain_integer(self) -> bool:
        """Return True for an integer whose value is its raw value."""
        return not self.place.is_float and self.point.scale == 1 and self.point.offset == 0

    @cached_property
    def bits(self) -> int:
        """Bits of the type."""
        return 16 * TYPE_WORDS[self.kind]

    @cached_property
    def words(self) -> int:
        """Registers of the value itself."""
        return self.point.length if self.kind == "string" else TYPE_WORDS[self.kind]

    @cached_property
    def mask_is_run(self) -> bool:
        """Return True where the bits of the mask are adjacent and inside the type."""
        mask = self.point.mask or 1
        run = mask // (mask & -mask) + 1
        return run & (run - 1) == 0 and mask < 1 << self.bits

    @cached_property
    def place(self) -> Place:
        """Where it is; a SunSpec point as if its model began at 0."""
        if self.point.sunspec is not None:
            return sunspec_models.place_in_model(self.point.sunspec, self.point)
        place = place_of(self.point)
        assert place is not None  # the rules of the place come first
        return place

    @cached_property
    def span(self) -> tuple[str, int, int]:
        """Table, first register and the one behind the last; of a SunSpec point its name."""
        if self.point.sunspec is not None:
            return self.point.sunspec, 0, 1
        start = self.place.address
        return (
            self.place.table,
            start,
            start + (self.words if self.kind == "string" else self.place.words),
        )

    @property
    def is_plain(self) -> bool:
        """Return True where the file has the address."""
        return self.point.sunspec is None

    @cached_property
    def wire(self) -> tuple[int, int]:
        """First address on the wire and the one behind the last."""
        base = self.spec.connection.base_address if self.is_plain else 0
        return self.span[1] + base, self.span[2] + base

    @cached_property
    def border(self) -> int | None:
        """The first border inside the point."""
        first, end = self.wire
        inside = (b for b in self.spec.connection.borders if first < b < end and self.is_plain)
        return next(inside, None)

    @cached_property
    def span_words(self) -> int:
        """Registers of one read."""
        return 0 if self.is_bit or self.point.sunspec else self.span[2] - self.span[1]

    @cached_property
    def manual_address(self) -> int | None:
        """Address that a number of the manual's kind (40001, 30001, 10001) stands for.

        None where another point of the table has an address that no such number is.
        """
        table = self.point.table or ""
        first = {"holding": 40001, "input": 30001, "discrete": 10001}.get(table, 65536)
        used = [p.address for p in self.spec.points.values() if p.table == table and p.address]
        like = used and all(first <= address < first + 9999 for address in used)
        plain = self.point.address is not None and not self.spec.has_sunspec
        return self.point.address - first if like and plain and self.point.address else None

    @cached_property
    def gap(self) -> int:
        """Most registers between two neighbouring words of the point."""
        at = sorted(self.point.word_addresses or [0])
        return max((b - a - 1 for a, b in pairwise(at)), default=0)

    # -- its values -----------------------------------------------------------------------------

    @cached_property
    def scale_is_known(self) -> bool:
        """Return True where no other register has a part of the scale."""
        return not isinstance(self.place.sf, str) and self.place.factor_from is None

    @cached_property
    def step(self) -> float:
        """Difference of two neighbouring values; 0 where it is not known."""
        if self.place.is_float or not self.scale_is_known:
            return 0.0
        return abs(self.point.scale) * 10.0 ** int(self.place.sf or 0)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that the registers can hold; infinite where it is not known."""
        if not self.scale_is_known:
            return -math.inf, math.inf
        factor = self.point.scale * 10.0 ** int(self.place.sf or 0)
        ends = [raw * factor + self.point.offset for raw in raw_range(self.kind, self.point.mask)]
        return min(ends), max(ends)

    def holds(self, value: float, low: float = -math.inf, high: float = math.inf) -> bool:
        """Return True where the registers can stand for `value`, within float precision.

        And within the limits `low` and `high`, exactly.
        """
        if not self.scale_is_known:
            return True
        try:
            _, sent = encode(self.place, value, sf=float(self.place.sf or 0), low=low, high=high)
        except DeviceError:
            return False
        digits = 1e-6 if self.kind == "float32" else 1e-9
        return math.isclose(sent, value, rel_tol=digits, abs_tol=digits * max(self.step, 1e-3))

    @cached_property
    def bad_name(self) -> str:
        """The first name of `enum` whose value the registers cannot hold, or that is outside."""
        for name, value in (self.point.enum or {}).items():
            outside = self.limits is not None and not self.limits[0] <= value <= self.limits[1]
            if not self.holds(value) or outside:
                return name
        return ""

    @property
    def bad_value(self) -> int:
        """Its value."""
        return (self.point.enum or {})[self.bad_name]

    # -- what may be written --------------------------------------------------------------------

    @cached_property
    def limits(self) -> tuple[float, float] | None:
        """Lowest and highest value that may be written; None without."""
        return self.point.limits

    @cached_property
    def low(self) -> float:
        """Lowest value that may be written."""
        return self.limits[0] if self.limits else -math.inf

    @cached_property
    def high(self) -> float:
        """Highest value that may be written."""
        return self.limits[1] if self.limits else math.inf

    @cached_property
    def missing_limits(self) -> dict[str, None]:
        """Limits that a set-point lacks."""
        wanted = self.point.access == "rw" and self.limits is None
        return {k: None for k in ("min", "max") if wanted and getattr(self.point, k) is None}

    @cached_property
    def unfit_limits(self) -> dict[str, float]:
        """Limits that the registers cannot hold, not even rounded."""
        low, high = self.ends[0] - self.step / 2, self.ends[1] + self.step / 2
        return {k: v for k, v in self._limits_by_key.items() if not low <= v <= high}

    @cached_property
    def endless_limits(self) -> dict[str, float]:
        """Limits beyond everything that a device can do."""
        return {k: v for k, v in self._limits_by_key.items() if abs(v) > 1e12}

    @property
    def _limits_by_key(self) -> dict[str, float]:
        return dict(zip(("min", "max"), self.limits or (), strict=False))

    @cached_property
    def safe(self) -> float:
        """Value of the safe state; nan without."""
        return math.nan if self.point.safe_value is None else self.point.safe_value

    @cached_property
    def sentinel(self) -> float:
        """Value that would mean "not implemented"; nan without."""
        if self.place.sentinel is None or not self.scale_is_known:
            return math.nan
        return (
            self.place.sentinel * self.point.scale * 10.0 ** int(self.place.sf or 0)
            + self.point.offset
        )

    @cached_property
    def tolerance(self) -> float:
        """Largest difference of a read-back."""
        return self.point.readback.tolerance if self.point.readback else 0.0

    @property
    def is_shown(self) -> bool:
        """Return True where another point shows the value."""
        return bool(self.point.readback and self.point.readback.point)

    @cached_property
    def functions(self) -> tuple[int, ...]:
        """Modbus functions that can write the point."""
        if self.is_bit:
            return 5, 15
        return (6, 16) if self.words == 1 else (16,)

    @property
    def function_names(self) -> str:
        """The same in words."""
        return " or ".join(map(str, self.functions))

    # -- times ----------------------------------------------------------------------------------

    @cached_property
    def poll_s(self) -> float:
        """Poll period."""
        return self.point.poll_s or self.spec.poll_s

    @cached_property
    def heartbeat_s(self) -> float:
        """Heartbeat of the device."""
        return self.spec.guard.heartbeat_s

    @cached_property
    def refresh_s(self) -> float:
        """Time after which a timer in the device is started anew; infinite without one."""
        timer = self.point.reversion
        return math.inf if timer is None else timer.refresh_s or timer.seconds / 2.0

    @cached_property
    def life_s(self) -> float:
        """Time after which a set-point is written again, or ends with its command."""
        times = (self.refresh_s, self.point.rewrite_s or math.inf, self.spec.guard.input_limit_s)
        return min(times)
