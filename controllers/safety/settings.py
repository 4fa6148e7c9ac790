"""The key `safety` of a controller in a scenario."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from grid_models.base.sections import Section


class SafetySection(Section):
    """Keeps the voltage band by changing the controller's set-points as little as possible."""

    kind: Literal["central", "price"] = Field(
        description="`central`: one programme with all measurements and all set-points, for a "
        "controller in one federate. `price`: each DER's agent watches nodes near it and tells the "
        "DERs that move them a price, by mail."
    )
    margin_pu: float = Field(
        0.003, ge=0.0, lt=0.05, description="Tightens the voltage band at both ends."
    )
    volt_watt: bool = Field(
        False,
        description="Whether the layer limits the active power of PV where reactive power cannot "
        "lower the voltage enough: the output `p_set_kw`, by the input `safety_p_avail_kw`.",
    )
