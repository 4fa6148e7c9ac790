"""Load-side frequency control of 39 buses: DPPD, sub-gradient ALC and no control.

    python benchmarks/dppd.py [--json] [--tune]

Every row is a run of the scenario `ieee39-dppd` of 150 s in which the net injections of buses 37
and 39 are lost at 5 s for good: times from there until every bus, or the centre of inertia, stays
within 10 or 1 mHz, and the flexible loads within 1e-3 pu of the central optimum. "out of limits" is
the largest excess of a flexible load over its limit, "step" its largest move from one step to the
next in the last 10 s. Two rows reconnect at 65 s, as the scenario does, and count from there. Then
runs of `ieee39-dppd-varying`: the largest deviation of a bus from 25 to 65 s, and at the end.
--tune: gains of the fastest iteration when messages are 0 to 2 steps late, by spectral radius.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One core, and the bits of a run. Before numpy loads its BLAS.
from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _dppd_gains import radius, tuned  # noqa: E402

from controllers.frequency.network import control_network  # noqa: E402
from controllers.frequency.optimum import central_optimum  # noqa: E402
from controllers.frequency.options import DppdOptions  # noqa: E402
from federates.core.signals import read_signal  # noqa: E402
from federates.runs.runner import run  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402

LOST_S = 5.0
LOST = "federates.injections.options.values=[[0, 540, -104], [4.975, 0, 0]]"
LINES = {"16-17-1": 383.0, "6-11-1": 410.0}
OPTIONS = "federates.loads.options"
# Mail is read at the next step, 0.05 s later, at the earliest.
LATE = "links.0.latency_s=0.1"
POOR_MAIL = ("links.0.loss=0.2", LATE)
LIMITED = f"{OPTIONS}.line_limits_mw={json.dumps(LINES)}"
CASES: dict[str, tuple[str, ...]] = {
    "no control": (f"{OPTIONS}.k_d=0",),
    "dppd": (),
    "alc": ("federates.loads.controller=alc",),
    "dppd, one step late": (LATE,),
    "dppd, 20 % lost, one step late": POOR_MAIL,
    "dppd, 50 % lost": ("links.0.loss=0.5",),
    "dppd, line limits": (LIMITED,),
    "dppd, line limits, 20 % lost, one step late": (LIMITED, *POOR_MAIL),
    "dppd, damping 0.5": ("federates.grid.damping_pu=0.5",),
    "dppd, damping 2": ("federates.grid.damping_pu=2",),
    "dppd, noise 1 mHz": ("connections.0.noise=0.001",),
    "dppd, noise 10 mHz": ("connections.0.noise=0.01",),
    "dppd, reconnection at 65 s": (),
    "alc, reconnection at 65 s": ("federates.loads.controller=alc",),
}


def case(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run one case and return its row."""
    lost = () if "reconnection" in name else (LOST,)
    began_s = LOST_S if lost else 65.0
    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario("ieee39-dppd", (*lost, *overrides))
        result = run(scenario, out=Path(folder) / "run", placement="single")
        signals = Path(folder) / "run" / "signals"
        time_s, _, hz = read_signal(signals, "grid.frequency_hz")
        coi_hz = read_signal(signals, "grid.coi_hz")[2][:, 0]
        set_s, buses, set_mw = read_signal(signals, "loads.load_set_mw")
        flow_mw = read_signal(signals, "grid.flow_mw")[1:]
    limits = LINES if LIMITED in overrides else None
    network = control_network("ieee39", limits)
    at = [network.buses.index(bus) for bus in buses]
    best = np.zeros(len(at))
    if lost:
        p = network.injection_pu.copy()
        p[[network.buses.index(bus) for bus in ("37", "39")]] = 0.0
        best = central_optimum(network, p)[at]
    away = np.abs(set_mw / network.base_mva - best).max(axis=1)
    off_mhz = 1e3 * np.abs(hz - network.nominal_hz).max(axis=1)
    coi_mhz = 1e3 * np.abs(coi_hz - network.nominal_hz)
    excess = np.abs(set_mw / network.base_mva) - network.limit_pu[at]
    row: dict[str, Any] = {
        "case": name,
        "below_10_mhz_s": until(time_s, off_mhz, 10.0, began_s),
        "below_1_mhz_s": until(time_s, off_mhz, 1.0, began_s),
        "coi_below_1_mhz_s": until(time_s, coi_mhz, 1.0, began_s),
        "final_mhz": float(off_mhz[-1]),
        "to_1e-3_pu_s": until(set_s, away, 1e-3, began_s),
        "final_pu": float(away[-1]),
        "step_pu": float(np.abs(np.diff(set_mw[-200:], axis=0)).max() / network.base_mva),
        "out_of_limits_pu": float(max(excess.max(), 0.0)),
        "steps_per_s": round(result.summary["steps_per_s"]),
    }
    if limits:
        flows = [flow_mw[1][-1, flow_mw[0].index(line)] for line in limits]
        over = np.abs(flows) - np.array(list(limits.values()))
        row["over_line_limits_mw"] = [float(x) for x in over]
    return row


