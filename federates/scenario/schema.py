"""The scenario schema: one YAML file that describes a whole run.

The pydantic models below are the single source of the schema; ``feederate schema`` exports them as
JSON Schema, and their field descriptions are the reference documentation.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from federates.clock import to_ns
from federates.errors import ScenarioError
from federates.scenario.attack_files import adopt, find_attack, load_attack, shipped_attacks
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.overrides import apply_override
from federates.scenario.schema_errors import schema_error
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import nearest_name
from grid_models.base.sections import (
    Deviation,
    Duration,
    Name,
    Period,
    Probability,
    Section,
    not_json,
)
from grid_models.base.yaml_lines import dotted
from grid_models.ders.rules import DerRule

CONFIG_SUFFIX = ".yaml"
MAX_STEPS = 100_000_000
# The rule's own class checks it and owns its fields; the schema is generated from there.
DerRuleTable = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(DerRule).json_schema())]


class RealTime(Section):
    """The wall clock's part in a run; without this section a run is as fast as it can be."""

    factor: float = Field(1.0, gt=0, description="Simulated seconds per second of the wall clock.")
    overrun: Literal["skip", "catch_up", "abort"] = Field(
        "skip",
        description="When a step comes after its deadline: give up the periods missed, run without "
        "waiting until the schedule is met again, or fail.",
    )


class Time(Section):
    """When the run starts, how long it lasts and how fine it steps."""

    start_s: Duration = Field(0.0, description="Time of day of the first step, in seconds.")
    duration_s: Period = Field(86400.0, description="Simulated time.")
    step_s: Period = Field(60.0, description="Period of the feeder federate.")
    step_timeout_s: float = Field(
        20.0, gt=0, description="Wall-clock limit of one step of one federate; then it hangs."
    )
    real_time: RealTime | None = Field(
        None, description="Pace the run by the wall clock; devices on a bench need it."
    )


class Profiles(Section):
    """The day: irradiance, temperature, load and price over time."""

    path: str | None = Field(None, description="The user's own CSV or Parquet table.")
    kind: Literal["clear", "cloudy", "overcast"] = Field("clear", description="Generated sky.")
    seed: int | None = Field(None, description="Seed of the generated day; default: the run's.")
    repeat: bool = Field(False, description="Repeat the table when the run is longer.")


class Grid(Section):
    """The feeder, its DERs and its day."""

    model: str = Field(
        "ieee123", description="A shipped feeder's name, or the path of an OpenDSS master file."
    )
    regulators: Literal["fixed", "auto"] = Field(
        "fixed", description="Regulator taps stay where they are, or their controls act."
    )
    taps: dict[str, int] = Field(
        {},
        description="Tap steps (of 0.00625 pu) by regulator name. They belong to the model: "
        "``--set grid.model=...`` leaves them out.",
    )
    source_v_pu: float | None = Field(None, gt=0.5, lt=1.5, description="Voltage of the source.")
    load_scale: float = Field(1.0, ge=0, description="Factor on every load.")
    load_diversity: float = Field(
        0.0, ge=0, le=1, description="Deviation of each load around the common profile."
    )
    ders: list[DerRuleTable] = Field(
        [], description="Rules that place DERs by what stands there, so they fit any feeder."
    )
    der_table: str | None = Field(
        None,
        description="A CSV table of DERs; columns: the fields of grid_models.feeder.model.Der.",
    )
    profiles: Profiles = Profiles()


class Band(Section):
    """The voltage band against which violations are counted."""

    v_min_pu: float = Field(0.95, gt=0)
    v_max_pu: float = Field(1.05, gt=0)


class ExternalPort(Section):
    """A topic of a program that is not ours."""

    topic: str | None = Field(
        None, description="Outputs: the HELICS publication's full name; default federate/port."
    )
    unit: str = Field(description="Unit symbol, as in our ports: kW, kvar, pu.")
    labels: list[str] = Field(description="One label per element of the vector.")
    initial: float = 0.0


