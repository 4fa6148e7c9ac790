"""The scenario schema: one YAML file that describes a whole run.

The pydantic models below are the single source of the schema; ``feederate schema`` exports them as
JSON Schema, and their field descriptions are the reference documentation.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, ValidationError

from federates.clock import to_ns
from federates.errors import ScenarioError
from federates.scenario.attack_files import (
    adopt,
    find_attack,
    load_attack,
    nearest_file,
    shipped_attacks,
)
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.environment import Environment
from federates.scenario.hosting_section import HostingSection
from federates.scenario.kinds import RUNNABLE, ByKind, FederateSection
from federates.scenario.named_classes import make_importable
from federates.scenario.overrides import Given, apply_override, defended
from federates.scenario.schema_errors import schema_error
from federates.scenario.sections import (
    Connection,
    Defence,
    Grid,
    LinkRule,
    Record,
    Time,
    VoltageBand,
    parse_connection,
)
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import nearest_name
from grid_models.base.sections import Name, Section, Seed, not_json
from grid_models.base.yaml_lines import dotted
from grid_models.ders.rules import DerRule

CONFIG_SUFFIX = ".yaml"
MAX_STEPS = 100_000_000


def _globs(value: Any) -> Any:
    """Accept one glob in place of a list, and the word `all` for ``*``."""
    if isinstance(value, str):
        value = [value]
    return ["*" if glob == "all" else glob for glob in value] if isinstance(value, list) else value


class Scenario(Section):
    """A whole run."""

    title: str = ""
    description: str = ""
    seed: Seed = 0
    time: Time = Time()
    grid: Grid = Grid()
    band: VoltageBand = VoltageBand()
    federates: dict[Name, Annotated[SerializeAsAny[FederateSection], ByKind()]] = Field(
        min_length=1
    )
    connections: list[Connection | str] = Field([])
    links: list[LinkRule] = Field([], description="Quality of mail between agents.")
    record: Record = Record()
    publish: Annotated[list[str], BeforeValidator(_globs)] = Field(
        [],
        description="Globs over federate.port, or `all`: outputs that are published on HELICS "
        "though nothing in the scenario reads them, for recorders and other observers. As in "
        "`record.ports`, optional outputs of a feeder need a glob that names them.",
    )
    attack: AttackSpec | str | None = Field(
        None, description="Path of an attack file, a shipped attack's name, or the attack itself."
    )
    defences: dict[Name, Defence] = Field(
        {}, description="Defences by name, for 'feederate attack run' and 'run --defence'."
    )
    environment: Environment | None = Field(
        None, description="Episodes of `feederate.env` and `feederate.vector_env`; see below."
    )
    hosting: HostingSection | None = Field(
        None, description="What 'feederate hosting' adds to the feeder; see `hosting` below."
    )

    _source: YamlSource | None = PrivateAttr(None)
    _base_dir: Path = PrivateAttr(Path())
    _name: str = PrivateAttr("scenario")
    _given: Given = PrivateAttr(Given())
    _changes: tuple[str, ...] = PrivateAttr(())

    @property
    def name(self) -> str:
        """The file's stem."""
        return self._name

    @property
    def given(self) -> Given:
        """The file and the changes that it was read from."""
        return self._given

    @property
    def changes(self) -> tuple[str, ...]:
        """What differs from the file, ``key=value`` each: overrides, seed, attack, defence."""
        return self._changes

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
        own = {name: _own_grid(section) for name, section in self.federates.items()}
        return {name: grid or self.grid for name, grid in own.items() if grid is not False}

    def plant_of(self, name: str) -> str | None:
        """Return the plant whose grid a federate uses; None where the scenario has no plant.

        Raises ScenarioError: There are several, and neither the key ``plant`` nor a connection says
        which one.
        """
        plants = self.plants
        chosen = getattr(self.federates.get(name), "plant", None)
        if name in plants or len(plants) < 2 or chosen is not None:
            return name if name in plants else chosen or next(iter(plants), None)
        parts = [(c.source.partition("."), c.target.partition(".")) for c in self.wires]
        ends = [(source[0], target[0]) for source, target in parts]
        near = {a for a, b in ends if b == name} | {b for a, b in ends if a == name}
        connected = [plant for plant in plants if plant in near]
        if len(connected) == 1:
            return connected[0]
        found = f"is connected to {' and '.join(connected)}" if connected else "names no plant"
        raise ScenarioError(
            f"'{name}' uses the grid of a plant and {found}",
            where=self.where("federates", name),
            expected=f"the key 'plant', one of {', '.join(plants)}"
            if hasattr(self.federates.get(name), "plant")
            else "connections with one plant",
        )

    @property
    def attack_spec(self) -> AttackSpec | None:
        """The attack, read; None for a scenario without one."""
        assert not isinstance(self.attack, str)
        return self.attack

    @property
    def wires(self) -> tuple[Connection, ...]:
        """The connections, read."""
        return tuple(c for c in self.connections if isinstance(c, Connection))

    def where(self, *path: str | int) -> str:
        """Return the place of a key in the user's file."""
        return self._source.where(path) if self._source else dotted(path)

    def resolved(self) -> dict[str, Any]:
        """Return the whole scenario with every default filled in, as plain data."""
        return self.model_dump(mode="json")


