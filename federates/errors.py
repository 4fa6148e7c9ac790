"""Errors of the federation.

FeederateError (grid_models.base.errors)
|-- ScenarioError         the scenario file cannot be read or breaks the schema      exit code 2
|   |-- WiringError       its connections do not fit together                        exit code 2
|   `-- UnknownNameError    nothing of that name is there; a KeyError, too             exit code 2
|-- OutputError           a step gave what its ports do not allow; becomes a RunError
|-- PartnerError          an external program or another host does not as agreed; becomes a RunError
|-- MessageError          a message of an external program cannot be read; becomes a RunError
|-- DeviceNotGoodError    a device is not good where the scenario demands it; becomes a RunError
|-- NoAnswerError         nothing could be read from a device                         exit code 3
|-- RunError              a federate crashed, hung, died or lost its connection      exit code 3
`-- RunInterruptedError   the user stopped the run; what was recorded is readable    exit code 130
"""

from __future__ import annotations

from pathlib import Path

from grid_models.base.errors import FeederateError


class ScenarioError(FeederateError):
    """The scenario file cannot be read or breaks the schema."""


class WiringError(ScenarioError):
    """Connections do not fit together; `problems` lists every one of them."""

    def __init__(self, problems: list[str], *, where: str | None = None) -> None:
        self.problems = problems
        super().__init__("\n  ".join(problems), where=where)


class UnknownNameError(ScenarioError, KeyError):
    """Nothing of that name is there."""


class OutputError(FeederateError):
    """A step gave what its ports do not allow."""

    def __init__(self, port: str, found: str, expected: str, time_s: float) -> None:
        super().__init__(
            f"its step at time_s={time_s:g} gave {found}",
            where=f"output port '{port}'",
            expected=expected,
        )


class MessageError(FeederateError):
    """A message of an external program cannot be read, or a port of messages is declared wrong."""


class PartnerError(FeederateError):
    """An external program, or another host, does not do what the scenario says of it."""

    def __init__(
        self, what: str, *, federate: str, expected: str | None = None, nearest: str | None = None
    ) -> None:
        super().__init__(what, expected=expected, nearest=nearest)
        self.federate = federate


class DeviceNotGoodError(FeederateError):
    """A device is not good, and the scenario says that the run then ends."""


class NoAnswerError(FeederateError):
    """Nothing could be read from a device."""


class RunError(FeederateError):
    """A run ended before its time; `federate` is the one that failed first."""

    def __init__(self, what: str, *, federate: str, run_dir: Path | None = None) -> None:
        super().__init__(what, where=f"federate '{federate}'")
        self.federate = federate
        self.run_dir = run_dir


class RunInterruptedError(FeederateError):
    """The user stopped the run."""
