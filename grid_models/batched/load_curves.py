"""How the power of OpenDSS' loads depends on their voltage: all load models, over all voltages.

A load draws the current ``(P g(r) - j Q b(r)) u`` at each port, with P and Q its nominal power, u
in units of its rated voltage and ``r = |u|``. In each of four ranges of r, g and b have the form
``z + i / r + p / r^2`` (constant impedance, current and power):

========================  ==================================================================
range                     form
========================  ==================================================================
up to ``vlowpu``          constant impedance
up to ``vminpu``          the current changes linearly with r to its value at ``vminpu``
up to ``vmaxpu``          the load's own model
above                     constant impedance with the current of ``vmaxpu``
========================  ==================================================================

Exponents of model 4 and the drop-out voltage of model 8 are factors on top. Models 6 and
7 are constant impedances below ``vminpu``. Source: OpenDSS, ``Load.pas``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import FloatArray, PortNetwork

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from grid_models.opendss.circuit import Circuit

IntArray = NDArray[np.intp]
_Z, _I, _P = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_Form = tuple[float, float, float]
_Pair = tuple[_Form, _Form]
_MODELS: dict[int, tuple[_Pair, _Pair]] = {
    1: ((_P, _P), (_P, _P)),
    2: ((_Z, _Z), (_Z, _Z)),
    3: ((_P, _Z), (_P, _P)),
    4: ((_P, _P), (_P, _P)),
    5: ((_I, _I), (_I, _I)),
    6: ((_P, _P), (_P, _Z)),
    7: ((_P, _Z), (_P, _Z)),
}
"""By load model: the form in its own range, and what the ranges below and above derive from."""
OWN_RANGE = 2
"""Position of the load's own model among the ranges."""
_LEAST_R = 1e-9
_STEEPNESS = 1000.0
"""Of the drop-out of model 8: the power has the factor ``1 / (1 + exp(-1000 (r - r_out)))``."""


