"""Real-time OPF beside its baselines and the AC optimum: CVR, curtailment, losses on IEEE 123.

    python benchmarks/real_time_opf_cases.py [--json] [--case cvr] [--every 300]

Each row is a run of a shipped scenario with its own controller, another, or none. Energies are of
the whole run; `optimum_ratio` is the case's energy over that of the AC optimum, summed over the
same instants, every `--every` seconds, without those in which the band cannot be held. The optimum
knows all loads and the available power, moves at once, and keeps the band at all nodes.

cvr          load and losses; with other taps, which alone or with control keep the band
curtailment  power of PV not taken
losses       losses; PV gives all it has
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread, before numpy loads its BLAS: two that wait for each other take many times as long.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _ac_optimum import AcProgram, NoOptimumError, Objective  # noqa: E402

from federates.assembly.federation import Assembly  # noqa: E402
from federates.core.signals import read_signal  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import Scenario, load_scenario  # noqa: E402
from grid_models.opendss.ports import port_network  # noqa: E402

Row = dict[str, Any]
_KWH_PER_KW_S = 1.0 / 3600.0


def _instead(controller: str, options: str, *more: str) -> list[str]:
    """Return the changes that put another controller in the place of rt-opf."""
    wires = [
        "feeder.v_pu -> opf.v_pu",
        "feeder.p_kw -> opf.p_kw",
        "opf.q_set_kvar -> feeder.q_set_kvar",
        *more,
    ]
    return [
        f"federates.opf={{kind: controller, controller: {controller}, options: {options}}}",
        f"connections=[{', '.join(wires)}]",
    ]


_NONE = ["federates={feeder: {kind: feeder}}", "connections=[]"]
# Regulators that feed others last: each as low as the day's lowest voltage below it allows.
_LOWEST = "grid.taps={rg1: 3, rg2a: -5, rg3a: -2, rg3c: -4, rg4a: 2, rg4b: -6, rg4c: -2}"
_WATT = "opf.p_set_kw -> feeder.p_set_kw"


@dataclass(frozen=True)
class Case:
    """A scenario, what is minimised, which energies count, and the changes that make each row."""

    scenario: str
    objective: Objective
    fixed_p: bool
    counts: tuple[str, ...]
    rows: dict[str, list[str]]


CASES = {
    "cvr": Case(
        "cvr-ieee123",
        Objective(load=1.0, losses=1.0),
        True,
        ("load_kwh", "losses_kwh"),
        {
            "published taps alone": [*_NONE, "grid.taps={}"],
            "lowest taps alone": [*_NONE, _LOWEST],
            "rt-opf, these taps": [_LOWEST],
            "rt-opf": [],
        },
    ),
    "curtailment": Case(
        "curtailment-ieee123",
        Objective(curtailment=1.0),
        False,
        ("curtailed_kwh",),
        {
            "none": _NONE,
            "volt-var": _instead("volt-var-1547", "{}"),
            "volt-var, volt-watt 1.06-1.10": _instead(
                "volt-var-1547", "{volt_watt: [[1.06, 1], [1.1, 0]]}", _WATT
            ),
            "volt-var, volt-watt 1.03-1.05": _instead(
                "volt-var-1547", "{volt_watt: [[1.03, 1], [1.05, 0]]}", _WATT
            ),
            "optdist-vc": _instead("optdist-vc", "{margin_pu: 0.006}"),
            "rt-opf": [],
            "rt-opf, passing clouds": ["grid.profiles.kind=cloudy"],
        },
    ),
    "losses": Case(
        "loss-minimisation-ieee123",
        Objective(losses=1.0),
        True,
        ("losses_kwh",),
        {
            "none": _NONE,
            "volt-var": _instead("volt-var-1547", "{}"),
            "optdist-vc": _instead("optdist-vc", "{margin_pu: 0.006}"),
            "rt-opf": [],
        },
    ),
}


@dataclass(frozen=True)
class Trace:
    """What a run gave at each step of the feeder: powers in kW, (steps,), voltages (steps, n)."""

    time_s: np.ndarray
    power_kw: dict[str, np.ndarray]
    v_pu: np.ndarray


def recorded(scenario: Scenario, available_kw: np.ndarray, held: np.ndarray) -> Trace:
    """Run a scenario. `available_kw` (steps, n_ders); `held`: nodes to which the band applies."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(scenario, out=Path(folder) / "run", placement="single")
        names = ("v_pu", "p_kw", "import_kw", "losses_kw")
        read = {x: read_signal(result.folder / "signals", f"feeder.{x}") for x in names}
    imported, losses = (read[x][2][:, 0] for x in ("import_kw", "losses_kw"))
    p = read["p_kw"][2]
    power = {
        "load_kwh": imported + p.sum(axis=1) - losses,
        "losses_kwh": losses,
        "curtailed_kwh": (available_kw - p).sum(axis=1),
        "import_kwh": imported,
    }
    return Trace(read["v_pu"][0], power, read["v_pu"][2][:, held])


