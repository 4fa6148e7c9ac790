"""Distributed MPC of a circuit over mail: one agent per cluster of inverters.

The controller's period is the time of one round of mail; a sample is a whole number of periods.
Mail sent in one controller step is read in the next. At the first step of a sample the clusters
measure; in the first `iterations` steps each does one iteration of `controllers.dmpc.splitting` and
sends its boundary trajectories; then the first input of the plan goes out. The plan is inside the
inverters' limits after any number of iterations.

``apply: now`` applies the input as soon as the iterations are done, inside the sample it was
planned for. ``apply: next`` holds it until the next sample, for networks that need the whole
sample, and plans with the input of the running sample fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.circuit_options import circuit_of
from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.dmpc.boundary_mail import BoundaryMail, Judgement
from controllers.dmpc.common import controller_steps, mail_summary, parse_weights
from controllers.dmpc.condensed import (
    RELAXATION,
    RHO_BOUND,
    RHO_EDGE,
    CircuitProblem,
    CircuitWeights,
    circuit_problem,
    padded_limits,
    shift_rows,
    split_parts,
)
from controllers.dmpc.exchange import Exchange, Measured, positions
from controllers.dmpc.splitting import ClusterSplitting

_WHERE = "dmpc-circuit"
# Rows carry the price of the agreement beside the voltage, so honest ones leave the usual range.
_ABSURD_PU = (-1.0, 3.0)


@dataclass(frozen=True, slots=True)
class CircuitDmpcOptions(ControllerOptions):
    """Settings."""

    circuit: Any = option(
        "feeder24",
        "The plant's circuit: feeder24, or chain:K for K clusters in a row.",
        shown="text",
    )
    clusters: Any = option(
        None,
        "How many clusters to find, or cluster name to its buses; None: the circuit's own.",
        shown="whole number or mapping",
    )
    sample_s: float | None = option(
        None,
        "Time between two plans; a whole number of the controller's periods. None: 20 of them.",
        above=0.0,
        high=1e3,
    )
    horizon: int = option(15, "Samples of a plan.", low=2)
    iterations: int | None = option(
        None, "Rounds of mail per sample. None: 20, or as many as fit.", low=1
    )
    apply: str = option(
        "now",
        "Whether the input goes out as soon as the iterations are done, or at the next sample.",
        choices=("now", "next"),
    )
    patience: int = option(5, "Samples without mail until a boundary goes local.", low=1)
    trust_pu: float = option(
        0.03,
        "Contradiction between the far voltage agreed on and the one measured that counts "
        "against a neighbour.",
        above=0.0,
        high=10.0,
    )
    weights: Mapping[str, float] | None = option(
        None, "See `controllers.dmpc.condensed.CircuitWeights`.", shown="mapping"
    )


class CircuitDmpc:
    """Agents of the distributed MPC, one per cluster; see the module's text.

    Parameters
    ----------
    site : Its period is used; the circuit is an option.
    hosted : Clusters of this instance.
    **options : See `CircuitDmpcOptions`.

    Raises ControllerError, GridModelError: An option, a hosted name or the list of clusters is not
    accepted.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(CircuitDmpcOptions, options, _WHERE)
        sample_s = 20 * site.period_s if settings.sample_s is None else settings.sample_s
        self._calls = controller_steps(sample_s, settings.iterations, site.period_s, _WHERE)
        self._iterations = settings.iterations or min(20, self._calls)
        circuit, clusters = circuit_of(settings.circuit, settings.clusters)
        weights = parse_weights(CircuitWeights, settings.weights, _WHERE)
        problem = circuit_problem(circuit, clusters, sample_s, settings.horizon, weights)
        own = hosted_positions(hosted, clusters.names, _WHERE, "cluster")
        whole = ClusterSplitting(split_parts(problem, RHO_BOUND, RHO_EDGE))
        self._split = whole.of(own)
        self._nb = whole.bounded
        self._limit = padded_limits(problem, self._nb)[own]
        self._low, self._high = -self._limit, self._limit
        self._shift = shift_rows(problem, self._nb)[own][..., None]
        self._now = settings.apply == "now"
        self._wire_ports(problem, own)
        self._wire_links(problem, own, settings)
        self._g0: FloatArray = np.zeros((len(own), whole.g.shape[1], 1))
        self._hold: FloatArray = np.zeros((len(self._far), 2 * self._n))
        self._u: FloatArray = np.zeros(len(self._first))
        self._k = 0

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return 0: the circuit begins at rest, and what follows is what is looked at."""
        return 0.0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per cluster."""
        settings = parse_options(CircuitDmpcOptions, options, _WHERE)
        return circuit_of(settings.circuit, settings.clusters)[1].names

    def _wire_ports(self, problem: CircuitProblem, own: list[int]) -> None:
        """Make the ports of the hosted clusters, and where each parameter is found in them."""
        circuit = problem.circuit
        models = [problem.models[c] for c in own]
        none = np.zeros(0, dtype=np.intp)

        def table(parts: list[IntArray]) -> dict[int, int]:
            return {i: k for k, i in enumerate(dict.fromkeys(np.concatenate([none, *parts])))}

        buses = table([i for m in models for i in (m.buses, m.far_bus)])
        lines, loads = table([m.lines for m in models]), table([m.buses for m in models])
        units = table([m.inverters for m in models])
        names, line_names, inverters = circuit.buses, circuit.line_names, circuit.inverters
        self.inputs = (
            Port("v_pu", "pu", tuple(names[i] for i in buses), initial=1.0),
            Port("i_pu", "pu", tuple(line_names[i] for i in lines)),
            Port("load_pu", "pu", tuple(names[i] for i in loads), required=False),
        )
        self.outputs = (Port("i_set_pu", "pu", tuple(inverters[i] for i in units)),)
        known = Measured(
            v_pu=np.ones(len(buses)),
            i_pu=np.zeros(len(lines)),
            load_pu=np.zeros(len(loads)),
            u=np.zeros(len(units)),
        )
        self._known = known
        gather = np.full((len(own), self._split.parameters), known.zero, dtype=np.int64)
        first: list[int] = []
        for k, m in enumerate(models):
            row = [known.start("i_pu") + lines[i] for i in m.lines]
            row += [buses[i] for i in (*m.buses, *m.far_bus)]
            row += [known.start("u") + units[i] for i in m.inverters]
            row += [known.start("load_pu") + loads[i] for i in m.buses]
            gather[k, : len(row) + 1] = [*row, known.one]
            first += range(k * self._nb, k * self._nb + len(m.inverters))
        self._gather = gather
        self._first = np.array(first, dtype=np.int64)
        width = np.array([len(m.inverters) for m in models], dtype=np.int64)
        self._second = self._first + np.repeat(width, width)

    def _wire_links(
        self, problem: CircuitProblem, own: list[int], settings: CircuitDmpcOptions
    ) -> None:
        n, circuit = problem.horizon, problem.circuit
        names, place = problem.clusters.names, positions(self.inputs, "v_pu")
        links_in, links_out, rows, near, far = [], [], [], [], []
        for k, c in enumerate(own):
            part, model = problem.parts[c], problem.models[c]
            for j, line in enumerate(part.boundary_line):
                kind = f"plan:{circuit.line_names[int(line)]}"
                other = names[part.neighbour[j]]
                links_out.append(Link(names[c], other, kind, 2 * n))
                links_in.append(Link(other, names[c], kind, 2 * n))
                rows.append(k * problem.twin.shape[1] + 2 * n * j + np.arange(2 * n))
                near.append(place[circuit.buses[model.buses[model.near_bus[j]]]])
                far.append(place[circuit.buses[model.far_bus[j]]])
        self.links_in, self.links_out = tuple(links_in), tuple(links_out)
        rows_out = np.array(rows, dtype=np.int64).reshape(-1, 2 * n)
        # The neighbour's own voltage is my copy, its copy my own voltage.
        rows_in = rows_out[:, np.r_[n : 2 * n, 0:n]]
        speaks_of_me = np.tile(np.arange(2 * n) >= n, (len(rows), 1))
        judgement = Judgement(
            settings.patience, settings.trust_pu, *_ABSURD_PU, max_age=settings.patience
        )
        self._post = BoundaryMail(self.links_in, self._calls, n, judgement)
        self._exchange = Exchange(
            self._split, links_out, rows_in, rows_out, speaks_of_me, self._post, RELAXATION
        )
        self._near, self._far = np.array(near, np.int64), np.array(far, np.int64)
        self._start_rows, self._n = rows_out, n

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Take mail in, begin a sample when one is due, iterate, send, command."""
        sample, phase = divmod(self._k, self._calls)
        self._post.absorb(mail)
        if phase == 0:
            self._begin(sample, inputs)
        sent = Mail.empty()
        if phase < self._iterations:
            self._exchange.receive(sample)
            self._exchange.iterate(self._g0, self._low, self._high, self._hold)
            sent = self._exchange.outgoing_mail(self._k)
            if phase == self._iterations - 1 and self._now:
                self._u = self._exchange.inside.ravel()[self._first]
        self._k += 1
        return ControllerStep({"i_set_pu": self._u.copy()}, sent)

    def _begin(self, sample: int, inputs: Mapping[str, FloatArray]) -> None:
        known, exchange = self._known, self._exchange
        for port in ("v_pu", "i_pu", "load_pu"):
            known.take(port, inputs.get(port))
        known.of("u")[:] = self._u
        near, far = known.of("v_pu")[self._near], known.of("v_pu")[self._far]
        agreed = np.full(len(far), np.nan)
        if sample == 0:
            both = np.stack([near, far], axis=1)
            exchange.start(self._start_rows, np.repeat(both, self._n, axis=1))
        else:
            agreed = exchange.agreed(0)
            exchange.t = np.take_along_axis(exchange.t, self._shift, axis=1)
            if not self._now:
                self._u = exchange.inside.ravel()[self._second]
        if not self._now:
            # The input of the running sample is out already; the plan may change the later ones.
            self._low, self._high = -self._limit, self._limit.copy()
            for bound in (self._low, self._high):
                bound.reshape(-1)[self._first] = self._u
        self._g0 = self._split.offset(known.values[self._gather])
        self._hold = np.repeat(far[:, None], 2 * self._n, axis=1)
        self._post.begin_sample(sample, agreed, far)

    def summary(self) -> dict[str, float]:
        """Return what the mail was worth: refused messages, samples of boundaries in local mode."""
        return mail_summary(self._post, self._known)
