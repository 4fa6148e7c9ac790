"""MATPOWER case files, version 2, read into a case (R. D. Zimmerman, MATPOWER manual, appendix B).

What they contain beyond the case is refused where it changes the optimum (DC lines, user-defined
constraints and costs), else noted in the case. Not used without a note: zones, ratings B and C,
ramp rates, participation factors, and the costs of starts, which are constant here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grid_models.base.errors import listed, nearest_name
from grid_models.transmission.case_tables import CaseTable, build_case
from grid_models.transmission.matlab_script import Script, run_script
from grid_models.transmission.matpower_costs import COST_HEAD, read_costs
from grid_models.transmission.model import TransmissionError
from grid_models.transmission.opf_case import Costs, OpfCase

# Titles of the columns, as the manual has them, and what they are here ('': not used).
_BUS = {"bus_i": "bus", "type": "type", "Pd": "load_mw", "Qd": "load_mvar", "Gs": "shunt_mw",
        "Bs": "shunt_mvar", "area": "area", "Vm": "v_pu", "Va": "angle_deg", "baseKV": "base_kv",
        "zone": "", "Vmax": "v_max_pu", "Vmin": "v_min_pu"}  # fmt: skip
_GENERATOR = {"bus": "bus", "Pg": "p_mw", "Qg": "q_mvar", "Qmax": "q_max_mvar",
              "Qmin": "q_min_mvar", "Vg": "v_setpoint_pu", "mBase": "", "status": "status",
              "Pmax": "p_max_mw", "Pmin": "p_min_mw"}  # fmt: skip
_BRANCH = {"fbus": "from_bus", "tbus": "to_bus", "r": "r_pu", "x": "x_pu", "b": "b_pu",
           "rateA": "rate_mva", "rateB": "", "rateC": "", "ratio": "tap_ratio",
           "angle": "shift_deg", "status": "status"}  # fmt: skip
_ANGLES = {"angmin": "angle_min_deg", "angmax": "angle_max_deg"}
_USED = ("version", "baseMVA", "bus", "gen", "branch", "gencost", "bus_name")
_CHANGES_OPTIMUM = ("A", "l", "u", "N", "H", "Cw", "fparm", "zl", "zu", "reserves", "softlims",
                    "userfcn", "if", "dclinecost", "buslink")  # fmt: skip
_FULL_TURN_DEG = 360.0


def read_matpower_file(path: Path) -> OpfCase:
    """Return the case of a MATPOWER file.

    Raises TransmissionError: The file cannot be read, is of another version, or has a statement or
    a value that cannot be used, with file, line, column, and bus, generator or branch.
    """
    script = run_script(str(path), _text(path))
    fields = _fields(script)
    _check_version(script, fields)
    notes = _notes_on_fields(script, fields)
    buses = _table(script, fields, "bus", "bus", _BUS)
    generators = _table(script, fields, "gen", "generator", _GENERATOR)
    branches = _table(script, fields, "branch", "branch", _BRANCH | _ANGLES, optional=len(_ANGLES))
    costs, reactive_costs, of_costs = _costs(script, fields, generators)
    notes += of_costs + _notes_on_generators(script, fields, generators)
    running = generators["status"] > 0
    connected = branches["status"] != 0
    _without_codes(branches)
    return build_case(
        path.stem,
        _base_mva(script, fields),
        buses,
        generators.rows(running),
        branches.rows(connected),
        costs.rows(running),
        reactive_costs.rows(running) if reactive_costs else None,
        labels=_labels(script, fields, len(buses.places)),
        notes=notes,
    )


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise TransmissionError(
            f"the file cannot be read ({error.strerror})",
            where=str(path),
            expected="a MATPOWER case",
        ) from None
    if "\0" in text:
        raise TransmissionError(
            "the file is not text", where=str(path), expected="a MATPOWER case (.m), version 2"
        )
    return text


def _fields(script: Script) -> dict[str, str]:
    """Return the name of each field's value: ``{"bus": "mpc.bus"}``."""
    dotted = [name for name in script.values if "." in name]
    struct = script.output or (dotted[0].partition(".")[0] if dotted else "")
    fields = {n.partition(".")[2]: n for n in dotted if n.partition(".")[0] == struct}
    if not fields:
        first = script.output.startswith("[")
        raise TransmissionError(
            "the case is of version 1" if first else "the file assigns no fields of a case",
            where=script.path,
            expected="version 2: mpc.version = '2'; mpc.baseMVA = ...; mpc.bus = [...]; and so on",
        )
    return fields


def _value(script: Script, fields: dict[str, str], field: str) -> object:
    if field not in fields:
        raise TransmissionError(
            f"field '{field}' is missing",
            where=script.path,
            expected=listed(_USED[:-2]),
            nearest=nearest_name(field, [f for f in fields if f not in _USED]),
        )
    return script.values[fields[field]]


def _check_version(script: Script, fields: dict[str, str]) -> None:
    value = _value(script, fields, "version")
    if value != "2" and not (isinstance(value, np.ndarray) and value.tolist() == [[2.0]]):
        shown = value if isinstance(value, str) else "of this file"
        line = script.lines[fields["version"]]
        raise script.error(line, f"version '{shown}' is not read", "mpc.version = '2'")