class Optima:
    """AC optima of a scenario at chosen steps, in kW by the names of `Trace.power_kw`."""

    def __init__(self, scenario: Scenario, case: Case) -> None:
        site = Assembly(scenario).site("feeder")
        time = scenario.time
        self.step_s = time.step_s
        steps = np.arange(round(time.duration_s / time.step_s))
        day = site.profiles().sample(time.start_s + time.step_s * steps)
        circuit = site.take_circuit()
        network = port_network(circuit)
        ders = site.feeder.ders
        rated = np.array([der.p_max_kw for der in ders])
        self.available_kw = rated * np.clip(day["irradiance_pu"], 0.0, 1.0)[:, None]
        self.held = np.setdiff1d(np.arange(len(network.nodes)), network.source_nodes)
        self.labels = [network.nodes[i] for i in self.held.tolist()]
        self._load_pu = scenario.grid.load_scale * day["load_pu"]
        self._program = AcProgram(
            network, ders, scenario.band.v_min_pu, scenario.band.v_max_pu, fixed_p=case.fixed_p
        )
        self._objective = case.objective

    def at(self, steps: Sequence[int]) -> dict[int, dict[str, float]]:
        """Return the optima by step; steps in which the band cannot be held are left out."""
        found = {}
        for k in steps:
            loads = self._program.network.loads.scaled(float(self._load_pu[k]))
            try:
                best = self._program.solve(loads, self.available_kw[k], self._objective)
            except NoOptimumError:
                continue
            found[k] = {
                "load_kwh": best.load_kw,
                "losses_kwh": best.losses_kw,
                "curtailed_kwh": best.curtailed_kw,
                "import_kwh": best.import_kw,
            }
        return found


def measure(case: Case, every_s: float) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a case, by name."""
    last: tuple[Any, Optima, dict[int, dict[str, float]]] | None = None
    for name, changes in case.rows.items():
        scenario = load_scenario(case.scenario, changes)
        if last is None or last[0] != scenario.grid:
            optima = Optima(scenario, case)
            stride = max(1, round(every_s / optima.step_s))
            # The last step of each interval: the first ones are the controller's start.
            steps = range(stride - 1, len(optima.available_kw), stride)
            last = (scenario.grid, optima, optima.at(steps))
        _, optima, best = last
        trace = recorded(scenario, optima.available_kw, optima.held)
        yield name, row(case, scenario, trace, best)


def row(case: Case, scenario: Scenario, trace: Trace, best: dict[int, dict[str, float]]) -> Row:
    """Return the energies, voltages and the distance from the optimum of a run."""
    step_s, band = scenario.time.step_s, scenario.band
    warm = trace.time_s >= 60.0
    over = np.maximum(trace.v_pu - band.v_max_pu, band.v_min_pu - trace.v_pu).max(axis=1)[warm]
    out: Row = {x: float(kw.sum() * step_s * _KWH_PER_KW_S) for x, kw in trace.power_kw.items()}
    out["counted_kwh"] = sum(out[x] for x in case.counts)
    out |= {"v_min_pu": float(trace.v_pu[warm].min()), "v_max_pu": float(trace.v_pu[warm].max())}
    out["over_5e3_s"] = float((over > 5e-3).sum() * step_s)
    out["over_1e3_s"] = float((over > 1e-3).sum() * step_s)
    at = list(best)
    own = sum(float(trace.power_kw[x][at].sum()) for x in case.counts)
    optimal = sum(best[k][x] for k in at for x in case.counts)
    out |= {"optimum_ratio": own / optimal if optimal > 0.0 else None, "optima": len(at)}
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures only")
    parser.add_argument("--case", choices=CASES, help="one case; default: all")
    parser.add_argument("--every", type=float, default=300.0, help="seconds between optima")
    args = parser.parse_args()
    tables: dict[str, dict[str, Row]] = {}
    for name in [args.case] if args.case else CASES:
        tables[name] = {}
        for row_name, figures in measure(CASES[name], args.every):
            tables[name][row_name] = figures
            if not args.json:
                shown = "  ".join(f"{k} {v:.6g}" for k, v in figures.items() if v is not None)
                print(f"{name:12s} {row_name:32s} {shown}", flush=True)
    if args.json:
        print(json.dumps(tables))


if __name__ == "__main__":
    main()
