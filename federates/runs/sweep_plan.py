"""What a sweep runs: the points of a grid or of a table, each with the same seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from federates.errors import ScenarioError
from federates.runs.options import RunOptions
from federates.runs.sweep_values import as_seeds, plain
from federates.scenario.schema import Scenario, find_scenario, scenario_from
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import FeederateError, nearest_name
from grid_models.base.yaml_lines import dotted

MOST_RUNS = 1_000_000
Point = Mapping[str, Any]
"""Override of each key."""


@dataclass(frozen=True)
class SweepPlan:
    """All runs of a sweep, point by point and, within a point, seed by seed.

    Attributes
    ----------
    scenario : Path of the scenario file, or the name of a shipped one.
    points : Overrides of each point, all with the same keys; a key that a row of a table leaves
        empty is missing.
    keys : Keys that any point sets, in the order in which they were given.
    seeds : Seeds of every point.
    """

    scenario: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    steps: int | None = None
    attack: str | None = None
    defence: str | None = None

    def __len__(self) -> int:
        return len(self.points) * len(self.seeds)

    def run(self, i: int) -> tuple[Point, int]:
        """Return point and seed of run `i`."""
        point, seed = divmod(i, len(self.seeds))
        return self.points[point], self.seeds[seed]

    def options(self, i: int) -> RunOptions:
        """Return the options of run `i`."""
        point, seed = self.run(i)
        return RunOptions(
            scenario=self.scenario,
            overrides=overrides_of(point),
            seed=seed,
            attack=self.attack,
            defence=self.defence,
            steps=self.steps,
            placement="single",
        )

    def as_data(self) -> dict[str, Any]:
        """Return the plan as plain data, equal for equal plans."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def overrides_of(point: Point) -> tuple[str, ...]:
    """Return a point as ``key=value`` words, as `--set` takes them."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in point.items())


# -- the plan ------------------------------------------------------------------------------------


def make_plan(
    scenario: str | Path,
    grid: Mapping[str, Sequence[Any]] | None,
    table: Sequence[Point] | None,
    seeds: int | Sequence[int] | None,
    options: RunOptions,
    table_name: str = "table",
) -> tuple[SweepPlan, Scenario]:
    """Return the checked plan of a sweep, and the scenario of its first run.

    Parameters
    ----------
    grid : Values of each key; all combinations are run.
    table : Points in addition to the grid: each row with each of its combinations.
    seeds : A count, which gives the scenario's seed and those after it, or the seeds.
    options : Steps, attack and defence of every run.

    Raises ScenarioError: A key or value is wrong; names the key, and of a table the row.
    """
    path = find_scenario(str(scenario))
    source = load_yaml(path)
    grid = {key: _values(key, values) for key, values in (grid or {}).items()}
    rows = [{}] if table is None else list(table)
    of_table = dict.fromkeys(key for row in rows for key in row)
    if not rows:
        raise ScenarioError("has no rows", where=table_name, expected="at least one")
    for key in (*of_table, *grid):
        _refuse_key(key)
    both = next((key for key in grid if key in of_table), None)
    if both is not None:
        raise ScenarioError(
            f"the key '{both}' is a column of the table, too", where=f"--set {both}"
        )
    combinations = [dict(zip(grid, c, strict=True)) for c in itertools.product(*grid.values())]
    points = tuple({**row, **chosen} for row in rows for chosen in combinations)
    first = _first(source, table, table_name, points, options)
    chosen_seeds = _seeds(seeds, first.seed)
    name = str(path.resolve()) if path.is_file() and str(scenario) != path.stem else str(scenario)
    plan = SweepPlan(
        name,
        (*of_table, *grid),
        points,
        chosen_seeds,
        options.steps,
        options.attack,
        options.defence,
    )
    if len(plan) > MOST_RUNS:
        raise ScenarioError(f"{len(plan)} runs", where="sweep", expected=f"at most {MOST_RUNS}")
    return plan, first


def _values(key: str, values: Any) -> list[Any]:
    where = f"grid['{key}']"
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise ScenarioError(f"{values!r:.60} is no list of values", where=where, expected="[a, b]")
    found = [plain(value, where) for value in values]
    if not found:
        raise ScenarioError("has no values", where=where, expected="at least one")
    twice = (
        next((v for i, v in enumerate(found) if v in found[:i]), None)
        if len(found) < 1000
        else None
    )
    if twice is not None:
        raise ScenarioError(f"the value {twice!r} is given twice", where=where)
    return found


def _refuse_key(key: str) -> None:
    where = f"--set {key}"
    if key == "seed":
        raise ScenarioError("seeds have an option of their own", where=where, expected="--seeds")
    if any(letter in key for letter in "*?"):
        raise ScenarioError(
            f"'{key}' is a pattern, not a key", where=where, expected="one key, as grid.load_scale"
        )


def _seeds(seeds: int | Sequence[int] | None, first: int) -> tuple[int, ...]:
    if seeds is None:
        return (first,)
    chosen = as_seeds(seeds)
    if isinstance(chosen, list):
        return tuple(chosen)
    if chosen < 1:
        raise ScenarioError(f"{chosen} seeds", where="seeds", expected="at least 1")
    return tuple(range(first, first + chosen))


def _first(
    source: YamlSource,
    table: Sequence[Point] | None,
    table_name: str,
    points: Sequence[Point],
    options: RunOptions,
) -> Scenario:
    """Validate the scenario at every point; return it at the first one."""
    base = _load(source, {}, options)
    known = [dotted(path) for path in _leaves(base.resolved())]
    first: Scenario | None = None
    per_row = len(points) // len(table) if table else 1
    for n, point in enumerate(points):
        try:
            found = _load(source, point, options)
        except FeederateError as error:
            if table is None:
                raise _with_nearest(error, point, known) from None
            row = f"{table_name}: row {n // per_row + (1 if table_name == 'table' else 2)}"
            near = _with_nearest(error, point, known)
            raise ScenarioError(str(near), where=row) from None
        first = first or found
    assert first is not None
    return first


def _with_nearest(error: FeederateError, point: Point, known: Sequence[str]) -> FeederateError:
    """Name the nearest key of the whole scenario where a key is at fault that it does not have."""
    words = str(error)
    strange = next((k for k in point if k not in known and f"--set {k}=" in words), None)
    near = nearest_name(strange, known) if strange else None
    if near is None or "did you mean" in words:
        return error
    return ScenarioError(words, nearest=near)


def _load(source: YamlSource, point: Point, options: RunOptions) -> Scenario:
    return scenario_from(
        source, overrides_of(point), attack=options.attack, defence=options.defence
    )


def _leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value that is no mapping or list of mappings."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for i, value in enumerate(data):
            yield from _leaves(value, (*path, i))
    else:
        yield path


# -- what must not change between two parts of a sweep -------------------------------------------


def fingerprint(plan: SweepPlan, scenario: Scenario) -> dict[str, str]:
    """Return a hash of the scenario, and of every file that it or a point names.

    Modules of the user's (``module:Class``) count as files beside the scenario.
    """
    resolved = scenario.resolved()
    hashes = {"scenario": _sha256(json.dumps(resolved, sort_keys=True).encode())}
    for text in sorted({*_texts(resolved), *_texts([*map(dict, plan.points)])}):
        name = text.partition(":")[0].replace(".", "/") + ".py" if ":" in text else text
        if len(name) > 500 or "\0" in name or "\n" in name:
            continue
        for path in (scenario.base_dir / name, Path(name)):
            if path.is_file():
                hashes[text] = _sha256(path.read_bytes())
                break
    return hashes


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
