"""The sections of a scenario file but those of its federates, which are in `kinds`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema, field_validator, model_validator

from grid_models.base.sections import (
    DAY_S,
    Amount,
    Delay,
    Deviation,
    Duration,
    Period,
    Probability,
    Section,
    Seed,
    StepPeriod,
)
from grid_models.ders.rules import DerRule

# `DerRule` checks a rule and owns its fields; its schema is generated from there.
DerRuleTable = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(DerRule).json_schema())]


class ProfileSection(Section):
    """The day: irradiance, temperature, load and price over time."""

    path: str | None = Field(None, description="The user's own CSV or Parquet table.")
    kind: Literal["clear", "cloudy", "overcast", "master"] = Field(
        "clear",
        description="Generated sky; or ``master``: the load shapes and the solution mode of the "
        "user's OpenDSS file.",
    )
    seed: Seed | None = Field(None, description="Seed of the generated day; default: the run's.")
    repeat: bool = Field(False, description="Repeat the table when the run is longer.")
    latitude_deg: float | None = Field(
        None, ge=-90, le=90, description="Of the generated day's sun. Default: 37.77."
    )
    day_of_year: int | None = Field(
        None, ge=1, le=366, description="Of the generated day's sun. Default: 172, midsummer."
    )
    temp_mean_c: float | None = Field(
        None, ge=-40, le=50, description="Mean of the generated outdoor temperature. Default: 22."
    )
    temp_amplitude_k: float | None = Field(
        None,
        ge=0,
        le=30,
        description="Half the daily range of the generated temperature under a clear sky; it is "
        "highest at 15 h. Default: 7.",
    )

    @property
    def generated(self) -> dict[str, Any]:
        """What is given of the generated day."""
        names = ("latitude_deg", "day_of_year", "temp_mean_c", "temp_amplitude_k")
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    @model_validator(mode="after")
    def _used(self) -> ProfileSection:
        if self.path is not None and self.generated:
            names = ", ".join(self.generated)
            raise ValueError(f"no {names} beside path: the user's own table has its own weather")
        return self


class GridForming(Section):
    """An island's grid-forming unit: it stands where the source is, and sets the voltage there.

    Its active power is within its limits in every step. Above `p_max_kw` load is shed within the
    step, as by an ideal under-frequency relay: flexible load first, then critical load, each in
    equal shares. Below `p_min_kw` generation is curtailed.
    """

    p_max_kw: float = Field(gt=0, description="Largest active power.")
    p_min_kw: float = Field(0.0, description="Least active power; negative where it can absorb.")
    critical_load_pu: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of a flexible load's demand that is critical. Besides, all that a "
        "set-point could not take away is critical (`p_max_kw` of a flexible load), and the "
        "feeder's own loads are.",
    )

    @model_validator(mode="after")
    def _range(self) -> GridForming:
        if not self.p_min_kw < self.p_max_kw:
            raise ValueError(f"p_min_kw {self.p_min_kw:g} below p_max_kw {self.p_max_kw:g}")
        return self


class Grid(Section):
    """The feeder, its DERs and its day."""

    model: str = Field(
        "ieee123", description="A shipped feeder's name, or the path of an OpenDSS master file."
    )
    file_ders: Literal["engine", "ours", "none"] = Field(
        "engine",
        description="Who runs the DERs of the user's OpenDSS file: OpenDSS with the file's "
        "controls, Feederate (they become DERs of the grid), or nobody.",
    )
    regulators: Literal["fixed", "auto"] | None = Field(
        None,
        description="Regulator taps stay where they are, or their controls act. Default: `auto` "
        "for a user's OpenDSS file, `fixed` for a shipped feeder.",
    )
    tolerance_pu: float | None = Field(
        None,
        gt=0,
        le=1e-3,
        description="Largest change between two iterations of a solution. Default: 1e-7 for a "
        "user's OpenDSS file, so that import, DERs, loads and losses agree to 1e-6; 1e-6 for a "
        "shipped feeder and for a file that runs its own load shapes.",
    )
    taps: dict[str, int] = Field(
        {},
        description="Tap steps (of 0.00625 pu) by regulator name. They belong to the model: "
        "``--set grid.model=...`` leaves them out.",
    )
    source_v_pu: float | None = Field(None, gt=0.5, lt=1.5, description="Voltage of the source.")
    ratings: str | None = Field(
        None,
        description="Normal currents of lines, in place of the feeder's own: a CSV table with the "
        "columns `line` (name or glob) and `normal_a`, or `ieee123-assumed`. They belong to the "
        "model, as `taps`.",
    )
    grid_forming: GridForming | None = Field(
        None,
        description="The feeder is an island: its source is a grid-forming unit of limited power. "
        "Without it the source gives what is drawn.",
    )
    load_scale: float = Field(1.0, ge=0, le=100, description="Factor on every load.")
    load_diversity: float = Field(
        0.0, ge=0, le=1, description="Deviation of each load around the common profile."
    )
    ders: list[DerRuleTable] = Field(
        [], description="Rules that place DERs by what stands there, so they fit any feeder."
    )
    der_table: str | None = Field(
        None,
        description="A CSV table of DERs; columns: the fields of grid_models.feeder.model.Der, and "
        "of VehicleUse for vehicles.",
    )
    heat_pumps: Literal["thermostat", "variable_speed"] = Field(
        "thermostat",
        description="What a house does under a set-point: its thermostat runs below it, or its "
        "heat pump runs at it, inside the comfort band.",
    )
    profiles: ProfileSection = ProfileSection()


class RealTime(Section):
    """The wall clock's part in a run; without this section a run is as fast as it can be."""

    factor: float = Field(
        1.0, ge=1e-3, le=1e9, description="Simulated seconds per second of the wall clock."
    )
    overrun: Literal["skip", "catch_up", "abort"] = Field(
        "skip",
        description="When a step comes after its deadline: give up the periods missed, run without "
        "waiting until the schedule is met again, or fail.",
    )


