"""The actions of an attack's steps, layer by layer: what each may say.

They are part of the attack schema (`federates.scenario.attack_schema`), and written as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from grid_models.base.sections import Deviation, Duration, Period, Probability, Section


class Window(Section):
    """A window of the past that is played again."""

    from_s: Duration
    to_s: Duration

    @model_validator(mode="after")
    def _forward(self) -> Window:
        if not self.from_s < self.to_s:
            raise ValueError("to_s after from_s")
        return self


class Bias(Section):
    """Adds a constant."""

    kind: Literal["bias"]
    value: float


class Scale(Section):
    """Multiplies."""

    kind: Literal["scale"]
    factor: float


class Set(Section):
    """Replaces by a constant."""

    kind: Literal["set"]
    value: float


class Ramp(Section):
    """Adds what grows with the time since the step began."""

    kind: Literal["ramp"]
    rate_per_s: float
    limit: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest size of what is added."
    )


class Freeze(Section):
    """Holds the last value before the step."""

    kind: Literal["freeze"]


class Noise(Section):
    """Adds normal noise."""

    kind: Literal["noise"]
    sigma: Deviation


class Drop(Section):
    """Signals: the reader keeps what it last got. Mail and frames: never delivered."""

    kind: Literal["drop"]


class Delay(Section):
    """Delivers late."""

    kind: Literal["delay"]
    delay_s: Period


class Replay(Section):
    """Plays a window of the past, or of a file, again and again.

    A file is a long table (CSV or Parquet) with the columns time_s (or time), port, label, value.
    """

    kind: Literal["replay"]
    window: Window | None = None
    file: str | None = Field(None, description="Path; relative means beside the attack file.")
    offset_s: float = Field(0.0, description="File: added to its times; 0 is the step's begin.")
    speed: Annotated[float, Field(gt=0)] = Field(1.0, description="File: its seconds per ours.")

    @model_validator(mode="after")
    def _one_source(self) -> Replay:
        if (self.window is None) == (self.file is None):
            raise ValueError("exactly one of window, file")
        return self


class Swap(Section):
    """Exchanges values in pairs: the first target with the last, and so on; sums stay."""

    kind: Literal["swap"]


class Adaptive(Section):
    """Asks an attacker at every step what it does.

    Signal layer: what the targets shall be. Physical layer: the demand it adds to loads and houses.
    """

    kind: Literal["adaptive"]
    attacker: str = Field(description="Name of a shipped attacker, or module:Class.")
    sees: list[str] = Field([], description="federate.port globs that the attacker reads, too.")
    options: dict[str, Any] = Field({})


class Jam(Section):
    """Noise on the channel: messages are lost at random, those that pass come late."""

    kind: Literal["jam"]
    loss: Probability = 0.5
    delay_s: Duration = Field(0.0, description="Largest extra delay, uniform.")


class Tamper(Section):
    """Changes the numbers in messages: ``factor * x + bias``, or `value` in their place."""

    kind: Literal["tamper"]
    bias: float = 0.0
    factor: float = 1.0
    value: float | None = None
    sigma: Deviation = 0.0


class ReplayMail(Section):
    """Puts the numbers of a message `lag_s` ago into each message."""

    kind: Literal["replay"]
    lag_s: Period


class Impersonate(Section):
    """Writes in a sender's name: the numbers of another agent's messages, or a constant."""

    kind: Literal["impersonate"]
    agent: str | None = Field(None, description="Agent whose numbers are sent in its place.")
    value: float | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Impersonate:
        if (self.agent is None) == (self.value is None):
            raise ValueError("exactly one of agent, value")
        return self


class Partition(Section):
    """Cuts the targeted agents off from all others; among themselves they still talk."""

    kind: Literal["partition"]


class Rewrite(Section):
    """Rewrites a point's registers on the wire, in what is read or in what is written."""

    kind: Literal["rewrite"]
    point: str = Field(description="Point of the device file.")
    direction: Literal["read", "write"] = "read"
    value: float | None = Field(None, description="In engineering units, in place of the true one.")
    factor: float = 1.0
    bias: float = 0.0
    hide: bool = Field(
        False,
        description="Writes: whoever reads the point meanwhile is shown what was asked for, so "
        "that reading back finds nothing.",
    )

    @model_validator(mode="after")
    def _hides_writes(self) -> Rewrite:
        if self.hide and self.direction == "read":
            raise ValueError("hide belongs to direction: write")
        return self


class WritePoint(Section):
    """Writes a point itself when the step begins; the adapter's own writes still come after it."""

    kind: Literal["write"]
    point: str = Field(description="Point of the device file.")
    value: float = Field(description="In engineering units.")


class ForgeException(Section):
    """Answers requests with a Modbus exception."""

    kind: Literal["exception"]
    code: Annotated[int, Field(ge=1, le=255)] = 4


class Flood(Section):
    """Sends further requests to the device."""

    kind: Literal["flood"]
    requests_per_s: Annotated[float, Field(gt=0, le=10_000)] = 100.0


class Trip(Section):
    """Disconnects a DER or a load, or opens a line or a switch."""

    kind: Literal["trip"]


class CloseElement(Section):
    """Closes a switch or a line that is open."""

    kind: Literal["close"]


class AlterLoad(Section):
    """Switches demand on: of loads, and of the HVAC of houses.

    `kw` is shared by the targets in proportion to their nominal power; `factor` multiplies it.
    """

    kind: Literal["load"]
    kw: float | None = Field(None, description="Extra demand of all targets together.")
    factor: Annotated[float, Field(ge=0)] | None = Field(None, description="Times the demand.")
    on_s: Period | None = Field(None, description="On and off in turn: time on.")
    off_s: Period | None = Field(None, description="On and off in turn: time off.")
    synchrony: Probability = Field(
        1.0, description="1: all targets switch at once; 0: spread over a whole on-off cycle."
    )

    @model_validator(mode="after")
    def _one_size(self) -> AlterLoad:
        if (self.kw is None) == (self.factor is None):
            raise ValueError("exactly one of kw, factor")
        if (self.on_s is None) != (self.off_s is None):
            raise ValueError("on_s and off_s together")
        return self


class Thermostat(Section):
    """Moves the set-point of the thermostats of houses."""

    kind: Literal["thermostat"]
    offset_k: float


SignalAction = Bias | Scale | Set | Ramp | Freeze | Noise | Drop | Delay | Replay | Swap | Adaptive
LinkAction = Drop | Delay | Jam | Tamper | ReplayMail | Impersonate | Partition
ModbusAction = Rewrite | WritePoint | ForgeException | Delay | Drop | Flood
PhysicalAction = Trip | CloseElement | AlterLoad | Thermostat | Adaptive
