"""A transmission system as arrays, read from a folder of tables.

The shipped systems are Kundur's two areas with four machines and the IEEE (New England) system of
39 buses and ten machines. See `grid_models/data/README.md` for the columns of each table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grid_models.base.csv_tables import Row, read_table
from grid_models.base.errors import listed, nearest_name
from grid_models.transmission.model import ComplexArray, FloatArray, TransmissionError

IntArray = NDArray[np.int64]

SHIPPED = {
    "kundur": "Kundur's two areas: 11 buses, 4 machines of 900 MVA, 2734 MW of load",
    "ieee39": "IEEE 39 buses (New England): 10 machines, 6254 MW of load",
}
_FOLDER = Path(str(resources.files("grid_models"))) / "data"
_NO_AREA = "0"
_ON_SYSTEM = ("base_mva", "nominal_hz", "slack_deg")
_OF_BUS = ("bus", "type", "base_kv", "load_mw", "load_mvar", "shunt_mvar", "area")
_OF_BRANCH = ("from_bus", "to_bus", "circuit", "r_pu", "x_pu", "b_pu", "tap_ratio", "rate_mva")


@dataclass(frozen=True)
class MachineData:
    """Parameters of the machines, each (n_machines,); per unit on `base_mva`, times in seconds.

    `bus`: Index of its bus. `p_mw`, `v_setpoint_pu`: Operating point. `p_max_mw`: Largest power of
    the turbine. `h_s`: Inertia. `damping_pu`: Torque per unit of speed. `sat_*`: Saturation of the
    air-gap flux psi, psi_I = a exp(b (psi - psi_t1)) (Kundur, section 3.8.2); a = 0: none.
    """

    bus: IntArray
    p_mw: FloatArray
    p_max_mw: FloatArray
    v_setpoint_pu: FloatArray
    base_mva: FloatArray
    h_s: FloatArray
    ra_pu: FloatArray
    xl_pu: FloatArray
    xd_pu: FloatArray
    xq_pu: FloatArray
    xd_transient_pu: FloatArray
    xq_transient_pu: FloatArray
    xd_subtransient_pu: FloatArray
    xq_subtransient_pu: FloatArray
    td0_transient_s: FloatArray
    tq0_transient_s: FloatArray
    td0_subtransient_s: FloatArray
    tq0_subtransient_s: FloatArray
    damping_pu: FloatArray
    sat_a: FloatArray
    sat_b: FloatArray
    sat_psi_t1_pu: FloatArray


@dataclass(frozen=True)
class TransmissionSystem:
    """Buses, branches and machines of a transmission system.

    Per unit on `base_mva`, except `machine`, whose values are on each machine's own base.

    Attributes
    ----------
    buses, branches, machines : Names; a branch is ``7-8-1``: its ends and its circuit.
    slack : Index of the bus that holds the angle `slack_deg` in the power flow.
    base_kv, load_mw, load_mvar : (n_buses,)
    shunt_mvar : (n_buses,). Of capacitors at 1 pu; negative: reactors.
    areas : (n_buses,). Name of the area, ``0``: none.
    branch_from, branch_to : (n_branches,). Indices of the ends.
    r_pu, x_pu, b_pu : (n_branches,). Pi equivalent; `b_pu` is the total charging.
    tap_ratio : (n_branches,). Of the ideal transformer at the first end.
    rate_mva : (n_branches,). Infinite where the table has none.
    """

    name: str
    base_mva: float
    nominal_hz: float
    buses: tuple[str, ...]
    branches: tuple[str, ...]
    machines: tuple[str, ...]
    slack: int
    slack_deg: float
    base_kv: FloatArray
    load_mw: FloatArray
    load_mvar: FloatArray
    shunt_mvar: FloatArray
    areas: tuple[str, ...]
    branch_from: IntArray
    branch_to: IntArray
    r_pu: FloatArray
    x_pu: FloatArray
    b_pu: FloatArray
    tap_ratio: FloatArray
    rate_mva: FloatArray
    machine: MachineData

    @property
    def area_names(self) -> tuple[str, ...]:
        """Areas in the order of the buses, without those between areas."""
        return tuple(dict.fromkeys(a for a in self.areas if a != _NO_AREA))

    def leaving(self, area: str) -> FloatArray:
        """Return 1 for each branch that leaves an area, -1 for one that enters it, else 0."""
        inside = np.array([a == area for a in self.areas])
        return np.asarray(inside[self.branch_from].astype(float) - inside[self.branch_to])

    @cached_property
    def tie(self) -> NDArray[np.bool_]:
        """Branches that leave the first area, (n_branches,); their sum is the tie flow."""
        first = self.area_names[0] if self.area_names else _NO_AREA
        return np.asarray(self.leaving(first) != 0)

    def branch_admittance(self) -> tuple[ComplexArray, ComplexArray, ComplexArray, ComplexArray]:
        """Return the four entries of each branch's admittance matrix, each (n_branches,), per unit.

        In the order from-from, from-to, to-from, to-to.
        """
        series = 1.0 / as_complex(self.r_pu, self.x_pu)
        end = as_complex(series.real, series.imag + 0.5 * self.b_pu)
        mutual = -series / self.tap_ratio
        return end / self.tap_ratio**2, mutual, mutual, end

    def admittance(self, branch_in: NDArray[np.bool_] | None = None) -> ComplexArray:
        """Return the bus admittance matrix with shunts and without loads, (n_buses, n_buses), pu.

        `branch_in`: Branches in service, by default all.
        """
        use = np.ones(len(self.branches), bool) if branch_in is None else branch_in
        i, j = self.branch_from[use], self.branch_to[use]
        ends = ((i, i), (i, j), (j, i), (j, j))
        y: ComplexArray = np.diag(1j * self.shunt_mvar / self.base_mva)
        for (row, column), value in zip(ends, self.branch_admittance(), strict=True):
            np.add.at(y, (row, column), value[use])
        return y


def as_complex(real: FloatArray, imag: FloatArray) -> ComplexArray:
    """Return ``real + 1j * imag``."""
    return np.asarray(real + 1j * imag, np.complex128)


def load_system(source: str | Path) -> TransmissionSystem:
    """Return a transmission system by its shipped name, or read from a folder of tables.

    `source`: ``kundur``, ``ieee39``, or the path of a folder with ``system.csv``, ``buses.csv``,
    ``branches.csv`` and ``machines.csv``.

    Raises TransmissionError: No such name or folder, or a table that cannot be used, with file, row
    and column.
    """
    folder = system_folder(source)
    return _read(folder, folder.name)


def system_folder(source: str | Path) -> Path:
    """Return the folder of a system's tables; arguments and errors as of `load_system`."""
    name = str(source).lower()
    folder = _FOLDER / name if name in SHIPPED else Path(source)
    if not folder.is_dir():
        raise TransmissionError(
            f"there is no transmission system '{source}'",
            expected=f"one of {listed(tuple(SHIPPED))}, or the path of a folder of tables",
            nearest=nearest_name(name, SHIPPED),
        )
    return folder


