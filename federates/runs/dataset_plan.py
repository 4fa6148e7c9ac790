"""Which runs a data set consists of, each as the options of one run.

All runs are the scenario with one more federate, the operator, whose readings are what the tables
of the data set hold: what passed attacks and noisy sensors, as any reader gets it.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from federates.assembly.federation import Assembly
from federates.clock import to_ns, to_s
from federates.core.federate import Federate
from federates.errors import ScenarioError
from federates.kinds.operator import KIND
from federates.runs.options import RunOptions
from federates.scenario.attack_files import past_windows
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.overrides import apply_override
from federates.scenario.schema import Scenario, find_scenario
from federates.scenario.yaml_source import load_yaml
from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import nearest_name

TRAIN, TEST = "train", "test"
SENSORS = {"v_pu": 0.001, "p_kw": 0.3, "q_kvar": 0.3, "import_kw": 5.0, "import_kvar": 5.0}
"""What an operator measures by default, with the standard deviation of the sensors in the port's
unit: 0.1 % of voltage, about 1 % of an inverter's power, about 0.2 % of a feeder's."""
_ENDLESS_SHARE = 0.25
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Sensor:
    """One port that the operator reads: ``federate.port``, and the noise of its values."""

    source: str
    unit: str
    labels: tuple[str, ...]
    noise: float

    @property
    def name(self) -> str:
        """The operator's port."""
        return self.source.replace(".", "-", 1)


@dataclass(frozen=True)
class DatasetRun:
    """One run of a data set; `attack` is the id of its attack, None for a clean run."""

    name: str
    split: str
    attack: str | None
    seed: int
    options: RunOptions


@dataclass(frozen=True)
class DatasetPlan:
    """All runs of a data set.

    Attributes
    ----------
    scenario : Without an attack, with the operator.
    attacks : By id.
    n_steps : Steps of each run.
    lead : The first so many of them are no rows of the tables.
    offset_s : Time of the operator's reading after the plant's step.
    """

    scenario: Scenario
    attacks: Mapping[str, AttackSpec]
    sensors: tuple[Sensor, ...]
    operator: str
    offset_s: float
    n_steps: int
    lead: int
    runs: tuple[DatasetRun, ...]

    @property
    def bytes_in_all(self) -> int:
        """About the size of the data set: four bytes per reading; noise does not compress."""
        n_columns = sum(len(sensor.labels) for sensor in self.sensors)
        return len(self.runs) * (self.n_steps - self.lead) * (4 * n_columns + 12)

    @property
    def lead_s(self) -> float:
        """Time of the first row."""
        return self.lead * self.scenario.time.step_s


def plan_dataset(
    options: RunOptions,
    attacks: Sequence[str],
    seeds: int | Sequence[int],
    test_share: float,
    unseen: Sequence[str],
    noise: Mapping[str, float],
) -> DatasetPlan:
    """Load and wire everything once, start nothing, and return the runs.

    Parameters
    ----------
    options : Scenario, overrides and steps of all runs; those of ``attack.`` are for every attack.
    seeds : A count (the scenario's seed and those after it), or the seeds.
    unseen : Attacks, as in `attacks`, that are in the tests only.
    noise : Sensors besides, or other than, `SENSORS`: a port's name, or ``federate.port``.

    Raises FeederateError: Wrong input, such as an attack that does not fit the scenario.
    """
    clean = replace(options, attack="").load()
    n_steps = clean.n_steps if options.steps is None else min(options.steps, clean.n_steps)
    train, test = _split(clean, seeds, test_share)
    sensors, offset_s = _sensors(clean, n_steps, {**SENSORS, **noise})
    name = next(n for n in ("operator", "operator_2", "operator_3") if n not in clean.federates)
    options = replace(
        options,
        overrides=(*options.overrides, *_operator(options, name, sensors, offset_s)),
        placement="single",
        report=False,
        out=None,
    )
    specs, files = _attacks(options, attacks)
    step_s = clean.time.step_s
    lead = lead_steps(specs, n_steps, step_s)
    late = _unseen(specs, files, unseen)
    runs = []
    for seed in (*train, *test):
        split = TRAIN if seed in train else TEST
        runs.append(_run(options, split, None, seed, ""))
        for attack, spec in specs.items():
            begins = tuple(begin_overrides(spec, lead, n_steps, step_s, seed))
            if split == TEST or attack not in late:
                each = replace(options, overrides=(*options.overrides, *begins))
                runs.append(_run(each, split, attack, seed, files[attack]))
    for attack in specs:  # what does not fit is refused before the first run
        wire(next(r for r in runs if r.attack == attack).options.load(), n_steps)
    scenario = replace(options, attack="").load()
    return DatasetPlan(scenario, specs, sensors, name, offset_s, n_steps, lead, tuple(runs))


