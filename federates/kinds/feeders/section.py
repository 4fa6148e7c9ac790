"""Keys of a federate of many feeders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from federates.kinds.feeder.section import FeederSection
from grid_models.base.sections import Section


class FeederGroup(Section):
    """Feeders whose regulators stand elsewhere, or that are larger or smaller than the others."""

    count: int = Field(ge=1, description="Feeders of the group.")
    taps: dict[str, Annotated[int, Field(ge=-16, le=16)]] = Field(
        {}, description="Tap steps by regulator name; those not named are as in the first feeder."
    )
    load_scale: float = Field(1.0, ge=0, le=100, description="Factor on their loads.")
    der_scale: float = Field(1.0, ge=0, le=100, description="Factor on their DERs.")


class FeedersSection(FeederSection):
    """Many feeders alike: the first in OpenDSS, all further ones solved at once in arrays."""

    kind: Literal["feeders"]  # type: ignore[assignment]  # the keys of a feeder, and more
    count: int = Field(
        ge=1, le=100_000, description="Feeders, the first (`f1`) among them, which is in OpenDSS."
    )
    spread_pu: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Deviation of the demand from feeder to feeder: of the logarithm of the factor "
        "on all loads of a feeder, which has the mean 1. The first feeder's is 1.",
    )
    der_spread_pu: float = Field(0.0, ge=0, le=1, description="Likewise of its DERs.")
    groups: list[FeederGroup] = Field(
        [], description="Feeders that differ; they are the last ones, in this order."
    )
    sample: Annotated[int, Field(ge=0)] | list[str] = Field(
        0,
        description="Feeders whose node voltages are published: so many, evenly over all, or their "
        "labels (`f17`).",
    )
    referee: int = Field(
        0,
        ge=0,
        description="So many of the further feeders are also solved by OpenDSS, at 20 steps spread "
        "over the run.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=64,
        description="Blocks of feeders that are solved at a time; the results are the same bits.",
    )