@dataclass(frozen=True)
class LoadCurves:
    """K curves of a feeder's loads and DERs, each at one of its m ports.

    Attributes
    ----------
    port : (K,). Port of each curve.
    u_rated : (K,). Rated voltage, per unit of the port.
    edges : (3, K). Upper ends of the first three ranges of r.
    form : (4, 3, 2, K). Coefficients z, i and p by range, of g and b.
    exponent : (2, K). Of r, for active and reactive power in the load's own range; NaN: by `form`.
    drop_out : (K,). Below which voltage r the load is off, 0: never.
    of_element : sparse (K, n_elements). Share of each element's power that has the curve.
    """

    port: IntArray
    u_rated: FloatArray
    edges: FloatArray
    form: FloatArray
    exponent: FloatArray
    drop_out: FloatArray
    of_element: csr_array

    @property
    def polynomial(self) -> bool:
        """Whether every load's own model is a sum of constant impedance, current and power."""
        return bool(np.isnan(self.exponent).all() and not self.drop_out.any())

    def at(self, ports: IntArray) -> LoadCurves:
        """Return the curves of some ports, which are numbered anew."""
        kept = np.flatnonzero(np.isin(self.port, ports))
        return LoadCurves(
            port=np.searchsorted(ports, self.port[kept]),
            u_rated=self.u_rated[kept],
            edges=self.edges[:, kept],
            form=self.form[..., kept],
            exponent=self.exponent[:, kept],
            drop_out=self.drop_out[kept],
            of_element=self.of_element[kept],
        )

    def own_range(self, n_ports: int) -> tuple[FloatArray, FloatArray]:
        """Return the voltages (m,) between which all loads of a port follow their own models."""
        low, high = np.zeros(n_ports), np.full(n_ports, np.inf)
        differs = (self.form[:2] != self.form[OWN_RANGE]).any(axis=(0, 1, 2)) | self.special
        np.maximum.at(low, self.port, np.where(differs, self.edges[1] * self.u_rated, 0.0))
        differs = (self.form[3] != self.form[OWN_RANGE]).any(axis=(0, 1)) | self.special
        np.minimum.at(high, self.port, np.where(differs, self.edges[2] * self.u_rated, np.inf))
        return low, high

    @property
    def special(self) -> NDArray[np.bool_]:
        """Which curves are no polynomials, (K,)."""
        return np.asarray(~np.isnan(self.exponent).all(axis=0) | (self.drop_out > 0.0))

    def values(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return g, b and their derivatives by r at voltages |u| (K, N), each (2, K, N).

        `u`: per unit of the ports.
        """
        r = u / self.u_rated[:, None]
        place = (r[None] > self.edges[:, :, None]).sum(axis=0)
        inverse = 1.0 / np.maximum(r, _LEAST_R)
        z, i, p = self.form[OWN_RANGE][..., None]
        value = z + inverse * (i + inverse * p)
        slope = -(inverse**2) * (i + 2.0 * inverse * p)
        other, case = np.nonzero(place != OWN_RANGE)
        if other.size:
            z, i, p = np.moveaxis(self.form[place[other, case], :, :, other], 0, -1)
            at = inverse[other, case]
            value[:, other, case] = z + at * (i + at * p)
            slope[:, other, case] = -(at**2) * (i + 2.0 * at * p)
        if self.special.any():
            return self._special(r, place == OWN_RANGE, place > 0, value, slope)
        return value, slope

    def _special(
        self,
        r: FloatArray,
        own: NDArray[np.bool_],
        above_low: NDArray[np.bool_],
        value: FloatArray,
        slope: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Apply exponents and drop-out to values and slopes (2, K, N)."""
        power = ~np.isnan(self.exponent)[..., None] & own
        e = np.where(power, self.exponent[..., None] - 2.0, 0.0)
        raised = np.where(power, r, 1.0) ** e
        value = np.where(power, raised, value)
        slope = np.where(power, e * raised / np.where(power, r, 1.0), slope)
        off = (self.drop_out[:, None] > 0.0) & above_low
        with np.errstate(over="ignore"):
            factor = 1.0 / (1.0 + np.exp(-_STEEPNESS * (r - self.drop_out[:, None])))
        by_r = _STEEPNESS * factor * (1.0 - factor)
        slope = np.where(off, slope * factor + value * by_r, slope)
        return np.where(off, value * factor, value), slope


def load_curves(circuit: Circuit, network: PortNetwork) -> LoadCurves:
    """Return the curves of the loads, then of the DERs, of a circuit.

    Raises FeederError: A load has a model that OpenDSS does not define.
    """
    from scipy.sparse import csr_array

    from grid_models.opendss.ports import base_voltages

    base_v = base_voltages(circuit, network.ports)
    columns: dict[tuple[int, _Curve], int] = {}
    entries: list[tuple[int, int, float]] = []
    elements = [(f"load.{x}", network.load_terminal.get(x)) for x in circuit.load_names]
    elements += [
        (x, network.der_terminal.get(name))
        for x, name in zip(circuit.der_elements, circuit.der_names, strict=True)
    ]
    for number, (element, terminal) in enumerate(elements):
        if terminal is None:
            continue
        curve = _read(circuit, element)
        share = network.share[:, terminal]
        for j in np.flatnonzero(share).tolist():
            k = columns.setdefault((j, curve), len(columns))
            entries.append((k, number, float(share[j])))
    found = list(columns)
    rows, numbers, shares = zip(*entries, strict=True) if entries else ((), (), ())
    port = np.array([j for j, _ in found], dtype=np.intp)
    curves = [curve for _, curve in found]
    rated = np.array([curve.rated_v for curve in curves]) / base_v[port]
    return LoadCurves(
        port=port,
        u_rated=rated,
        edges=np.array([curve.edges for curve in curves]).reshape(-1, 3).T,
        form=np.array([curve.form for curve in curves]).reshape(-1, 4, 2, 3).transpose(1, 3, 2, 0),
        exponent=np.array([x.exponent for x in curves], dtype=np.float64).reshape(-1, 2).T,
        drop_out=np.array([curve.drop_out for curve in curves]),
        of_element=csr_array((shares, (rows, numbers)), shape=(len(found), len(elements))),
    )


@dataclass(frozen=True)
class _Curve:
    """One element's curve; `form` by range, for active and reactive power."""

    rated_v: float
    edges: tuple[float, float, float]
    form: tuple[_Pair, _Pair, _Pair, _Pair]
    exponent: tuple[float | None, float | None]
    drop_out: float


def _read(circuit: Circuit, element: str) -> _Curve:
    """Return the curve of one of the engine's loads."""
    engine = circuit.engine
    low = float(engine.value(element, "vlowpu"))
    api = engine.dss.Loads
    api.Name(element.partition(".")[2])
    least, most = float(api.Vminpu()), float(api.Vmaxpu())
    phases = int(engine.dss.CktElement.NumPhases())
    split = phases in (2, 3) and not api.IsDelta()
    rated_v = 1e3 * float(api.kV()) / (np.sqrt(3.0) if split else 1.0)
    model = int(api.Model())
    exponent: tuple[float | None, float | None] = (None, None)
    drop_out = 0.0
    if model == 8:
        shares = [float(x) for x in re.findall(r"[^\s,\[\]]+", engine.value(element, "zipv"))]
        own = beyond = (_triple(shares[:3]), _triple(shares[3:6]))
        drop_out = shares[6]
    elif model in _MODELS:
        own, beyond = _MODELS[model]
        if model == 4:
            own, exponent = _by_exponents(float(api.CVRwatts()), float(api.CVRvars()))
    else:
        raise FeederError(
            f"load model {model}",
            where=f"circuit '{circuit.name}', {element}",
            expected="a model from 1 to 8",
        )
    active, reactive = beyond
    if model in (6, 7):
        below: _Pair = _impedance(_P, least), _Z
    else:
        below = _interpolated(active, low, least), _interpolated(reactive, low, least)
    above = _impedance(active, most), _impedance(reactive, most)
    edges = (low, max(low, least), max(low, least, most))
    return _Curve(rated_v, edges, ((_Z, _Z), below, own, above), exponent, drop_out)


def _triple(shares: list[float]) -> _Form:
    z, i, p = shares
    return z, i, p


def _by_exponents(*exponents: float) -> tuple[_Pair, tuple[float | None, float | None]]:
    """Return the forms of exponents 0, 1 and 2, and the exponents that have none."""
    known = {0.0: _P, 1.0: _I, 2.0: _Z}
    active, reactive = (known.get(e, _P) for e in exponents)
    others = [None if e in known else e for e in exponents]
    return (active, reactive), (others[0], others[1])


def _interpolated(form: _Form, low: float, least: float) -> _Form:
    """Return the form below `least` of what is `form` above: a current linear in the voltage."""
    if least <= low:
        return form  # there is no such range
    z, i, p = form
    rise_i, rise_p = (1.0 - low) / (least - low), (1.0 / least - low) / (least - low)
    return z + i * rise_i + p * rise_p, low * (i * (1.0 - rise_i) + p * (1.0 - rise_p)), 0.0


def _impedance(form: _Form, at: float) -> _Form:
    """Return the impedance that draws at the voltage `at` what `form` draws there."""
    z, i, p = form
    at = at or 1.0
    return z + i / at + p / at**2, 0.0, 0.0
