"""Market parties: one market operator (SMO) per bus with load or resources, and what it can offer.

A `Participants` is design-time knowledge: which DERs stand behind which operator, their ranges and
costs. It is the same for every instance of a controller and for whoever reads a run afterwards.

Numbers are in MW, Mvar and money per hour. Costs are declared as marginal costs at the end of the
range, money per MWh: a generator's at full output, a flexible load's at full curtailment. From
them follow the coefficients of the thesis' cost ``alpha/2 P_G^2 + beta (P_L - P_L0)^2``::

    alpha = c_G / P_G_max        beta = c_L / (2 (P_L0 - P_L_min))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.model.problem import Bids
from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import nearest_name
from grid_models.current_injection.model import PortNetwork
from grid_models.feeder.model import Der, Feeder

LOAD_POWER_FACTOR = 0.95
"""Of flexible loads, as the plant has it."""


def draw(seed: int, purpose: str, names: Iterable[str], low: float, high: float) -> FloatArray:
    """Return one number per name, uniform between `low` and `high`."""
    streams = stream_ids(f"market/{purpose}/{name}" for name in names)
    return low + (high - low) * uniform(seed, streams, 0, 0)


@dataclass(frozen=True)
class Costs:
    """What resources ask for, money per MWh at the end of their range.

    Attributes
    ----------
    generators : mapping of glob to float. By name of the DER; the last match wins.
    load : (float, float). Drawn once per SMO, uniform in this range.
    """

    generators: Mapping[str, float]
    load: tuple[float, float]


@dataclass(frozen=True)
class Participants:
    """All market operators of a feeder with their resources.

    Attributes
    ----------
    buses : tuple of str
        Bus of each SMO, in the order in which they first appear in the feeder; shape (n,) below.
    rows : ndarray of int (n,). Row of each SMO in the market's network.
    ders : The DERs that SMOs dispatch: 'inverter' and 'flexible_load'; shape (m,) below.
    owner : ndarray of int (m,). SMO of each DER.
    is_load : (m,)
    fixed_p_mw, fixed_q_mvar : ndarray (n,)
        The feeder's own (spot) loads at the bus, which cannot be curtailed.
    demand_mw, least_mw, floor_mw : ndarray (m,)
        Of flexible loads: demand without and with full curtailment, and what is left when critical
        load is shed, too; positive; 0 for generators.
    capacity_mw : ndarray (m,). Of generators; 0 for loads.
    cost : ndarray (m,). Money per MWh at the end of the range.
    """

    buses: tuple[str, ...]
    rows: NDArray[np.intp]
    ders: tuple[Der, ...]
    owner: NDArray[np.intp]
    is_load: NDArray[np.bool_]
    fixed_p_mw: FloatArray
    fixed_q_mvar: FloatArray
    demand_mw: FloatArray
    least_mw: FloatArray
    floor_mw: FloatArray
    capacity_mw: FloatArray
    cost: FloatArray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the SMOs as agents."""
        return smo_names(self.buses)

    @property
    def q_room_mvar(self) -> FloatArray:
        """Reactive power of each generator that is left at full output, (m,); 0 for loads."""
        kva = np.array([d.kva for d in self.ders]) / 1000.0
        room: FloatArray = np.sqrt(np.maximum(kva**2 - self.capacity_mw**2, 0.0)) * ~self.is_load
        return room

    def per_smo(self, values: FloatArray) -> FloatArray:
        """Return the sums of `values` (m,) over each SMO's DERs, shape (n,)."""
        return np.bincount(self.owner, values, len(self.buses)).astype(np.float64, copy=False)


