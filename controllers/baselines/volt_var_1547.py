"""Local volt/var and volt/watt droop of IEEE Std 1547-2018, which needs no communication.

Source: IEEE Std 1547-2018, clause 5.3.3 and Table 8 ("Voltage-reactive power settings for normal
operating performance Category A and Category B DER"), clause 5.4.2 and Table 10 (voltage-active
power), default values, doi:10.1109/IEEESTD.2018.8332112.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names
from grid_models.ders.volt_var import VoltVarCurves
from grid_models.feeder.model import VoltVarCurve

_WHERE = "volt-var-1547"


@dataclass(frozen=True, slots=True)
class Category:
    """Default settings of a performance category: curve points and open-loop response time.

    `v_pu` and `q_pu_rating` are the points (V1, Q1) .. (V4, Q4), reactive power positive when
    injected, in per unit of the nameplate apparent power.
    """

    v_pu: tuple[float, ...]
    q_pu_rating: tuple[float, ...]
    response_time_s: float


CATEGORIES: Mapping[str, Category] = {
    "A": Category((0.90, 1.00, 1.00, 1.10), (0.25, 0.0, 0.0, -0.25), 10.0),
    "B": Category((0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44), 5.0),
}


@dataclass(frozen=True, slots=True)
class VoltVarOptions(ControllerOptions):
    """Settings of the droop."""

    category: str = option(
        "B", "Whose default curve and response time apply.", choices=tuple(CATEGORIES)
    )
    v_ref_pu: float = option(
        1.0,
        "Reference voltage; the whole curve moves with it (0.95 to 1.05 in the standard).",
        low=0.95,
        high=1.05,
    )
    curve: Sequence[Sequence[float]] | None = option(
        None,
        "A curve of the user's instead: voltages increasing, q (per unit of the rating) not "
        "increasing; constant beyond its ends.",
        shown="sequence of (v_pu, q_pu) pairs",
    )
    response_time_s: float | None = option(
        None, "Open-loop response time: time to 90 % of a step. 0 answers at once.", low=0.0
    )
    volt_watt: Sequence[Sequence[float]] | None = option(
        None,
        "Limit of the active power of PV: voltages increasing, p (per unit of the rated power) not "
        "increasing; [[1.06, 1], [1.1, 0]] in the standard. Default: no limit.",
        shown="sequence of (v_pu, p_pu) pairs",
    )
    volt_watt_response_time_s: float = option(
        10.0, "Open-loop response time of the limit.", low=0.0
    )

    def check(self) -> None:
        """Check the curves."""
        for name, least in (("curve", -1.0), ("volt_watt", 0.0)):
            if getattr(self, name) is not None:
                _check_curve(name, getattr(self, name), least)

    def points(self) -> tuple[FloatArray, FloatArray]:
        """Return the curve's voltages in pu, moved to `v_ref_pu`, and its q in pu of the rating."""
        if self.curve is None:
            category = CATEGORIES[self.category]
            v_pu = np.array(category.v_pu)
            q_pu = np.array(category.q_pu_rating)
        else:
            v_pu, q_pu = np.array(self.curve, dtype=np.float64).T
        return v_pu + (self.v_ref_pu - 1.0), q_pu

    def time_constants_s(self) -> tuple[float, float]:
        """Return the first-order lags of volt/var and of volt/watt.

        Their step responses reach 90 % in the response times.
        """
        response_s = self.response_time_s
        if response_s is None:
            response_s = CATEGORIES[self.category].response_time_s
        return response_s / math.log(10.0), self.volt_watt_response_time_s / math.log(10.0)


