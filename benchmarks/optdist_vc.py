"""How fast OPTDIST-VC holds the voltage and reaches the optimum: linear plant and OpenDSS.

    python benchmarks/optdist_vc.py [--json]

Linear plant: 85 agents, one per load bus of IEEE 123, on the single-phase LinDistFlow; iterations
until cost and q stay within 0.1 % of the optimum. OpenDSS: 96 agents, one per loaded phase, with
frozen regulators; iterations until every agent node stays in the band, and the cost against the
AC optimum, which is found by successive linearisation with finite differences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _voltage_qp import solve_voltage_qp

from controllers.baselines.volt_var_1547 import VoltVar1547
from controllers.core.mail import FloatArray, Mail
from controllers.core.protocol import Controller, ControlSite
from controllers.optdist.controller import OptdistVc
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der, Feeder
from grid_models.linear.lindistflow import LinDistFlow

Plant = Callable[[FloatArray], FloatArray]
"""Maps the DERs' q (kvar) to the voltages (pu) in the order of the controller's `v_pu` port."""

KVA_PER_KW = 1.1
MARGIN_PU = 0.003


@dataclass(frozen=True)
class Case:
    """A plant with its DERs, their present power and the band."""

    name: str
    site: ControlSite
    p_kw: FloatArray
    plant: Plant

    @property
    def q_max_kvar(self) -> FloatArray:
        """Reactive headroom at the present power, (n,)."""
        kva = np.array([der.kva for der in self.site.ders])
        return np.sqrt(kva**2 - self.p_kw**2)


@dataclass(frozen=True)
class Imperfection:
    """Mail that is lost or randomly late, measurements that are old or noisy."""

    loss: float = 0.0
    max_delay_steps: int = 0
    noise_pu: float = 0.0
    measurement_delay_steps: int = 0


PERFECT = Imperfection()


@dataclass(frozen=True)
class Trace:
    """Trajectories: q (steps, n) in kvar and the agents' node voltages that answer it."""

    q_kvar: FloatArray
    v_pu: FloatArray


def run(case: Case, controller: Controller, steps: int, net: Imperfection = PERFECT) -> Trace:
    """Close the loop over one instance that hosts all agents, so links in and out agree."""
    assert controller.links_in == controller.links_out
    rng = np.random.default_rng(2024)
    due: dict[int, list[tuple[Mail, Any]]] = defaultdict(list)
    v = case.plant(np.zeros(len(case.site.ders)))
    measured = [v] * (net.measurement_delay_steps + 1)
    q_rows, v_rows = [], []
    for k in range(steps):
        seen = measured.pop(0)
        if net.noise_pu:
            seen = seen + rng.normal(0.0, net.noise_pu, v.size)
        inbox = Mail.empty()
        parts = [Mail(m.link[s], m.round[s], m.values[s]) for m, s in due.pop(k, [])]
        if parts:
            inbox = Mail(*(np.concatenate([getattr(p, f) for p in parts]) for f in Mail.__slots__))
        done = controller.step(float(k), {"v_pu": seen, "p_kw": case.p_kw}, inbox)
        q = done.outputs["q_set_kvar"]
        arrives = rng.random(len(done.mail)) >= net.loss
        late = rng.integers(0, net.max_delay_steps + 1, len(done.mail))
        for delay in range(net.max_delay_steps + 1):
            chosen = arrives & (late == delay)
            if chosen.any():
                due[k + 1 + delay].append((done.mail, chosen))
        v = case.plant(q)
        measured.append(v)
        q_rows.append(q)
        v_rows.append(v)
    return Trace(np.array(q_rows), np.array(v_rows))


def last_bad(bad: Any) -> int | None:
    """Return the first iteration from which nothing is bad any more, or None when it ends bad."""
    where = np.flatnonzero(bad)
    if not where.size:
        return 1
    return None if where[-1] == len(bad) - 1 else int(where[-1]) + 2


def in_band_from(trace: Trace, v_min: float = 0.95, v_max: float = 1.05) -> int | None:
    return last_bad(((trace.v_pu > v_max) | (trace.v_pu < v_min)).any(axis=1))


def cost_from(trace: Trace, best: FloatArray, share: float) -> int | None:
    cost, optimum = (trace.q_kvar**2).sum(axis=1), float(best @ best)
    return last_bad(np.abs(cost / optimum - 1.0) > share)


