"""The section of a scenario file for environments: what an agent sees, what it is paid, how long.

`feederate.env` and `feederate.vector_env` read it; a run does not use it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from grid_models.base.sections import Deviation, Period, Probability, Section


def _ordered(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError("the lower number first")
    return value


Range = Annotated[
    list[Annotated[float, Field(ge=0, le=1e4)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ordered),
]


class ForgedVoltages(Section):
    """An attack on what agents see: some of them read their own voltage with an error.

    Which ones is drawn for each episode. The grid itself is not changed.
    """

    share: Probability = Field(description="Share of the inverters, rounded to whole ones.")
    bias_pu: float = Field(ge=-1, le=1, description="Added to the voltage that they read.")


class Environment(Section):
    """What an episode of `feederate.env`, `vector_env` and `parallel_env` is.

    Ranges are a lowest and a highest value; each episode draws from them evenly.
    """

    reward: str = Field(
        "voltage-losses", description="A shipped name, or module:Class of your own."
    )
    reward_options: dict[str, Any] = Field({}, description="Options of the reward.")
    observation: Literal["local", "joint"] = Field(
        "local",
        description="What all inverters measure at their own terminals; or `joint`: also the "
        "voltages of all nodes.",
    )
    episode_s: Period | None = Field(
        None, description="Length of an episode. Default: until the end of the run."
    )
    start_h: Range | None = Field(
        None, description="Hour of day of an episode's first step. Default: the run's first step."
    )
    load_scale: Range = Field(
        [1.0, 1.0], description="Factor on every load, beside `grid.load_scale`."
    )
    load_diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Standard deviation of the logarithm of a factor on each load, of mean 1, "
        "drawn once for an episode; beside `grid.load_diversity`.",
    )
    source_v_pu: Range | None = Field(
        None, description="Voltage of the source. Default: that of the grid."
    )
    voltage_noise_pu: Deviation = Field(
        0.0, description="Standard deviation of the error of every measured voltage."
    )
    forged: ForgedVoltages | None = Field(
        None, description="Some inverters read their own voltage with an error. Default: none."
    )
    failure_penalty: float = Field(
        1000.0,
        ge=0,
        le=1e9,
        description="What the reward is, negative, where a power flow does not converge; the "
        "episode then ends.",
    )
    mail_width: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Of `feederate.parallel_env`: numbers in a message to each neighbour. Default: "
        "1 where the scenario has `links`, else 0.",
    )