def varying(control: str, at_38_mw: int) -> dict[str, Any]:
    """Return the row of a run of `ieee39-dppd-varying`; 830 MW at bus 38 are in balance."""
    start = f"federates.start.options.values=[[0, {at_38_mw}]]"
    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario("ieee39-dppd-varying", (start, *CASES[control]))
        run(scenario, out=Path(folder) / "run", placement="single")
        signals = Path(folder) / "run" / "signals"
        time_s, _, hz = read_signal(signals, "grid.frequency_hz")
        set_mw = read_signal(signals, "loads.load_set_mw")[2]
    off_mhz = 1e3 * np.abs(hz - 60.0).max(axis=1)
    return {
        "case": f"varying, {control}, {'balanced' if at_38_mw == 830 else 'imbalanced'} start",
        "swing_mhz": float(off_mhz[(time_s >= 25.0) & (time_s < 65.0)].max()),
        "final_mhz": float(off_mhz[-1]),
        "step_pu": float(np.abs(np.diff(set_mw[-200:], axis=0)).max() / 100.0),
    }


def until(time_s: np.ndarray, value: np.ndarray, limit: float, began_s: float) -> float | None:
    """Return the time from `began_s` after which `value` stays within `limit`; None: never."""
    bad = np.flatnonzero((value > limit) & (time_s >= began_s))
    if not bad.size:
        return 0.0
    return None if bad[-1] == len(time_s) - 1 else round(float(time_s[bad[-1] + 1] - began_s), 3)


def tuning() -> list[dict[str, Any]]:
    """Return the gains in use and the best for messages up to 0, 1 and 2 steps late."""
    network, used = control_network("ieee39", None), DppdOptions()
    start = (used.k_phi, used.k_mu, used.lead_mu, used.k_d)
    rows = [
        {"latest": "in use", "gains": start, "radius": [radius(network, start, k) for k in (0, 1)]}
    ]
    for latest in (0, 1, 2):
        gains, radii = tuned(network, start, latest)
        rows.append({"latest": latest, "gains": gains, "radius": radii})
    return rows


def runs() -> Iterator[dict[str, Any]]:
    """Yield all rows but those of the gains."""
    for name, overrides in CASES.items():
        yield case(name, overrides)
    for at_38_mw in (830, 730):
        for control in ("no control", "alc", "dppd"):
            yield varying(control, at_38_mw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tune", action="store_true", help="search gains in place of runs")
    given = parser.parse_args()
    rows = []
    for row in tuning() if given.tune else runs():
        rows.append(row)
        if not given.json:
            print(", ".join(f"{k}: {shown(v)}" for k, v in row.items()), flush=True)
    if given.json:
        print(json.dumps(rows, indent=1))


def shown(value: Any) -> str:
    """Return a figure in four digits."""
    if isinstance(value, list | tuple):
        return "[" + " ".join(shown(x) for x in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
