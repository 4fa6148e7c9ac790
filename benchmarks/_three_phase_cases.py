"""Three-phase markets to measure and test with: IEEE 123 as the thesis uses it, and other feeders.

The thesis does not print its bids. Here they are drawn by counter (the same seed gives the same
bids anywhere), with totals of load, flexibility and generation that are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lindistflow import synthetic_feeder

from controllers.core.mail import FloatArray
from controllers.market.model.participants import draw
from controllers.market.model.problem import Bids, PortProblem
from grid_models.catalog import load_feeder
from grid_models.current_injection.model import PortNetwork
from grid_models.feeder.model import Der, Feeder, Switch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.port_areas import with_areas
from grid_models.opendss.ports import port_network

IMPORT_PRICE = 60.0
XI = 3.0
# Reactive range of a category B inverter (IEEE 1547-2018, clause 5.2) per unit of its rating.
_Q_SHARE = 0.44


@dataclass(frozen=True)
class Plant:
    """A circuit with all loads of constant power, and its ports."""

    circuit: Circuit
    network: PortNetwork

    def load_mw(self) -> tuple[FloatArray, FloatArray]:
        """Return the feeder's own load at each terminal, MW and Mvar."""
        c, size = self.circuit, self.network.size
        at = [self.network.load_terminal[name] for name in c.load_names]
        p, q = (np.bincount(at, kw, size) / 1e3 for kw in (c.load_kw, c.load_kvar))
        return p, q


def plant(feeder: Feeder | str, *, taps: float = 1.0, ders: Sequence[Der] = ()) -> Plant:
    """Return a feeder's circuit and ports, its regulators at `taps` times their published steps.

    `ders` take the place of its own.
    """
    feeder = load_feeder(feeder) if isinstance(feeder, str) else feeder
    loads = [
        tuple(replace(x, model="PQ") for x in group) for group in (feeder.loads, feeder.other_loads)
    ]
    feeder = replace(feeder, loads=loads[0], other_loads=loads[1], ders=tuple(ders))
    circuit = Circuit.from_feeder(feeder, tolerance_pu=1e-10)
    if taps != 1.0:
        circuit.set_taps({n: round(taps * step) for n, step in circuit.tap_steps().items()})
        circuit.solve()
    return Plant(circuit, with_areas(port_network(circuit), circuit))


def meshed(name: str, a: str, b: str) -> Feeder:
    """Return a feeder with a closed three-phase switch between two of its buses."""
    feeder = load_feeder(name)
    tie = Switch("tie", a, b, (1, 2, 3), closed=True)
    return replace(feeder, switches=(*feeder.switches, tie))


THESIS_CASES: dict[str, dict[str, float]] = {
    "S": {"load_mw": 1.19, "flexible_mw": 0.092, "generation_mw": 0.0, "v_max_pu": 1.035},
    "M": {"load_mw": 3.49, "flexible_mw": 0.35, "generation_mw": 0.6, "v_min_pu": 0.975},
    "L": {"load_mw": 3.49, "flexible_mw": 0.35, "generation_mw": 1.746, "v_max_pu": 1.013},
}
"""Markets on IEEE 123 with taps at 0.35 of the published ones: a voltage limit binds in each."""
THESIS_TAPS = 0.35


def random_market(at: Plant, seed: int) -> PortProblem:
    """Return a market with drawn totals, limits, costs and import slope, on IEEE 123."""
    load, flexible, generation, low, high, slope, alpha_q = draw(
        seed, "market", tuple("abcdefg"), 0.0, 1.0
    ).tolist()
    return market(
        at,
        load_mw=1.0 + 2.8 * load,
        flexible_mw=0.1 + 0.7 * flexible,
        generation_mw=2.5 * generation,
        seed=seed,
        alpha_q=(0.0, 5.0, 50.0)[int(3.0 * alpha_q)],
        v_min_pu=0.955 + 0.015 * low,
        v_max_pu=1.022 + 0.018 * high,
        import_slope=5.0 * round(slope),
    )


