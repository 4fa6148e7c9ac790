"""The buses of a compiled and solved OpenDSS circuit: phases, neutrals, voltage bases."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.base.errors import FeederError
from grid_models.feeder.model import Bus
from grid_models.opendss.elements import each, source_kv_ll, terminals
from grid_models.opendss.engine import Engine

LIVE_PU = 0.02  # below this a node counts as without voltage
# Nodes 4 and up count as phases from here on, returns of wye elements as neutrals below it.
PHASE_PU = 0.5
# Outside this range of the first solution a voltage base does not fit its bus.
FITTING_PU = (0.75, 1.25)

# Elements whose nodes are joined by windings on one core.
_WINDINGS = ("transformer.", "autotrans.", "gictransformer.")
Node = tuple[str, int]


def energised_buses(engine: Engine) -> dict[str, Bus]:
    """Return the buses with voltage, in the engine's order.

    Their phases are the live nodes 1 to 3, and higher ones with a phase's voltage. A node of low
    voltage is the neutral where wye elements return to it, and dead where nothing feeds it.
    """
    dss = engine.dss
    _ensure_voltage_bases(engine)
    found: dict[str, tuple[Bus, dict[int, float]]] = {}
    labels = [str(n).lower().rpartition(".") for n in dss.Circuit.AllNodeNames()]
    for (name, _, node), v in zip(labels, dss.Circuit.AllBusVMag(), strict=True):
        if name not in found:
            found[name] = _bare_bus(dss, name), {}
        bus, v_pu = found[name]
        v_pu[int(node)] = float(v) / (bus.base_kv_ln * 1e3)
    low = {(name, n) for name, (_, v_pu) in found.items() for n in v_pu if v_pu[n] < PHASE_PU}
    pairs = _conducting_pairs(dss)
    neutrals = _neutral_nodes(dss, low, pairs) if low else set()
    fed = _reached(_source_nodes(dss), pairs) - neutrals
    buses = {}
    for name, (bus, v_pu) in found.items():
        live = [n for n in sorted(v_pu) if (name, n) in fed]
        phases = tuple(n for n in live if v_pu[n] > (LIVE_PU if n <= 3 else PHASE_PU))
        if phases:
            neutral = min((n for n in v_pu if (name, n) in neutrals), default=0)
            fit = median(v_pu[n] for n in phases)
            fit = 1.0 if FITTING_PU[0] <= fit <= FITTING_PU[1] else fit
            buses[name] = replace(bus, phases=phases, neutral=neutral, base_fit=fit)
    return buses


def _bare_bus(dss: Any, name: str) -> Bus:
    dss.Circuit.SetActiveBus(name)
    xy = (float(dss.Bus.X()), float(dss.Bus.Y())) if dss.Bus.Coorddefined() else (None, None)
    return Bus(name, (), float(dss.Bus.kVBase()), *xy)


def _ensure_voltage_bases(engine: Engine) -> None:
    """Where the file left bases out, choose them from the rated voltages it names."""
    if not _buses_without_base(engine.dss):
        return
    kv_ll = {source_kv_ll(engine.dss) for _ in each(engine.dss.Vsources)}
    for _ in each(engine.dss.Transformers):
        t = engine.dss.Transformers
        for number in range(1, int(t.NumWindings()) + 1):
            t.Wdg(number)
            single_wye = engine.dss.CktElement.NumPhases() == 1 and not t.IsDelta()
            kv_ll.add(round(float(t.kV()) * (np.sqrt(3.0) if single_wye else 1.0), 4))
    engine.command(f"set voltagebases=[{' '.join(repr(float(v)) for v in sorted(kv_ll))}]")
    engine.command("calcvoltagebases")
    engine.dss.Solution.Solve()
    missing = _buses_without_base(engine.dss)
    if missing:
        raise FeederError(
            f"bus '{missing[0]}' has no voltage base",
            expected="'Set VoltageBases=[...]' and 'CalcVoltageBases' in the file",
        )


def _buses_without_base(dss: Any) -> list[str]:
    missing = []
    for bus in dss.Circuit.AllBusNames():
        dss.Circuit.SetActiveBus(bus)
        if dss.Bus.kVBase() <= 0.0:
            missing.append(str(bus))
    return missing


def _neutral_nodes(dss: Any, low: set[Node], pairs: list[tuple[Node, Node]]) -> set[Node]:
    """Return which of the nodes of low voltage are neutral conductors.

    A neutral is what a wye load returns to, what a reactor ties to ground, or the star point of a
    winding that has a conductor; and all that lines join to it. A node that serves as a phase
    anywhere is none.
    """
    seeds: set[Node] = set()
    phases: set[Node] = set()
    stars: set[Node] = set()
    for _ in each(dss.Loads):
        if not dss.Loads.IsDelta():
            bus, nodes = terminals(dss)[0]
            phases.update((bus, n) for n in nodes[:-1])
            seeds.add((bus, nodes[-1]))
    for _ in each(dss.Transformers):
        n = int(dss.CktElement.NumPhases())
        for number, (bus, nodes) in enumerate(terminals(dss), start=1):
            dss.Transformers.Wdg(number)
            if not dss.Transformers.IsDelta():
                phases.update((bus, node) for node in nodes[:n])
                stars.add((bus, nodes[n]))
    for _ in each(dss.Reactors):
        ends = terminals(dss)
        grounded = ends[1][1] if len(ends) > 1 else ()
        seeds.update((ends[0][0], n) for n, m in zip(ends[0][1], grounded, strict=False) if not m)
    joined = [pair for pair in pairs if low.issuperset(pair)]
    seeds = (seeds | (stars & {node for pair in joined for node in pair})) & (low - phases)
    return _reached(seeds, [pair for pair in joined if phases.isdisjoint(pair)])


def _conducting_pairs(dss: Any) -> list[tuple[Node, Node]]:
    """Return what closed conductors of elements in series join, and the nodes of each transformer.

    Loads and shunts join nothing: a phase that is fed through them only is dead.
    """
    pairs: list[tuple[Node, Node]] = []
    for _ in each(dss.PDElements):
        element = dss.CktElement
        ends = terminals(dss)
        some_open = any(element.IsOpen(k, 0) for k in range(1, len(ends) + 1))
        nodes = [
            [(bus, n) if n and not (some_open and element.IsOpen(k, i)) else None for i, n in own]
            for k, (bus, own) in enumerate(((b, enumerate(x, start=1)) for b, x in ends), start=1)
        ]
        if str(element.Name()).lower().startswith(_WINDINGS):
            joined = [node for terminal in nodes for node in terminal if node]
            pairs += pairwise(joined)
        elif len(nodes) > 1:
            pairs += [(a, b) for a, b in zip(nodes[0], nodes[1], strict=True) if a and b]
    return pairs


def _source_nodes(dss: Any) -> set[Node]:
    """Return the nodes of everything that can give a voltage."""
    nodes: set[Node] = set()
    for elements in (dss.Vsources, dss.Isource, dss.Generators, dss.Storages, dss.PVsystems):
        for _ in each(elements):
            nodes.update((bus, n) for bus, own in terminals(dss) for n in own if n)
    return nodes


def _reached(seeds: set[Node], pairs: list[tuple[Node, Node]]) -> set[Node]:
    """Return the seeds and all that the pairs join to them."""
    nodes = list(dict.fromkeys([*sorted(seeds), *(n for pair in pairs for n in pair)]))
    at = {node: i for i, node in enumerate(nodes)}
    ends = np.array([[at[a], at[b]] for a, b in pairs], dtype=np.intp).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(ends)), ends.T), (len(nodes), len(nodes)))
    _, part = csgraph.connected_components(graph, directed=False)
    wanted = {int(part[at[node]]) for node in seeds}
    return {node for node in nodes if int(part[at[node]]) in wanted}