def smo_names(buses: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the SMOs at some buses as agents."""
    return tuple(f"smo_{bus}" for bus in buses)


def participants_of(
    feeder: Feeder,
    ders: Sequence[Der],
    costs: Costs,
    seed: int,
    row_of: Mapping[str, int] | PortNetwork,
    *,
    fixed_load_pu: float = 1.0,
    critical_load_pu: float = 0.0,
) -> Participants:
    """Collect the parties of a feeder.

    Parameters
    ----------
    ders : Those of the kinds 'inverter' and 'flexible_load' (without storage) are dispatched by the
        SMO of their bus; others are no part of the market.
    costs : Costs
    seed : int. Of the drawn costs.
    row_of : mapping of bus to int, or PortNetwork
        Row of each bus in the market's network; buses that share a row (joined by a switch) are
        one SMO, named after the first of them. On a three-phase network each terminal is an SMO.
    fixed_load_pu : Multiple of nominal at which the feeder's own loads stand (``grid.load_scale``).
    critical_load_pu : Part of a flexible load's demand that is not offered.

    Raises ControllerError: There is no resource to dispatch, one is at no bus of the network, or a
    glob of `costs` matches no generator.
    """
    mine = _dispatched(ders)
    buses, rows, fixed = served_buses(feeder, mine, row_of, fixed_load_pu)
    smo = {row: i for i, row in enumerate(rows)}
    row_of_der = _rows(feeder, mine, row_of)[1]
    is_load = np.array([d.kind == "flexible_load" for d in mine])
    owner = np.array([smo[row_of_der[d.name]] for d in mine], dtype=np.intp)
    high = np.array([d.p_max_kw for d in mine]) / 1000.0
    low = np.array([d.p_min_kw for d in mine]) / 1000.0
    load_cost = draw(seed, "disutility", buses, *costs.load)
    generator_cost = _generator_costs(mine, costs.generators)
    return Participants(
        buses=buses,
        rows=np.array(rows, dtype=np.intp),
        ders=mine,
        owner=owner,
        is_load=is_load,
        fixed_p_mw=fixed[0] / 1000.0,
        fixed_q_mvar=fixed[1] / 1000.0,
        demand_mw=np.where(is_load, -low, 0.0),
        floor_mw=np.where(is_load, -high, 0.0),
        least_mw=np.where(is_load, np.maximum(-high, -critical_load_pu * low), 0.0),
        capacity_mw=np.where(is_load, 0.0, high),
        cost=np.where(is_load, load_cost[owner], generator_cost),
    )


def _dispatched(ders: Sequence[Der]) -> tuple[Der, ...]:
    """Return the resources that SMOs dispatch; raise where there are none."""
    mine = tuple(
        d for d in ders if d.kind == "inverter" or (d.kind == "flexible_load" and not d.energy_kwh)
    )
    if not mine:
        raise ControllerError(
            "no resource to dispatch",
            where="market",
            expected="DERs of the kinds inverter and flexible_load",
        )
    return mine


def served_buses(
    feeder: Feeder,
    ders: Sequence[Der],
    row_of: Mapping[str, int] | PortNetwork,
    fixed_load_pu: float,
) -> tuple[tuple[str, ...], tuple[int, ...], FloatArray]:
    """Return bus and row of each SMO, and the feeder's own load there, kW and kvar, (2, n).

    On a three-phase network the bus is the label of the terminal.

    Raises ControllerError: A load or DER is at no bus that the network serves.
    """
    loads = feeder.loads if fixed_load_pu > 0.0 else ()
    of_load, of_der = _rows(feeder, ders, row_of)
    for what, name, bus, known_rows in [("load", x.name, x.bus, of_load) for x in loads] + [
        ("DER", d.name, d.bus, of_der) for d in ders
    ]:
        if name not in known_rows:
            known = bus in feeder.buses
            raise ControllerError(
                f"bus '{bus}' is {'cut off in' if known else 'not a bus of'} '{feeder.name}'",
                where=f"{what} '{name}'",
                expected="a bus that the source supplies" if known else "a bus of the feeder",
                nearest=None if known else nearest_name(bus, feeder.buses),
            )
    first: dict[int, str] = {}
    for row, bus in [(of_load[x.name], x.bus) for x in loads] + [
        (of_der[d.name], d.bus) for d in ders
    ]:
        first.setdefault(row, row_of.terminals[row] if isinstance(row_of, PortNetwork) else bus)
    rows = tuple(first)
    at = [rows.index(of_load[x.name]) for x in loads]
    kw_kvar = ([x.kw for x in loads], [x.kvar for x in loads])
    fixed = np.array(
        [np.bincount(at, v, len(rows)) if at else np.zeros(len(rows)) for v in kw_kvar]
    )
    return tuple(first.values()), rows, fixed * fixed_load_pu


def _rows(
    feeder: Feeder, ders: Sequence[Der], row_of: Mapping[str, int] | PortNetwork
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return the row of each load and of each DER that is supplied, by name."""
    if isinstance(row_of, PortNetwork):
        tables = (row_of.load_terminal, row_of.der_terminal)
        of_load, of_der = ({k: t for k, t in x.items() if row_of.live[t]} for x in tables)
    else:
        of_load = {x.name: row_of[x.bus] for x in feeder.loads if x.bus in row_of}
        of_der = {d.name: row_of[d.bus] for d in ders if d.bus in row_of}
    return of_load, of_der


def _generator_costs(ders: Sequence[Der], costs: Mapping[str, float]) -> FloatArray:
    names = [d.name for d in ders if d.kind == "inverter"]
    for glob in costs:
        if glob != "*" and not any(fnmatchcase(name, glob) for name in names):
            raise ControllerError(
                f"no generator is called '{glob}'",
                where="option generator_cost",
                expected="names or globs of DERs of kind inverter",
                nearest=nearest_name(glob, names),
            )
    last_first = list(costs.items())[::-1]
    found = [next((c for glob, c in last_first if fnmatchcase(d.name, glob)), np.nan) for d in ders]
    missing = [d.name for d, c in zip(ders, found, strict=True)
               if d.kind == "inverter" and not c > 0.0]  # fmt: skip
    if missing:
        raise ControllerError(
            f"generator '{missing[0]}' has no cost",
            where="option generator_cost",
            expected="a positive price for every generator, such as {'*': 72.0}",
        )
    return np.array(found, dtype=np.float64)


BID_FIELDS = tuple(f.name for f in fields(Bids))
"""The numbers of a bid as they travel, in this order: MW, Mvar, money per hour."""


def bid_column(bids: FloatArray, name: str) -> FloatArray:
    """Return one number of all bids: `bids` (n, len(BID_FIELDS)) to (n,)."""
    column: FloatArray = bids[:, BID_FIELDS.index(name)]
    return column


IDLE_COST = 1.0
"""Coefficient of a resource that is not there: any positive number, its range is zero."""


def aggregate(
    table: Participants, demand_pu: FloatArray | float = 1.0, overstated: FloatArray | float = 1.0
) -> FloatArray:
    """Return each SMO's bid, (n, len(BID_FIELDS)): one generator and one flexible load.

    Parallel quadratic costs with the same marginal cost at the end of the range add up to one with
    that marginal cost at the end of the sum; an SMO's own costs are averaged by size.

    Parameters
    ----------
    table : Participants
    demand_pu : float or ndarray (m,). Demand of the flexible loads, multiple of nominal.
    overstated : float or ndarray (n,). Factor on the flexibility that an SMO claims to have.
    """
    demand = table.demand_mw * demand_pu
    least = table.least_mw * demand_pu
    flexible = demand - least
    capacity = table.capacity_mw
    p0, room, p_gen = table.per_smo(demand), table.per_smo(flexible), table.per_smo(capacity)
    load_cost = table.per_smo(table.cost * flexible) / np.maximum(room, 1e-9)
    gen_cost = table.per_smo(table.cost * capacity) / np.maximum(p_gen, 1e-9)
    q_gen = table.per_smo(table.q_room_mvar)
    tan_phi = np.sqrt(1.0 - LOAD_POWER_FACTOR**2) / LOAD_POWER_FACTOR
    alpha = np.where(p_gen > 0.0, gen_cost / np.maximum(p_gen, 1e-9), IDLE_COST)
    beta = np.where(room > 0.0, load_cost / (2.0 * np.maximum(room, 1e-9)), IDLE_COST)
    fixed = table.fixed_p_mw
    columns = (
        p0 + fixed,
        p0 * tan_phi + table.fixed_q_mvar,
        p0 + fixed - np.minimum(room * overstated, p0),
        p0 + fixed,
        np.zeros_like(p0),
        p_gen,
        -q_gen,
        q_gen,
        alpha,
        alpha,
        beta,
    )
    return np.stack(columns, axis=1)
