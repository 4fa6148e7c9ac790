"""Checked tables of a case, whatever file they were read from, and the case made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.base.csv_tables import Row, read_table
from grid_models.base.errors import nearest_name
from grid_models.transmission.model import FloatArray, TransmissionError
from grid_models.transmission.opf_case import (
    CaseBranches,
    CaseBuses,
    CaseGenerators,
    Costs,
    IntArray,
    OpfCase,
)
from grid_models.transmission.system import connected

BoolArray = NDArray[np.bool_]

_TYPES = {"PQ": 1.0, "PV": 2.0, "slack": 3.0, "isolated": 4.0}
_SLACK, _ISOLATED = _TYPES["slack"], _TYPES["isolated"]
_COSTS = ("cost_usd_per_h", "cost_usd_per_mwh", "cost_usd_per_mw2h")
# Columns that a table must have, in the order of their names in `opf_case`.
_BUS = ("bus", "type", "load_mw", "load_mvar", "shunt_mw", "shunt_mvar", "area", "v_pu",
        "angle_deg", "base_kv", "v_min_pu", "v_max_pu")  # fmt: skip
_GENERATOR = ("bus", "p_mw", "q_mvar", "v_setpoint_pu", "p_min_mw", "p_max_mw", "q_min_mvar",
              "q_max_mvar")  # fmt: skip
_BRANCH = ("from_bus", "to_bus", "r_pu", "x_pu", "b_pu", "rate_mva", "tap_ratio", "shift_deg",
           "angle_min_deg", "angle_max_deg")  # fmt: skip
_MAY_BE_INFINITE = {"p_min_mw", "p_max_mw", "q_min_mvar", "q_max_mvar", "rate_mva"}


@dataclass(frozen=True)
class CaseTable:
    """Columns of numbers with the place of each row.

    `element`: What a row describes: bus, generator or branch. `values`: By name, each (n_rows,).
    `places`: File and line of each row. `titles`: Names of columns in the file, where they differ.
    """

    file: str
    element: str
    values: dict[str, FloatArray]
    places: tuple[str, ...]
    titles: dict[str, str]

    def __getitem__(self, column: str) -> FloatArray:
        return self.values[column]

    def rows(self, which: BoolArray) -> CaseTable:
        """Return the table of some of its rows."""
        values = {name: value[which] for name, value in self.values.items()}
        places = tuple(p for p, use in zip(self.places, which, strict=True) if use)
        return replace(self, values=values, places=places)

    def row_name(self, row: int) -> str:
        """Return ``bus 30``, ``generator at bus 30`` or ``branch 1-2``."""
        if self.element == "branch":
            return f"branch {self['from_bus'][row]:g}-{self['to_bus'][row]:g}"
        at = f"bus {self['bus'][row]:g}"
        return at if self.element == "bus" else f"{self.element} at {at}"

    def refuse(
        self,
        wrong: BoolArray,
        column: str,
        what: str | Callable[[int], str],
        *,
        expected: str,
        nearest: Callable[[int], str | None] = lambda _row: None,
    ) -> None:
        """Raise TransmissionError at the first row that is `wrong`: file, line, column, element."""
        if wrong.any():
            row = int(np.argmax(wrong))
            raise TransmissionError(
                f"{self.row_name(row)}: {what if isinstance(what, str) else what(row)}",
                where=f"{self.places[row]}, column '{self.titles.get(column, column)}'",
                expected=expected,
                nearest=nearest(row),
            )

    def refuse_value(self, wrong: BoolArray, column: str, expected: str) -> None:
        """Raise TransmissionError at the first row whose value in a column is `wrong`."""
        values = self[column]
        self.refuse(wrong, column, lambda row: f"{values[row]:g} cannot be used", expected=expected)


def read_case_folder(folder: Path, name: str) -> OpfCase:
    """Return a case read from ``system.csv``, ``buses.csv``, ``generators.csv``, ``branches.csv``.

    Raises TransmissionError: A table that cannot be used, with file, row and column.
    """
    head = read_table(folder / "system.csv", ("base_mva",), TransmissionError)
    if len(head) != 1:
        where = str(folder / "system.csv")
        raise TransmissionError(f"the table has {len(head)} rows", where=where, expected="one row")
    buses = _from_csv(folder / "buses.csv", "bus", _BUS)
    generators = _from_csv(folder / "generators.csv", "generator", (*_GENERATOR, *_COSTS))
    branches = _from_csv(folder / "branches.csv", "branch", _BRANCH[:-2])
    no_limit = np.full(len(branches.places), np.inf)
    branches.values.update(angle_min_deg=-no_limit, angle_max_deg=no_limit)
    none = np.zeros((len(generators.places), 0))
    costs = Costs(np.column_stack([generators[c] for c in _COSTS]), none, none)
    base_mva = head[0].number_of("base_mva", over=0.0)
    return build_case(name, base_mva, buses, generators, branches, costs)


def _from_csv(path: Path, element: str, columns: tuple[str, ...]) -> CaseTable:
    rows = read_table(path, columns, TransmissionError)
    values = {c: np.array([_cell(row, c) for row in rows], float) for c in columns}
    return CaseTable(str(path), element, values, tuple(f"{path}, row {r.number}" for r in rows), {})


def _cell(row: Row, column: str) -> float:
    if column == "type":
        return _TYPES[row.choice(column, _TYPES)]
    if column == "rate_mva" and not row.cells[column]:
        return np.inf
    return row.number_of(column)


def build_case(
    name: str,
    base_mva: float,
    buses: CaseTable,
    generators: CaseTable,
    branches: CaseTable,
    costs: Costs,
    reactive_costs: Costs | None = None,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> OpfCase:
    """Return the case of tables that hold the columns of `opf_case`, after checking them.

    Parameters
    ----------
    costs, reactive_costs : One row per row of `generators`.
    labels : One per row of `buses`, or none.
    notes : What of the source is not in the tables.

    Buses of type isolated are left out, with what is connected to them.

    Raises TransmissionError: A value that cannot be used, an unknown bus, a bus that is there
    twice, no slack bus, or no path to it.
    """
    _check_buses(buses)
    in_service = buses["type"] != _ISOLATED
    labels = [x for x, use in zip(labels or [""] * len(in_service), in_service, strict=True) if use]
    every_bus, buses = buses["bus"], buses.rows(in_service)
    known = {number: at for at, number in enumerate(buses["bus"])}
    alive = {number: number in known for number in every_bus}
    kept = _connected_to(generators, ("bus",), alive)
    generators, costs = generators.rows(kept), costs.rows(kept)
    reactive_costs = reactive_costs.rows(kept) if reactive_costs else None
    branches = branches.rows(_connected_to(branches, ("from_bus", "to_bus"), alive))
    _check_generators(generators)
    _check_branches(branches)
    slack = np.flatnonzero(buses["type"] == _SLACK)
    names = tuple(f"{number:.0f}" for number in buses["bus"])
    if len(slack) > 1:
        others = ", ".join(names[at] for at in slack[1:])
        notes = (*notes, f"bus {names[slack[0]]} holds its angle; of type slack are also {others}")
    case = OpfCase(
        name=name,
        base_mva=base_mva,
        buses=CaseBuses(
            names=names,
            labels=tuple(labels),
            slack=int(slack[0]),
            areas=tuple(f"{area:g}" for area in buses["area"]),
            **_shared(CaseBuses, buses),
        ),
        generators=_generators(generators, known),
        branches=_branches(branches, known),
        costs=costs,
        reactive_costs=reactive_costs,
        notes=tuple(notes),
    )
    _check_connected(case, buses)
    return case


def _shared(kind: type, table: CaseTable) -> dict[str, FloatArray]:
    """Return the columns of a table that are fields of a class."""
    return {f.name: table[f.name] for f in fields(kind) if f.name in table.values}


def _indices(numbers: FloatArray, known: dict[float, int]) -> IntArray:
    return np.array([known[number] for number in numbers], np.int64)


def _generators(table: CaseTable, known: dict[float, int]) -> CaseGenerators:
    names = _counted(tuple(f"{number:.0f}" for number in table["bus"]))
    values: dict[str, Any] = _shared(CaseGenerators, table)
    return CaseGenerators(**{**values, "names": names, "bus": _indices(table["bus"], known)})


def _branches(table: CaseTable, known: dict[float, int]) -> CaseBranches:
    columns = ("from_bus", "to_bus")
    ends = zip(*(table[c] for c in columns), strict=True)
    values: dict[str, Any] = _shared(CaseBranches, table)
    values.update({c: _indices(table[c], known) for c in columns})
    return CaseBranches(**{**values, "names": _counted(tuple(f"{a:.0f}-{b:.0f}" for a, b in ends))})


def _counted(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return each name with how often it was there up to then: ``7-8-1``, ``7-8-2``."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}-{seen[name]}")
    return tuple(result)


def _connected_to(
    table: CaseTable, columns: tuple[str, ...], alive: dict[float, bool]
) -> BoolArray:
    """Return the rows whose buses are in service, after checking that there are such buses."""
    kept = np.ones(len(table.places), bool)
    for column in columns:
        numbers = table[column]
        table.refuse(
            ~np.isin(numbers, list(alive)),
            column,
            lambda row, numbers=numbers: f"there is no bus {numbers[row]:g}",  # type: ignore[misc]
            expected="a number of the table of buses",
            nearest=lambda row, numbers=numbers: nearest_name(  # type: ignore[misc]
                f"{numbers[row]:g}", [f"{number:g}" for number in alive]
            ),
        )
        kept &= np.array([alive[number] for number in numbers], bool)
    return kept


def _check_numbers(table: CaseTable) -> None:
    for column, values in table.values.items():
        if column in _MAY_BE_INFINITE:
            table.refuse_value(np.isnan(values), column, "a number")
        elif not column.startswith("angle_m"):
            table.refuse_value(~np.isfinite(values), column, "a finite number")


def _check_limits(table: CaseTable, least: str, most: str) -> None:
    wrong = (table[least] > table[most]) | (table[least] == np.inf) | (table[most] == -np.inf)
    title = table.titles.get(least, least)
    table.refuse(
        wrong,
        most,
        lambda row: f"the limits {table[least][row]:g} to {table[most][row]:g} allow nothing",
        expected=f"at least the value of '{title}'",
    )


def _check_buses(table: CaseTable) -> None:
    if not table.places:
        raise TransmissionError("the case has no bus", where=table.file, expected="at least one")
    number, kind = table["bus"], table["type"]
    table.refuse_value(
        ~((number >= 1) & (number < 2**53) & (np.trunc(number) == number)), "bus", "1, 2, ..."
    )
    first = np.zeros(len(number), bool)
    first[np.unique(number, return_index=True)[1]] = True
    table.refuse(~first, "bus", "this number is there twice", expected="one row for each bus")
    table.refuse_value(
        ~np.isin(kind, list(_TYPES.values())), "type", "1 PQ, 2 PV, 3 slack or 4 isolated"
    )
    _check_numbers(table)
    table.refuse_value(table["v_min_pu"] < 0, "v_min_pu", "a number of at least 0")
    _check_limits(table, "v_min_pu", "v_max_pu")
    if not (kind == _SLACK).any():
        raise TransmissionError(
            "no bus is of type slack", where=table.file, expected="one bus whose angle is held"
        )


def _check_generators(table: CaseTable) -> None:
    _check_numbers(table)
    _check_limits(table, "p_min_mw", "p_max_mw")
    _check_limits(table, "q_min_mvar", "q_max_mvar")


def _check_branches(table: CaseTable) -> None:
    _check_numbers(table)
    table.refuse(
        table["from_bus"] == table["to_bus"],
        "to_bus",
        "the branch ends where it starts",
        expected="another bus",
    )
    table.refuse(
        (table["r_pu"] == 0) & (table["x_pu"] == 0),
        "x_pu",
        "the branch has no impedance",
        expected="a number not 0",
    )
    table.refuse_value(table["tap_ratio"] <= 0, "tap_ratio", "a number over 0")
    table.refuse_value(table["rate_mva"] <= 0, "rate_mva", "a number over 0, or no limit")
    _check_limits(table, "angle_min_deg", "angle_max_deg")


def _check_connected(case: OpfCase, table: CaseTable) -> None:
    ends = (case.branches.from_bus, case.branches.to_bus)
    island = connected(len(case.buses.names), *ends, np.ones(len(ends[0]), bool))
    slack = case.buses.slack
    table.refuse(
        island != island[slack],
        "bus",
        "no branch in service connects it with the slack bus",
        expected=f"a path to bus {case.buses.names[slack]}, or type isolated (4)",
    )