def q_from(trace: Trace, best: FloatArray, q_max: FloatArray, share: float) -> int | None:
    return last_bad(np.abs(trace.q_kvar - best).max(axis=1) > share * q_max.max())


# -------------------------------------------------------------------------------- linear plant


def linear_case(name: str, pv_mw: float = 8.0) -> tuple[Case, FloatArray]:
    """Return the case and its optimum (kvar); PV in proportion to the load, 85 load buses."""
    feeder = load_feeder("ieee123")
    load: dict[str, complex] = defaultdict(complex)
    for item in feeder.loads:
        load[item.bus] += complex(item.kw, item.kvar)
    kw = np.array([s.real for s in load.values()])
    kvar = np.array([s.imag for s in load.values()])
    pv_kw = 1e3 * pv_mw * kw / kw.sum()
    ders = tuple(
        Der(f"pv_{bus}", "pv", bus, feeder.buses[bus].phases, KVA_PER_KW * p, p)
        for bus, p in zip(load, pv_kw.tolist(), strict=True)
    )
    site = ControlSite(feeder, ders, 1.0)
    r, x = LinDistFlow.from_feeder(feeder.with_ders(ders), "single").sensitivity(ders, ders)
    v0, p_kw, level = (1.03, pv_kw, 0.3) if name == "over" else (1.0, 0.0 * pv_kw, 1.15)
    v0_sq = v0**2 + r @ (p_kw - level * kw) - x @ (level * kvar)
    owner = np.repeat(np.arange(len(ders)), [len(der.phases) for der in ders])
    case = Case(name, site, p_kw, lambda q: np.sqrt(v0_sq + x @ q)[owner])
    q_max = case.q_max_kvar
    return case, solve_voltage_qp(x, v0_sq, -q_max, q_max, 0.95, 1.05).q


# -------------------------------------------------------------------------------- OpenDSS plant


def node_load_kw(feeder: Feeder) -> dict[tuple[str, int], float]:
    """Return the nominal load of each loaded node; a load between phases counts half at each."""
    load: dict[tuple[str, int], float] = defaultdict(float)
    for item in feeder.loads:
        for phase in item.phases:
            load[item.bus, phase] += item.kw / len(item.phases)
    return dict(load)


def dss_case(name: str, pv_mw: float = 5.0, every: int = 1) -> Case:
    """Return a case on OpenDSS: one agent per loaded node (every n-th), regulators frozen."""
    from grid_models.opendss.circuit import Circuit

    feeder = load_feeder("ieee123")
    load = dict(list(node_load_kw(feeder).items())[::every])
    total = sum(load.values())
    ders = tuple(
        Der(f"pv_{bus}.{phase}", "pv", bus, (phase,), KVA_PER_KW * pv_kw, pv_kw)
        for (bus, phase), kw in load.items()
        for pv_kw in [1e3 * pv_mw * kw / total]
    )
    feeder = feeder.with_ders(ders)
    circuit = Circuit.from_feeder(feeder)
    level, head_tap = (1.0, 3) if name == "over" else (1.25, 2)
    circuit.set_loads(level * circuit.load_kw, level * circuit.load_kvar)
    circuit.set_taps({"rg1": head_tap})
    p_kw = np.array([der.p_max_kw for der in ders]) * (name == "over")
    position = {label: i for i, label in enumerate(circuit.node_labels)}
    gather = np.array([position[label] for der in ders for label in der.labels])

    def plant(q_kvar: FloatArray) -> FloatArray:
        circuit.set_ders(p_kw, q_kvar)
        circuit.solve()
        return np.asarray(circuit.v_pu()[gather])

    return Case(name, ControlSite(feeder, ders, 1.0), p_kw, plant)


def ac_optimum(case: Case, margin_pu: float, rounds: int = 8) -> FloatArray:
    """Return the AC optimum (kvar): successive linearisation, finite-difference sensitivities."""
    n = len(case.site.ders)
    q, q_max, h_kvar = np.zeros(n), case.q_max_kvar, 5.0
    for _ in range(rounds):
        columns = [
            (case.plant(q + h_kvar * e) ** 2 - case.plant(q - h_kvar * e) ** 2) / (2 * h_kvar)
            for e in np.eye(n)
        ]
        x = np.array(columns).T
        v0_sq = case.plant(q) ** 2 - x @ q
        best = solve_voltage_qp(x, v0_sq, -q_max, q_max, 0.95 + margin_pu, 1.05 - margin_pu).q
        if np.abs(best - q).max() < 1e-3:
            return best
        q = best
    return q


