"""Reactive power of inverters that follow a volt-var curve of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import PowerFlowError
from grid_models.feeder.model import Der, VoltVarCurve

Array = NDArray[np.float64]
MAX_ITERATIONS = 200
SETTLED_PU = 1e-5  # largest distance from the curve, over the rating
_SMALLEST_GAIN = 1e-3


class VoltVarCurves:
    """Curves of several inverters, evaluated together; equal curves cost one interpolation."""

    def __init__(self, curves: Sequence[VoltVarCurve]) -> None:
        groups: dict[VoltVarCurve, list[int]] = {}
        for i, curve in enumerate(curves):
            groups.setdefault(curve, []).append(i)
        self._groups = [(c.v_pu, c.q_pu, np.array(rows)) for c, rows in groups.items()]
        self.of_rating = np.array([curve.of_rating for curve in curves], dtype=bool)

    def q_pu(self, v_pu: Array) -> Array:
        """Return the curves' values at voltages of shape (n,), per unit of each curve's base."""
        q_pu = np.empty(len(v_pu))
        for curve_v, curve_q, rows in self._groups:
            q_pu[rows] = np.interp(v_pu[rows], curve_v, curve_q)
        return q_pu


class VoltVarResponse:
    """Inverters whose reactive power settles on their curve within one solution of the feeder.

    The inverters answer within seconds, so in the steps of a feeder they are where power flow and
    curves agree. The agreement is found by damped iteration. The gain falls where the power swings
    about it, rises where it creeps, and is kept for the next step.

    Parameters
    ----------
    ders : All DERs; those without a curve keep their reactive power.
    node_labels : Labels of the voltages.
    """

    def __init__(self, ders: Sequence[Der], node_labels: Sequence[str]) -> None:
        at = {label: i for i, label in enumerate(node_labels)}
        rows = [i for i, der in enumerate(ders) if der.volt_var is not None]
        chosen = [ders[i] for i in rows]
        self._rows = np.array(rows, dtype=np.intp)
        self._curves = VoltVarCurves([d.volt_var for d in chosen if d.volt_var is not None])
        self._kva = np.array([d.kva for d in chosen], dtype=np.float64)
        nodes = [[at[label] for label in d.labels if label in at] for d in chosen]
        self._nodes = np.array([i for own in nodes for i in own], dtype=np.intp)
        self._owner = np.repeat(np.arange(len(chosen)), [len(own) for own in nodes])
        self._count = np.array([max(len(own), 1) for own in nodes], dtype=np.float64)
        self._q_kvar = np.zeros(len(chosen))
        self._gain = 1.0

    def __bool__(self) -> bool:
        """Whether any DER has a curve."""
        return len(self._rows) > 0

    def settle(
        self,
        p_kw: Array,
        q_kvar: Array,
        commanded: NDArray[np.bool_],
        solve: Callable[[Array], Array],
    ) -> Array:
        """Return the reactive power of all DERs, (n_ders,), on the curves where not commanded.

        Parameters
        ----------
        p_kw, q_kvar : (n_ders,). Power of the DERs; q_kvar of those off the curves stays.
        commanded : (n_ders,). DERs whose q_kvar is a command.
        solve : Solves the power flow with a q_kvar and returns the node voltages in pu.

        Raises PowerFlowError: Curves and power flow do not agree within `MAX_ITERATIONS`.
        """
        q_kvar = q_kvar.copy()
        mine = ~commanded[self._rows]
        rows = self._rows[mine]
        room = np.sqrt(np.maximum(self._kva**2 - p_kw[self._rows] ** 2, 0.0))
        q_kvar[rows] = np.clip(self._q_kvar, -room, room)[mine]
        last, last_gap = np.inf, np.zeros(len(rows))
        for _ in range(MAX_ITERATIONS):
            target = self._target_kvar(solve(q_kvar), room)
            gap = (target - q_kvar[self._rows])[mine]
            distance = float(np.max(np.abs(gap) / self._kva[mine], initial=0.0))
            if distance <= SETTLED_PU:
                self._q_kvar[mine] = q_kvar[rows]
                return q_kvar
            if distance > 0.5 * last:
                # Slow: because it swings about the agreement, or because it creeps towards it.
                swings = float(gap @ last_gap) < 0.0
                self._gain = min(max((0.5 if swings else 1.2) * self._gain, _SMALLEST_GAIN), 1.0)
            last, last_gap = distance, gap
            q_kvar[rows] += self._gain * gap
        raise PowerFlowError(
            "the volt-var curves of the DERs do not settle",
            expected=f"agreement with the power flow within {MAX_ITERATIONS} iterations",
        )

    def _target_kvar(self, v_pu: Array, room: Array) -> Array:
        own = np.bincount(self._owner, v_pu[self._nodes], len(self._rows)) / self._count
        base = np.where(self._curves.of_rating, self._kva, room)
        return np.clip(base * self._curves.q_pu(own), -room, room)
