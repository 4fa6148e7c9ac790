"""Points of a device: what the device file says of one value, and what is known of it now.

A point is one value in a device: registers, type, scale, unit, and for a point that may be written
the limits that its owner declared. Values are always in the point's engineering unit:
``value = raw * scale + offset`` (SunSpec points: ``raw * 10**sf * scale + offset``).
"""

from __future__ import annotations

from enum import IntEnum
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from grid_models.base.schema_errors import problem
from grid_models.base.sections import Section

Table = Literal["coil", "discrete", "input", "holding"]
RawType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float32", "float64", "bcd16", "bcd32", "mod10k_32", "mod10k_48", "mod10k_64", "string",
]  # fmt: skip
Order = Literal["big", "little"]
Access = Literal["r", "rw", "guard"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PollPeriod = Annotated[float, Field(ge=0.02, le=3600, allow_inf_nan=False)]
Span = Annotated[tuple[Finite, Finite], Field(strict=False)]
Value = int | float | str | bool


class Quality(IntEnum):
    """How far a value can be trusted."""

    GOOD = 0
    """Read, checked, and not older than the device file allows."""
    STALE = 1
    """Was good, but the last reads did not come; `Reading.value` is the last good value."""
    BAD = 2
    """Never read, refused, wrongly answered, not implemented, implausible, or far too old."""

    def __str__(self) -> str:
        return self.name.lower()


class Reading(NamedTuple):
    """One value with its quality.

    Parameters
    ----------
    value : Last good value in the point's unit; nan where there never was one.
    age_s : Seconds since the last good value was received; inf where there never was one.
    """

    value: float
    quality: Quality
    age_s: float


def _is_tuple(annotation: Any) -> bool:
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return any(get_origin(option) is tuple for option in options)


class DeviceFileSection(Section):
    """A part of a device file: unknown keys are errors, nothing changes after reading.

    A number in quotes is an error. YAML has lists where pydantic's strict mode wants a tuple.
    """

    model_config = ConfigDict(frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _tuple_of_list(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        is_tuple = field is not None and _is_tuple(field.annotation)
        return tuple(value) if isinstance(value, list) and is_tuple else value


class ReadBack(DeviceFileSection):
    """How a write is verified."""

    point: str | None = Field(None, description="point to read; by default the written one")
    tolerance: Finite = Field(0.0, ge=0, description="largest difference in the point's unit")
    delay_s: Finite = Field(0.0, ge=0, le=60, description="wait before reading, in seconds")


class GuardWrite(DeviceFileSection):
    """A fixed value that the guard writes to a point of access 'guard'."""

    point: str
    value: Finite


class ScaleFrom(DeviceFileSection):
    """A point that holds a part of the scale of another one."""

    point: str = Field(description="point that is read beside this one")
    kind: Literal["exponent", "factor"] = Field(
        "exponent", description="exponent: raw * 10**point; factor: raw * point, in its own unit"
    )


class SignFrom(DeviceFileSection):
    """A point that holds the sign of another one."""

    point: str = Field(description="point that is read beside this one")
    negative: list[int] = Field(min_length=1, description="its raw values that mean minus")


class Reversion(DeviceFileSection):
    """A timer in the device that ends a set-point by itself; written before the set-point."""

    point: str = Field(description="timer point, access 'guard'")
    seconds: Positive = Field(description="value written to the timer, in seconds")
    refresh_s: Finite | None = Field(
        None,
        ge=0.1,
        description="write timer and set-point again after this long; default seconds / 2",
    )
    before: list[GuardWrite] = Field(
        default_factory=list, description="values the device reverts to, written before the timer"
    )


class PointSpec(DeviceFileSection):
    """One point of a device file.

    Either `table`, `address` and `type` say where it is, or `sunspec` names a point of a SunSpec
    model (``704.WMaxLimPct``, ``705.Crv[1].Pt[2].V``; instances and indices count from 1).
    """

    table: Table | None = Field(None, description="Modbus table")
    address: int | None = Field(
        None, ge=0, le=65535, description="zero-based address on the wire (manuals often say +1)"
    )
    type: RawType | None = Field(None, description="type in the registers")
    length: int = Field(1, ge=1, le=125, description="registers of a string")
    word_order: Order = Field("big", description="order of the 16-bit words")
    byte_order: Order = Field("big", description="order of the two bytes in each word")
    word_addresses: list[Annotated[int, Field(ge=0, le=65535)]] | None = Field(
        None, description="in place of address: one per word, where words are not adjacent"
    )
    mask: int | None = Field(
        None,
        ge=1,
        lt=2**64,
        description="bits of an integer that are the value, shifted down; the others are kept",
    )
    sunspec: str | None = Field(None, description="MODEL.POINT of a SunSpec model")
    scale: Finite = Field(1.0, description="value = raw * scale + offset")
    offset: Finite = Field(0.0, description="value = raw * scale + offset")
    scale_from: ScaleFrom | None = Field(None, description="point with a further scale factor")
    sign_from: SignFrom | None = Field(None, description="point with the sign")
    unit: str = Field("", description="unit of the value, after scale and offset")
    description: str = ""
    access: Access = Field(
        "r", description="r: read; rw: may be commanded; guard: only the guard itself writes it"
    )
    enum: dict[str, int] | None = Field(None, description="names of the values")
    write_only: bool = Field(False, description="the device does not let the point be read")
    not_implemented: int | None = Field(
        None, description="raw value, or bit pattern of the type, that means: not there"
    )
    plausible: Span | None = Field(
        None, description="lowest and highest believable reading; outside it the quality is bad"
    )
    poll_s: PollPeriod | None = Field(None, description="poll period; default that of the device")
    min: Finite | None = Field(None, description="lowest value that may be written")
    max: Finite | None = Field(None, description="highest value that may be written")
    max_step: Positive | None = Field(None, description="largest change of one write")
    max_rate: Positive | None = Field(None, description="largest change per second")
    on_limit: Literal["clamp", "refuse"] = Field(
        "clamp", description="what happens to a value outside the limits"
    )
    safe_value: Finite | None = Field(None, description="value in the safe state")
    readback: ReadBack | Literal[False] | None = Field(
        None,
        description="how a write is verified; by default the same registers, exactly; "
        "false: by the echo of the write only",
    )
    reversion: Reversion | None = None
    rewrite_s: Finite | None = Field(
        None,
        ge=0.1,
        description="written again after this long, in seconds, though nothing changed",
    )
    on_change: Literal["rewrite", "hand_over", "fault"] = Field(
        "rewrite", description="what happens when a poll finds another value than was sent"
    )
    before: list[GuardWrite] = Field(
        default_factory=list, description="written before the set-point, e.g. its mode"
    )
    enable: list[GuardWrite] = Field(
        default_factory=list, description="written after the set-point, before the read-back"
    )
    one_request: bool = Field(
        False, description="before, set-point and enable are sent in one request (15 or 16)"
    )
    release: list[GuardWrite] = Field(
        default_factory=list,
        description="written in the safe state in place of safe_value: hands control back",
    )
    write_function: Literal[5, 6, 15, 16] | None = Field(
        None, description="Modbus function; default 6 for one register, 16 for more and SunSpec"
    )

    @field_validator("address", mode="before")
    @classmethod
    def _on_the_wire(cls, value: Any) -> Any:
        if isinstance(value, int) and value > 100_000 and 1 <= value % 100_000 <= 65536:
            wire = f"register {value} of a manual is {value % 100_000 - 1} on the wire"
            raise problem(f"found {value}", f"0 to 65535; {wire}")
        return value

    @field_validator("scale", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise problem(f"found '{value}'", "a number; a point with the scale: scale_from")
        return value

    @property
    def writable(self) -> bool:
        """Return True where a command may change the point."""
        return self.access == "rw"

    @property
    def read_back(self) -> ReadBack | None:
        """Return how a write is verified; None where only its echo says that it arrived."""
        if self.readback is False:
            return None
        read_back = self.readback or ReadBack()
        return None if self.write_only and read_back.point is None else read_back

    @property
    def limits(self) -> tuple[float, float] | None:
        """Lowest and highest value that may be written; None where the file does not say."""
        values = list((self.enum or {}).values())
        low = min(values) if self.min is None and values else self.min
        high = max(values) if self.max is None and values else self.max
        return None if low is None or high is None else (float(low), float(high))

    def function(self, *, bits: bool, words: int) -> int:
        """Return the Modbus function that writes the point: 5, 6, 15 or 16."""
        if bits:
            return 15 if self.write_function == 15 else 5
        one = words == 1 and (self.write_function or (16 if self.sunspec else 6)) == 6
        return 6 if one else 16
