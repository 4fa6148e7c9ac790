"""Many feeders alike as one federate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from federates.core.context import FederateContext
from federates.core.federate import FloatArray, Mail, Port, Step
from federates.errors import ScenarioError
from federates.kinds.feeder.federate import FeederFederate
from federates.kinds.feeders.fleet import Fleet, FleetState, Scale, balanced_source
from federates.kinds.feeders.metrics import FleetMetrics
from federates.kinds.feeders.referee import Referee
from federates.kinds.feeders.section import FeedersSection
from federates.scenario.sections import Connection
from grid_models.base.errors import FeederError, listed, nearest_name
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.states import CapacitorStates, TapPositions
from grid_models.profiles.load_diversity import LoadDiversity

if TYPE_CHECKING:
    from federates.core.run_store import RunStore

TOTAL = ("total",)
_TIGHT_PU = 1e-10


class FeedersFederate(FeederFederate):
    """A feeder in OpenDSS, and ``count - 1`` further feeders solved at once beside it.

    It has all that a feeder federate has, of its first feeder. The further ones draw its loads and
    inject what its DERs inject, times factors of their own, at the same voltage of the source, so
    that set-points, orders and attacks on the first act in all. Their regulators follow those of
    the first, but for taps that their group sets. Further outputs: ``total_kw``, ``total_kvar`` of
    all feeders, and ``total_kw_per_pu``, ``total_kvar_per_pu``, by how much they rise with the
    voltage of the source (loads, DERs and taps being fixed); ``feeder_import_kw``,
    ``feeder_v_min_pu``, ``feeder_v_max_pu`` per feeder (``f1``, ``f2``, ...), and ``feeder_v_pu``
    per node of the feeders of `sample` (``f17/65.1``).
    """

    Section = FeedersSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        section = context.section
        assert isinstance(section, FeedersSection)
        self._feeders = section
        self._refuse_what_cannot_be()
        self.labels = tuple(f"f{k}" for k in range(1, section.count + 1))
        sizes = self._sizes()
        self._sampled = self._sample()
        self._follows = self._gear is not None or bool(
            {"tap_set", "cap_set"} & {port.name for port in self._commands.ports}
        )
        self._stands: tuple[FloatArray, FloatArray, FloatArray] | None = None
        with context.site.located():
            self._fleet_of = Fleet(
                self.labels, self._scale(sizes), sizes, self._open, section.threads
            )
        self._referee = Referee(self._fleet_of, section.referee, context.n_steps)
        self._totals = FleetMetrics(context.period_s)
        self.outputs += (
            Port("total_kw", "kW", TOTAL),
            Port("total_kvar", "kvar", TOTAL),
            Port("total_kw_per_pu", "kW/pu", TOTAL),
            Port("total_kvar_per_pu", "kvar/pu", TOTAL),
            Port("feeder_import_kw", "kW", self.labels),
            Port("feeder_v_min_pu", "pu", self.labels, initial=1.0),
            Port("feeder_v_max_pu", "pu", self.labels, initial=1.0),
        )
        if self._sampled:
            nodes = self._circuit.node_labels
            names = [f"{self.labels[k]}/{node}" for k in self._sampled for node in nodes]
            self.outputs += (Port("feeder_v_pu", "pu", tuple(names), initial=1.0),)

    def _refuse_what_cannot_be(self) -> None:
        """Refuse a grid whose further feeders could not be as the first."""
        site = self._context.site
        for key, wrong, expected in (
            (("regulators",), site.regulators == "auto", "'fixed': all feeders have given taps"),
            (("grid_forming",), self._island is not None, "no island: feeders have a source"),
            (
                ("profiles", "kind"),
                site.grid.profiles.kind == "master",
                "another day: OpenDSS alone knows the powers of the file's load shapes",
            ),
        ):
            if wrong:
                raise FeederError(
                    f"not possible with kind 'feeders' (federate '{self.name}')",
                    where=site.where(*key),
                    expected=expected,
                )

        self._refuse_part_of_source()

    def _refuse_part_of_source(self) -> None:
        """Refuse a connection that gives the source's voltage on some phases only."""
        scenario, phases = self._context.scenario, [str(k) for k in self._circuit.source_phases]
        for i, wire in enumerate(scenario.connections):
            if not isinstance(wire, Connection) or not wire.map:
                continue
            left = [phase for phase in phases if phase not in wire.map]
            if wire.target in (f"{self.name}.source_v_pu", f"{self.name}.source_deg") and left:
                raise ScenarioError(
                    f"the map gives no phase {listed(left, 3)} of the source",
                    where=scenario.where("connections", i, "map"),
                    expected=f"all phases, {', '.join(phases)}: feeders that are solved at once "
                    "have a balanced source",
                )

    def _sizes(self) -> list[int]:
        """Return how many feeders have the taps of the first, and how many are in each group."""
        section, known = self._feeders, list(self._circuit.tap_steps())
        sizes = [group.count for group in section.groups]
        if sum(sizes) >= section.count:
            raise self._context.error(
                f"{sum(sizes)} feeders in groups",
                "groups",
                expected=f"less than count = {section.count}: the first feeder is in no group",
            )
        for i, group in enumerate(section.groups):
            for name in group.taps:
                if name.lower() not in (other.lower() for other in known):
                    raise self._context.error(
                        f"no regulator is called '{name}'",
                        *("groups", i, "taps", name),
                        expected=f"one of {', '.join(known)}" if known else "no taps: it has none",
                        nearest=nearest_name(name, known),
                    )
        return [section.count - sum(sizes), *sizes]

    def _scale(self, sizes: Sequence[int]) -> Scale:
        """Return the factors of all feeders, by the seed, the federate and the feeder."""
        section, seed = self._feeders, self._context.scenario.seed

        def factors(what: str, spread: float, groups: list[float]) -> FloatArray:
            names = [f"{self.name}.{label}.{what}" for label in self.labels]
            own = LoadDiversity(names, seed, spread).factors(0.0)
            own[0] = 1.0
            return np.asarray(own * np.repeat([1.0, *groups], sizes))

        return Scale(
            factors("load", section.spread_pu, [group.load_scale for group in section.groups]),
            factors("der", section.der_spread_pu, [group.der_scale for group in section.groups]),
        )

    def _sample(self) -> list[int]:
        """Return the positions of the feeders whose voltages are published."""
        wanted, count = self._feeders.sample, self._feeders.count
        if isinstance(wanted, int):
            n = min(wanted, count)
            return sorted(set(np.linspace(0, count - 1, n).round().astype(int).tolist()))
        at = {label: k for k, label in enumerate(self.labels)}
        for i, label in enumerate(wanted):
            if label not in at:
                raise self._context.error(
                    f"no feeder is called '{label}'",
                    "sample",
                    i,
                    expected=f"f1 to f{count}",
                    nearest=nearest_name(label, self.labels),
                )
        return [at[label] for label in dict.fromkeys(wanted)]

    def _open(self, group: int) -> Circuit:
        """Return a circuit of a group, with taps and switches as those of the first feeder."""
        circuit = self._context.site.take_circuit()
        if self._stands is not None:
            taps, banks = TapPositions(circuit), CapacitorStates(circuit)
            for i, step in enumerate(self._stands[0].tolist()):
                taps.command(i, int(step))
            for i, steps in enumerate(self._stands[1].tolist()):
                banks.command(i, int(steps))
            if self._gear is not None:
                for name, closed in zip(self._gear.names, self._stands[2].tolist(), strict=True):
                    circuit.set_switch(f"line.{name}", bool(closed))
        if group:
            circuit.set_taps(self._feeders.groups[group - 1].taps)
        circuit.set_tolerance(_TIGHT_PU)
        circuit.solve()
        return circuit

    def _follow(self) -> None:
        """Let the further feeders have the taps and switches of the first."""
        measured, gear = self._measured, self._gear
        closed = np.empty(0) if gear is None else gear.closed()
        now = measured.taps.steps(), measured.capacitors.steps(), closed
        before, self._stands = self._stands, now
        if before is None or not all(map(np.array_equal, before, now)):
            self._fleet_of.rebuild()

    def start(self, store: RunStore) -> None:
        """Also let the referee's events reach the run's list."""
        super().start(store)
        self._referee.tell = partial(store.event, self.name)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Step the first feeder, then solve all others with what it applied."""
        k = self._k
        step = super().step(time_s, inputs, mail)
        if self._follows:
            self._follow()
        fleet = self._fleet_of
        with self._located(time_s):
            source_pu = np.nan
            if self._source_fed and not self._applied.dark:
                source_pu = balanced_source(
                    inputs["source_v_pu"],
                    inputs["source_deg"],
                    f"{self.name}.source_v_pu at time_s={time_s:g}",
                )
            state = fleet.solve(self._applied, source_pu)
            self._referee.judge(k, time_s, self._applied, source_pu)
        values = self._values(step, state)
        if time_s >= self._warm_up_s:
            self._totals.add(values)
        return Step({**step.outputs, **values}, step.mail)

    def _values(self, step: Step, state: FleetState) -> dict[str, FloatArray]:
        """Return the outputs of all feeders; the first is as OpenDSS has it."""
        out, dark = step.outputs, self._applied.dark
        import_kva = state.import_kva.copy()
        low, high = state.v_min_pu.copy(), state.v_max_pu.copy()
        import_kva[0] = out["import_kw"][0] + 1j * out["import_kvar"][0]
        if not dark:
            v_pu = out["v_pu"] if self._gear is None else out["v_pu"][self._gear.live]
            low[0], high[0] = v_pu.min(), v_pu.max()
        total, slope = import_kva.sum(), state.slope_kva_per_pu.sum()
        values = {
            "total_kw": np.array([total.real]),
            "total_kvar": np.array([total.imag]),
            "total_kw_per_pu": np.array([slope.real]),
            "total_kvar_per_pu": np.array([slope.imag]),
            "feeder_import_kw": import_kva.real.copy(),
            "feeder_v_min_pu": low,
            "feeder_v_max_pu": high,
        }
        if self._sampled:
            rows = [out["v_pu"] if k == 0 else self._fleet_of.v_pu(k) for k in self._sampled]
            values["feeder_v_pu"] = np.concatenate(rows)
        return values

    def summary(self) -> dict[str, float]:
        """Return the metrics of all feeders, and those of the first as ``representative_...``."""
        first = {f"representative_{key}": value for key, value in super().summary().items()}
        return self._totals.totals() | self._referee.totals() | first
