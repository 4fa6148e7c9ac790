"""Distributed-averaging proportional-integral voltage control of a circuit: the DMPC's baseline.

Inverter i measures the voltage of its own bus and averages its integral with its neighbours'::

    e_i = 1 - v_i
    dz_i/dt = ki e_i - ka ki sum over neighbours (z_i - z_j)
    u_i = clip(kp e_i + z_i)

(after Simpson-Porco, Shafiee, Doerfler, Vasquez, Guerrero, Bullo: Secondary Frequency and Voltage
Control of Islanded Microgrids via Distributed Averaging, IEEE Trans. Ind. Electron. 62, 2015). The
integral is held inside the inverter's limit, so it does not wind up.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.circuit_options import circuit_of
from controllers.core.mail import FloatArray, IntArray, LatestMail, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from grid_models.circuits.dynamics import RlcCircuit

_WHERE = "averaging-pi"


@dataclass(frozen=True, slots=True)
class AveragingPiOptions(ControllerOptions):
    """Settings."""

    circuit: Any = option(
        "feeder24",
        "The plant's circuit: feeder24, or chain:K for K clusters in a row.",
        shown="text",
    )
    kp: float = option(1.0, "Proportional gain.", low=0.0, high=1e6)
    ki: float = option(50.0, "Integral gain [1/s].", low=0.0, high=1e6)
    ka: float = option(1.0, "Averaging gain relative to `ki`.", low=0.0, high=1e6)


def line_neighbours(circuit: RlcCircuit) -> list[tuple[int, int]]:
    """Return pairs of inverters (a < b): each with the one next to it in the circuit's order."""
    order = np.argsort(circuit.inverter_bus, kind="stable")
    return [(int(min(a, b)), int(max(a, b))) for a, b in itertools.pairwise(order)]


class AveragingPi:
    """The law as agents, one per inverter, that tell their neighbours their integral by mail.

    Parameters
    ----------
    site : Only its period is used; the circuit is an option.
    hosted : Inverters of this instance.
    **options : See `AveragingPiOptions`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._settings = parse_options(AveragingPiOptions, options, _WHERE)
        circuit, _ = circuit_of(self._settings.circuit)
        names = circuit.inverters
        chosen = hosted_positions(hosted, names, _WHERE, "inverter")
        own: IntArray = np.array(chosen, dtype=np.int64)
        buses = [circuit.buses[circuit.inverter_bus[i]] for i in own]
        labels = list(dict.fromkeys(buses))
        self._gather = np.array([labels.index(bus) for bus in buses], dtype=np.int64)
        self.inputs = (Port("v_pu", "pu", tuple(labels), initial=1.0),)
        self.outputs = (Port("i_set_pu", "pu", tuple(hosted)),)
        pairs = line_neighbours(circuit)
        both = sorted(pairs + [(b, a) for a, b in pairs])
        place = {int(i): k for k, i in enumerate(own)}
        incoming = [(a, b) for a, b in both if b in place]
        outgoing = [(a, b) for a, b in both if a in place]
        self.links_in = tuple(Link(names[a], names[b], "integral") for a, b in incoming)
        self.links_out = tuple(Link(names[a], names[b], "integral") for a, b in outgoing)
        self._owner = np.array([place[b] for _, b in incoming], dtype=np.int64)
        self._sender = np.array([place[a] for a, _ in outgoing], dtype=np.int64)
        self._limit = circuit.inverter_limit_pu[own]
        self._inbox = LatestMail(self.links_in)
        self._integral = np.zeros(len(own))
        self._v = np.ones(len(labels))
        self._period_s = site.period_s
        self._round = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per inverter of the circuit."""
        settings = parse_options(AveragingPiOptions, options, _WHERE)
        return circuit_of(settings.circuit)[0].inverters

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, average, integrate, command, send."""
        set_ = self._settings
        given = inputs["v_pu"]
        self._v = np.where(np.isfinite(given), given, self._v)
        good = np.isfinite(mail.values)
        if not good.all():
            mail = Mail(mail.link[good], mail.round[good], mail.values[good])
        self._inbox.absorb(mail)
        error = 1.0 - self._v[self._gather]
        heard = self._inbox.round >= 0
        gap = np.where(heard, self._integral[self._owner] - self._inbox.values, 0.0)
        away = np.bincount(self._owner, gap, minlength=len(self._integral))
        change = set_.ki * (error - set_.ka * away)
        self._integral = np.clip(
            self._integral + self._period_s * change, -self._limit, self._limit
        )
        u = np.clip(set_.kp * error + self._integral, -self._limit, self._limit)
        out = Mail(
            np.arange(len(self.links_out)),
            np.full(len(self.links_out), self._round),
            self._integral[self._sender],
        )
        self._round += 1
        return ControllerStep({"i_set_pu": u}, out)