def _own_grid(section: FederateSection) -> Any:
    """Return the grid that a plant's section gives: None for the scenario's, False without one."""
    grid = getattr(section, "grid", False)
    return Grid.model_validate(grid) if isinstance(grid, dict) else grid


def recorded_scenario(manifest: Mapping[str, Any]) -> Scenario:
    """Return the scenario of a recorded run from its ``manifest.json``.

    Nothing of the user's is imported: the sections of their own federate kinds are not checked.

    Raises ValueError, KeyError: The manifest does not hold a scenario.
    """
    scenario = Scenario.model_validate(manifest["scenario"])
    scenario._base_dir = Path(manifest.get("base_dir", "."))
    scenario._name = str(manifest.get("name", "scenario"))
    return scenario


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
        nearest=nearest_file(path, shipped),
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
    overrides : ``key.path=value``; they win over everything else.
    attack : Path of an attack file or a shipped attack's name, in place of the scenario's own;
        empty for none.
    defence : Name of one of the scenario's defences.

    Raises ScenarioError: Naming file, line and key, what was found, what was expected and the
    nearest valid name.
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
    changes: Sequence[str] = (),
) -> Scenario:
    """Validate a parsed scenario file; see `load_scenario`."""
    data = copy.deepcopy(source.data)
    changes = [*changes, *_changes(data, overrides, seed, attack, defence)]
    # A defence is merged first, so that overrides win over it; but for those of its own patch.
    of_defences = [o for o in overrides if o.startswith(("defences.", "defences="))]
    keys = {apply_override(data, override): override for override in of_defences}
    if defence is not None:
        data, source = defended(data, defence, source)
    # Keys of an attack that lies in a file of its own are set there.
    elsewhere = attack if attack is not None else data.get("attack")
    of_attack = [o for o in overrides if isinstance(elsewhere, str) and o.startswith("attack.")]
    own = [override for override in overrides if override not in (*of_attack, *of_defences)]
    keys |= {apply_override(data, override): override for override in own}
    source = dataclasses.replace(source, overrides=keys)
    if seed is not None:
        data["seed"] = seed
    if attack is not None:
        data["attack"] = attack or None
    path = Path(source.name)
    base_dir = path.resolve().parent if base_dir is None else base_dir
    make_importable([base_dir, Path.cwd()])
    try:
        scenario = Scenario.model_validate(data, context={RUNNABLE: True})
    except ValidationError as error:
        raise schema_error(source, Scenario, error) from None
    for i, connection in enumerate(scenario.connections):
        if isinstance(connection, str):
            try:
                scenario.connections[i] = parse_connection(connection)
            except ValueError as error:
                raise ScenarioError(str(error), where=source.where(("connections", i))) from None
    scenario._source, scenario._base_dir, scenario._name = source, base_dir, path.stem
    scenario._given = Given(source.name, tuple(overrides), seed, attack, defence)
    scenario._changes = tuple(changes)
    _add_default_connections(scenario)
    _check_values(scenario)
    _find_attack(scenario, source, attack, of_attack)
    return scenario


