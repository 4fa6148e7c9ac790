"""The balanced single-phase equivalent of a radial feeder, for branch-flow (DistFlow) models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


@dataclass(frozen=True)
class BranchNetwork:
    """A radial network in per unit; arrays have shape (n,).

    Attributes
    ----------
    buses : tuple of str
        The root (point of common coupling) first, every parent before its children.
    parent : ndarray of int
        Position of the parent; -1 at the root.
    r_pu, x_pu : ndarray
        Impedance of the line from the parent; 0 at the root.
    l_max_pu : ndarray
        Largest squared current of that line; inf where no rating is known.
    b_pu : ndarray
        Shunt susceptance at the bus (capacitors and line charging), positive injects.
    v_root_pu : float
    base_kva, base_kv_ll : float
    row_of : mapping of str to int
        Row of every served bus of the feeder, those merged into another bus too.
    """

    buses: tuple[str, ...]
    parent: NDArray[np.intp]
    r_pu: Real
    x_pu: Real
    l_max_pu: Real
    b_pu: Real
    v_root_pu: float
    base_kva: float
    base_kv_ll: float
    row_of: Mapping[str, int]