class FederateSpec(Section):
    """One federate, or one controller split over several."""

    kind: str = Field(description="feeder, controller, external, or module:Class of your own.")
    grid: Grid | None = Field(None, description="Feeder: its own grid; default: the scenario's.")
    period_s: Period | None = Field(None, description="Default: the feeder's step.")
    offset_s: Duration | None = Field(
        None, description="Default: 0 for the feeder, half a step for every other federate."
    )
    controller: str | None = Field(None, description="Controller: name or module:Class.")
    detector: str | None = Field(None, description="Detector: name or module:Class.")
    ders: list[str] | None = Field(
        None,
        description="Controller: names or globs of the DERs it commands; default: all inverters.",
    )
    split: int | Literal["agents", "areas"] = Field(
        1, description="Controller: number of federates its agents are spread over."
    )
    areas: int = Field(
        4, ge=1, description="Controller: number of areas when split by areas, at most one per bus."
    )
    options: dict[str, Any] = Field({}, description="Passed to the controller or federate class.")
    inputs: dict[str, ExternalPort] = Field({}, description="External: topics it reads from us.")
    outputs: dict[str, ExternalPort] = Field({}, description="External: topics it publishes.")
    devices: dict[str, str] = Field(
        {},
        description="Device: by name or glob of DERs, 'simulated', 'emulated', or a device file "
        "(path, or name of a shipped one); later entries win.",
    )
    not_good: Literal["hold", "model", "fail"] = Field(
        "hold",
        description="Device: what the grid sees of a device whose values are not good: the last "
        "good ones, those of its model, or the end of the run.",
    )
    command: list[str] | None = Field(
        None, description="External: program to start; {broker}, {core}, {key} are filled in."
    )

    @field_validator("split")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or 'agents', or 'areas'")
        return value


class LinkRule(Section):
    """Quality of the links whose ends match; later rules win over earlier ones."""

    source: str = Field("*", description="Glob over the names of sending agents.")
    target: str = Field("*", description="Glob over the names of receiving agents.")
    latency_s: Duration = 0.0
    jitter_s: Duration = Field(0.0, description="Uniform extra delay of up to this.")
    loss: Probability = 0.0
    noise: Deviation = Field(0.0, description="Standard deviation added to every number.")


class Connection(Section):
    """From an output port to an input port, ``federate.port`` each."""

    source: str
    target: str
    noise: Deviation = Field(
        0.0, description="Standard deviation of the measurement error, in the port's unit."
    )


class Record(Section):
    """What goes into ``signals/``."""

    ports: list[str] = Field(["*"], description="Globs over federate.port.")
    labels: list[str] = Field(["*"], description="Globs over labels.")
    every: int = Field(1, ge=1, description="Record every n-th step.")


class Defence(Section):
    """A defence: what it adds to the scenario, or changes in it."""

    title: str = ""
    description: str = ""
    patch: dict[str, Any] = Field(
        description="Merged into the scenario: mappings key by key, lists appended, all else "
        "replaced."
    )


