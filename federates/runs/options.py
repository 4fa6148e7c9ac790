"""The options of a run, from the command line to the runner."""

from __future__ import annotations

import operator
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from federates.errors import ScenarioError
from grid_models.base.errors import nearest_name

if TYPE_CHECKING:
    from federates.scenario.schema import Scenario

Placement = Literal["shared", "thread", "process", "single"]


def path_text(value: object, where: str) -> str:
    """Return a path as text.

    Raises ScenarioError: It is neither text nor a path.
    """
    if isinstance(value, (str, os.PathLike)) and isinstance(text := os.fspath(value), str):
        return text
    raise ScenarioError(f"is a {type(value).__name__}", where=where, expected="a str or a Path")


def several(values: object, where: str) -> tuple[Any, ...]:
    """Return the names or paths of a list, or the only one.

    Raises ScenarioError: It is neither.
    """
    if isinstance(values, (str, os.PathLike)):
        return (values,)
    if isinstance(values, Iterable):
        return tuple(values)
    raise ScenarioError(f"is a {type(values).__name__}", where=where, expected="a list of names")


@dataclass(frozen=True)
class RunOptions:
    """The options of one run.

    Attributes
    ----------
    scenario : Path of a scenario, or the name of a shipped one.
    overrides : ``key=value`` changes of the scenario.
    seed : Default: the scenario's seed.
    attack : Attack file or shipped attack in place of the scenario's; '' for no attack.
    defence : Name of a defence of the scenario.
    steps : Stop after this many feeder steps.
    placement : All federates in one loop behind one HELICS federate ('shared', the default), as
        threads or processes with a HELICS federate each, or in one thread without HELICS
        ('single'). The recorded signals are equal to the last byte.
    out : Folder of the run; must be new or empty. Default ``runs/NAME-TIME``.
    join, listen : URL of a broker on another host, or at which this host runs the broker.
    only : Federates (or groups) to run on this host. Default: all.
    armed : Devices that may be commanded, besides those that the run emulates itself.
    pcap : Capture the Modbus traffic of each device to ``pcap/NAME.pcapng`` in the run's folder.
    live : Address of the live page, ``PORT``, ``HOST:PORT`` or ``auto``; None for no page.
    report : Write ``report.html`` at the end.
    record : Write signals, labels and the tables of the grid; else the folder holds manifest,
        summary, events and logs.

    Raises ScenarioError: Steps or placement that no run can have.
    """

    scenario: str = ""
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    attack: str | None = None
    defence: str | None = None
    steps: int | None = None
    placement: Placement | None = None
    out: Path | None = None
    join: str | None = None
    listen: str | None = None
    only: tuple[str, ...] | None = None
    armed: tuple[str, ...] = ()
    pcap: bool = False
    live: str | None = None
    report: bool = True
    record: bool = True

    def __post_init__(self) -> None:
        known = get_args(Placement)
        if self.placement is not None and self.placement not in known:
            raise ScenarioError(
                f"found {self.placement!r:.60}",
                where="placement",
                expected=f"one of {', '.join(known)}",
                nearest=nearest_name(str(self.placement), known),
            )
        if self.steps is not None:
            try:
                steps = operator.index(self.steps)  # a number of NumPy, too
            except TypeError:
                steps = 0
            if steps < 1:
                raise ScenarioError(
                    f"found {self.steps!r:.60}", where="steps", expected="a whole number from 1"
                )
            object.__setattr__(self, "steps", steps)

    @property
    def spans_hosts(self) -> bool:
        """Whether only a part of the federation runs on this host."""
        return not (self.join is None and self.listen is None and self.only is None)

    def load(self) -> Scenario:
        """Read the scenario, with the overrides, seed, attack and defence of these options."""
        from federates.scenario.schema import load_scenario

        return load_scenario(
            self.scenario,
            self.overrides,
            seed=self.seed,
            attack=self.attack,
            defence=self.defence,
        )

    def words(self) -> list[str]:
        """Return the command-line words of the options, without scenario and folder."""
        words = [word for override in self.overrides for word in ("--set", override)]
        for name in ("attack", "defence", "seed", "steps", "join", "listen"):
            value = getattr(self, name)
            if value is not None:
                words += [f"--{name}", str(value)]
        if self.only is not None:
            words += ["--only", ",".join(self.only)]
        words += [word for name in self.armed for word in ("--arm", name)]
        words += ["--pcap"] if self.pcap else []
        if self.placement not in (None, "shared"):
            words += ["--placement", str(self.placement)]
        return words

    def command(self) -> str:
        """Return the command line that repeats this run."""
        return shlex.join(["feederate", "run", self.scenario, *self.words()])