def _read(folder: Path, name: str) -> TransmissionSystem:
    tables = {
        table: _rows(folder / f"{table}.csv", columns)
        for table, columns in (
            ("system", _ON_SYSTEM),
            ("buses", _OF_BUS),
            ("branches", _OF_BRANCH),
            ("machines", ("name", *(f.name for f in fields(MachineData)))),
        )
    }
    head, bus_rows = tables["system"][0], tables["buses"]
    bus_at = _index(bus_rows, "bus")
    slack = _slack(folder, bus_rows)
    branch_from, branch_to, branches = _branches(tables["branches"], bus_at)
    machine = _machines(tables["machines"], bus_at, bus_rows)
    system = TransmissionSystem(
        name=name,
        base_mva=head.number_of("base_mva", over=0.0),
        nominal_hz=head.number_of("nominal_hz", over=0.0),
        buses=tuple(bus_at),
        branches=branches,
        machines=tuple(row.text("name") for row in tables["machines"]),
        slack=slack,
        slack_deg=head.number_of("slack_deg"),
        base_kv=_column(bus_rows, "base_kv", over=0.0),
        load_mw=_column(bus_rows, "load_mw"),
        load_mvar=_column(bus_rows, "load_mvar"),
        shunt_mvar=_column(bus_rows, "shunt_mvar"),
        areas=tuple(row.text("area") for row in bus_rows),
        branch_from=branch_from,
        branch_to=branch_to,
        r_pu=_column(tables["branches"], "r_pu", least=0.0),
        x_pu=_column(tables["branches"], "x_pu"),
        b_pu=_column(tables["branches"], "b_pu", least=0.0),
        tap_ratio=_column(tables["branches"], "tap_ratio", over=0.0),
        rate_mva=np.array(
            [
                row.number_of("rate_mva", over=0.0) if row.cells["rate_mva"] else np.inf
                for row in tables["branches"]
            ]
        ),
        machine=machine,
    )
    _check_connected(system, bus_rows)
    return system


def _rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    rows = read_table(path, columns, TransmissionError)
    if not rows:
        raise TransmissionError("the table has no row", where=str(path), expected="at least one")
    return rows


def _column(
    rows: list[Row], name: str, *, least: float = -np.inf, over: float = -np.inf
) -> FloatArray:
    return np.array([row.number_of(name, least=least, over=over) for row in rows])


