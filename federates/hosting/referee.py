"""OpenDSS as referee: cases of a study solved again, one by one, and read as a batched flow is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import ComplexArray, PortNetwork
from grid_models.hosting.limits import Excess, LimitCheck
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.readings import Readings

_TOLERANCE_PU = 1e-9


@dataclass(frozen=True)
class SolvedCases:
    """N cases as OpenDSS solved them; the names are those of `BatchFlow`.

    Attributes
    ----------
    v : complex (N, n), per unit; labels are ``network.nodes``.
    loading : (N, r). Currents of rated lines and transformers over their normal amps.
    import_kva : complex (N,)
    converged : ndarray of bool (N,)
    tap_changes : Steps of regulators that acted, in all cases together.
    """

    network: PortNetwork
    v: ComplexArray
    loading: FloatArray
    import_kva: ComplexArray
    converged: NDArray[np.bool_]
    tap_changes: int = 0

    @property
    def v_pu(self) -> FloatArray:
        """Magnitudes of the node voltages, (N, n)."""
        return np.abs(self.v)

    def at(self, cases: NDArray[np.bool_]) -> SolvedCases:
        """Return some of the cases."""
        names = ("v", "loading", "import_kva", "converged")
        return replace(self, **{name: getattr(self, name)[cases] for name in names})


class Finding(NamedTuple):
    """A limit that solved cases pass: where and when it is passed most, and how often.

    `excess` is in pu, relative to the rating, or in kW; inf where there is no power flow.
    """

    kind: str
    element: str
    hour: float
    excess: float
    cases: int

    def __str__(self) -> str:
        """Return it in words: ``undervoltage at 66.3, 19 h, by 0.012 pu``."""
        by = "no power flow" if np.isinf(self.excess) else f"by {amount(self.kind, self.excess)}"
        return f"{limit_words(self.kind, self.element, self.hour)}, {by}"


def limit_words(kind: str, element: str, hour: float | None) -> str:
    """Write what ends a design: ``overvoltage at 83.3, 12 h``; NaN: nothing does."""
    if hour is None or math.isnan(hour):
        return "no limit within the bounds of the search"
    name = element.removeprefix("line.").removeprefix("transformer.")
    return f"{kind} at {name}, {hour:g} h" if element else f"{kind}, {hour:g} h"


def amount(kind: str, excess: float) -> str:
    """Write an excess with its unit."""
    if "voltage" in kind or kind == "deviation":
        return f"{excess:.2g} pu"
    if kind == "unbalance":
        return f"{excess:.2g} percentage points"
    return f"{excess:.1f} kW" if "power" in kind else f"{100.0 * excess:.1f} %"


def findings(check: LimitCheck, excess: Excess, hours: FloatArray) -> tuple[Finding, ...]:
    """Return the limits that N cases pass, each where it is passed most.

    `hours`: (T,). Times of day; case n is at time n mod T.
    """
    found = []
    for k, kind in enumerate(check.kinds):
        value = excess.value[:, k]
        if (value > 0.0).any():
            n = int(value.argmax())
            element = check.labels(kind)[excess.element[n, k]]
            hour, cases = float(hours[n % len(hours)]), int((value > 0.0).sum())
            found.append(Finding(kind, element, hour, float(value[n]), cases))
    return tuple(found)


def solve_again(
    circuit: Circuit,
    network: PortNetwork,
    load_kva: ComplexArray,
    der_kva: ComplexArray,
    times_s: FloatArray,
    taps: Mapping[str, int] | None = None,
) -> SolvedCases:
    """Return what OpenDSS finds at N instants, in their order.

    Parameters
    ----------
    network : Of the circuit; says which nodes and lines are read.
    load_kva, der_kva : complex (N, n_loads), (N, n_ders). As `BatchedFeeder.solve`.
    times_s : (N,). Growing, for controls that have a time.
    taps : Steps to start from. Default: as they are.
    """
    circuit.set_tolerance(_TOLERANCE_PU)
    if taps:
        circuit.set_taps(taps)
    readings = Readings(circuit)
    of_label = {label: k for k, label in enumerate(readings.current_labels)}
    ends = [label.rpartition(".") for label in network.lines]
    at = np.array([of_label[f"{name}.1.{node}"] for name, _, node in ends], dtype=np.intp)
    normal = dict(zip(readings.rated, readings.normal_a.tolist(), strict=True))
    normal_a = np.array([normal[name] for name, _, _ in ends])
    n = len(load_kva)
    v = np.full((n, len(network.nodes)), np.nan, dtype=np.complex128)
    loading, imports = np.full((n, len(at)), np.nan), np.full(n, np.nan, dtype=np.complex128)
    converged, changes, before = np.zeros(n, dtype=bool), 0, circuit.tap_steps()
    for k in range(n):
        circuit.set_time(float(times_s[k]))
        circuit.set_loads(load_kva[k].real, load_kva[k].imag)
        circuit.set_ders(der_kva[k].real, der_kva[k].imag)
        try:
            circuit.solve()
        except PowerFlowError:
            continue
        converged[k] = True
        v[k] = circuit.v_complex_pu()
        loading[k] = readings.current_a()[at] / normal_a
        imports[k] = complex(*circuit.source_kw_kvar())
        if before:
            now = circuit.tap_steps()
            changes += sum(abs(now[name] - before[name]) for name in now)
            before = now
    return SolvedCases(network, v, loading, imports, converged, changes)