def _run(options: RunOptions, split: str, attack: str | None, seed: int, file: str) -> DatasetRun:
    name = f"{attack or 'clean'}-{seed}"
    return DatasetRun(name, split, attack, seed, replace(options, seed=seed, attack=file))


def _split(
    scenario: Scenario, seeds: int | Sequence[int], share: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the seeds of training and of the tests: the last ones."""
    count = isinstance(seeds, int)
    chosen = [scenario.seed + k for k in range(seeds)] if isinstance(seeds, int) else list(seeds)
    if len(set(chosen)) < len(chosen):
        raise ScenarioError("a seed twice", where="seeds", expected="different seeds")
    if not 0.0 < share < 1.0:
        raise ScenarioError(f"{share:g}", where="test share", expected="above 0 and below 1")
    if len(chosen) < 2:
        raise ScenarioError(
            f"{seeds if count else len(chosen)}: too few to split",
            where="seeds",
            expected="at least 2, one to train and one to test; for scores that mean something 8",
        )
    n_test = min(max(1, round(share * len(chosen))), len(chosen) - 1)
    return tuple(chosen[:-n_test]), tuple(chosen[-n_test:])


# -- the operator ----------------------------------------------------------------------------------


def wire(scenario: Scenario, n_steps: int) -> tuple[Assembly, dict[str, Federate]]:
    """Build and wire a scenario, and close it; return it with its federates.

    Raises FeederateError: What a run would refuse.
    """
    assembly = Assembly(scenario, n_steps)
    built, _ = assembly.assemble()
    ours = {name: f for name, f in built.items() if isinstance(f, Federate)}
    for federate in ours.values():
        federate.close()
    return assembly, ours


def _sensors(
    scenario: Scenario, n_steps: int, noise: Mapping[str, float]
) -> tuple[tuple[Sensor, ...], float]:
    """Return what the operator reads, and when: after all who step with the plant."""
    assembly, federates = wire(scenario, n_steps)
    kind = {name: spec.kind for name, spec in scenario.federates.items()}
    ports: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for group, instances in assembly.groups.items():
        for port in (p for i in instances if i in federates for p in federates[i].outputs):
            labels = ports.get(f"{group}.{port.name}", ("", (), ""))[1]
            ports[f"{group}.{port.name}"] = (port.unit, (*labels, *port.labels), port.name)
    known = sorted({*ports, *(port for _, _, port in ports.values())})
    for word, wanted in noise.items():
        if word not in known and word not in SENSORS:
            raise ScenarioError(
                f"no output is called '{word}'",
                where="noise",
                expected="a port, or federate.port, as 'feederate check' lists them",
                nearest=nearest_name(word, known),
            )
        if not (math.isfinite(wanted) and wanted >= 0.0):
            raise ScenarioError(f"{wanted:g}", where=f"noise {word}", expected="0 or more")
    measures = [g for g in kind if g in assembly.plants or kind[g] == "device"]
    chosen: list[Sensor] = []
    for source, (unit, labels, name) in ports.items():
        measured = source.partition(".")[0] in measures
        deviation = noise.get(source, noise.get(name) if measured else None)
        if deviation is not None:
            chosen.append(Sensor(source, unit, labels, deviation))
    found = tuple(s for s in _without_devices(chosen, kind) if s.labels)
    if not found:
        raise ScenarioError(
            "nothing that an operator measures",
            where=scenario.name,
            expected=f"one of {', '.join(SENSORS)} of a plant, or --noise FEDERATE.PORT=DEVIATION",
        )
    step_ns = to_ns(scenario.time.step_s)
    latest = max(f.timing.offset_ns % step_ns for f in federates.values())
    return found, to_s((latest + step_ns) // 2)


def _without_devices(sensors: Sequence[Sensor], kind: Mapping[str, str]) -> Iterator[Sensor]:
    """Leave out what a plant says of DERs that are devices: the operator reads the device."""
    read: dict[str, set[str]] = {}
    for sensor in sensors:
        federate, _, port = sensor.source.partition(".")
        if kind[federate] == "device":
            read.setdefault(port, set()).update(sensor.labels)
    for sensor in sensors:
        federate, _, port = sensor.source.partition(".")
        away = read.get(port, set()) if kind[federate] != "device" else set()
        yield replace(sensor, labels=tuple(x for x in sensor.labels if x not in away))


def _operator(
    options: RunOptions, name: str, sensors: Sequence[Sensor], offset_s: float
) -> Iterator[str]:
    """Yield the overrides that add the operator and record it only."""
    data = copy.deepcopy(load_yaml(find_scenario(options.scenario)).data)
    for override in options.overrides:
        if not override.startswith("attack."):
            apply_override(data, override)
    ports = {s.name: (s.unit, s.labels) for s in sensors}
    wires = [{"source": s.source, "target": f"{name}.{s.name}", "noise": s.noise} for s in sensors]
    federate = {"kind": KIND, "offset_s": offset_s, "options": {"ports": ports}}
    yield f"federates.{name}={json.dumps(federate)}"
    yield f"connections={json.dumps([*(data.get('connections') or []), *wires])}"
    yield f"record={json.dumps({'ports': [f'{name}.*']})}"


# -- attacks ---------------------------------------------------------------------------------------


def _attacks(
    options: RunOptions, attacks: Sequence[str]
) -> tuple[dict[str, AttackSpec], dict[str, str]]:
    """Return the attacks, and what the user calls them, by id."""
    specs: dict[str, AttackSpec] = {}
    files: dict[str, str] = {}
    for file in attacks:
        spec = replace(options, attack=file).load().attack_spec
        assert spec is not None
        if spec.id in specs or spec.id == "clean":
            raise ScenarioError(f"two attacks are called '{spec.id}'", where=file)
        if spec.kind != "attack":
            raise ScenarioError(f"'{spec.id}' is a {spec.kind}", where=file, expected="an attack")
        specs[spec.id], files[spec.id] = spec, file
    if not specs:
        raise ScenarioError("no attack is named", expected="a shipped attack, or a file")
    return specs, files


def _unseen(
    specs: Mapping[str, AttackSpec], files: Mapping[str, str], unseen: Sequence[str]
) -> set[str]:
    by_word = {**{file: name for name, file in files.items()}, **{name: name for name in specs}}
    for word in unseen:
        if word not in by_word:
            raise ScenarioError(
                f"'{word}' is none of the attacks",
                where="unseen",
                expected=f"one of {', '.join(specs)}",
                nearest=nearest_name(word, by_word),
            )
    found = {by_word[word] for word in unseen}
    if found and found == set(specs):
        raise ScenarioError(
            "no attack is left to train with", where="unseen", expected="fewer attacks there"
        )
    return found


@dataclass(frozen=True)
class Span:
    """The steps of an attack that begin at a time, as one block that is moved as a whole.

    Attributes
    ----------
    first_s, length_s : Begin of the first of them in the file, and from there to the last end.
    last_s : From the first begin to the last one.
    after_s : Least begin: the end of the last window of the past that they play.
    """

    timed: tuple[int, ...]
    first_s: float
    length_s: float
    last_s: float
    after_s: float

    @property
    def lead_s(self) -> float:
        """Time that a run needs before its first row, so that the attack can have ended there."""
        return self.after_s + self.length_s

    @classmethod
    def of(cls, spec: AttackSpec, horizon_s: float) -> Span | None:
        """Return that of an attack; None where all steps wait for a signal."""
        schedule = AttackSchedule.of(spec)
        begins = np.array(schedule.begin_s)
        timed = tuple(np.flatnonzero(~np.isnan(begins)).tolist())
        if not timed:
            return None
        first_s = float(begins[list(timed)].min())
        lengths = [schedule.span_s(i) for i in timed]
        ends = [
            begins[i] + (_ENDLESS_SHARE * horizon_s if math.isinf(length) else length)
            for i, length in zip(timed, lengths, strict=True)
        ]
        past = [
            first_s + window.to_s - float(begins[i])
            for i in timed
            for _, _, window in past_windows(spec.steps[i])
        ]
        last_s = float(begins[list(timed)].max()) - first_s
        return cls(timed, first_s, float(max(ends)) - first_s, last_s, max([0.0, *past]))


def lead_steps(specs: Mapping[str, AttackSpec], n_steps: int, step_s: float) -> int:
    """Return how many steps at the begin of each run are no rows.

    An attack may begin before the first row, too, and end after the last one: so the chance of an
    attack is the same in every row, and a model learns nothing from the clock.

    Raises ScenarioError: An attack is too long for the runs.
    """
    lead, horizon_s = 0, n_steps * step_s
    for spec in specs.values():
        span = Span.of(spec, horizon_s)
        if span is None:
            continue
        own = math.ceil(span.lead_s / step_s - 1e-9)
        needed = own + math.ceil(span.length_s / step_s - 1e-9)
        if needed > n_steps:
            after = f" and cannot begin before {span.after_s:g} s" if span.after_s else ""
            raise ScenarioError(
                f"attack '{spec.id}' lasts {span.length_s:g} s{after}; the runs last "
                f"{horizon_s:g} s",
                where=spec.where("steps", span.timed[0], "duration_s"),
                expected=f"at least {needed} steps, or --set attack.steps.0.duration_s=SHORTER",
            )
        lead = max(lead, own)
    return lead


def begin_overrides(
    spec: AttackSpec, lead: int, n_steps: int, step_s: float, seed: int
) -> Iterator[str]:
    """Yield the overrides by which an attack begins at a time that the seed draws.

    All steps that begin at a time move together; steps that wait for a signal stay as they are. The
    draw of targets follows the seed as well.

    Parameters
    ----------
    lead : As `lead_steps` gives it: the attack is active in a row behind these steps.
    """
    yield f"attack.seed={spec.seed + seed}"
    span = Span.of(spec, n_steps * step_s)
    if span is None:
        return
    first = lead - math.ceil(span.length_s / step_s - 1e-9) + 1
    first = max(first, math.ceil(span.after_s / step_s - 1e-9))
    slots = n_steps - math.ceil(span.last_s / step_s - 1e-9) - first
    # Steps of the golden ratio spread the begins of a few neighbouring seeds evenly, which
    # independent draws do not.
    phase = float(uniform(0, stream_ids([f"dataset:{spec.id}"]), 0, 0)[0])
    draw = (phase + seed * _GOLDEN) % 1.0
    shift_s = (first + math.floor(draw * slots)) * step_s - span.first_s
    for i in span.timed:
        at_s = spec.steps[i].trigger.at_s
        if at_s is not None:
            yield f"attack.steps.{i}.trigger.at_s={at_s + shift_s!r}"
