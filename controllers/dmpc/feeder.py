"""Distributed MPC of a feeder at seconds to minutes: clusters of PV and batteries, over mail.

One agent per cluster. At the first controller step of a sample it measures the voltages of its
nodes; in the first `iterations` steps it does one iteration of `controllers.dmpc.splitting` each
and sends its boundary trajectories (voltage, P and Q per phase); then reactive and battery powers
go out, inside ratings and energy limits whatever the agreement. The prediction is the linear
model's change from the measured state, so its errors do not accumulate. The problem is in
`controllers.dmpc.feeder_problem`; `controllers.dmpc.boundary_mail` handles lost and false mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.dmpc.boundary_mail import BoundaryMail, Judgement
from controllers.dmpc.common import controller_steps, mail_summary, parse_weights
from controllers.dmpc.exchange import Exchange, Measured, positions
from controllers.dmpc.feeder_fleet import ClusterFleet
from controllers.dmpc.feeder_network import V_UNIT, FeederNetwork, cluster_names, feeder_network
from controllers.dmpc.feeder_options import FeederDmpcOptions
from controllers.dmpc.feeder_problem import BLOCKS, FeederProblem, FeederWeights, feeder_problem
from controllers.dmpc.feeder_splitting import feeder_splitting

_WHERE = "dmpc"
_ABSURD = 1e3
_TAIL = 6


class FeederDmpc:
    """Agents of the distributed MPC on a feeder, one per cluster.

    Parameters
    ----------
    hosted : Clusters of this instance.
    **options : See `controllers.dmpc.feeder_options.FeederDmpcOptions`.

    Raises ControllerError, GridModelError: An option, a hosted name, a DER or the list of clusters
    is not accepted.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(FeederDmpcOptions, options, _WHERE)
        self._settings = settings
        sample_s, self._calls = _sample(settings, site.period_s)
        network = feeder_network(site, settings.clusters, settings.taps or {})
        own = hosted_positions(hosted, network.names, _WHERE, "cluster")
        problem = feeder_problem(
            site,
            network,
            settings.horizon,
            settings.step_s / 3600.0,
            parse_weights(FeederWeights, settings.weights, _WHERE),
            settings.soc_target,
        )
        self._split, self._powers_above = feeder_splitting(problem, own)
        self._n = settings.horizon
        self._fleet = ClusterFleet(site, network, own, settings, sample_s)
        self._wire_ports(problem, own)
        self._wire_links(problem, own)
        self._wire_rows(site, problem, own)
        self._tail: FloatArray = np.zeros((len(self.links_out), _TAIL))
        # The last finished plan, as the set-points 0 until there is one.
        self._plan_kw: FloatArray = np.zeros(len(own) * self._n)
        self._k = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per cluster."""
        settings = parse_options(FeederDmpcOptions, options, _WHERE)
        _sample(settings, site.period_s)
        return cluster_names(site, settings.clusters, settings.taps or {})

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return two samples: before the first plan nothing is controlled."""
        return 2.0 * _sample(parse_options(FeederDmpcOptions, options, _WHERE), period_s)[0]

    def _wire_ports(self, problem: FeederProblem, own: list[int]) -> None:
        """Make the ports, the vector of all that is known, and each cluster's gather from it."""
        network = problem.network
        clusters = [network.clusters[c] for c in own]
        tops = [_above(network, c) for c in own]
        seen = [x for c, top in zip(clusters, tops, strict=True) for x in (*c.labels, *top)]
        labels = tuple(dict.fromkeys(x for x in seen if x is not None))
        names = self._fleet.names
        self.inputs = (
            Port("v_pu", "pu", labels, initial=1.0),
            Port("p_kw", "kW", names, required=False),
        )
        self.outputs = self._output_ports([c.name for c in clusters])
        n, units = self._n, sum(problem.layouts[c].units for c in own)
        downs = sum(len(c.downs) for c in clusters)
        known = Measured(
            v=np.full(len(labels), 1.0 / V_UNIT),
            u=np.zeros(units),
            down=np.zeros(_TAIL * downs),
            pv=np.zeros(n * len(names)),
            load=np.zeros(n),
            soc=np.zeros(len(self._fleet.battery)),
        )
        self._known = known
        self._gather = np.full((len(own), self._split.parameters), known.zero, dtype=np.int64)
        place = positions(self.inputs, "v_pu")
        at = {name: known.start(name) for name in ("u", "down", "pv", "soc")}
        for k, (c, cluster) in enumerate(zip(own, clusters, strict=True)):
            lay, row = problem.layouts[c], self._gather[k]
            row[lay.t_v] = [place[x] for x in cluster.labels]
            row[lay.t_up] = [known.zero if x is None else place[x] for x in tops[k]]
            for name, part in (
                ("u", lay.t_u),
                ("down", lay.t_down),
                ("pv", lay.t_pv),
                ("soc", lay.t_soc),
            ):
                size = part.stop - part.start
                row[part] = at[name] + np.arange(size)
                at[name] += size
            row[lay.t_load] = known.start("load") + np.arange(n)
            row[lay.parameters - 1] = known.one

    def _output_ports(self, clusters: list[str]) -> tuple[Port, ...]:
        names, settings = self._fleet.names, self._settings
        ports = (Port("q_set_kvar", "kvar", names), Port("p_set_kw", "kW", names))
        ahead = [f"{i * settings.step_s:g}s" for i in range(settings.horizon)]
        plan = Port("plan_kw", "kW", tuple(f"{c}.{x}" for c in clusters for x in ahead))
        return (*ports, plan) if settings.plan else ports

    def _wire_links(self, problem: FeederProblem, own: list[int]) -> None:
        network, n = problem.network, self._n
        width = BLOCKS * n
        rows: list[FloatArray | IntArray] = []
        links_out, links_in, mine, cluster_of = [], [], [], []
        place = positions(self.inputs, "v_pu")
        zero = self._known.zero
        self._up_links: list[int] = []
        self._down_links: list[int] = []
        tops = []
        for k, c in enumerate(own):
            cluster = network.clusters[c]
            for i in [cluster.up] * (cluster.up >= 0) + list(cluster.downs):
                boundary = network.boundaries[i]
                above = boundary.child == c
                other = network.names[boundary.parent if above else boundary.child]
                (self._up_links if above else self._down_links).append(len(rows))
                first = k * self._split.coupled + problem.boundary_rows[c, i]
                rows.append(first + np.arange(width))
                cluster_of.append(k)
                links_out.append(Link(cluster.name, other, "plan", width + _TAIL))
                links_in.append(Link(other, cluster.name, "plan", width + _TAIL))
                # Voltages are the parent's own, powers the child's.
                mine.append((np.arange(width) >= 3 * n) if above else (np.arange(width) < 3 * n))
                tops.append([zero if x is None else place[x] for x in boundary.labels])
        self.links_in, self.links_out = tuple(links_in), tuple(links_out)
        table = np.array(rows, dtype=np.int64).reshape(-1, width)
        self._tops = np.array(tops, dtype=np.int64).reshape(-1, 3)
        settings = self._settings
        # Plans are in absolute quantities and a horizon step is longer than a sample: no shift. An
        # agreement with what was planned before the last sample would chase its own past.
        judgement = Judgement(settings.patience, settings.trust_pu, -_ABSURD, _ABSURD, max_age=1)
        self._post = BoundaryMail(self.links_in, self._calls, 1, judgement)
        self._exchange = Exchange(
            self._split,
            links_out,
            table,
            table,
            np.array(mine, dtype=bool).reshape(-1, width),
            self._post,
            settings.relaxation,
            settings.inner,
        )
        self._hold: FloatArray = np.zeros((len(rows), width))
        self._rows = table
        self._cluster_of_link = np.array(cluster_of, dtype=np.int64)

    def _wire_rows(self, site: ControlSite, problem: FeederProblem, own: list[int]) -> None:
        """Fill the bounds that never change and find the rows of inputs and energies."""
        settings, n, nb = self._settings, self._n, self._split.bounded
        self._low: FloatArray = np.zeros((len(own), nb, 1))
        self._high: FloatArray = np.zeros((len(own), nb, 1))
        v_lo, v_hi = site.band_pu(settings.margin_pu, _WHERE)
        inputs: list[IntArray] = []
        sums = []
        unit = 0
        for k, c in enumerate(own):
            lay = problem.layouts[c]
            self._low[k, lay.v_rows], self._high[k, lay.v_rows] = v_lo**2 / V_UNIT, v_hi**2 / V_UNIT
            self._low[k, lay.e_rows], self._high[k, lay.e_rows] = settings.soc_min, settings.soc_max
            inputs.append(k * nb + lay.u_rows.start + np.arange(n * lay.units).reshape(n, -1))
            # The sum runs over this cluster alone: the same bits whatever else is hosted here.
            sums.append((slice(unit, unit + lay.units), self._powers_above[k]))
            unit += lay.units
        self._u_rows: IntArray = np.concatenate(
            [np.zeros((n, 0), np.int64), *inputs], axis=1
        ).astype(np.int64)
        self._tail_of = [
            s for s, c in zip(sums, own, strict=True) if problem.network.clusters[c].up >= 0
        ]
        self._downs_of = [
            [j for j, i in enumerate(self._down_links) if self.links_in[i].target == names]
            for names in (
                problem.network.names[c] for c in own if problem.network.clusters[c].up >= 0
            )
        ]

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Take mail in, begin a sample when one is due, iterate, send, command."""
        sample, phase = divmod(self._k, self._calls)
        self._post.absorb(mail)
        if phase == 0:
            self._begin(time_s, sample, inputs)
        sent = Mail.empty()
        if phase < self._settings.iterations:
            exchange = self._exchange
            exchange.receive(sample)
            exchange.iterate(self._g0, self._low, self._high, self._hold)
            sent = exchange.outgoing_mail(self._k, self._tails())
            if phase == self._settings.iterations - 1:
                self._fleet.command(self._planned(), self._share_of_way())
                self._plan_kw = self._fleet.battery_plan_kw(self._planned(slice(None)))
        self._k += 1
        fleet = self._fleet
        outputs = {"q_set_kvar": fleet.q_set_kvar.copy(), "p_set_kw": fleet.p_set_kw.copy()}
        if self._settings.plan:
            outputs["plan_kw"] = self._plan_kw
        return ControllerStep(outputs, sent)

    def _share_of_way(self) -> FloatArray:
        """Return 1 for clusters that agree with all neighbours, less for those in local mode.

        Uncoordinated clusters all correct the same voltage; each going all the way
        would swing it from limit to limit.
        """
        step = np.ones(len(self._low))
        step[self._cluster_of_link[self._post.local]] = self._settings.local_step
        return step

    def _planned(self, steps: int | slice = 0) -> FloatArray:
        """Return the plan's first step, (units,), or some of its steps, (n, units); 100 kVA."""
        planned: FloatArray = self._exchange.inside.reshape(-1)[self._u_rows[steps]]
        return planned

    def _begin(self, time_s: float, sample: int, inputs: Mapping[str, FloatArray]) -> None:
        known, fleet = self._known, self._fleet
        v_pu = inputs["v_pu"]
        known.take("v", np.square(v_pu) / V_UNIT)
        fleet.measure(inputs.get("p_kw"))
        known.of("u")[:] = fleet.u_now
        known.of("soc")[:] = fleet.soc
        rows = self._post.rows
        down = rows[self._down_links, -_TAIL:] if len(self._down_links) else rows[:0, :0]
        known.of("down")[:] = down.reshape(-1)
        known.of("pv")[:], known.of("load")[:] = fleet.forecast(time_s)
        self._g0 = self._split.offset(known.values[self._gather])
        above = known.values[self._tops]
        n = self._n
        # A local boundary takes the far end as it is now, for the whole horizon.
        self._hold[:, : 3 * n] = np.repeat(above, n, axis=1)
        if len(self._down_links):
            self._hold[self._down_links, 3 * n :] = np.repeat(down, n, axis=1)
        agreed = self._contradiction(above) if sample else np.full(len(above), np.nan)
        self._post.begin_sample(sample, agreed, np.zeros(len(above)))
        if sample == 0:
            self._exchange.start(self._rows, self._hold)
        q_max = np.sqrt(np.maximum(fleet.kva**2 - fleet.p_kw**2, 0.0))
        for bound, values in zip((self._low, self._high), fleet.bounds(q_max), strict=True):
            bound.reshape(-1)[self._u_rows] = values

    def _contradiction(self, above: FloatArray) -> FloatArray:
        """Return how far the voltage agreed on for now is off at each boundary above, in pu."""
        agreed = np.stack([self._exchange.agreed(i * self._n) for i in range(3)], axis=1)
        off = np.abs(agreed - above) * V_UNIT / 2.0
        out = np.where(above > 0.0, off, 0.0).max(axis=1, initial=0.0)
        out[self._down_links] = np.nan  # the powers below are not measured here
        return np.asarray(out)

    def _tails(self) -> FloatArray:
        """Return what each child tells its parent of the P and Q that its plan starts with."""
        planned = self._planned()
        below = self._post.rows[self._down_links, -_TAIL:]
        for link, share, downs in zip(self._up_links, self._tail_of, self._downs_of, strict=True):
            mine, matrix = share
            total = matrix @ planned[mine]
            for j in downs:
                total = total + below[j]
            self._tail[link] = total
        return self._tail

    def summary(self) -> dict[str, float]:
        """Return battery throughput and what the mail was worth."""
        return {"battery_throughput_kwh": self._fleet.throughput_kwh} | mail_summary(
            self._post, self._known
        )


def _sample(settings: FeederDmpcOptions, period_s: float) -> tuple[float, int]:
    """Return the sample and the number of controller steps in it."""
    sample_s = settings.iterations * period_s if settings.sample_s is None else settings.sample_s
    return sample_s, controller_steps(sample_s, settings.iterations, period_s, _WHERE)


def _above(network: FeederNetwork, c: int) -> tuple[str | None, ...]:
    up = network.clusters[c].up
    return (None, None, None) if up < 0 else network.boundaries[up].labels
