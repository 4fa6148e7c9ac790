"""The DERs of the hosted clusters: present powers, energy, forecast, limits, set-points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.dmpc.feeder_network import S_UNIT, FeederNetwork
from controllers.dmpc.feeder_options import FeederDmpcOptions


class ClusterFleet:
    """State of the DERs of some clusters, cluster by cluster.

    A *unit* is an input of the problem: for each cluster the q of its DERs, then the p of its
    batteries. Energy is counted from measured power with the batteries' losses, so it does not
    drift from the plant's; without a measurement, from the commands.

    Attributes
    ----------
    names : (d,)
    battery : (b,). Positions of the batteries among the DERs.
    kva, p_kw : (d,)
    u_now : (units,). Present inputs, 100 kVA.
    soc : (b,). Share of the energy.
    q_set_kvar, p_set_kw : (d,). Commands; the p of a PV unit is its rating, that is, no limit.
    throughput_kwh : Charged plus discharged so far.
    """

    def __init__(
        self,
        site: ControlSite,
        network: FeederNetwork,
        own: Sequence[int],
        settings: FeederDmpcOptions,
        sample_s: float,
    ) -> None:
        order = [int(i) for c in own for i in network.clusters[c].ders]
        ders = [site.ders[i] for i in order]
        self.names = tuple(der.name for der in ders)
        self.kva: FloatArray = np.array([der.kva for der in ders], dtype=np.float64)
        is_battery = np.array([der.kind == "battery" for der in ders], dtype=bool)
        is_pv = np.array([der.kind == "pv" for der in ders], dtype=bool)
        self.battery: IntArray = np.flatnonzero(is_battery).astype(np.int64)
        self._pv = is_pv
        self._p_max: FloatArray = np.array([der.p_max_kw for der in ders], dtype=np.float64)
        chosen = [ders[i] for i in self.battery]
        self._p_low: FloatArray = np.array([d.p_min_kw for d in chosen], dtype=np.float64)
        self._p_high: FloatArray = np.array([d.p_max_kw for d in chosen], dtype=np.float64)
        self._energy: FloatArray = np.array([d.energy_kwh for d in chosen], dtype=np.float64)
        self._settings, self._hours = settings, sample_s / 3600.0
        self._clusters = len(own)
        self._wire_units(network, own)
        self.p_kw: FloatArray = np.zeros(len(ders))
        self.soc: FloatArray = np.full(len(chosen), settings.soc_start)
        self.q_set_kvar: FloatArray = np.zeros(len(ders))
        self.p_set_kw: FloatArray = np.where(is_pv, self._p_max, 0.0)
        self.u_now: FloatArray = np.zeros(self.units)
        self.throughput_kwh = 0.0

    def _wire_units(self, network: FeederNetwork, own: Sequence[int]) -> None:
        """Find each unit's DER, and in which order the plan holds the forecasts."""
        q_at: list[int] = []
        p_at: list[int] = []
        unit = der = 0
        pv_order: list[IntArray] = []
        n = self._settings.horizon
        cluster: list[int] = []
        members = set(self.battery.tolist())
        for k, c in enumerate(own):
            d = len(network.clusters[c].ders)
            mine = range(der, der + d)
            b = sum(1 for i in mine if i in members)
            q_at += range(unit, unit + d)
            p_at += range(unit + d, unit + d + b)
            pv_order.append(
                (np.arange(n)[:, None] * len(self.names) + np.array(mine, np.int64)).ravel()
            )
            cluster += [k] * (d + b)
            unit, der = unit + d + b, der + d
        self.units = unit
        self._q_at, self._p_at = np.array(q_at, np.int64), np.array(p_at, np.int64)
        self._cluster = np.array(cluster, np.int64)
        self._pv_order = np.concatenate([np.zeros(0, np.int64), *pv_order]).astype(np.int64)

    def measure(self, p_kw: FloatArray | None) -> None:
        """Take the powers of the step that runs, and count the energy until its end."""
        expected = np.where(self._pv, self.p_kw, self.p_set_kw)
        if p_kw is None:
            p_kw = expected
        self.p_kw = np.where(np.isfinite(p_kw), p_kw, expected)
        set_, p = self._settings, self.p_kw[self.battery]
        change = np.minimum(-p * set_.charge_efficiency, -p / set_.discharge_efficiency)
        self.soc = self.soc + self._hours * change / np.maximum(self._energy, 1e-9)
        self.throughput_kwh += float(self._hours * np.abs(p).sum())
        room = np.sqrt(np.maximum(self.kva**2 - self.p_kw**2, 0.0))
        self.u_now[self._q_at] = np.clip(self.q_set_kvar, -room, room) / S_UNIT
        self.u_now[self._p_at] = p / S_UNIT

    def bounds(self, q_max_kvar: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the bounds of the units [100 kVA]; a battery's p also keeps its energy limits."""
        low, high = np.zeros(self.units), np.zeros(self.units)
        low[self._q_at], high[self._q_at] = -q_max_kvar / S_UNIT, q_max_kvar / S_UNIT
        low[self._p_at], high[self._p_at] = self._p_low / S_UNIT, self._p_high / S_UNIT
        return low, high

    def _energy_limits(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and largest p (kW) that keep the energy inside its limits a sample.

        A battery that starts outside may only move back inside.
        """
        set_, hours = self._settings, self._hours
        charge = np.maximum(set_.soc_max - self.soc, 0.0) * self._energy
        drain = np.maximum(self.soc - set_.soc_min, 0.0) * self._energy
        low = np.maximum(self._p_low, -charge / (set_.charge_efficiency * hours))
        high = np.minimum(self._p_high, drain * (set_.discharge_efficiency / hours))
        return low, high

    def command(self, planned: FloatArray, step: FloatArray) -> None:
        """Turn planned units into set-points inside ratings and energy limits.

        Parameters
        ----------
        planned : (units,)
        step : (clusters,). Share of the way from the present inputs that each cluster goes.
        """
        units = self.u_now + step[self._cluster] * (planned - self.u_now)
        low, high = self._energy_limits()
        p = np.clip(S_UNIT * units[self._p_at], low, high)
        kva = self.kva[self.battery]
        p = np.clip(p, -kva, kva)
        self.p_set_kw[self.battery] = p
        active = self.p_kw.copy()
        active[self.battery] = p
        room = np.sqrt(np.maximum(self.kva**2 - active**2, 0.0))
        self.q_set_kvar = np.clip(S_UNIT * units[self._q_at], -room, room)

    def forecast(self, time_s: float) -> tuple[FloatArray, FloatArray]:
        """Return the change of PV power [100 kW] and of the load factor at each step of a plan.

        The first is ordered as the clusters' parameters want it.
        """
        set_ = self._settings
        hours = (set_.start_s + time_s + set_.step_s * np.arange(set_.horizon)) / 3600.0
        change = np.zeros((set_.horizon, len(self.names)))
        if set_.pv_shape is not None:
            shape = _hourly(set_.pv_shape, hours)
            ratio = (
                shape / shape[0] if shape[0] > 0.01 * max(set_.pv_shape) else np.ones(len(hours))
            )
            ahead = np.minimum(self.p_kw * ratio[:, None], self._p_max)
            change[:, self._pv] = (ahead - self.p_kw)[:, self._pv] / S_UNIT
        load = np.zeros(set_.horizon)
        if set_.load_shape is not None:
            shape = _hourly(set_.load_shape, hours)
            load = shape - shape[0]
        return change.reshape(-1)[self._pv_order], load

    def battery_plan_kw(self, planned: FloatArray) -> FloatArray:
        """Return each cluster's battery power at each step of its plan, cluster by cluster, kW.

        Parameters
        ----------
        planned : (steps, units)
        """
        cluster = self._cluster[self._p_at]
        p_kw = S_UNIT * planned[:, self._p_at]
        return np.concatenate([p_kw[:, cluster == k].sum(axis=1) for k in range(self._clusters)])


def _hourly(values: Sequence[float], hours: NDArray[np.floating[Any]]) -> FloatArray:
    """Interpolate a day's hourly values (at full hours), periodic."""
    ring = [*values, values[0]]
    return np.asarray(np.interp(np.mod(hours, 24.0), np.arange(25), ring))
