"""What the distributed algorithms have in common: an iteration of two halves between neighbours.

Each half takes what neighbours said last and ends with one message up and one down every line,
three numbers each. `controllers.market.solvers.distributed` runs all atoms of a network in a loop,
`controllers.market.agents.bus_agents` some of them over mail: the same objects, the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.solvers.atoms import (
    BALANCE_P,
    BALANCE_Q,
    COPY,
    N_KINDS,
    N_ROWS,
    Atoms,
    P,
    Q,
    Scales,
    V,
)

Mask = NDArray[np.bool_]
Quantity = Literal["power", "voltage", "dual"]
WIDTH = 3
"""Numbers of a message between neighbours."""
WEIGHT_PER_PRICE = 50.0
"""Default primal weight, and penalty of ADMM, per unit of the import price."""


@dataclass(frozen=True)
class Plan:
    """What all atoms know beforehand.

    Attributes
    ----------
    norm : Largest singular value of the rows of all atoms, `Atoms.norm`: no atom finds it alone.
    import_price : float. Money per pu.
    seed : int. Of what atoms draw for themselves.
    """

    norm: float
    import_price: float
    seed: int = 0

    @property
    def default_weight(self) -> float:
        """Prices over powers, by their usual sizes."""
        return WEIGHT_PER_PRICE * max(abs(self.import_price), 1e-3)


class Iteration(ABC):
    """State and steps of the atoms held; arrays of shape (8, m) and (4, m), scaled.

    A subclass defines `half`, the messages if they differ, and its options as keywords of its
    constructor.

    Attributes
    ----------
    x, y : ndarray. What the next half starts from.
    found_x, found_y : ndarray. The iterate to report.
    count : ndarray of int, shape (m,). Iterations of each atom since `begin`.
    error_kw : (m,); Error of each atom's rows in the last iteration, kW (voltages: per mille).
    error_price : ndarray, shape (m,)
        Largest reduced cost left in an atom's variables, relative to the import price.
    """

    scales: ClassVar[Scales | None] = None
    # Messages of an iteration that say something new.
    messages_per_line: ClassVar[int] = 4
    # What the numbers of a message are: bounds of what is believed follow from it.
    up_is: ClassVar[tuple[Quantity, ...]] = ("power", "power", "dual")
    down_is: ClassVar[tuple[Quantity, ...]] = ("voltage", "dual", "dual")

    def __init__(self, atoms: Atoms, plan: Plan) -> None:
        self.atoms, self.plan = atoms, plan
        m = atoms.m
        self.x: FloatArray = np.zeros((N_KINDS, m))
        self.y: FloatArray = np.zeros((N_ROWS, m))
        self.found_x, self.found_y = self.x, self.y
        self.count = np.zeros(m, dtype=np.int64)
        self.error_kw = np.full(m, np.inf)
        self.error_price = np.full(m, np.inf)

    def begin(self, where: Mask, x: FloatArray, y: FloatArray, below: FloatArray) -> None:
        """Let the atoms `where` is true for start anew from (x, y).

        `below`, shape (3, e), is the start of each child: P, Q and the dual of its copy.
        """
        self.set_some(where, x=x, y=y, found_x=x, found_y=y)
        self.count[where] = 0
        self.error_kw[where] = self.error_price[where] = np.inf

    @abstractmethod
    def half(self, stage: int, where: Mask, below: FloatArray, above: FloatArray) -> None:
        """Do the first (stage 0) or second half of an iteration for some atoms.

        Parameters
        ----------
        where : (m,)
        below : ndarray, shape (3, e). What each child said last.
        above : ndarray, shape (3, m). What each parent said last; zero at the root.
        """

    def up(self) -> FloatArray:
        """Return what each atom tells its parent, (3, m): P, Q, the dual of its copy."""
        x, y = self.told()
        scale = self.atoms.scale
        return np.stack([
            x[P] * scale[P], x[Q] * scale[Q], y[COPY] * self.atoms.row_scale[COPY],
        ])  # fmt: skip

    def down(self) -> FloatArray:
        """Return what each child is told, (3, e): its parent's v and duals of its balances."""
        x, y = self.told()
        row_scale = self.atoms.row_scale
        said = np.stack([
            x[V] * self.atoms.scale[V], y[BALANCE_P] * row_scale[BALANCE_P],
            y[BALANCE_Q] * row_scale[BALANCE_Q],
        ])  # fmt: skip
        return said[:, self.atoms.owner]

    def reduced_costs(self, below: FloatArray, above: FloatArray) -> FloatArray:
        """Return the gradient of cost and rows in the iterate found, without its curvature, (8, m).

        For what has no curvature (flows, voltages, currents) that is the reduced cost.
        """
        slope: FloatArray = self.atoms.limits.slope
        return slope + self.atoms.pull(self.found_y, above[1:], below[2])

    def told(self) -> tuple[FloatArray, FloatArray]:
        """Return the variables and duals that messages are made of."""
        return self.x, self.y

    def set_some(self, where: Mask, **arrays: FloatArray) -> None:
        """Replace the columns of attributes for the atoms `where` is true for."""
        everywhere = bool(where.all())
        for name, new in arrays.items():
            value = new if everywhere else np.where(where, new, getattr(self, name))
            setattr(self, name, value)

    def set_errors(self, where: Mask, rows: FloatArray, moved: FloatArray, step: float) -> None:
        """Note the errors of an iteration that moved x by `moved` in a step of size `step`."""
        worth = np.abs(moved).max(axis=0) / (step * max(abs(self.plan.import_price), 1e-3))
        self.set_some(where, error_kw=self.atoms.row_errors(rows), error_price=worth)


def checked_positive(name: str, value: Any, what: str) -> float:
    """Return an option that must be finite and above 0.

    Raises ControllerError: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0.0 < value < np.inf:
        raise ControllerError(f"{name} is {value!r}", where=what, expected="more than 0")
    return float(value)