def _base_mva(script: Script, fields: dict[str, str]) -> float:
    value = _value(script, fields, "baseMVA")
    if not (isinstance(value, np.ndarray) and value.size == 1 and 0 < value.flat[0] < np.inf):
        line = script.lines[fields["baseMVA"]]
        raise script.error(line, "baseMVA cannot be used", "a finite number over 0")
    return float(value.flat[0])


def _labels(script: Script, fields: dict[str, str], n_buses: int) -> tuple[str, ...]:
    labels = script.values[fields["bus_name"]] if "bus_name" in fields else ()
    if not isinstance(labels, tuple) or (labels and len(labels) != n_buses):
        line = script.lines[fields["bus_name"]]
        raise script.error(line, "bus_name cannot be used", f"{n_buses} texts in braces")
    return labels


def _table(
    script: Script,
    fields: dict[str, str],
    field: str,
    element: str,
    columns: dict[str, str],
    optional: int = 0,
) -> CaseTable:
    """Return a matrix as a table; its last `optional` columns may be absent and are 0 then."""
    matrix = _value(script, fields, field)
    line = script.lines[fields[field]]
    needed = len(columns) - optional
    if not isinstance(matrix, np.ndarray):
        raise script.error(line, f"{field} is a text", "a matrix")
    if len(matrix) and matrix.shape[1] < needed:
        missing = list(columns)[matrix.shape[1] : needed]
        raise script.error(
            line, f"{field} has no column {listed(missing)}", f"at least {needed} columns"
        )
    full = np.zeros((len(matrix), len(columns)))
    width = min(full.shape[1], matrix.shape[1])
    full[:, :width] = matrix[:, :width]
    rows = script.rows.get(fields[field], ())
    places = rows if len(rows) == len(matrix) else (line,) * len(matrix)
    return CaseTable(
        script.path,
        element,
        {name: full[:, at] for at, name in enumerate(columns.values()) if name},
        tuple(f"{script.path}, line {at}" for at in places),
        {name: title for title, name in columns.items() if name},
    )


def _without_codes(branches: CaseTable) -> None:
    """Replace 0 as ratio, rating and limits of the angle, which mean none, by what they mean."""
    values = branches.values
    values["tap_ratio"] = np.where(values["tap_ratio"] == 0, 1.0, values["tap_ratio"])
    values["rate_mva"] = np.where(values["rate_mva"] == 0, np.inf, values["rate_mva"])
    least, most = values["angle_min_deg"], values["angle_max_deg"]
    none = (least == 0) & (most == 0)
    values["angle_min_deg"] = np.where(none | (least <= -_FULL_TURN_DEG), -np.inf, least)
    values["angle_max_deg"] = np.where(none | (most >= _FULL_TURN_DEG), np.inf, most)


def _notes_on_fields(script: Script, fields: dict[str, str]) -> list[str]:
    """Refuse fields that change the optimum; note the others that are not used."""
    notes = []
    for field, name in fields.items():
        value = script.values[name]
        if field in _USED or (isinstance(value, np.ndarray) and not value.size):
            continue
        if field == "dcline" and isinstance(value, np.ndarray):
            in_service = value[:, 2].any() if value.shape[1] > 2 else True
            if not in_service:
                continue
        if field.partition(".")[0] in (*_CHANGES_OPTIMUM, "dcline"):
            raise script.error(
                script.lines[name],
                f"'{name}' changes the optimum and is not modelled",
                "a case without DC lines, three-phase parts, user-defined constraints and costs",
            )
        notes.append(f"'{name}' is not used (line {script.lines[name]})")
    return notes


def _notes_on_generators(
    script: Script, fields: dict[str, str], generators: CaseTable
) -> list[str]:
    matrix, notes = script.values[fields["gen"]], []
    assert isinstance(matrix, np.ndarray)
    curves = matrix[:, 10:16].any() if matrix.shape[1] >= 16 else False
    if curves:
        notes.append("capability curves (Pc1 to Qc2max of gen) are not used, Qmin and Qmax are")
    loads = (generators["p_min_mw"] < 0) & (generators["p_max_mw"] == 0)
    loads &= (generators["q_min_mvar"] != 0) | (generators["q_max_mvar"] != 0)
    if (loads & (generators["status"] > 0)).any():
        notes.append("dispatchable loads (Pmin < 0, Pmax = 0) do not keep their power factor")
    return notes


def _costs(
    script: Script, fields: dict[str, str], generators: CaseTable
) -> tuple[Costs, Costs | None, list[str]]:
    """Return costs of active and reactive power, one row per generator, and notes."""
    n = len(generators.places)
    if "gencost" not in fields:
        none = np.zeros((n, 0))
        return Costs(np.zeros((n, 1)), none, none), None, ["without gencost every cost is 0"]
    table = _table(script, fields, "gencost", "cost of the generator", COST_HEAD)
    matrix = script.values[fields["gencost"]]
    assert isinstance(matrix, np.ndarray)
    if len(matrix) not in (n, 2 * n):
        raise script.error(
            script.lines[fields["gencost"]],
            f"gencost has {len(matrix)} rows",
            f"{n} as gen, or {2 * n} with costs of reactive power",
        )
    table.values["bus"] = np.tile(generators["bus"], len(matrix) // max(n, 1))
    costs = read_costs(table, matrix)
    active = np.arange(len(matrix)) < n
    reactive = costs.rows(~active)
    return costs.rows(active), reactive if len(matrix) > n and not reactive.zero else None, []