def synthetic(n_nodes: int, *, load_mw: float, drop_pu: float = 0.05) -> Feeder:
    """Return a random unbalanced feeder of about `n_nodes` nodes, `load_mw` of load in all.

    Line impedances are scaled to the voltage drop.
    """
    feeder = synthetic_feeder(n_nodes)
    scale = 1e3 * load_mw / sum(x.kw for x in feeder.loads)
    # Rated line to line where there are several phases, or OpenDSS takes the voltage for too high.
    loads = tuple(
        replace(
            x,
            kw=scale * x.kw,
            kvar=scale * x.kvar,
            kv=x.kv * (3.0**0.5 if len(x.phases) > 1 else 1.0),
        )
        for x in feeder.loads
    )
    feeder = replace(feeder, loads=loads)
    drop = 1.0 - float(Circuit.from_feeder(feeder).v_pu().min())
    lines = tuple(replace(x, z_ohm=drop_pu / drop * x.z_ohm) for x in feeder.lines)
    return replace(feeder, lines=lines)


def market(
    at: Plant,
    *,
    load_mw: float | None = None,
    flexible_mw: float,
    generation_mw: float,
    seed: int = 0,
    alpha_q: float = 50.0,
    **terms: Any,
) -> PortProblem:
    """Return a market with given totals (load: the feeder's own), spread over terminals with load.

    A load would give half to all of its flexibility for the import price, a generator half to all
    of its capacity.
    """
    network = at.network
    p, q = at.load_mw()
    scale = 1.0 if load_mw is None else load_mw / float(p.sum())
    p, q = scale * p, scale * q
    names, served = network.terminals, p > 0.0

    def spread(total: float, purpose: str) -> FloatArray:
        share = p * draw(seed, purpose, names, 0.5, 1.5)
        return total * share / share.sum()

    flexible = np.minimum(spread(flexible_mw, "flexible"), 0.9 * p)
    capacity = spread(generation_mw, "generation")
    stiffness = draw(seed, "stiffness", names, 1.0, 2.0)
    steepness = draw(seed, "steepness", names, 1.0, 2.0)
    none = np.zeros(network.size)
    return PortProblem(
        network,
        Bids(
            p_load0=p,
            q_load0=q,
            p_load_min=p - flexible,
            p_load_max=p.copy(),
            p_gen_min=none,
            p_gen_max=capacity,
            q_gen_min=-_Q_SHARE * capacity,
            q_gen_max=_Q_SHARE * capacity,
            alpha_p=_over(IMPORT_PRICE * steepness, capacity),
            alpha_q=np.where(served, alpha_q, 0.0),
            beta=_over(0.5 * IMPORT_PRICE * stiffness, flexible),
        ),
        **{"xi": XI, "import_price": IMPORT_PRICE, **terms},
    )


def _over(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 1e-9)


def replay_pu(at: Plant, dispatch: Any) -> float:
    """Return the largest voltage difference, pu, of a dispatch set in OpenDSS. Constant powers."""
    circuit, network = at.circuit, at.network
    s = (dispatch.p_gen - dispatch.p_load) + 1j * (dispatch.q_gen - dispatch.q_load)
    # A terminal's power goes to its first load; loads of one terminal share their ports.
    kw, kvar = np.zeros(len(circuit.load_names)), np.zeros(len(circuit.load_names))
    for terminal in range(network.size):
        if not s[terminal]:
            continue
        k = next(
            i
            for i, name in enumerate(circuit.load_names)
            if network.load_terminal[name] == terminal
        )
        kw[k], kvar[k] = -1e3 * s[terminal].real, -1e3 * s[terminal].imag
    circuit.set_loads(kw, kvar)
    circuit.solve()
    return float(np.abs(circuit.v_complex_pu() - dispatch.voltage).max())
