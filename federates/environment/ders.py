"""DERs of N episodes: inverters that agents command, and all others as the day has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.kinds.controller import INVERTERS
from grid_models.current_injection.model import ComplexArray
from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.feeder.model import Der

STORAGE = ("battery", "inverter")
Rows = slice | NDArray[np.intp]


class BatchedDers:
    """DERs of N episodes, each at its own step of one day.

    The laws are those of `grid_models.ders.plant.DerFleet`: watts before vars, the limits of
    `BatteryFleet`. PV gives what the sun gives.

    Parameters
    ----------
    ders : Those of the feeder.
    free_kva : complex (T, n_ders). What they inject when nobody commands them.
    n : Episodes.
    dt_s : Step.

    Attributes
    ----------
    inverters : (n_inverters,). DERs whose reactive power is commanded.
    storage : (n_storage,). Those among them whose active power is, too.
    p_kw, q_kvar : (N, n_ders). Injections in the present step. A step makes new arrays.
    headroom_kvar : (N, n_inverters). Reactive power that the inverters could give in it.
    """

    def __init__(self, ders: Sequence[Der], free_kva: ComplexArray, n: int, dt_s: float) -> None:
        def at(kinds: tuple[str, ...]) -> NDArray[np.intp]:
            return np.array([i for i, d in enumerate(ders) if d.kind in kinds], dtype=np.intp)

        self.inverters, self.storage = at(INVERTERS), at(STORAGE)
        self._battery = at(("battery",))
        self._of_storage = np.isin(self.storage, self._battery)
        self._free_p_kw, self._free_q_kvar = free_kva.real.copy(), free_kva.imag.copy()
        self._dt_s = dt_s
        kva = np.array([d.kva for d in ders], dtype=np.float64)
        self._kva = kva[self.inverters]
        p_low_kw = np.array([d.p_min_kw for d in ders], dtype=np.float64)
        p_high_kw = np.array([d.p_max_kw for d in ders], dtype=np.float64)
        self._room_kw = kva[self.storage]
        self._p_low_kw, self._p_high_kw = p_low_kw[self.storage], p_high_kw[self.storage]
        self._cells = BatteryFleet([ders[i] for i in self._battery], BatteryParameters())
        self._soc_start_kwh = self._cells.soc_kwh.copy()
        self._energy_kwh = np.array([ders[i].energy_kwh for i in self._battery], dtype=np.float64)
        self._cells.soc_kwh = np.tile(self._soc_start_kwh, (n, 1))
        self.p_kw, self.q_kvar = np.zeros((2, n, len(ders)))
        self.headroom_kvar = self._headroom_kvar()

    @property
    def soc_pu(self) -> FloatArray:
        """Stored energy of the batteries over their size, (N, n_batteries)."""
        return np.asarray(self._cells.soc_kwh / self._energy_kwh)

    def _headroom_kvar(self) -> FloatArray:
        p_kw = self.p_kw[:, self.inverters]
        return np.asarray(np.sqrt(np.maximum(self._kva**2 - p_kw**2, 0.0)))

    def restart(self, rows: Rows, k: NDArray[np.intp]) -> None:
        """Begin episodes at step k, (n_rows,), uncommanded and with batteries as a run begins."""
        self.p_kw, self.q_kvar = self.p_kw.copy(), self.q_kvar.copy()
        self.p_kw[rows], self.q_kvar[rows] = self._free_p_kw[k], self._free_q_kvar[k]
        self._cells.soc_kwh[rows] = self._soc_start_kwh
        self.headroom_kvar = self._headroom_kvar()

    def step(self, k: NDArray[np.intp], q_share: FloatArray, p_share: FloatArray) -> None:
        """Advance all episodes to step k, (N,).

        `q_share`: (N, n_inverters), -1 to 1. Set-point over the headroom of the step before, as an
        agent knows it; an inverter that has less by now gives what it has.
        `p_share`: (N, n_storage), -1 to 1. Set-point over the present limit of its direction.
        """
        q_set_kvar = q_share * self.headroom_kvar
        self.p_kw, self.q_kvar = self._free_p_kw[k], self._free_q_kvar[k]
        if len(self.storage):
            self._step_storage(p_share)
        self.headroom_kvar = room = self._headroom_kvar()
        self.q_kvar[:, self.inverters] = np.minimum(np.maximum(q_set_kvar, -room), room)

    def _step_storage(self, p_share: FloatArray) -> None:
        low, high = (np.tile(x, (len(p_share), 1)) for x in (self._p_low_kw, self._p_high_kw))
        if len(self._battery):
            low[:, self._of_storage], high[:, self._of_storage] = self._cells.limits(self._dt_s)
        p_kw = np.where(p_share < 0.0, -p_share * low, p_share * high)
        p_kw = np.maximum(np.minimum(p_kw, high), low)
        p_kw = np.maximum(np.minimum(p_kw, self._room_kw), -self._room_kw)
        self.p_kw[:, self.storage] = p_kw
        if len(self._battery):
            self._cells.advance(self._dt_s, p_kw[:, self._of_storage])
