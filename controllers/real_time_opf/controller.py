"""Real-time optimal power flow: areas measure, price and command; prices travel by mail.

Each area measures the voltages of its nodes (the first also the import) and the available power of
its DERs. Per step it

1. adds to the measurements what the DERs are about to do: power that came with the sun and is not
   yet injected, and what the other areas said they would do;
2. advances the multipliers of its limits from the violations (`duals`), and adds the objective's
   prices of what it measures (`objectives`): its prices mu;
3. moves its DERs along the gradient, own terms plus A' mu of all areas, and projects the result on
   what each DER can inject (`fleet`);
4. tells every other area what its prices and moves mean there (`area_mail`).

No load is known and no power flow solved: the measurements stand for both. Sources: Dall'Anese and
Simonetto, "Optimal power flow pursuit", IEEE Trans. Smart Grid 9(2), 2018,
doi:10.1109/TSG.2016.2571982; several areas as in Farhat et al., "A multi-area architecture for
real-time feedback-based optimization of distribution grids", 2024.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.options import parse_options
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.real_time_opf.area_mail import AreaMail, Said
from controllers.real_time_opf.duals import AreaMultipliers
from controllers.real_time_opf.fleet import Fleet
from controllers.real_time_opf.gains import Gains
from controllers.real_time_opf.load_energy import LoadEnergy
from controllers.real_time_opf.losses import LineLosses
from controllers.real_time_opf.network import area_names, area_network
from controllers.real_time_opf.objectives import S_BASE_KW, voltage_price
from controllers.real_time_opf.options import RtOpfOptions
from controllers.real_time_opf.terminals import AreaTerminals
from grid_models.linear.edges import Complex

_WHERE = "rt-opf"
# A multiplier at its cap moves the DER that helps most by this many times its whole range.
_VOLTAGE_CAP, _IMPORT_CAP = 10.0, 1.5
# Limit of an import of which nothing is asked, per unit.
_FREE = 1e6


@dataclass(frozen=True, slots=True)
class _Area:
    """A hosted area: its part of the instance's rows and DERs, and what it keeps.

    Attributes
    ----------
    rows, ders : Its parts of the instance's arrays.
    own_rows, own_ders : Their positions in the network.
    price_to_toll : (rows, 2 n). Sensitivities of its quantities to all DERs.
    move_to_drift : (m, 2 ders). Sensitivities of all quantities to its DERs.
    """

    rows: slice
    ders: slice
    own_rows: IntArray
    own_ders: IntArray
    price_to_toll: FloatArray
    move_to_drift: FloatArray
    dual: AreaMultipliers


class RtOpf:
    """Agents of the real-time optimal power flow, one per area.

    Parameters
    ----------
    site : Feeder, DERs, band.
    hosted : Areas of this instance; the trajectories do not depend on who hosts whom.
    **options : See `controllers.real_time_opf.options.RtOpfOptions`.

    Raises ControllerError: An option or a hosted name is not accepted, or the feeder gives no
    usable network.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._settings = settings = parse_options(RtOpfOptions, options, _WHERE)
        self._weights = weights = settings.weights()
        self._net = net = area_network(site, settings.areas, weights)
        hosts = hosted_positions(hosted, net.areas, _WHERE, "area")
        self._mail = AreaMail(net, hosts)
        self.links_in, self.links_out = self._mail.links_in, self._mail.links_out
        self._losses = LineLosses(site, len(net.areas), hosts) if weights.losses else None
        stiffness = net.stiffness(weights)
        if self._losses is not None:
            stiffness += weights.losses * self._losses.curvature / max(weights.curvatures)
        gains = settings.gains(site.period_s, len(net.areas), stiffness)
        self._areas = self._build(hosts, gains)
        rows = np.concatenate([area.own_rows for area in self._areas])
        ders = [site.ders[i] for area in self._areas for i in area.own_ders.tolist()]
        labels = tuple(net.rows[i] for i in rows.tolist())
        self._load = LoadEnergy(site, labels) if weights.load else None
        phasors = () if self._losses is None else self._losses.labels
        self._terminals = AreaTerminals(labels, ders, phasors)
        self.inputs, self.outputs = self._terminals.inputs, self._terminals.outputs
        self._fleet = Fleet(ders, weights, gains.primal, site.period_s)
        v_low, v_high = site.band_pu(settings.margin_pu, _WHERE)
        self._voltage = rows > 0
        self._low = np.where(self._voltage, v_low**2, -_FREE)
        self._high = np.where(self._voltage, v_high**2, _FREE)
        self._toll: FloatArray = np.zeros((2, len(ders)))
        # The import is to be met, not only not to be exceeded: what comes counts once.
        self._ahead = np.full(len(net.rows), settings.anticipation)
        self._ahead[0] = min(1.0, settings.anticipation)
        late = settings.measurement_delay_steps(site.period_s)
        self._injected: deque[FloatArray] = deque(maxlen=late + 1)

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per area."""
        return area_names(site, parse_options(RtOpfOptions, options, _WHERE).areas)

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return 60 steps, and ten times the delay that the gains are chosen for."""
        settings = parse_options(RtOpfOptions, options, _WHERE)
        return 60 * period_s + 10.0 * max(settings.measurement_delay_s, settings.mail_delay_s)

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def _build(self, hosts: Sequence[int], gains: Gains) -> list[_Area]:
        net, weights = self._net, self._weights
        areas, row, der = [], 0, 0
        for host in hosts:
            rows, ders = net.of_area(host)
            a = net.a[rows]
            effort = weights.energy + sum(weights.curvatures)
            cap = np.where(rows == 0, _IMPORT_CAP, _VOLTAGE_CAP) * effort
            cap = cap / np.abs(a).max(axis=(1, 2), initial=0.0)
            areas.append(
                _Area(
                    slice(row, row + len(rows)),
                    slice(der, der + len(ders)),
                    rows,
                    ders,
                    a.reshape(len(rows), 2 * len(net.der_area)),
                    net.a[:, :, ders].reshape(len(net.rows), 2 * len(ders)),
                    AreaMultipliers(a, net.response, ders, cap, gains),
                )
            )
            row, der = row + len(rows), der + len(ders)
        return areas

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, look ahead, price, tell the other areas, and command."""
        self._mail.absorb(mail)
        heard = self._mail.heard()
        seen = self._terminals.read(inputs)
        fleet = self._fleet
        p_high = np.clip(seen.p_high, fleet.p_min, fleet.p_max)
        low, high = self._low.copy(), self._high.copy()
        if np.isfinite(seen.target):
            low[~self._voltage] = high[~self._voltage] = seen.target
        drifts = self._drifts(p_high)
        y = seen.y.copy()
        for area, drift, others in zip(self._areas, drifts, heard, strict=True):
            y[area.rows] += drift[area.own_rows] + others.drift
        own_price = np.zeros(len(y))
        own_price[self._voltage] = voltage_price(
            y[self._voltage], len(self._net.rows) - 1, self._weights
        )
        if self._load is not None:
            v_sq = np.where(self._voltage, y, 1.0)
            own_price += self._weights.load * self._load.price(time_s, v_sq)
        of_losses = self._loss_tolls(seen.phasors)
        said, tolls = [], []
        for area, drift, others, lost in zip(self._areas, drifts, heard, of_losses, strict=True):
            size = area.dual.observe(y[area.rows], low[area.rows], high[area.rows])
            price = area.dual.advance(others.share(size), fleet.free[:, :, area.ders])
            toll = ((price + own_price[area.rows]) @ area.price_to_toll).reshape(2, -1) + lost
            said.append(Said(toll, drift, size))
            tolls.append(toll[:, area.own_ders] + others.toll)
        self._toll = np.concatenate(tolls, axis=1)
        fleet.command(self._toll, p_high)
        p, q = S_BASE_KW * fleet.set_point
        outputs = {"p_set_kw": p, "q_set_kvar": q} if self.outputs else {}
        return ControllerStep(outputs, self._mail.outgoing(said))

    def _loss_tolls(self, phasors: Complex) -> Sequence[FloatArray | float]:
        """Return what the losses of each hosted area's lines mean for all DERs, (2, n)."""
        if self._losses is None or not phasors.imag.any():
            return [0.0] * len(self._areas)
        return [self._weights.losses * toll for toll in self._losses.tolls(phasors)]

    def _drifts(self, p_high: FloatArray) -> list[FloatArray]:
        """Return how all quantities will move by each area's commands since the measurements."""
        fleet = self._fleet
        now = fleet.injected(p_high)
        self._injected.append(now)
        moves = np.stack([now - self._injected[0], fleet.answer(self._toll, p_high) - now])
        found = []
        for area in self._areas:
            past, coming = (
                area.move_to_drift @ moves[:, :, area.ders].reshape(2, 2 * len(area.own_ders)).T
            ).T
            found.append(past + self._ahead * coming)
        return found