class VoltVar1547:
    """Droop agents: each sets q from its own voltage, behind the standard's response time.

    With the option ``volt_watt`` those of PV units also limit p: the port ``p_set_kw``.

    A DER that brings a volt-var curve of its own (`Der.volt_var`) follows that one, unless the
    option ``curve`` gives another.

    The lag is discretised exactly, ``q += share (q_curve - q)`` with
    ``share = 1 - exp(-dt ln(10)/T)``, so no step passes the curve, however long. With L the
    curve's slope times the feeder's sensitivity, the sampled loop is stable while
    ``share < 2 / (1 + L)``: short steps always are, steps beyond T only for L < 1.

    Parameters
    ----------
    site : DERs to command; the standard's curve ignores the site's voltage band.
    hosted : Agents of this instance.
    **options : See `VoltVarOptions`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(VoltVarOptions, options, _WHERE)
        self._terminals = DerTerminals(site, hosted)
        self.inputs = self._terminals.inputs
        self.outputs = self._terminals.outputs
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        v_pu, q_pu = settings.points()
        standard = VoltVarCurve(tuple(v_pu.tolist()), tuple(q_pu.tolist()), of_rating=True)
        own = [der.volt_var for der in self._terminals.ders]
        self._curves = VoltVarCurves(
            [curve if curve and settings.curve is None else standard for curve in own]
        )
        self._tau_s = settings.time_constants_s()
        self._period_s = site.period_s
        self._rating_kva: FloatArray = np.array([der.kva for der in self._terminals.ders])
        self._q_kvar: FloatArray = np.zeros(len(hosted))
        self._last_s: float | None = None
        ders = self._terminals.ders
        pv = [i for i, der in enumerate(ders) if der.kind == "pv" and settings.volt_watt]
        self._pv = np.array(pv, dtype=np.int64)
        if pv:
            self._watt_v, self._watt_p = np.array(settings.volt_watt, dtype=np.float64).T
            self._p_rated_kw = np.array([ders[i].p_max_kw for i in pv])
            self._p_limit_kw: FloatArray = self._p_rated_kw
            self.outputs += (Port("p_set_kw", "kW", tuple(ders[i].name for i in pv)),)

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Move each set-point towards its curve."""
        share, watt_share = self._shares(time_s)
        reading = self._terminals.read(inputs)
        base_kvar = np.where(self._curves.of_rating, self._rating_kva, reading.q_max_kvar)
        target_kvar = base_kvar * self._curves.q_pu(reading.v_pu)
        target_kvar = np.clip(target_kvar, -reading.q_max_kvar, reading.q_max_kvar)
        self._q_kvar = self._q_kvar + share * (target_kvar - self._q_kvar)
        # The headroom can shrink faster than the lag.
        self._q_kvar = np.clip(self._q_kvar, -reading.q_max_kvar, reading.q_max_kvar)
        outputs = {"q_set_kvar": self._q_kvar}
        if self._pv.size:
            p_pu = np.interp(reading.v_pu[self._pv], self._watt_v, self._watt_p)
            change_kw = self._p_rated_kw * p_pu - self._p_limit_kw
            self._p_limit_kw = self._p_limit_kw + watt_share * change_kw
            outputs["p_set_kw"] = self._p_limit_kw
        return ControllerStep(outputs)

    def _shares(self, time_s: float) -> list[float]:
        """Return the shares of the remaining ways that are gone since the last step."""
        elapsed_s = self._period_s if self._last_s is None else max(time_s - self._last_s, 0.0)
        self._last_s = time_s
        return [1.0 if tau == 0.0 else -math.expm1(-elapsed_s / tau) for tau in self._tau_s]


def _check_curve(name: str, curve: Sequence[Sequence[float]], least_pu: float) -> None:
    """Check that what a curve gives, `least_pu` to 1, does not increase with the voltage."""
    where = f"option '{name}'"
    try:
        points = np.array(curve, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 2:
        raise ControllerError("not a curve", where=where, expected="two or more [v_pu, y_pu] pairs")
    if not np.isfinite(points).all():
        raise ControllerError("a point is not finite", where=where, expected="finite numbers")
    if (np.diff(points[:, 0]) < 0).any() or (np.diff(points[:, 1]) > 0).any():
        raise ControllerError(
            "the curve is not monotone",
            where=where,
            expected="voltages that do not decrease and powers that do not increase",
        )
    if (points[:, 1] < least_pu).any() or (points[:, 1] > 1.0).any():
        raise ControllerError(
            "power beyond the rating", where=where, expected=f"{least_pu:g} to 1 per unit"
        )