def _index(rows: list[Row], column: str) -> dict[str, int]:
    """Return the place of each name; none may be there twice."""
    at: dict[str, int] = {}
    for row in rows:
        name = row.name(column)
        if name in at:
            raise row.error(column, f"'{name}' is there twice", expected="once")
        at[name] = len(at)
    return at


def _slack(folder: Path, rows: list[Row]) -> int:
    kinds = [row.choice("type", ("PQ", "PV", "slack")) for row in rows]
    if kinds.count("slack") != 1:
        raise TransmissionError(
            f"{kinds.count('slack')} buses are of type slack",
            where=str(folder / "buses.csv"),
            expected="one",
        )
    return kinds.index("slack")


def _at(row: Row, column: str, bus_at: dict[str, int]) -> int:
    bus = row.name(column)
    if bus not in bus_at:
        raise row.error(
            column,
            f"there is no bus '{bus}'",
            expected="a bus of buses.csv",
            nearest=nearest_name(bus, bus_at),
        )
    return bus_at[bus]


def _branches(
    rows: list[Row], bus_at: dict[str, int]
) -> tuple[IntArray, IntArray, tuple[str, ...]]:
    names: dict[str, None] = {}
    for row in rows:
        name = "-".join(row.name(c) for c in ("from_bus", "to_bus", "circuit"))
        if row.name("from_bus") == row.name("to_bus"):
            raise row.error("to_bus", "the branch ends where it starts", expected="another bus")
        if name in names:
            raise row.error("circuit", f"branch '{name}' is there twice", expected="another number")
        if row.number_of("r_pu") == 0.0 and row.number_of("x_pu") == 0.0:
            raise row.error("x_pu", "the branch has no impedance", expected="a number not 0")
        names[name] = None
    ends = [np.array([_at(row, c, bus_at) for row in rows]) for c in ("from_bus", "to_bus")]
    return ends[0], ends[1], tuple(names)


def _machines(rows: list[Row], bus_at: dict[str, int], bus_rows: list[Row]) -> MachineData:
    _index(rows, "name")
    _index(rows, "bus")  # one machine a bus
    bus = np.array([_at(row, "bus", bus_at) for row in rows])
    for i, bus_row in enumerate(bus_rows):
        if (bus_row.cells["type"].lower() != "pq") != (i in bus):
            raise bus_row.error(
                "type",
                f"{bus_row.cells['type']} of a bus {'with' if i in bus else 'without'} a machine",
                expected="PV or slack where machines.csv has a machine, else PQ",
            )
    values = {}
    for f in fields(MachineData):
        if f.name == "bus":
            continue
        positive = f.name.startswith(("v_", "base", "h_", "p_max", "td0", "tq0", "x"))
        least = {} if f.name == "p_mw" else {"least": 0.0}
        values[f.name] = _column(rows, f.name, **({"over": 0.0} if positive else least))
    machine = MachineData(bus=bus, **values)
    _check_reactances(rows, machine)
    return machine


def _check_reactances(rows: list[Row], machine: MachineData) -> None:
    """Check what the equivalent circuit of a machine needs (Kundur, section 4.2)."""
    for axis in "dq":
        names = [f"x{axis}_pu", f"x{axis}_transient_pu", f"x{axis}_subtransient_pu", "xl_pu"]
        for larger, smaller in pairwise(names):
            bad = np.flatnonzero(getattr(machine, larger) <= getattr(machine, smaller))
            if bad.size:
                raise rows[int(bad[0])].error(
                    larger,
                    f"{larger} is not larger than {smaller}",
                    expected="xl < subtransient < transient < synchronous reactance",
                )
    bad = np.flatnonzero(machine.xd_subtransient_pu != machine.xq_subtransient_pu)
    if bad.size:
        raise rows[int(bad[0])].error(
            "xq_subtransient_pu",
            "subtransient saliency is not modelled",
            expected="the value of xd_subtransient_pu",
        )


def connected(
    n: int, branch_from: IntArray, branch_to: IntArray, branch_in: NDArray[np.bool_]
) -> IntArray:
    """Return the number of the island of each of `n` buses, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = (branch_from[branch_in], branch_to[branch_in])
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _check_connected(system: TransmissionSystem, rows: list[Row]) -> None:
    every = np.ones(len(system.branches), bool)
    island = connected(len(system.buses), system.branch_from, system.branch_to, every)
    cut = np.flatnonzero(island != island[system.slack])
    if cut.size:
        raise rows[int(cut[0])].error(
            "bus",
            f"no branch connects bus '{system.buses[cut[0]]}' with the slack bus",
            expected=f"a path to bus '{system.buses[system.slack]}'",
        )
