"""The grid section: a feeder with its DERs and its day."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema

from grid_models.base.sections import Section
from grid_models.ders.rules import DerRule

# `DerRule` checks a rule and owns its fields; its schema is generated from there.
DerRuleTable = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(DerRule).json_schema())]


class Profiles(Section):
    """The day: irradiance, temperature, load and price over time."""

    path: str | None = Field(None, description="The user's own CSV or Parquet table.")
    kind: Literal["clear", "cloudy", "overcast"] = Field("clear", description="Generated sky.")
    seed: int | None = Field(None, description="Seed of the generated day; default: the run's.")
    repeat: bool = Field(False, description="Repeat the table when the run is longer.")


class Grid(Section):
    """The feeder, its DERs and its day."""

    model: str = Field(
        "ieee123", description="A shipped feeder's name, or the path of an OpenDSS master file."
    )
    regulators: Literal["fixed", "auto"] = Field(
        "fixed", description="Regulator taps stay where they are, or their controls act."
    )
    taps: dict[str, int] = Field(
        {},
        description="Tap steps (of 0.00625 pu) by regulator name. They belong to the model: "
        "``--set grid.model=...`` leaves them out.",
    )
    source_v_pu: float | None = Field(None, gt=0.5, lt=1.5, description="Voltage of the source.")
    load_scale: float = Field(1.0, ge=0, description="Factor on every load.")
    load_diversity: float = Field(
        0.0, ge=0, le=1, description="Deviation of each load around the common profile."
    )
    ders: list[DerRuleTable] = Field(
        [], description="Rules that place DERs by what stands there, so they fit any feeder."
    )
    der_table: str | None = Field(
        None,
        description="A CSV table of DERs; columns: the fields of grid_models.feeder.model.Der.",
    )
    profiles: Profiles = Profiles()