class Time(Section):
    """When the run starts, how long it lasts and how fine it steps."""

    start_s: Duration = Field(0.0, description="Time of day of the first step, in seconds.")
    duration_s: Period = Field(86400.0, description="Simulated time.")
    step_s: StepPeriod = Field(60.0, description="Period of the feeder federate.")
    warm_up_s: Duration | None = Field(
        None,
        description="What the metrics of plants, the maps and the worst instant leave out at the "
        "begin of the run; signals are recorded from the first step. Default: until the slowest "
        "controller has settled, 0 without a controller.",
    )
    step_timeout_s: float = Field(
        20.0,
        gt=0,
        le=DAY_S,
        description="Wall-clock limit of one step of one federate; then it hangs.",
    )
    join_timeout_s: float = Field(
        60.0, gt=0, description="Longest wait for external programs and other hosts to join."
    )
    real_time: RealTime | None = Field(
        None, description="Pace the run by the wall clock; devices on a bench need it."
    )


class VoltageBand(Section):
    """The voltage band against which violations are counted."""

    v_min_pu: float = Field(0.95, ge=0.5, le=1.5)
    v_max_pu: float = Field(1.05, ge=0.5, le=1.5)


class LinkRule(Section):
    """Quality of the links whose ends match; later rules win over earlier ones."""

    source: str = Field("*", description="Glob over the names of sending agents.")
    target: str = Field("*", description="Glob over the names of receiving agents.")
    latency_s: Delay = 0.0
    jitter_s: Delay = Field(0.0, description="Uniform extra delay of up to this.")
    loss: Probability = 0.0
    noise: Deviation = Field(0.0, description="Standard deviation added to every number.")
    bits: int | None = Field(
        None,
        ge=1,
        le=32,
        description="Bits per number: it is sent as one of 2^bits levels, the next lower or the "
        "next higher at random so that its mean stays. Default: all 64.",
    )
    bits_min: Amount | None = Field(
        None,
        description="Lowest level; numbers below are sent as it. Default of both ends: plus and "
        "minus the power of two above the largest number of each message, which is two bytes more.",
    )
    bits_max: Amount | None = Field(None, description="Highest level.")
    privacy_epsilon: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="Every number has Laplace noise of scale privacy_sensitivity / "
        "privacy_epsilon. Each message alone is then epsilon-differentially private; k messages "
        "about the same data are k epsilon. Default: no noise.",
    )
    privacy_sensitivity: Deviation = Field(
        0.0,
        description="Largest change of a message, as sum over its numbers, between two data sets "
        "that must not be told apart.",
    )

    @model_validator(mode="after")
    def _pairs(self) -> LinkRule:
        if (self.bits_min is None) != (self.bits_max is None):
            raise ValueError("both of bits_min and bits_max, or neither")
        if self.bits_min is not None and self.bits_max is not None:
            if self.bits is None:
                raise ValueError("bits beside bits_min and bits_max")
            if not self.bits_min < self.bits_max:
                raise ValueError(f"bits_min {self.bits_min:g} below bits_max {self.bits_max:g}")
        if (self.privacy_epsilon is None) != (self.privacy_sensitivity == 0.0):
            raise ValueError("both of privacy_epsilon and privacy_sensitivity, or neither")
        return self


class Connection(Section):
    """From an output port to an input port, ``federate.port`` each."""

    source: str = Field(description="`federate.port` of an output.")
    target: str = Field(description="`federate.port` of an input.")
    map: dict[str, str] = Field(
        {},
        description="Source label by target label, where their names differ: only these labels "
        "are connected. Default: labels of the same name.",
    )
    scale: float = Field(1.0, description="Factor on every value; -1 turns a load into injection.")
    noise: Deviation = Field(
        0.0, description="Standard deviation of the measurement error, in the port's unit."
    )

    @field_validator("scale")
    @classmethod
    def _plausible(cls, value: float) -> float:
        if not 1e-9 <= abs(value) <= 1e9:
            raise ValueError("a size from 1e-9 to 1e+09, of either sign")
        return value


class Record(Section):
    """What goes into ``signals/``."""

    ports: list[str] = Field(
        ["*"],
        description="Globs over federate.port; each must match. Optional outputs of a feeder need "
        "one that names them (`feeder.i_a`, `*.loading_*`); `*` and `feeder.*` do not.",
    )
    labels: list[str] = Field(["*"], description="Globs over labels; each must match.")
    every: int = Field(1, ge=1, description="Record every n-th step.")


class Defence(Section):
    """A defence: what it adds to the scenario, or changes in it."""

    title: str = ""
    description: str = ""
    patch: dict[str, Any] = Field(
        description="Merged into the scenario: mappings key by key, lists appended, all else "
        "replaced."
    )


def parse_connection(text: str) -> Connection:
    """Read ``"feeder.v_pu -> volt_var.v_pu"``."""
    source, arrow, target = (part.strip() for part in text.partition("->"))
    if not arrow or source.count(".") != 1 or target.count(".") != 1:
        raise ValueError(f"'{text}' is not 'federate.port -> federate.port'")
    return Connection(source=source, target=target)