class Scenario(Section):
    """A whole run."""

    title: str = ""
    description: str = ""
    seed: int = Field(0, ge=0)
    time: Time = Time()
    grid: Grid = Grid()
    band: Band = Band()
    federates: dict[Name, FederateSpec] = Field(min_length=1)
    connections: list[Connection | str] = Field([])
    links: list[LinkRule] = Field([], description="Quality of mail between agents.")
    record: Record = Record()
    attack: AttackSpec | str | None = Field(
        None, description="Path of an attack file, a shipped attack's name, or the attack itself."
    )
    defences: dict[Name, Defence] = Field(
        {}, description="Defences by name, for 'feederate attack run' and 'run --defence'."
    )

    _source: YamlSource | None = PrivateAttr(None)
    _base_dir: Path = PrivateAttr(Path())
    _name: str = PrivateAttr("scenario")

    @property
    def name(self) -> str:
        """The file's stem."""
        return self._name

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths and user modules are looked up in."""
        return self._base_dir

    @property
    def step_ns(self) -> int:
        """The feeder's period as integer time."""
        return to_ns(self.time.step_s)

    @property
    def n_steps(self) -> int:
        """Number of feeder steps."""
        return max(1, round(self.time.duration_s / self.time.step_s))

    @property
    def plants(self) -> dict[str, Grid]:
        """The grids that are simulated, by the name of the federate that simulates them."""
        feeders = {name: spec for name, spec in self.federates.items() if spec.kind == "feeder"}
        return {name: spec.grid or self.grid for name, spec in feeders.items()}

    @property
    def attack_spec(self) -> AttackSpec | None:
        """The attack, read; None for a scenario without one."""
        assert not isinstance(self.attack, str)
        return self.attack

    def where(self, *path: str | int) -> str:
        """Return the place of a key in the user's file."""
        return self._source.where(path) if self._source else dotted(path)

    def resolved(self) -> dict[str, Any]:
        """Return the whole scenario with every default filled in, as plain data."""
        return self.model_dump(mode="json")


def parse_connection(text: str) -> Connection:
    """Read ``"feeder.v_pu -> volt_var.v_pu"``."""
    source, arrow, target = (part.strip() for part in text.partition("->"))
    if not arrow or source.count(".") != 1 or target.count(".") != 1:
        raise ValueError(f"'{text}' is not 'federate.port -> federate.port'")
    return Connection(source=source, target=target)


def shipped_dir() -> Path:
    """Return the folder of the shipped scenarios (in the wheel, or in the source tree)."""
    packaged = Path(__file__).parents[1] / "_configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "co-sim-configs"


def shipped_scenarios() -> dict[str, Path]:
    """Return the shipped scenarios by name."""
    return {path.stem: path for path in sorted(shipped_dir().glob(f"*{CONFIG_SUFFIX}"))}


