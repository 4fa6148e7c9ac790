"""What a federate is given when it is built: its name and timing, the scenario, its grid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from federates.clock import Timing, to_ns, to_s
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.scenario.kinds import FederateSection
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError, nearest_name


@dataclass(frozen=True)
class FederateContext:
    """Given to every federate kind, and to a user's own, when it is built."""

    name: str
    timing: Timing
    scenario: Scenario
    find_site: Callable[[], GridSite]
    """Returns `site`; raises where the scenario does not say which of several plants is meant."""
    n_steps: int
    """Number of the scenario's steps in this run."""
    armed: tuple[str, ...] = ()
    """Devices that the user armed by name on the command line."""
    pcap: bool = False
    """Whether the Modbus traffic is to be captured."""
    group: str = ""
    """The federate's name in the scenario; it differs from `name` in parts of a split one."""
    agents: tuple[str, ...] = ()
    """The agents that this part of a split federate hosts."""
    warm_up_s: float = 0.0
    """What a plant leaves out of its metrics: steps before this time."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Values that the parts of one split federate share in this process."""

    @property
    def site(self) -> GridSite:
        """The grid that the federate simulates, or that of the plant it is connected to."""
        return self.find_site()

    @property
    def section(self) -> FederateSection:
        """The federate's section of the scenario."""
        return self.scenario.federates[self.group]

    @property
    def period_s(self) -> float:
        """The federate's own period in seconds."""
        return to_s(self.timing.period_ns)

    def where(self, *path: str | int) -> str:
        """Return the place of a key of this federate's section in the user's file."""
        return self.scenario.where("federates", self.group, *path)

    def error(
        self,
        what: str,
        *path: str | int,
        expected: str | None = None,
        nearest: str | None = None,
    ) -> FeederateError:
        """Return an error that names a key of this federate's section."""
        return ScenarioError(what, where=self.where(*path), expected=expected, nearest=nearest)

    def settling_steps(self, settle_s: float, *path: str | int) -> int:
        """Return how many steps of the federate make up a time that is lived before the run.

        Raises ScenarioError: The scenario's day begins later.
        """
        start_s = self.scenario.time.start_s
        if not 0.0 <= settle_s <= start_s:
            raise self.error(
                f"settle_s is {settle_s:g}",
                *path,
                "settle_s",
                expected=f"from 0 to time.start_s = {start_s:g}: the day has no weather before",
            )
        return int(to_ns(settle_s) // self.timing.period_ns)

    @contextmanager
    def located(self, kind: type[FeederateError], *path: str | int) -> Iterator[None]:
        """Let errors of class `kind` name a key of this federate's section."""
        try:
            yield
        except kind as error:
            place = self.where(*path)
            error.where = f"{place}: {error.where}" if error.where else place
            raise

    @contextmanager
    def option_errors(self, kind: type[FeederateError]) -> Iterator[None]:
        """Let errors name the option that their text names; see `controllers.core.options`."""
        try:
            yield
        except kind as error:
            option = re.search(r"option '(\w+)'", f"{error.where} {error.what}")
            place = self.where("options", *(option.groups() if option else ()))
            error.where = f"{place}: {error.where}" if error.where else place
            raise

    def ders(self, globs: Sequence[str], *path: str | int, keyed: bool = False) -> dict[str, str]:
        """Return the DERs of the grid by name, with the last glob that names each of them.

        Raises ScenarioError: A glob matches no DER; it names the entry of the key `path`, a
        list of globs, or (`keyed`) a mapping by glob.
        """
        names = [der.name for der in self.site.feeder.ders]
        out: dict[str, str] = {}
        for i, glob in enumerate(globs):
            found = [name for name in names if fnmatchcase(name, glob)]
            if not found:
                raise self.error(
                    f"no DER is called '{glob}'",
                    *path,
                    glob if keyed else i,
                    expected="names or globs of DERs"
                    + (f", such as '{names[0]}'" if names else "; the grid has none: grid.ders"),
                    nearest=nearest_name(glob, names),
                )
            out |= dict.fromkeys(found, glob)
        return {name: out[name] for name in names if name in out}