# -------------------------------------------------------------------------------- measurements


def agents_of(case: Case, **options: Any) -> OptdistVc:
    return OptdistVc(case.site, OptdistVc.agents(case.site), **options)


def measure_linear() -> dict[str, dict[str, Any]]:
    """Iterations to stay within 0.1 % of the optimal cost and of q, for both forms."""
    rows: dict[str, dict[str, Any]] = {}
    for name in ("over", "under"):
        case, best = linear_case(name)
        row: dict[str, Any] = {}
        for form, steps in (("published", 4000), ("preconditioned", 1500)):
            options: dict[str, Any] = {"form": form, "model": "single_phase"}
            trace = run(case, agents_of(case, **options), steps)
            row[f"{form}_cost"] = cost_from(trace, best, 1e-3)
            row[f"{form}_q"] = q_from(trace, best, case.q_max_kvar, 1e-3)
        row["ratio_cost"] = _ratio(row["published_cost"], row["preconditioned_cost"])
        row["ratio_q"] = _ratio(row["published_q"], row["preconditioned_q"])
        rows[name] = row
    return rows


def measure_dss(steps: int = 300) -> dict[str, dict[str, Any]]:
    """In-band iterations and costs on OpenDSS, with and without imperfections."""
    rows: dict[str, dict[str, Any]] = {}
    for name in ("over", "under"):
        case = dss_case(name)
        best = ac_optimum(case, MARGIN_PU)
        uncontrolled = case.plant(np.zeros_like(best))
        droop = run(case, VoltVar1547(case.site, VoltVar1547.agents(case.site)), 100)
        trace = run(case, agents_of(case, margin_pu=MARGIN_PU), steps)
        lossy = Imperfection(loss=0.2, noise_pu=0.001)
        late = Imperfection(max_delay_steps=5)
        options = {"margin_pu": MARGIN_PU, "max_delay_steps": 5}
        both = Imperfection(loss=0.2, noise_pu=0.001, max_delay_steps=5)
        rows[name] = {
            "uncontrolled_v_min_pu": uncontrolled.min(),
            "uncontrolled_v_max_pu": uncontrolled.max(),
            "droop_in_band": in_band_from(droop),
            "droop_violation_pu": _violation(droop.v_pu[-1]),
            "droop_cost": _cost(droop, best, 99),
            "in_band": in_band_from(trace),
            "cost_1pct": cost_from(trace, best, 0.01),
            "cost_at_150": _cost(trace, best, 149),
            "cost_at_300": _cost(trace, best, 299),
            "in_band_loss_noise": in_band_from(
                run(case, agents_of(case, margin_pu=MARGIN_PU), steps, lossy)
            ),
            "in_band_delay": in_band_from(run(case, agents_of(case, **options), steps, late)),
            "in_band_delay_loss_noise": in_band_from(
                run(case, agents_of(case, **options), steps, both)
            ),
            "in_band_phase_pattern": in_band_from(
                run(case, agents_of(case, margin_pu=MARGIN_PU, pattern="phase"), steps)
            ),
        }
    return rows


def _ratio(slow: int | None, fast: int | None) -> float | None:
    return None if slow is None or fast is None else slow / fast


def _violation(v_pu: FloatArray) -> float:
    return float(max(v_pu.max() - 1.05, 0.95 - v_pu.min(), 0.0))


def _cost(trace: Trace, best: FloatArray, step: int) -> float:
    return float(trace.q_kvar[step] @ trace.q_kvar[step] / (best @ best))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    start = time.perf_counter()
    result: dict[str, Any] = {"linear": measure_linear(), "opendss": measure_dss()}
    result["wall_s"] = time.perf_counter() - start
    if arguments.json:
        print(json.dumps(result, default=float))
        return
    for plant in ("linear", "opendss"):
        cases = result[plant]
        print(f"{plant:28}" + "".join(f"{name:>12}" for name in cases))
        for key in next(iter(cases.values())):
            print(f"  {key:26}" + "".join(f"{_shown(row[key]):>12}" for row in cases.values()))
    print(f"measured in {result['wall_s']:.1f} s")


def _shown(value: Any) -> str:
    if value is None:
        return "never"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


if __name__ == "__main__":
    main()
