"""Distributed MPC of a circuit over mail: one agent per cluster of inverters.

The controller's period is the time of one round of mail, the sample is a whole number of periods:
mail sent in one controller step is read in the next, never in the same, so iterations take
simulated time as they would on a network. At the first step of a sample the clusters measure; in
the first `iterations` steps each does one iteration of `controllers.dmpc_splitting` and sends its
boundary trajectories; then the first input of the plan goes out. The plan is inside the inverters'
limits after any number of iterations.

``apply: now`` puts the input out as soon as the iterations are done, inside the sample it was
planned for. ``apply: next`` holds it until the next sample, for networks that need the whole
sample, and plans with the input of the running sample fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controllers.dmpc_condensed import CircuitProblem, Weights, circuit_problem
from controllers.dmpc_horizon import (
    RELAXATION,
    RHO_BOUND,
    RHO_EDGE,
    padded_limits,
    shift_rows,
    split_parts,
)
from controllers.dmpc_mailbox import BoundaryMail, Judgement
from controllers.dmpc_options import circuit_of
from controllers.dmpc_splitting import Splitting
from controllers.errors import ControllerError
from controllers.mail import FloatArray, Link, Mail
from controllers.optdist_options import (
    checked_choice,
    checked_number,
    checked_whole,
    parse_options,
)
from controllers.ports import Port
from controllers.protocol import ControllerStep, ControlSite
from grid_models.errors import nearest_name

_WHERE = "dmpc-circuit"


@dataclass(frozen=True, slots=True)
class CircuitDmpcOptions:
    """Settings.

    Attributes
    ----------
    circuit, clusters
        See `controllers.dmpc_options.circuit_of`.
    sample_s : float
        Time between two plans; a whole number of the controller's periods. None: 20 of them.
    horizon : int
        Samples of a plan.
    iterations : int
        Rounds of mail per sample. None: 20, or as many as fit.
    apply : 'now' or 'next'
        See the module's text.
    patience : int
        Samples without mail until a boundary goes local.
    trust_pu : float
        Contradiction between the far voltage agreed on and the one measured that counts against
        a neighbour.
    weights : mapping
        See `controllers.dmpc_condensed.Weights`.
    """

    circuit: Any = "feeder24"
    clusters: Any = None
    sample_s: float | None = None
    horizon: int = 15
    iterations: int | None = None
    apply: str = "now"
    patience: int = 5
    trust_pu: float = 0.03
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_whole("horizon", self.horizon, low=2)
        if self.iterations is not None:
            checked_whole("iterations", self.iterations, low=1)
        if self.sample_s is not None:
            checked_number("sample_s", self.sample_s, low=0.0, high=1e3, open_low=True)
        checked_choice("apply", self.apply, ("now", "next"))
        checked_whole("patience", self.patience, low=1)
        checked_number("trust_pu", self.trust_pu, low=0.0, high=10.0, open_low=True)


def _timing(settings: CircuitDmpcOptions, period_s: float) -> tuple[float, int, int]:
    """Return sample, calls per sample and iterations per sample."""
    sample_s = 20 * period_s if settings.sample_s is None else settings.sample_s
    calls = round(sample_s / period_s)
    if calls < 1 or abs(calls * period_s - sample_s) > 1e-6 * sample_s:
        raise ControllerError(
            f"sample_s = {sample_s:g} is no whole number of the controller's periods",
            where=f"{_WHERE}: option 'sample_s'",
            expected=f"a multiple of period_s = {period_s:g}",
        )
    iterations = min(20, calls) if settings.iterations is None else settings.iterations
    if iterations > calls:
        raise ControllerError(
            f"{iterations} rounds of mail do not fit in a sample of {calls} controller steps",
            where=f"{_WHERE}: option 'iterations'",
            expected=f"at most {calls}, or a shorter period_s",
        )
    return sample_s, calls, iterations


class CircuitDmpc:
    """Agents of the distributed MPC, one per cluster; see the module's text.

    Parameters
    ----------
    site : ControlSite
        Its period is used; the circuit is an option.
    hosted : sequence of str
        Clusters of this instance.
    **options
        See `CircuitDmpcOptions`.

    Raises
    ------
    ControllerError, GridModelError
        An option, a hosted name or the list of clusters is not accepted.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(CircuitDmpcOptions, options, _WHERE)
        sample_s, self._calls, self._iterations = _timing(settings, site.period_s)
        circuit, clusters = circuit_of(settings.circuit, settings.clusters)
        weights = _weights(settings.weights)
        problem = circuit_problem(circuit, clusters, sample_s, settings.horizon, weights)
        own = _positions(hosted, clusters.names)
        whole = Splitting(split_parts(problem, RHO_BOUND, RHO_EDGE))
        self._split = whole.of(own)
        self._nb = whole.bounded
        self._high = padded_limits(problem, self._nb)[own]
        self._low = -self._high
        self._shift = shift_rows(problem, self._nb)[own][..., None]
        self._now = settings.apply == "now"
        self._wire_ports(problem, own)
        self._wire_links(problem, own, settings)
        self._t: FloatArray = np.zeros((len(own), whole.g.shape[1], 1))
        self._w = np.zeros_like(self._t)
        self._inside = np.zeros((len(own), self._nb, 1))
        self._g0 = np.zeros_like(self._t)
        self._u = np.zeros(len(self._first))
        self._k = 0
        self.held_values = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per cluster."""
        settings = parse_options(CircuitDmpcOptions, options, _WHERE)
        return circuit_of(settings.circuit, settings.clusters)[1].names

    def _wire_ports(self, problem: CircuitProblem, own: list[int]) -> None:
        """Make the ports of the hosted clusters, and where each parameter is found in them."""
        circuit = problem.circuit
        lines: dict[int, int] = {}
        buses: dict[int, int] = {}
        loads: dict[int, int] = {}
        units: dict[int, int] = {}
        for c in own:
            model = problem.models[c]
            for table, members in (
                (lines, model.lines),
                (buses, np.concatenate([model.buses, model.far_bus])),
                (loads, model.buses),
                (units, model.inverters),
            ):
                for i in members.tolist():
                    table.setdefault(i, len(table))
        names, line_names, inverters = circuit.buses, circuit.line_names, circuit.inverters
        self.inputs = (
            Port("v_pu", "pu", tuple(names[i] for i in buses), initial=1.0),
            Port("i_pu", "pu", tuple(line_names[i] for i in lines)),
            Port("load_pu", "pu", tuple(names[i] for i in loads), required=False),
        )
        self.outputs = (Port("i_set_pu", "pu", tuple(inverters[i] for i in units)),)
        # One vector holds all that is known: voltages, currents, loads, last inputs, 1, 0.
        at_i = len(buses)
        at_w = at_i + len(lines)
        at_u = at_w + len(loads)
        one = at_u + len(units)
        self._known: FloatArray = np.concatenate([np.ones(at_i), np.zeros(one - at_i), [1.0, 0.0]])
        self._where = (slice(0, at_i), slice(at_i, at_w), slice(at_w, at_u), slice(at_u, one))
        gather = np.full((len(own), self._split.parameters), one + 1, dtype=np.int64)
        first: list[int] = []
        flat: list[list[int]] = []
        stride = self._nb
        for k, c in enumerate(own):
            model = problem.models[c]
            row = [at_i + lines[i] for i in model.lines.tolist()]
            row += [buses[i] for i in (*model.buses.tolist(), *model.far_bus.tolist())]
            row += [at_u + units[i] for i in model.inverters.tolist()]
            row += [at_w + loads[i] for i in model.buses.tolist()]
            gather[k, : len(row) + 1] = [*row, one]
            first += range(k * stride, k * stride + len(model.inverters))
            start = self._nb
            for near, far in zip(model.near_bus, model.far_bus, strict=True):
                pair = [buses[int(model.buses[near])], buses[int(far)]]
                flat += [[k, start, pair[0]], [k, start + problem.horizon, pair[1]]]
                start += 2 * problem.horizon
        self._gather = gather
        self._first = np.array(first, dtype=np.int64)
        width = np.array([len(problem.models[c].inverters) for c in own], dtype=np.int64)
        self._second = self._first + np.repeat(width, width)
        self._flat = np.array(flat, dtype=np.int64).reshape(-1, 3)

    def _wire_links(
        self, problem: CircuitProblem, own: list[int], settings: CircuitDmpcOptions
    ) -> None:
        n = problem.horizon
        names, line_names = problem.clusters.names, problem.circuit.line_names
        place = {c: k for k, c in enumerate(own)}
        links_in, links_out, rows_in, rows_out, far = [], [], [], [], []
        position = {bus: i for i, bus in enumerate(self.inputs[0].labels)}
        for c in own:
            part, model = problem.parts[c], problem.models[c]
            for j, line in enumerate(part.boundary_line):
                kind = f"plan:{line_names[int(line)]}"
                other = names[part.neighbour[j]]
                start = place[c] * problem.twin.shape[1] + 2 * n * j
                links_out.append(Link(names[c], other, kind, 2 * n))
                links_in.append(Link(other, names[c], kind, 2 * n))
                rows_out.append(start + np.arange(2 * n))
                # The neighbour's own voltage is my copy, its copy my own voltage.
                rows_in.append(start + np.r_[n : 2 * n, 0:n])
                far.append(position[problem.circuit.buses[model.far_bus[j]]])
        self.links_in, self.links_out = tuple(links_in), tuple(links_out)
        self._rows_in = np.array(rows_in, dtype=np.int64).reshape(-1, 2 * n)
        self._rows_out = np.array(rows_out, dtype=np.int64).reshape(-1, 2 * n)
        self._far = np.array(far, dtype=np.int64)
        judgement = Judgement(settings.patience, settings.trust_pu, -1.0, 3.0)
        self._post = BoundaryMail(self.links_in, self._calls, n, judgement)
        self._agreed: FloatArray = np.full(len(far), np.nan)
        self._n = n

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Take mail in, begin a sample when one is due, iterate, send, command."""
        sample, phase = divmod(self._k, self._calls)
        self._post.absorb(mail)
        if phase == 0:
            self._begin(sample, inputs)
        sent = Mail.empty()
        if phase < self._iterations:
            self._hear(sample)
            sent = self._iterate()
            if phase == self._iterations - 1 and self._now:
                self._u = self._inside.ravel()[self._first]
        self._k += 1
        return ControllerStep({"i_set_pu": self._u.copy()}, sent)

    def _begin(self, sample: int, inputs: Mapping[str, FloatArray]) -> None:
        known = self._known
        v, i, w, u = self._where
        for port, at in (("v_pu", v), ("i_pu", i), ("load_pu", w)):
            given = inputs.get(port)
            if given is not None:
                good = np.isfinite(given)
                self.held_values += int(good.size - np.count_nonzero(good))
                np.copyto(known[at], given, where=good)
        known[u] = self._u
        if sample == 0:
            self._start_flat()
        else:
            self._t = np.take_along_axis(self._t, self._shift, axis=1)
            if not self._now:
                self._u = self._inside.ravel()[self._second]
        if not self._now:
            # The input of the running sample is out already; the plan may change the later ones.
            self._low = -self._high
            self._high_now = self._high.copy()
            for bound in (self._low, self._high_now):
                bound.reshape(-1)[self._first] = self._u
        self._g0 = self._split.drive @ known[self._gather][..., None]
        self._post.begin_sample(sample, self._agreed, known[self._far])

    def _start_flat(self) -> None:
        for k, start, at in self._flat.tolist():
            self._t[k, start : start + self._n, 0] = self._known[at]

    def _hear(self, sample: int) -> None:
        links, rows = self._post.fresh(sample)
        if len(links):
            coupled = np.ascontiguousarray(self._t[:, self._nb :, 0])
            flat, at = coupled.reshape(-1), self._rows_in[links]
            flat[at] += RELAXATION * (rows - flat[at])
            self._t[:, self._nb :, 0] = coupled

    def _iterate(self) -> Mail:
        t, w, nb = self._t, self._w, self._nb
        high = self._high if self._now else self._high_now
        v = self._split.g @ t + self._g0
        np.subtract(2.0 * v, t, out=w)
        self._inside = self._split.project(w[:, :nb], self._low, high)
        t[:, :nb] += RELAXATION * (2.0 * self._inside - w[:, :nb] - t[:, :nb])
        coupled = np.ascontiguousarray(v[:, nb:, 0]).reshape(-1)
        self._agreed = coupled[self._rows_in[:, 0]]
        if self._post.local.any():
            self._stay_local(coupled)
        return self._letters()

    def _stay_local(self, planned: FloatArray) -> None:
        """At local boundaries leave the own voltage free and hold the far one as measured."""
        n, lost = self._n, np.flatnonzero(self._post.local)
        coupled = np.ascontiguousarray(self._t[:, self._nb :, 0])
        flat = coupled.reshape(-1)
        own, copy = self._rows_in[lost, n:], self._rows_in[lost, :n]
        flat[own] = planned[own]
        flat[copy] = self._known[self._far[lost]][:, None]
        self._t[:, self._nb :, 0] = coupled

    def _letters(self) -> Mail:
        m = len(self.links_out)
        values = np.ascontiguousarray(self._w[:, self._nb :, 0]).reshape(-1)[self._rows_out]
        return Mail(np.arange(m), np.full(m, self._k), values.ravel())

    def summary(self) -> dict[str, float]:
        """Return what the mail was worth: refused messages, samples of boundaries in local mode."""
        return {
            "mail_refused_count": float(self._post.refused),
            "local_mode_samples": float(self._post.local_samples),
            "held_values_count": float(self.held_values),
        }


def _weights(given: Mapping[str, Any]) -> Weights:
    try:
        return parse_options(Weights, given, f"{_WHERE}: option 'weights'")
    except TypeError:
        raise ControllerError(
            f"{given!r} is not accepted",
            where=f"{_WHERE}: option 'weights'",
            expected="numbers by name",
        ) from None


def _positions(hosted: Sequence[str], names: Sequence[str]) -> list[int]:
    for name in hosted:
        if name not in names:
            raise ControllerError(
                f"no cluster is called '{name}'",
                where=_WHERE,
                expected="a cluster of the circuit",
                nearest=nearest_name(name, names),
            )
    return [list(names).index(name) for name in hosted]


