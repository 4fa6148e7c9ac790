"""Limits of the active power of PV: what the layer takes where reactive power is exhausted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from grid_models.feeder.model import Der

P_SET = "p_set_kw"
_RETURN = 0.02
"""Of the rating per step: faster, the room for reactive power would go as fast as it was used."""


class PowerLimits:
    """The limits of some of a controller's DERs, none at first.

    Parameters
    ----------
    at : (k,). Their positions among the controller's DERs.
    ders : (k,).
    own : The controller's own port of set-points; None where it has none.

    Attributes
    ----------
    inputs, outputs : Ports that the controller does not have.
    """

    def __init__(self, at: Sequence[int], ders: Sequence[Der], own: Port | None) -> None:
        self.at = np.array(at, dtype=np.int64)
        names = tuple(der.name for der in ders)
        self.inputs = (Port("safety_p_avail_kw", "kW", names),) if names else ()
        self.outputs = (Port(P_SET, "kW", names),) if names and own is None else ()
        self._own_at = [] if own is None else [own.labels.index(name) for name in names]
        self._kva = np.array([der.kva for der in ders])
        self._p_max_kw = np.array([der.p_max_kw for der in ders])
        self._limit: FloatArray = np.full(len(names), np.inf)
        self._available: FloatArray = np.zeros(len(names))

    def expected(
        self, available_kw: FloatArray, rise_kw: FloatArray, proposed: Mapping[str, FloatArray]
    ) -> FloatArray:
        """Return active power over rating in the next step without a lower limit, (k,).

        available_kw, rise_kw : (k,). What the sun gives, and its change since the last step.
        """
        free_kw = np.clip(available_kw + rise_kw, 0.0, self._p_max_kw)
        if self._own_at:
            free_kw = np.fmin(free_kw, proposed[P_SET][self._own_at])  # NaN is no limit
        self._available = free_kw / self._kva
        return np.minimum(self._available, self._limit + _RETURN)

    def command(self, p: FloatArray, proposed: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Limit active power to `p`, over rating, (k,); return the set-points.

        Where no limit is due they are the controller's, or the ratings.
        """
        if not self.at.size:
            return {}
        limited = p < self._available
        self._limit = np.where(limited, p, np.inf)
        if not self._own_at:
            return {P_SET: np.where(limited, p * self._kva, self._p_max_kw)}
        out = proposed[P_SET].copy()
        out[self._own_at] = np.where(limited, p * self._kva, out[self._own_at])
        return {P_SET: out}

    @property
    def curtailed_kw(self) -> float:
        """Active power that is not taken."""
        return float(np.maximum(self._available - self._limit, 0.0) @ self._kva)
