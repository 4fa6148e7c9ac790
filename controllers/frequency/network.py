"""What the agents of load-side frequency control know at design time, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.options import checked_number
from grid_models.base.errors import nearest_name
from grid_models.transmission.flexible import load_flexible
from grid_models.transmission.model import TransmissionError
from grid_models.transmission.swing import branch_susceptance, lossless_generation_mw
from grid_models.transmission.system import TransmissionSystem, load_system

_LEAST_RESPONSE = 1e-9


@dataclass(frozen=True, eq=False)
class ControlNetwork:
    """A transmission system as its agents see it; per unit of the system's base.

    Attributes
    ----------
    buses, base_mva, nominal_hz : Of the system.
    target, source : (m,). Neighbours in both directions, ordered by target, then source.
    weight : (m,). Of an edge: 2 / (sum of its ends' degrees), scaled so that the largest eigenvalue
        of the weighted Laplacian is 1.
    injection_pu : (n,). Net injection of the tables, in balance.
    phi : (n,). Virtual angles whose flows balance it.
    quadratic, absolute, limit_pu : (n,). Cost a d^2 + b |d| of a change d of demand, and its limit:
        0 where there is no flexible load.
    lines : Names of the branches with a limit.
    line_owner : (l,). Bus whose agent keeps the limit: its first end.
    line_limit_pu : (l,)
    line_factor : (l, n). Flow into the branch by injection (power transfer distribution factors,
        up to a constant: where injections are in balance it makes no difference).
    line_response : (l,). How much the flow gives way to the line's price while the total stays.
    """

    buses: tuple[str, ...]
    base_mva: float
    nominal_hz: float
    target: IntArray
    source: IntArray
    weight: FloatArray
    injection_pu: FloatArray
    phi: FloatArray
    quadratic: FloatArray
    absolute: FloatArray
    limit_pu: FloatArray
    lines: tuple[str, ...]
    line_owner: IntArray
    line_limit_pu: FloatArray
    line_factor: FloatArray
    line_response: FloatArray

    @property
    def agents(self) -> tuple[str, ...]:
        """One agent a bus."""
        return tuple(f"bus_{bus}" for bus in self.buses)


def control_network(system: str, line_limits_mw: Mapping[str, Any] | None) -> ControlNetwork:
    """Return the network of a system; built once for the same arguments.

    Raises ControllerError: No such system or branch, tables that cannot be used, or a limit.
    """
    if line_limits_mw is not None and not isinstance(line_limits_mw, Mapping):
        raise ControllerError(
            f"{line_limits_mw!r} is not accepted",
            where="option 'line_limits_mw'",
            expected="a mapping of branch to MW",
        )
    limits = tuple(
        (str(line), checked_number(f"line_limits_mw.{line}", mw, low=0.0, high=1e9))
        for line, mw in (line_limits_mw or {}).items()
    )
    try:
        return _network(system, limits)
    except TransmissionError as error:
        where = "option 'system'" + (f": {error.where}" if error.where else "")
        raise ControllerError(
            error.what, where=where, expected=error.expected, nearest=error.nearest
        ) from error


@lru_cache(maxsize=8)
def _network(name: str, limits: tuple[tuple[str, float], ...]) -> ControlNetwork:
    system = load_system(name)
    n, i, j = len(system.buses), system.branch_from, system.branch_to
    edges = np.unique(np.sort(np.stack([i, j], axis=1), axis=1), axis=0)
    degree = np.bincount(edges.ravel(), minlength=n)
    weight = 2.0 / degree[edges].sum(axis=1)
    laplacian = _laplacian(n, edges, weight)
    largest = float(np.linalg.eigvalsh(laplacian)[-1])
    both = np.concatenate([edges, edges[:, ::-1]])
    order = np.lexsort((both[:, 1], both[:, 0]))
    injection = -system.load_mw
    injection[system.machine.bus] += lossless_generation_mw(system)
    injection /= system.base_mva
    flexible = load_flexible(name, system)
    quadratic, absolute, limit = np.ones(n), np.zeros(n), np.zeros(n)
    quadratic[flexible.bus] = flexible.quadratic
    absolute[flexible.bus] = flexible.absolute
    limit[flexible.bus] = flexible.limit_pu
    lines = _lines(system, tuple(line for line, _ in limits))
    factor, response = _line_factors(system, lines, limit > 0.0, quadratic)
    return ControlNetwork(
        buses=system.buses,
        base_mva=system.base_mva,
        nominal_hz=system.nominal_hz,
        target=both[order, 0],
        source=both[order, 1],
        weight=np.concatenate([weight, weight])[order] / largest,
        injection_pu=injection,
        phi=_solve_grounded(laplacian / largest, injection[:, None])[:, 0],
        quadratic=quadratic,
        absolute=absolute,
        limit_pu=limit,
        lines=tuple(line for line, _ in limits),
        line_owner=i[lines],
        line_limit_pu=np.array([mw for _, mw in limits]) / system.base_mva,
        line_factor=factor,
        line_response=response,
    )


def _lines(system: TransmissionSystem, names: tuple[str, ...]) -> IntArray:
    at = {name: k for k, name in enumerate(system.branches)}
    for name in names:
        if name not in at:
            raise ControllerError(
                f"no branch is called '{name}'",
                where="option 'line_limits_mw'",
                expected="a branch of the system, such as 16-17-1",
                nearest=nearest_name(name, at),
            )
    return np.array([at[name] for name in names], dtype=np.int64)


def _line_factors(
    system: TransmissionSystem, lines: IntArray, flexible: NDArray[np.bool_], quadratic: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return `line_factor` and `line_response`.

    The factors are shifted so that a line's price alone does not change the total demand.
    """
    n, i, j = len(system.buses), system.branch_from, system.branch_to
    susceptance = branch_susceptance(system)
    laplacian = _laplacian(n, np.stack([i, j], axis=1), susceptance)
    by_angle = _incidence(n, i[lines], j[lines]) * susceptance[lines, None]
    factor = _solve_grounded(laplacian, by_angle.T).T
    yielding = flexible / (2.0 * quadratic)
    factor = factor - (factor @ yielding / yielding.sum())[:, None]
    response = factor**2 @ yielding
    bad = np.flatnonzero(response < _LEAST_RESPONSE)
    if bad.size:
        raise ControllerError(
            f"flexible loads do not change the flow of branch '{system.branches[lines[bad[0]]]}'",
            where="option 'line_limits_mw'",
            expected="a branch inside a loop, or between flexible loads",
        )
    return factor, response


def _incidence(n: int, i: IntArray, j: IntArray) -> FloatArray:
    """Return 1 at the first bus of each branch and -1 at its second, (branches, n)."""
    k = np.arange(len(i))
    out = np.zeros((len(i), n))
    out[k, i], out[k, j] = 1.0, -1.0
    return out


def _laplacian(n: int, edges: IntArray, weight: FloatArray) -> FloatArray:
    incidence = _incidence(n, edges[:, 0], edges[:, 1])
    return np.asarray(incidence.T @ (weight[:, None] * incidence))


def _solve_grounded(laplacian: FloatArray, right: FloatArray) -> FloatArray:
    """Return x with laplacian x = right and x = 0 at the first bus, (n, columns)."""
    x = np.zeros(right.shape)
    x[1:] = np.linalg.solve(laplacian[1:, 1:], right[1:])
    return x