def find_scenario(name_or_path: str) -> Path:
    """Return the file of a scenario given by path or by shipped name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_scenarios()
    if name_or_path in shipped:
        return shipped[name_or_path]
    what = "is a folder" if path.is_dir() else "no such file or shipped scenario"
    raise ScenarioError(
        what,
        where=name_or_path,
        expected=f"a path or one of {', '.join(shipped)}",
        nearest=nearest_name(path.stem, shipped),
    )


def load_scenario(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    attack: str | None = None,
    defence: str | None = None,
) -> Scenario:
    """Read, override (``key.path=value``) and validate a scenario.

    Parameters
    ----------
    name_or_path : str or Path
    overrides : sequence of str
        ``key.path=value``; they win over everything else.
    seed : int, optional
    attack : str, optional
        Path of an attack file or a shipped attack's name, in place of the scenario's own;
        empty for none.
    defence : str, optional
        Name of one of the scenario's defences.

    Raises
    ------
    ScenarioError
        Naming file, line and key, what was found, what was expected and the nearest valid name.
    """
    path = find_scenario(str(name_or_path))
    source = load_yaml(path)
    return scenario_from(source, overrides, seed=seed, attack=attack, defence=defence)


def scenario_from(
    source: YamlSource,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    attack: str | None = None,
    defence: str | None = None,
    base_dir: Path | None = None,
) -> Scenario:
    """Validate a parsed scenario file; see `load_scenario`."""
    data = copy.deepcopy(source.data)
    if defence is not None:
        data = _defended(data, defence, source)
    # Keys of an attack that lies in a file of its own are set there.
    elsewhere = attack if attack is not None else data.get("attack")
    of_attack = [o for o in overrides if isinstance(elsewhere, str) and o.startswith("attack.")]
    own = [override for override in overrides if override not in of_attack]
    keys = {apply_override(data, override): override for override in own}
    source = dataclasses.replace(source, overrides=keys)
    if seed is not None:
        data["seed"] = seed
    if attack is not None:
        data["attack"] = attack or None
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise schema_error(source, Scenario, error) from None
    for i, connection in enumerate(scenario.connections):
        if isinstance(connection, str):
            try:
                scenario.connections[i] = parse_connection(connection)
            except ValueError as error:
                raise ScenarioError(str(error), where=source.where(("connections", i))) from None
    for i, rule in enumerate(scenario.grid.ders):
        DerRule.from_mapping(rule, where=source.where(("grid", "ders", i)))
    _check_values(scenario, source)
    path = Path(source.name)
    scenario._source = source
    scenario._base_dir = path.resolve().parent if base_dir is None else base_dir
    scenario._name = path.stem
    _find_attack(scenario, source, attack, of_attack)
    return scenario


def _find_attack(
    scenario: Scenario, source: YamlSource, given: str | None, overrides: Sequence[str]
) -> None:
    """Read the attack that the scenario or the command line names."""
    if isinstance(scenario.attack, str):
        typed = bool(given) or ("attack",) in source.overrides  # then it is the user's own path
        beside = Path() if typed else scenario.base_dir
        try:
            path = find_attack(scenario.attack, shipped_attacks(shipped_dir()), beside)
        except ScenarioError as error:
            if not given:
                error.where = source.where(("attack",))
            raise
        scenario.attack = load_attack(path, overrides)
    elif scenario.attack is not None:
        inside = {key[1:]: line for key, line in source.lines.items() if key[:1] == ("attack",)}
        adopt(scenario.attack, dataclasses.replace(source, lines=inside), scenario.base_dir)


def _defended(data: dict[str, Any], name: str, source: YamlSource) -> dict[str, Any]:
    defences = data.get("defences") or {}
    known = list(defences) if isinstance(defences, dict) else []
    if name not in known:
        raise ScenarioError(
            f"no defence is called '{name}'",
            where=source.where(("defences",)),
            expected=f"one of {', '.join(known)}" if known else "a scenario with defences",
            nearest=nearest_name(name, known),
        )
    defence = defences[name]
    patch = defence.get("patch") if isinstance(defence, dict) else None
    merged = _merge(data, patch if isinstance(patch, dict) else {})
    assert isinstance(merged, dict)
    return merged


def _merge(old: Any, new: Any) -> Any:
    """Return `old` changed by `new`: mappings key by key, lists appended, all else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = {key: _merge(value, new[key]) if key in new else value for key, value in old.items()}
        return both | {key: value for key, value in new.items() if key not in old}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    return new


def _check_values(scenario: Scenario, source: YamlSource) -> None:
    """Refuse what is wrong only together."""
    time = scenario.time
    if scenario.band.v_min_pu >= scenario.band.v_max_pu:
        raise ScenarioError("v_min_pu is not below v_max_pu", where=source.where(("band",)))
    if time.duration_s / time.step_s > MAX_STEPS:
        raise ScenarioError(
            f"{time.duration_s / time.step_s:.3g} steps",
            where=source.where(("time",)),
            expected=f"at most {MAX_STEPS:.0e}",
        )
    for name, spec in scenario.federates.items():
        if spec.offset_s is not None and spec.offset_s >= time.duration_s:
            raise ScenarioError(
                f"never steps: offset_s = {spec.offset_s:g} is not before the end of the run",
                where=source.where(("federates", name, "offset_s")),
                expected=f"less than duration_s = {time.duration_s:g}",
            )
        if spec.offset_s is not None and 0.0 < spec.offset_s < 1e-6:
            raise ScenarioError(
                f"offset_s = {spec.offset_s:g} is finer than time is kept",
                where=source.where(("federates", name, "offset_s")),
                expected="0, or at least 1e-6",
            )
        wrong = not_json(spec.options)
        if wrong:
            raise ScenarioError(wrong, where=source.where(("federates", name, "options")))
