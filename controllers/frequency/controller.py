"""DPPD and its sub-gradient counterpart as agents, one per bus of a transmission system, by mail.

The iteration and its source are in `controllers.frequency.iteration`. What an agent knows of
others is what they wrote: a neighbour's virtual angle and price, P - d of each bus where the agent
keeps the limit of a line, and the prices of lines. A message carries state, never a change, so that
a lost one does no lasting harm. A neighbour's angle moves by ``k_phi mu~`` each step, so that its
present value is estimated from a message of any age.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from controllers.core.mail import FloatArray, IntArray, LatestMail, Link, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.frequency.iteration import Buses, Lines, sums
from controllers.frequency.network import ControlNetwork, control_network
from controllers.frequency.options import DppdOptions


class Dppd:
    """Agents that restore the frequency at least cost by their buses' flexible loads.

    Inputs per bus: ``frequency_hz``, and ``injection_mw``, the net injection without flexible
    demand; NaN or not fed: as in the system's tables. Output ``load_set_mw``: the flexible demand
    of each bus that has some. A frequency that is not a number is replaced by the last good one.

    Parameters
    ----------
    site : Not used: the system is an option.
    hosted : Buses of this instance; the trajectories do not depend on who hosts whom.
    **options : See `controllers.frequency.options.DppdOptions`.

    Raises ControllerError: An option, a table or a hosted name cannot be used.
    """

    name: ClassVar[str] = "dppd"
    smooth: ClassVar[bool] = True

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(DppdOptions, options, self.name)
        network = control_network(settings.system, settings.line_limits_mw)
        at = np.array(hosted_positions(hosted, network.agents, self.name), dtype=np.int64)
        names = tuple(network.buses[i] for i in at)
        self._network, self._k_phi = network, settings.k_phi
        self._flexible = np.flatnonzero(network.limit_pu[at] > 0.0)
        self.inputs = (
            Port("frequency_hz", "Hz", names, initial=network.nominal_hz),
            Port("injection_mw", "MW", names, initial=math.nan, required=False),
        )
        self.outputs: tuple[Port, ...] = ()
        if self._flexible.size:
            flexible = tuple(names[i] for i in self._flexible)
            self.outputs = (Port("load_set_mw", "MW", flexible),)
        which = np.flatnonzero(np.isin(network.line_owner, at))
        self._buses = Buses(network, settings, at, smooth=self.smooth)
        self._lines = Lines(network, settings, which)
        self._post = _Post(network, at, which)
        self.links_in, self.links_out = self._post.links_in, self._post.links_out
        self._table_pu = network.injection_pu[at]
        self._hz = np.full(len(at), network.nominal_hz)
        self._round = 0
        self.held_values = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per bus of the system."""
        settings = parse_options(DppdOptions, options, cls.name)
        return control_network(settings.system, settings.line_limits_mw).agents

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, take in the newest messages, do one step of the iteration, command, send."""
        post, buses, lines = self._post, self._buses, self._lines
        post.absorb(mail)
        given = inputs["frequency_hz"]
        good = np.isfinite(given)
        self.held_values += int(good.size - np.count_nonzero(good))
        self._hz = np.where(good, given, self._hz)
        omega = 2.0 * math.pi * (self._hz - self._network.nominal_hz)
        injection = inputs["injection_mw"] / self._network.base_mva
        injection = np.where(np.isfinite(injection), injection, self._table_pu)
        outflow = post.outflow(buses.phi, self._round, self._k_phi)
        price = post.line_price(lines.price)
        line_flow = post.line_flow(buses.net)
        buses.step(omega, injection, outflow, price)
        lines.step(line_flow)
        sent = post.outgoing(buses, lines, self._round)
        self._round += 1
        set_mw = self._network.base_mva * buses.demand[self._flexible]
        return ControllerStep({port.name: set_mw for port in self.outputs}, sent)

    def summary(self) -> dict[str, float]:
        """Return how many measurements were replaced."""
        return {"held_values": float(self.held_values)}


class SubgradientAlc(Dppd):
    """Automatic load control by sub-gradients: DPPD with b sign(d) in place of the tracked z.

    The baseline of the paper's section VI; what differs in the trajectories is the treatment of
    the cost's kink at d = 0 alone.
    """

    name = "alc"
    smooth = False


class _Post:
    """Links and sums of the agents hosted together.

    Only what an agent itself holds is read directly; all else comes by mail, hosted or not. Sums
    run in the network's order, so that they have the same bits wherever agents are hosted.

    Parameters
    ----------
    at : (h,). Hosted buses.
    which : (l,). Lines whose limit a hosted bus keeps.
    """

    def __init__(self, network: ControlNetwork, at: IntArray, which: IntArray) -> None:
        n = len(network.buses)
        place = np.full(n, -1, dtype=np.int64)
        place[at] = np.arange(len(at))
        self._h, self._l, self._which, self._net = len(at), len(which), which, network
        line_at = np.full(len(network.lines), -1, dtype=np.int64)
        line_at[which] = np.arange(len(which))
        # Neighbours: angle and price. Buses to keepers of limits: P - d. Keepers to loads: sigma~.
        pairs = [(int(s), int(t)) for s, t in zip(network.source, network.target, strict=True)]
        keepers = np.unique(network.line_owner)
        nets = [(s, int(k)) for k in keepers for s in range(n) if s != k]
        loads = np.flatnonzero(network.limit_pu > 0.0)
        prices = [
            (line, int(b)) for b in loads for line, k in enumerate(network.line_owner) if k != b
        ]
        in_ = self._in = (
            [k for k, (_, t) in enumerate(pairs) if place[t] >= 0],
            [x for x in nets if place[x[1]] >= 0],
            [x for x in prices if place[x[1]] >= 0],
        )
        out = (
            [x for x in pairs if place[x[0]] >= 0],
            [x for x in nets if place[x[0]] >= 0],
            [x for x in prices if line_at[x[0]] >= 0],
        )
        self.links_in = self._links([pairs[k] for k in in_[0]], in_[1], in_[2])
        self.links_out = self._links(*out)
        self._senders = (
            place[[s for s, _ in out[0]]],
            place[[s for s, _ in out[1]]],
            line_at[[line for line, _ in out[2]]],
        )
        self._start_inbox()
        self._target = place[network.target[in_[0]]]
        self._weight = network.weight[in_[0]]
        self._wire_lines(place, line_at)

    def _links(
        self,
        pairs: Sequence[tuple[int, int]],
        nets: Sequence[tuple[int, int]],
        prices: Sequence[tuple[int, int]],
    ) -> tuple[Link, ...]:
        net, names = self._net, self._net.agents
        return (
            *(Link(names[s], names[t], "state", 2) for s, t in pairs),
            *(Link(names[s], names[t], "net") for s, t in nets),
            *(Link(names[net.line_owner[x]], names[t], net.lines[x]) for x, t in prices),
        )

    def _start_inbox(self) -> None:
        """Let an agent know at the start what the tables say of the others."""
        self._inbox = LatestMail(self.links_in)
        edges, nets, _ = self._in
        m = len(edges)
        self._state = self._inbox.values[: 2 * m].reshape(m, 2)
        self._state[:, 0] = self._net.phi[self._net.source[edges]]
        self._heard_net = self._inbox.values[2 * m : 2 * m + len(nets)]
        self._heard_net[:] = self._net.injection_pu[[s for s, _ in nets]]
        self._heard_price = self._inbox.values[2 * m + len(nets) :]
        self._widths = np.array([link.width for link in self.links_in], dtype=np.int64)

    def _wire_lines(self, place: IntArray, line_at: IntArray) -> None:
        network, (_, nets, prices) = self._net, self._in
        net_at = {pair: self._h + i for i, pair in enumerate(nets)}
        price_at = {pair: self._l + i for i, pair in enumerate(prices)}
        buses = range(len(network.buses))
        of_lines = [(int(x), s, int(network.line_owner[x])) for x in self._which for s in buses]
        self._flow_line = np.array([line_at[x] for x, _, _ in of_lines], dtype=np.int64)
        self._flow_value = np.array(
            [net_at.get((s, k), int(place[s])) for _, s, k in of_lines], dtype=np.int64
        )
        self._flow_factor = network.line_factor[self._which].ravel()
        loads = [int(b) for b in np.flatnonzero((network.limit_pu > 0.0) & (place >= 0))]
        of_loads = [(x, b) for b in loads for x in range(len(network.lines))]
        self._price_bus = np.array([place[b] for _, b in of_loads], dtype=np.int64)
        self._price_value = np.array(
            [price_at.get(pair, int(line_at[pair[0]])) for pair in of_loads], dtype=np.int64
        )
        self._price_factor = np.array([network.line_factor[x, b] for x, b in of_loads])

    def absorb(self, mail: Mail) -> None:
        """Take messages in; one with a number that is not finite is dropped."""
        if not np.isfinite(mail.values).all():
            width = self._widths[mail.link]
            bad = ~np.isfinite(mail.values)
            of_message = np.repeat(np.arange(len(mail)), width)
            keep = np.bincount(of_message, bad, len(mail)) == 0
            mail = Mail(mail.link[keep], mail.round[keep], mail.values[np.repeat(keep, width)])
        self._inbox.absorb(mail)

    def outflow(self, phi: FloatArray, now: int, k_phi: float) -> FloatArray:
        """Return the sum of flows out of each hosted bus, (h,)."""
        late = np.maximum(now - 1 - self._inbox.round[: len(self._state)], 0)
        theirs = self._state[:, 0] + k_phi * late * self._state[:, 1]
        return sums(self._target, self._weight * (phi[self._target] - theirs), self._h)

    def line_flow(self, net: FloatArray) -> FloatArray:
        """Return the flow into each line kept here, (l,), from P - d of all buses."""
        values = np.concatenate([net, self._heard_net])[self._flow_value]
        return sums(self._flow_line, self._flow_factor * values, self._l)

    def line_price(self, price: FloatArray) -> FloatArray:
        """Return what lines add to the price of each hosted bus, (h,)."""
        values = np.concatenate([price, self._heard_price])[self._price_value]
        return sums(self._price_bus, self._price_factor * values, self._h)

    def outgoing(self, buses: Buses, lines: Lines, number: int) -> Mail:
        """Return what the hosted agents write after a step."""
        states, nets, prices = self._senders
        pairs = np.stack([buses.phi[states], buses.mu_tilde[states]], axis=1)
        values = np.concatenate([pairs.ravel(), buses.net[nets], lines.price[prices]])
        link = np.arange(len(self.links_out), dtype=np.int64)
        return Mail(link, np.full(link.size, number, dtype=np.int64), values)