def _add_default_connections(scenario: Scenario) -> None:
    fed = {wire.target for wire in scenario.wires}
    for name, section in scenario.federates.items():
        if section.default_connections(name, "") and (plant := scenario.plant_of(name)):
            ends = section.default_connections(name, plant)
            new = [Connection(source=a, target=b) for a, b in ends if b not in fed]
            scenario.connections += new


def _changes(
    data: Mapping[str, Any],
    overrides: Sequence[str],
    seed: int | None,
    attack: str | None,
    defence: str | None,
) -> list[str]:
    """Say what a run changes in its file."""
    changes = list(overrides)
    if seed is not None and seed != data.get("seed", 0):
        changes.append(f"seed={seed}")
    if attack is not None and (attack or None) != data.get("attack"):
        changes.append(f"attack={Path(attack).stem or 'none'}")
    return [*changes, f"defence={defence}"] if defence is not None else changes


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


def _check_values(scenario: Scenario) -> None:
    """Refuse values that contradict one another."""
    where, time = scenario.where, scenario.time
    for name, grid in {"": scenario.grid, **scenario.plants}.items():
        path = ("federates", name, "grid") if name and grid is not scenario.grid else ("grid",)
        for i, rule in enumerate(grid.ders):
            DerRule.from_mapping(rule, where=where(*path, "ders", i))
    if scenario.band.v_min_pu >= scenario.band.v_max_pu:
        raise ScenarioError("v_min_pu is not below v_max_pu", where=where("band"))
    if time.duration_s / time.step_s > MAX_STEPS:
        raise ScenarioError(
            f"{time.duration_s / time.step_s:.3g} steps",
            where=where("time"),
            expected=f"at most {MAX_STEPS:.0e}",
        )
    every = scenario.record.every
    if every > scenario.n_steps:
        raise ScenarioError(
            f"found {every}: of {scenario.n_steps} steps only the first would be recorded",
            where=where("record", "every"),
            expected=f"a whole number from 1 to {scenario.n_steps}",
        )
    for name, section in scenario.federates.items():
        _check_federate(scenario, name, section)


def _check_federate(scenario: Scenario, name: str, section: FederateSection) -> None:
    where, offset_s = scenario.where, section.offset_s
    if offset_s is not None and offset_s >= scenario.time.duration_s:
        raise ScenarioError(
            f"never steps: offset_s = {offset_s:g} is not before the end of the run",
            where=where("federates", name, "offset_s"),
            expected=f"less than duration_s = {scenario.time.duration_s:g}",
        )
    if offset_s is not None and 0.0 < offset_s < 1e-6:
        raise ScenarioError(
            f"offset_s = {offset_s:g} is finer than time is kept",
            where=where("federates", name, "offset_s"),
            expected="0, or at least 1e-6",
        )
    plant, plants = getattr(section, "plant", None), scenario.plants
    if plant is not None and plant not in plants:
        raise ScenarioError(
            f"no plant with a grid is called '{plant}'",
            where=where("federates", name, "plant"),
            expected=f"one of {', '.join(plants)}" if plants else "a scenario with a feeder",
            nearest=nearest_name(plant, plants),
        )
    wrong = not_json(section.model_dump(warnings=False))
    if wrong:
        raise ScenarioError(wrong, where=where("federates", name, "options"))
