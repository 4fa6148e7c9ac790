"""The options of a run, from the command line to the runner. Standard library only."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from federates.scenario.schema import Scenario

Placement = Literal["shared", "thread", "process", "single"]


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
