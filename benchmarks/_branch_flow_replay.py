"""A dispatch of the balanced branch-flow model, replayed on the unbalanced feeder by OpenDSS.

The model spreads each bus's power over its phases and knows no taps; the feeder does neither. What
comes out different is the price of the model and is reported, bus by bus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from grid_models.base.errors import GridModelError, nearest_name
from grid_models.branch_flow.model import BranchNetwork, Real
from grid_models.catalog import open_circuit
from grid_models.feeder.model import Der, Feeder
from grid_models.opendss.circuit import Circuit

Taps = Literal["feeder", "neutral", "auto"]


@dataclass(frozen=True)
class Expected:
    """What the model says of a dispatch: voltages (n,), import and losses."""

    v_pu: Real
    p_import_kw: float
    losses_kw: float


@dataclass(frozen=True)
class Replay:
    """The feeder under a dispatch, beside what the model expected.

    Attributes
    ----------
    node_labels : Energised nodes of the feeder, ``bus.phase``.
    node_v_pu : (nodes,)
    v_pu : (n,). Mean over the phases, by row of the network.
    v_error_pu : (n,). Mean of the phases less what was expected.
    import_error_kw, losses_error_kw : Feeder less expected.
    outside : Nodes whose voltage leaves the band.
    """

    node_labels: tuple[str, ...]
    node_v_pu: Real
    v_pu: Real
    p_import_kw: float
    q_import_kvar: float
    losses_kw: float
    v_error_pu: Real
    import_error_kw: float
    losses_error_kw: float
    outside: tuple[str, ...]


def replay_injections(
    feeder: Feeder,
    network: BranchNetwork,
    p_kw: Real,
    q_kvar: Real,
    expected: Expected,
    *,
    taps: Taps = "feeder",
    band_pu: tuple[float, float] = (0.95, 1.05),
) -> Replay:
    """Solve the feeder at the injections of a dispatch and compare.

    The injection of a row goes to the nodes of its buses in proportion to the loads there (or to
    the ratings of its DERs, where it has no load; or equally over the phases of its bus), as
    constant power. The feeder's own loads and DERs are left out.

    Parameters
    ----------
    feeder : The feeder that `network` was made from.
    p_kw, q_kvar : (n,). Injections (generation less load) by row of the network.
    taps : Regulators as the feeder has them; all at ratio 1, which is what a network with neglected
        ratios assumes; or moving by their own controls.
    band_pu : Voltage band for `Replay.outside`.

    Raises
    ------
    GridModelError
        The injections are not finite or not one per row, or `taps` is none of the three.
    PowerFlowError: The feeder's power flow does not converge: the dispatch cannot be had.
    """
    for name, values in (("p_kw", p_kw), ("q_kvar", q_kvar), ("expected.v_pu", expected.v_pu)):
        if np.shape(values) != (network.size,) or not np.isfinite(values).all():
            raise GridModelError(
                f"{name} of shape {np.shape(values)}",
                where="replay",
                expected=f"{network.size} finite numbers, one per row of the network",
            )
    circuit, row, share = _circuit(feeder, network, taps)
    circuit.set_ders(share * p_kw[row], share * q_kvar[row])
    circuit.solve()
    bought, reactive = circuit.source_kw_kvar()
    node_v, losses = circuit.v_pu(), circuit.losses_kw()
    v = _by_row(circuit, network, node_v)
    low, high = band_pu
    return Replay(
        node_labels=circuit.node_labels,
        node_v_pu=node_v,
        v_pu=v,
        p_import_kw=bought,
        q_import_kvar=reactive,
        losses_kw=losses,
        v_error_pu=v - expected.v_pu,
        import_error_kw=bought - expected.p_import_kw,
        losses_error_kw=losses - expected.losses_kw,
        outside=tuple(
            label
            for label, bad in zip(
                circuit.node_labels, (node_v < low) | (node_v > high), strict=True
            )
            if bad
        ),
    )


def _circuit(
    feeder: Feeder, network: BranchNetwork, taps: Taps
) -> tuple[Circuit, np.ndarray[tuple[int], np.dtype[np.intp]], Real]:
    """Return the feeder with one injection per node, its row, and its share of the row."""
    if taps not in get_args(Taps):
        raise GridModelError(
            f"unknown taps '{taps}'",
            where="replay",
            expected=", ".join(get_args(Taps)),
            nearest=nearest_name(taps, get_args(Taps)),
        )
    weight = _weights(feeder, network)
    total = np.zeros(network.size)
    for (bus, _), w in weight.items():
        total[network.row_of[bus]] += w
    row = np.array([network.row_of[bus] for bus, _ in weight], dtype=np.intp)
    share = np.array(list(weight.values())) / total[row]
    # The rating bounds nothing here: the injection is what the dispatch says.
    ders = [
        Der(f"net_{bus}_{phase}", "inverter", bus, (phase,), 1e6, 1e6, -1e6)
        for bus, phase in weight
    ]
    neutral = {r.name: 0 for r in feeder.regulators} if taps == "neutral" else None
    regulators: Literal["auto", "fixed"] = "auto" if taps == "auto" else "fixed"
    bare = replace(feeder, loads=())
    return open_circuit(bare, ders, taps=neutral, regulators=regulators), row, share


def _weights(feeder: Feeder, network: BranchNetwork) -> Mapping[tuple[str, int], float]:
    """Return a weight for each node (bus, phase) that takes part of a row's injection."""
    weight: dict[tuple[str, int], float] = {}
    served: set[int] = set()
    for attached in (_loads(feeder), _ders(feeder)):
        rows = set()
        for bus, phases, size in attached:
            row = network.row_of[bus]
            if row in served or size <= 0:
                continue
            rows.add(row)
            for phase in phases:
                weight[bus, phase] = weight.get((bus, phase), 0.0) + size / len(phases)
        served |= rows
    for row, bus in enumerate(network.buses):
        if row not in served:
            weight |= {(bus, phase): 1.0 for phase in feeder.buses[bus].phases}
    return weight


def _loads(feeder: Feeder) -> Iterator[tuple[str, tuple[int, ...], float]]:
    yield from (
        (load.bus, load.phases, float(np.hypot(load.kw, load.kvar))) for load in feeder.loads
    )


def _ders(feeder: Feeder) -> Iterator[tuple[str, tuple[int, ...], float]]:
    yield from ((der.bus, der.phases, der.kva) for der in feeder.ders)


def _by_row(circuit: Circuit, network: BranchNetwork, node_v: Real) -> Real:
    """Return the mean voltage of the nodes of each row's own bus; NaN where none is energised."""
    place = {bus: i for i, bus in enumerate(network.buses)}
    row = np.array([place.get(x.rpartition(".")[0], -1) for x in circuit.node_labels])
    own = (row >= 0) & (node_v > 0)
    count = np.bincount(row[own], minlength=network.size)
    total = np.bincount(row[own], weights=node_v[own], minlength=network.size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
