"""The protocol of a controller: what a third party implements to take part in a co-simulation.

A controller class describes *all* of its agents; an instance hosts some of them. The federation
decides how many instances there are (one, one per area, one per agent) and must give the same
trajectories either way, so an instance may use only

* `ControlSite`: design-time knowledge, equal for every instance,
* its inputs (measurements of its own agents), and
* mail, which always passes the link model, even between two agents of one instance.

Mail sent at time t is read at the receiver's next step at the earliest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.ports import Port
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Der, Feeder

if TYPE_CHECKING:
    from grid_models.current_injection.model import PortNetwork
    from grid_models.profiles.table import Profiles


@dataclass(frozen=True)
class ControlSite:
    """Design-time knowledge shared by all instances of a controller.

    Attributes
    ----------
    feeder : The feeder as the operator knows it (its DERs included).
    ders : The resources this controller commands.
    period_s : Time between two steps of the controller.
    v_min_pu, v_max_pu : The voltage band to hold.
    seed : Seed of the run.
    start_s : Time of day at the run's time 0.
    outlook : Returns the day that forecasts are taken from; None where there is no grid.
    ports : Returns the current-injection model of the feeder as it starts, or with other states of
        lines and switches (name to closed); None where there is no grid.
    text_of : Returns the text of a file that an option names; None where there are no files.
    """

    feeder: Feeder
    ders: tuple[Der, ...]
    period_s: float
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    seed: int = 0
    start_s: float = 0.0
    outlook: Callable[[], Profiles] | None = None
    ports: Callable[[Mapping[str, bool] | None], PortNetwork] | None = None
    text_of: Callable[[str], str] | None = None

    def forecast(self, times_s: FloatArray) -> dict[str, FloatArray]:
        """Return the day's columns at times of the run, as a perfect forecast knows them.

        Beyond the end of a table the last row holds; without a grid the columns have their defaults
        (`grid_models.profiles.table`).
        """
        from grid_models.profiles.table import DEFAULTS

        if self.outlook is None:
            return {name: np.full(times_s.shape, value) for name, value in DEFAULTS.items()}
        day = self.outlook()
        last = np.nextafter(day.end_s, day.time_s[0])
        return day.sample(np.clip(self.start_s + times_s, day.time_s[0], last))

    def band_pu(self, margin_pu: float, where: str) -> tuple[float, float]:
        """Return the voltage band with a margin at both ends; an empty band is refused."""
        low, high = self.v_min_pu + margin_pu, self.v_max_pu - margin_pu
        if not 0.0 < low < high:
            raise ControllerError(
                f"no band is left between {low:g} and {high:g} pu",
                where=f"{where}: option 'margin_pu'",
                expected="less than half of the band's width",
            )
        return low, high


@dataclass(frozen=True, slots=True)
class ControllerStep:
    """What one step gives: values per output port (in the port's label order) and mail to send.

    With `mail_only` the outputs are those of the step before: nothing is published or recorded.
    """

    outputs: Mapping[str, FloatArray]
    mail: Mail = field(default_factory=Mail.empty)
    mail_only: bool = False


@runtime_checkable
class Controller(Protocol):
    """Agents hosted together. See the module's docstring for the rules.

    A class is constructed as ``cls(site, hosted, **options)`` where `hosted` is a subset of
    ``cls.agents(site, **options)`` in that order. Instances must be deterministic.

    A class may have a classmethod ``steps_per_period(**options) -> int``: how many steps it takes
    in the scenario's ``period_s``, for controllers whose agents need several rounds of mail in it;
    and a classmethod ``settling_s(period_s, **options) -> float``: about how long it needs from a
    cold start, where that is not ten steps. A run's metrics leave it out (``time.warm_up_s``).
    One whose agents have levels says so by a classmethod ``level_of(agent) -> str``; `agents` gives
    those of a level one after the other. A scenario may split it by levels.
    """

    inputs: tuple[Port, ...]
    """Measurements of the hosted agents."""
    outputs: tuple[Port, ...]
    """Set-points of the hosted agents."""
    links_in: tuple[Link, ...]
    """Links that end at a hosted agent."""
    links_out: tuple[Link, ...]
    """Links that start at a hosted agent."""

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None: ...

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the names of all agents of the controller, hosted anywhere."""
        ...

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Advance one step: `inputs` maps port name to values, `mail.link` indexes `links_in`."""
        ...


def hosted_positions(
    hosted: Sequence[str], names: Sequence[str], where: str, what: str = "agent"
) -> list[int]:
    """Return the positions of the hosted agents among all agents of a controller.

    Raises ControllerError: A hosted name is no agent; the nearest is named.
    """
    place = {name: i for i, name in enumerate(names)}
    for name in hosted:
        if name not in place:
            raise ControllerError(
                f"no {what} is called '{name}'",
                where=where,
                expected=f"one of the controller's {what}s",
                nearest=nearest_name(name, names),
            )
    return [place[name] for name in hosted]
