"""Who takes part in the local market: operators, their agents, their homes, and the homes' devices.

It is design-time knowledge, the same for every instance of the controller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.participants import served_buses
from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.branch_flow.model import BranchNetwork, branch_network
from grid_models.current_injection.model import PortNetwork
from grid_models.ders.homes import homes_of
from grid_models.feeder.model import Der, Feeder

OPERATOR = "operator"
KINDS = ("load", "pv", "storage")
"""What an offer is broken down by: houses with what they draw, PV, and batteries with vehicles."""
LOAD, PV, STORAGE = range(3)
_KIND_OF = {"house": LOAD, "flexible_load": LOAD, "pv": PV, "battery": STORAGE, "vehicle": STORAGE}
AGENTS_MIN, AGENTS_MAX = 3, 12


@dataclass(frozen=True)
class LocalTable:
    """All parties of a feeder, from the top down.

    Attributes
    ----------
    network : Of the primary market.
    buses, rows : (n,)
        Bus and row in the network of each operator (SMO); a terminal's label and position where the
        network is a `PortNetwork`.
    fixed_kw, fixed_kvar : (n,). The feeder's own loads there, consumption.
    agent_names : (m,). The secondary agents (SMAs); `agent_smo` (m,): their operators, ascending.
    home_names : (h,). The homes (CMAs); `home_agent` (h,): their agents, ascending.
    ders : (d,). The homes' devices; `der_home` (d,): their homes; `der_kind` (d,): of `KINDS`.
    """

    network: BranchNetwork | PortNetwork
    buses: tuple[str, ...]
    rows: NDArray[np.intp]
    fixed_kw: FloatArray
    fixed_kvar: FloatArray
    agent_names: tuple[str, ...]
    agent_smo: IntArray
    home_names: tuple[str, ...]
    home_agent: IntArray
    ders: tuple[Der, ...]
    der_home: IntArray
    der_kind: IntArray

    @property
    def largest_kw(self) -> FloatArray:
        """What no offer or award of a home goes beyond, ten times its devices' ratings, (h,)."""
        rating = np.array([max(d.p_max_kw, -d.p_min_kw) for d in self.ders], dtype=np.float64)
        return np.asarray(10.0 + 10.0 * np.bincount(self.der_home, rating, len(self.home_names)))

    @property
    def agents_largest_kw(self) -> FloatArray:
        """The same of each secondary agent, (m,)."""
        return per(self.home_agent, self.largest_kw[:, None], len(self.agent_names))[:, 0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the operators as agents."""
        return tuple(f"smo_{bus}" for bus in self.buses)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all agents, from the top down."""
        return (OPERATOR, *self.names, *self.agent_names, *self.home_names)

    def draw(
        self, seed: int, purpose: str, names: Sequence[str], pair: Sequence[float]
    ) -> FloatArray:
        """Return one number per name, uniform in the range `pair`."""
        streams = stream_ids(f"local-market/{purpose}/{name}" for name in names)
        return pair[0] + (pair[1] - pair[0]) * uniform(seed, streams, 0, 0)


def local_table(
    feeder: Feeder, homes_per_agent: int, fixed_load_pu: float, ports: PortNetwork | None = None
) -> LocalTable:
    """Collect the parties of a feeder; `ports` is its network in a three-phase market.

    The homes at an operator's buses are divided among its agents in their order: as many agents as
    give each `homes_per_agent`, but 3 to 12 (fewer where there are fewer homes).

    Raises ControllerError: There is no home, or a load or device is at no bus of the network.
    """
    network = branch_network(feeder) if ports is None else ports
    found = homes_of(feeder.ders)
    ders = tuple(d for d, home in zip(feeder.ders, found.home, strict=True) if home >= 0)
    if not ders:
        raise ControllerError(
            "no home takes part",
            where="local market",
            expected="DERs of the kinds house, pv, battery or vehicle",
        )
    row_of = network if isinstance(network, PortNetwork) else network.row_of
    buses, rows, fixed = served_buses(feeder, ders, row_of, fixed_load_pu)
    smo_of_row = {row: i for i, row in enumerate(rows)}
    if isinstance(network, PortNetwork):
        home_rows = [network.der_terminal[name] for name in found.names]
    else:
        home_rows = [network.row_of[bus] for bus in found.bus]
    home_smo = np.array([smo_of_row[row] for row in home_rows])
    # Homes in the order of their operators, and within one in the order of the DERs.
    order = np.argsort(home_smo, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    count = np.bincount(home_smo, minlength=len(buses))
    n_agents = [agents_of(int(k), homes_per_agent) for k in count]
    agent_names: list[str] = []
    agent_smo: list[int] = []
    home_agent: list[int] = []
    for smo, (k, agents) in enumerate(zip(count.tolist(), n_agents, strict=True)):
        home_agent += [len(agent_names) + j * agents // k for j in range(k)]
        agent_names += [f"sma_{buses[smo]}_{j + 1}" for j in range(agents)]
        agent_smo += [smo] * agents
    owned = found.home[found.home >= 0]
    return LocalTable(
        network=network,
        buses=buses,
        rows=np.array(rows, dtype=np.intp),
        fixed_kw=fixed[0],
        fixed_kvar=fixed[1],
        agent_names=tuple(agent_names),
        agent_smo=np.array(agent_smo, dtype=np.int64),
        home_names=tuple(f"home_{found.names[i].removeprefix('house_')}" for i in order),
        home_agent=np.array(home_agent, dtype=np.int64),
        ders=ders,
        der_home=place[owned].astype(np.int64),
        der_kind=np.array([_KIND_OF[d.kind] for d in ders], dtype=np.int64),
    )


def agents_of(homes: int, homes_per_agent: int) -> int:
    """Return how many agents an operator of so many homes has."""
    wanted = math.ceil(homes / homes_per_agent)
    return min(homes, AGENTS_MAX, max(AGENTS_MIN, wanted))


def per(owner: IntArray, values: FloatArray, n: int) -> FloatArray:
    """Return the sums of `values` (m, k) over their owners, (n, k), added in the order of rows.

    The sum of one owner does not depend on which others there are.
    """
    out = np.zeros((n, values.shape[1]))
    for k in range(values.shape[1]):
        out[:, k] = np.bincount(owner, values[:, k], n)
    return out


def over_kinds(values: FloatArray) -> FloatArray:
    """Return the sums of values (m, len(KINDS)) over the kinds, (m,).

    In a fixed order: numpy adds the numbers of a single row in another order than those of several.
    """
    return np.asarray(values[:, LOAD] + values[:, PV] + values[:, STORAGE])
