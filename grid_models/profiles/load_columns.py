"""Columns of a profile table that belong to one load or to one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import ProfileError, nearest_name
from grid_models.feeder.model import Load, node_label
from grid_models.profiles.files import LOAD_PREFIXES as PREFIXES

Array = NDArray[np.float64]


class LoadColumns:
    """Demand of loads that have columns of their own.

    ``load_pu.NAME`` is the multiple of nominal power of load NAME, ``load_pu.BUS.PHASE`` that of
    the loads at a node: a load of several phases takes the mean over its phases, where a phase
    without a column counts with the common ``load_pu``. ``load_kw.NAME`` and ``load_kvar.NAME`` are
    powers; without kvar the load keeps its power factor. A column of the load's name wins.

    Parameters
    ----------
    loads : In the order of the circuit.
    columns : The table by name, each (n_rows,); other columns are not looked at.
    origin : The table's name, for messages.

    Raises ProfileError: A column names no load or node.
    """

    def __init__(self, loads: Sequence[Load], columns: Mapping[str, Array], origin: str) -> None:
        self._rows = {load.name.lower(): i for i, load in enumerate(loads)}
        self._nodes: dict[str, list[int]] = {}
        for i, load in enumerate(loads):
            for phase in load.phases:
                self._nodes.setdefault(node_label(load.bus, phase).lower(), []).append(i)
        own: dict[str, dict[int, Array]] = {prefix: {} for prefix in PREFIXES}
        by_node: list[tuple[int, str]] = []
        for name, values in columns.items():
            prefix = next((p for p in PREFIXES if name.startswith(p)), None)
            if prefix is None:
                continue
            target = name.removeprefix(prefix).lower()
            if prefix == PREFIXES[0] and target in self._nodes and target not in self._rows:
                by_node += [(i, name) for i in self._nodes[target]]
                continue
            own[prefix][self._row(name, target, prefix, origin)] = values
        self._nominal_kw = np.array([load.kw for load in loads], dtype=np.float64)
        self._nominal_kvar = np.array([load.kvar for load in loads], dtype=np.float64)
        n_phases = np.array([max(len(load.phases), 1) for load in loads], dtype=np.float64)
        named = own["load_pu."]
        by_node = [(i, name) for i, name in by_node if i not in named]
        pairs = [(i, 1.0, v) for i, v in named.items()]
        pairs += [(i, 1.0 / n_phases[i], columns[name]) for i, name in by_node]
        self._of = np.array([i for i, _, _ in pairs], dtype=np.intp)
        self._weight = np.array([w for _, w, _ in pairs], dtype=np.float64)
        self._pu = _table([v for _, _, v in pairs])
        n = len(loads)
        # What of each load follows the common profile.
        self._common = 1.0 - np.bincount(self._of, self._weight, n)
        self._kw_of, self._kw = _rows(own["load_kw."])
        self._kvar_of, self._kvar = _rows(own["load_kvar."])
        nominal = np.where(self._nominal_kw != 0.0, self._nominal_kw, np.inf)
        self._tan_phi = self._nominal_kvar / nominal

    def __bool__(self) -> bool:
        """Whether any load has a column."""
        return bool(len(self._of) + len(self._kw_of) + len(self._kvar_of))

    def _row(self, name: str, target: str, prefix: str, origin: str) -> int:
        if target in self._rows:
            return self._rows[target]
        known = [*self._rows, *(self._nodes if prefix == PREFIXES[0] else ())]
        raise ProfileError(
            f"no load{' or node' if prefix == PREFIXES[0] else ''} is called '{target}'",
            where=f"{origin}, column {name}",
            expected="a load of the feeder" + (", or bus.phase" if prefix == PREFIXES[0] else ""),
            nearest=nearest_name(target, known),
        )

    def factors(self, k: int, common: float | Array) -> Array:
        """Return the multiple of nominal power of each load in row k, (n_loads,).

        `common`: That of loads without a column.
        """
        if not len(self._of):
            return np.asarray(common * self._common)
        own = np.bincount(self._of, self._weight * self._pu[k], len(self._common))
        return np.asarray(common * self._common + own)

    def powers(self, k: int, kw: Array, kvar: Array) -> tuple[Array, Array]:
        """Return kw and kvar, each (n_loads,), with the powers that row k gives."""
        kw, kvar = kw.copy(), kvar.copy()
        if len(self._kw_of):
            kw[self._kw_of] = self._kw[k]
            kvar[self._kw_of] = self._kw[k] * self._tan_phi[self._kw_of]
        if len(self._kvar_of):
            kvar[self._kvar_of] = self._kvar[k]
        return kw, kvar


def _rows(own: Mapping[int, Array]) -> tuple[NDArray[np.intp], Array]:
    return np.array(list(own), dtype=np.intp), _table(list(own.values()))


def _table(columns: Sequence[Array]) -> Array:
    """Return columns side by side, (n_rows, n_columns), so that a row is contiguous."""
    return np.column_stack(columns) if columns else np.empty((0, 0))
