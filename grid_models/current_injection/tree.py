"""A radial unbalanced feeder as buses and branches: what branch-flow relaxations are made from.

Every branch from a parent bus p to a child bus c, whatever elements it consists of, is the two-port
of their primitive admittance matrices, Y, between its nodes at p and at c::

    V_c = T V_p - Z J_c        J_p = Y_p V_p + T' J_c

with J_c the currents into c and J_p those out of p, ``Z = Y_cc^-1``, ``T = -Z Y_cp``, ``T' = -Y_pc
Z`` and ``Y_p = Y_pp - Y_pc Z Y_cp``. Exact for lines with charging and for transformers at any tap.
Per unit as in `PortNetwork`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import ComplexArray

IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Branch:
    """One branch.

    Attributes
    ----------
    parent, child : Positions of the buses.
    above, below : Positions of its nodes among those of the parent (k) and of the child (c).
    ratio, ratio_back, z, shunt : complex (c, k), (k, c), (c, c), (k, k). T, T', Z and Y_p.
    """

    parent: int
    child: int
    above: IntArray
    below: IntArray
    ratio: ComplexArray
    ratio_back: ComplexArray
    z: ComplexArray
    shunt: ComplexArray


@dataclass(frozen=True)
class RatedCurrent:
    """A current with a limit, ``row @ [V_p; J_c]`` of a branch; `line` is its place in `lines`."""

    line: int
    branch: int
    row: ComplexArray


@dataclass(frozen=True)
class BranchTree:
    """A radial feeder; the first bus is the source's.

    Attributes
    ----------
    buses : Names, parents before children. Dead ends without ports are no buses: they are shunts.
    sizes : Number of nodes of each bus.
    branches : Branch i leads to bus i + 1.
    shunts : complex (k, k) of each bus. Admittance to ground besides the branches'.
    source_v, source_z : complex (k,), (k, k). Voltage behind the source's impedance.
    node_bus : ndarray of int (n,). Bus of each node of the `PortNetwork`; -1: not supplied.
    node_row : tuple of complex (k,). ``V_node = row @ V_bus``, dead ends included.
    rated : Currents with a limit.
    unrated : Labels of lines with a limit in dead ends, which has no place here.
    """

    buses: tuple[str, ...]
    sizes: tuple[int, ...]
    branches: tuple[Branch, ...]
    shunts: tuple[ComplexArray, ...]
    source_v: ComplexArray
    source_z: ComplexArray
    node_bus: IntArray
    node_row: tuple[ComplexArray, ...]
    rated: tuple[RatedCurrent, ...]
    unrated: tuple[str, ...]


def two_port(
    y: ComplexArray, k: int
) -> tuple[ComplexArray, ComplexArray, ComplexArray, ComplexArray]:
    """Return T, T', Z and Y_p of an admittance matrix whose first k nodes are the parent's."""
    z: ComplexArray = np.asarray(np.linalg.inv(y[k:, k:]), dtype=np.complex128)
    back = np.asarray(-y[:k, k:] @ z)
    return np.asarray(-z @ y[k:, :k]), back, z, np.asarray(y[:k, :k] + back @ y[k:, :k])


def reduced(y: ComplexArray, keep: int) -> tuple[ComplexArray, ComplexArray]:
    """Return the admittance of the first nodes without current at the others, and their voltages.

    Returns
    -------
    admittance : (keep, keep)
    voltages : (n - keep, keep). Of the other nodes, per voltage of the first ones.
    """
    found = np.linalg.solve(y[keep:, keep:], y[keep:, :keep])
    voltages: ComplexArray = np.asarray(-found, dtype=np.complex128)
    return y[:keep, :keep] + y[:keep, keep:] @ voltages, voltages
