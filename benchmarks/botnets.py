"""What a botnet does to a transmission system, by place and time: 900 MW spread, 225 MW placed.

Each case is a run of the sixth-order machines without any co-simulation: an outage at 1 s, if there
is one, and the demand at 25 s, constant or on and off in turn. Numbers are up to 60 s after it.

    python benchmarks/botnets.py [--json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np

from grid_models.base.threads import use_one_thread
from grid_models.transmission.machines import MachineDynamics
from grid_models.transmission.model import BusDemand, Disturbance
from grid_models.transmission.system import load_system

SPREAD_MW, PLACED_MW = 900.0, 225.0
OUTAGE_S, BEGIN_S, AFTER_S, EXCHANGE_S = 1.0, 25.0, 60.0, 0.1


@dataclass(frozen=True)
class Case:
    """`bus`: Where the demand is; '' for all loads. `pulse_s`: Time on and time off; 0: constant.

    `outage`: A branch or machine that is out since 1 s; '' for none.
    """

    system: str
    bus: str
    outage: str = ""
    pulse_s: float = 0.0


CASES = (
    *(Case("kundur", bus) for bus in ("", "7", "9")),
    Case("kundur", "9", pulse_s=0.9),  # the mode between the areas: 0.55 Hz
    Case("kundur", "7", "7-8-1"),
    Case("kundur", "9", "7-8-1"),
    *(Case("ieee39", bus) for bus in ("", "8", "20")),
    Case("ieee39", "", "G9"),
    Case("ieee39", "8", "G9"),
    Case("ieee39", "20", "G9"),
)


def run(case: Case) -> dict[str, object]:
    """Return what a case leads to."""
    system = load_system(case.system)
    model = MachineDynamics(system)
    n = len(system.buses)
    added_mw = np.zeros(n)
    if case.bus:
        added_mw[system.buses.index(case.bus)] = PLACED_MW
    else:
        added_mw = SPREAD_MW * system.load_mw / system.load_mw.sum()
    branch_in, machine_in = (
        np.array([name != case.outage for name in names])
        for names in (system.branches, system.machines)
    )
    calm = Disturbance(
        np.zeros(n),
        np.ones(n),
        np.full(n, np.nan),
        np.ones_like(branch_in),
        np.ones_like(machine_in),
    )
    low_hz, low_pu, coi_hz, collapsed_s = np.inf, np.inf, np.nan, None
    for k in range(round((BEGIN_S + AFTER_S) / EXCHANGE_S)):
        time_s, done = k * EXCHANGE_S, calm
        if time_s >= OUTAGE_S - 1e-9:
            since_s = time_s - BEGIN_S + 1e-9
            off = case.pulse_s and np.mod(since_s, 2.0 * case.pulse_s) >= case.pulse_s
            load_mw = np.zeros(n) if since_s < 0.0 or off else added_mw
            done = Disturbance(load_mw, np.ones(n), calm.injection_mw, branch_in, machine_in)
        state = model.advance((k + 1) * EXCHANGE_S, BusDemand.none(n), done)
        for event in model.take_events():
            collapsed_s = event.time_s - BEGIN_S if event.kind == "collapsed" else collapsed_s
        if collapsed_s is not None:
            break
        if time_s >= BEGIN_S:
            low_hz, low_pu = min(low_hz, state.coi_hz), min(low_pu, float(np.abs(state.v).min()))
            coi_hz = state.coi_hz
    alive = collapsed_s is None
    return asdict(case) | {
        "mw": float(added_mw.sum()),
        "frequency_min_hz": round(low_hz, 4) if alive else None,
        "frequency_final_hz": round(coi_hz, 4) if alive else None,
        "v_min_pu": round(low_pu, 4) if alive else None,
        "collapsed_after_s": None if alive else round(float(collapsed_s or 0.0), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    use_one_thread()
    as_json = parser.parse_args().json
    rows = [run(case) for case in CASES]
    if as_json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items() if value not in ("", None)))


if __name__ == "__main__":
    main()
