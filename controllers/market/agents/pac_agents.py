"""The controller ``market-pac``: a clearing by PAC over the mail of a federation, one atom per bus.

Each atom begins with the start that planning data give (`warm_start`: every bus answers the import
price, flows by a sweep) and goes on with mail alone. Set-points and prices are those of the last
iterate at every step. What is not believed of a neighbour is told as the event ``mail_refused``
with the links it began on, and counted in the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from controllers.core.agents import AgentGroup
from controllers.core.errors import ControllerError
from controllers.core.options import checked_choice, checked_number, checked_whole, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.waiting import Asynchronous, Barrier, Waiting
from controllers.market.agents.pac_atom import PacAtom, Reach, cut
from controllers.market.agents.site_problem import SiteBids, site_problem
from controllers.market.model.problem import ClearingProblem
from controllers.market.solvers.atoms import make_atoms
from controllers.market.solvers.pac import Anchor, PacSteps
from controllers.market.solvers.warm_start import begin

_WHERE = "market-pac"


@dataclass(frozen=True)
class PacOptions(SiteBids):
    """Options of ``market-pac``, beside those of `SiteBids`.

    Attributes
    ----------
    weight : float, optional
        Primal weight omega; default: from the import price.
    anchored : bool
        Whether the steps are anchored (under `barrier` only); false gives the printed equations.
    waiting : {'barrier', 'asynchronous'}
        `barrier`: the loop's iterates to the last bit, slower on bad links. `asynchronous`: go on
        with what was last heard.
    fraction : float
        Asynchronous: share of the neighbours that must have fresh mail.
    damping : float
        Asynchronous: part of each step that is taken. The later the mail, the smaller it must be:
        on IEEE 123 with a fifth lost and up to three steps of delay 0.5 diverges, 0.2 converges.
    resend_after : int
        Silent steps after which a waiting atom repeats itself.
    """

    weight: float | None = None
    anchored: bool = True
    waiting: str = "barrier"
    fraction: float = 0.0
    damping: float = 0.2
    resend_after: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None:
            checked_number("weight", self.weight, low=0.0, open_low=True)
        if not isinstance(self.anchored, bool):
            raise ControllerError(
                f"{self.anchored!r} is not accepted",
                where="option 'anchored'",
                expected="true or false",
            )
        checked_choice("waiting", self.waiting, ("barrier", "asynchronous"))
        checked_number("fraction", self.fraction, low=0.0, high=1.0)
        checked_number("damping", self.damping, low=0.0, high=1.0, open_low=True)
        checked_whole("resend_after", self.resend_after, low=1)

    def policy(self) -> Waiting:
        """Return the waiting policy."""
        if self.waiting == "barrier":
            return Barrier(self.resend_after)
        return Asynchronous(self.fraction, None, self.resend_after)

    def bids(self) -> SiteBids:
        """Return the part that says what is asked for."""
        return SiteBids(**{f.name: getattr(self, f.name) for f in fields(SiteBids)})


class MarketPac(AgentGroup):
    """Atoms of PAC over mail; see the module and `PacOptions`."""

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per bus of the feeder's single-phase equivalent."""
        asked = parse_options(PacOptions, options, _WHERE)
        return atom_names(site_problem(site, asked.bids()))

    @classmethod
    def build(cls, site: ControlSite, hosted: Sequence[str], **options: Any) -> Sequence[PacAtom]:
        """Return the hosted atoms."""
        asked = parse_options(PacOptions, options, _WHERE)
        return pac_atoms(site_problem(site, asked.bids()), hosted, asked)

    def take_events(self) -> list[dict[str, Any]]:
        """Return what the hosted atoms have to tell since the last call: one event for all."""
        links = [link for atom in self._atoms for link in atom.take_doubts()]
        return [{"event": "mail_refused", "links": links}] if links else []

    def summary(self) -> dict[str, float]:
        """Return how many messages were not believed."""
        return {"mail_refused_count": float(sum(atom.refused for atom in self._atoms))}

    @property
    def _atoms(self) -> list[PacAtom]:
        return [agent for agent in self.hosted if isinstance(agent, PacAtom)]


def atom_names(problem: ClearingProblem) -> tuple[str, ...]:
    """Return the name of the atom of each bus, in the network's order."""
    return tuple(f"atom_{bus}" for bus in problem.network.buses)


def pac_atoms(
    problem: ClearingProblem, hosted: Sequence[str], asked: PacOptions
) -> Sequence[PacAtom]:
    """Return the atoms named in `hosted`, in that order."""
    atoms = make_atoms(problem)
    steps = PacSteps.of(atoms, asked.weight)
    x, y = begin(atoms, None)
    reach = Reach.of(atoms)
    net, names = problem.network, atom_names(problem)
    position = {name: i for i, name in enumerate(names)}
    children: list[list[str]] = [[] for _ in names]
    for i in range(1, net.size):
        children[net.parent[i]].append(names[i])
    made = []
    for name in hosted:
        i = position[name]
        made.append(
            PacAtom(
                name,
                names[net.parent[i]] if i else None,
                tuple(children[i]),
                cut(atoms, i, x, y),
                steps,
                anchor=Anchor() if asked.anchored else None,
                damping=asked.damping,
                waiting=asked.policy(),
                reach=reach,
                outputs=_outputs(net.buses[i]),
                base_kva=net.base_kva,
            )
        )
    return made


def _outputs(bus: str) -> tuple[Port, ...]:
    return (
        Port("p_gen_set_kw", "kW", (bus,)),
        Port("q_gen_set_kvar", "kvar", (bus,)),
        Port("p_load_set_kw", "kW", (bus,)),
        Port("price_per_mwh", "", (bus,)),
    )
