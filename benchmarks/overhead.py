"""What the federation costs per step, beside a plain loop over the same models.

    python benchmarks/overhead.py [--json] [--steps N] [--repeats N]

IEEE 123 with one agent per load bus (85). One run interleaves all variants, so that ratios hold
when the machine's speed drifts; figures are medians over the repeats, in microseconds per step.

* ``plain``: a loop as a researcher writes it: set loads and DERs, solve, read all voltages,
  control, keep the set-points and the mail, record into arrays. No federation.
* ``single``, ``thread``, ``process``: the same scenario under the three hosts, recording the same
  ports to disk.
* ``pyhelics``: a minimal hand-written pair of HELICS federates in two threads that runs the same
  models and moves the same vectors, written with pyhelics' own calls, recording into arrays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import helics as h
import numpy as np

from controllers.core import registry
from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from federates.core.context import GridSite
from federates.runs.options import Placement
from federates.runs.runner import run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.catalog import open_circuit
from grid_models.ders.plant import DerFleet
from grid_models.opendss.circuit import Circuit

PLACEMENTS: tuple[Placement, ...] = ("single", "shared", "thread", "process")


def scenario() -> Scenario:
    """Return the benchmark's scenario: 85 agents, one per load bus."""
    return load_scenario("voltvar-ieee123", ["grid.ders.0.at=load_phases", "time.step_s=10"])


class Models:
    """The models of the scenario, without any federation."""

    def __init__(self, spec: Scenario, steps: int) -> None:
        site = GridSite(spec)
        feeder = site.feeder
        ders = feeder.ders
        self.circuit: Circuit = open_circuit(
            site.model, ders, taps=spec.grid.taps, source_v_pu=spec.grid.source_v_pu
        )
        self.fleet = DerFleet(ders, seed=spec.seed)
        self.dt_s = spec.time.step_s
        times = spec.time.start_s + np.arange(steps) * self.dt_s
        self.day = site.profiles().sample(times)
        options = spec.federates["volt_var"].options
        cls = registry.resolve(str(spec.federates["volt_var"].controller))
        control_site = ControlSite(feeder, ders, self.dt_s, seed=spec.seed)
        agents = cls.agents(control_site, **options)
        self.controller = cls(control_site, agents, **options)
        place = {label: i for i, label in enumerate(self.circuit.node_labels)}
        ports = {port.name: port.labels for port in self.controller.inputs}
        self.at = np.array([place[label] for label in ports["v_pu"]])
        keys = {link.key: i for i, link in enumerate(self.controller.links_in)}
        self.route = np.array([keys[link.key] for link in self.controller.links_out], np.int64)
        self.p_label_count = len(ports.get("p_kw", ()))

    def solve(self, k: int, q_set_kvar: np.ndarray) -> tuple[np.ndarray, ...]:
        """Advance the feeder by one step."""
        circuit, day = self.circuit, self.day
        factor = day["load_pu"][k]
        circuit.set_loads(circuit.load_kw * factor, circuit.load_kvar * factor)
        p_kw, q_kvar = self.fleet.step(
            self.dt_s, day["irradiance_pu"][k], day["temp_c"][k], None, q_set_kvar
        )
        circuit.set_ders(p_kw, q_kvar)
        circuit.solve()
        p_import, q_import = circuit.source_kw_kvar()
        totals = np.array([p_import, q_import, circuit.losses_kw()])
        return circuit.v_pu(), p_kw, q_kvar, totals

    def control(self, time_s: float, v_pu: np.ndarray, p_kw: np.ndarray, mail: Mail) -> Any:
        """Advance the controller by one step; return set-points and the next mail."""
        inputs = {"v_pu": v_pu[self.at]}
        if self.p_label_count:
            inputs["p_kw"] = p_kw
        result = self.controller.step(time_s, inputs, mail)
        sent = result.mail
        return result.outputs["q_set_kvar"], Mail(self.route[sent.link], sent.round, sent.values)


class Record:
    """Arrays that hold what a run records."""

    def __init__(self, models: Models, steps: int) -> None:
        nodes, ders = len(models.circuit.node_labels), len(models.circuit.der_names)
        self.rows = [np.empty((steps, n)) for n in (nodes, ders, ders, 3, ders)]

    def put(self, k: int, *values: np.ndarray) -> None:
        """Keep one step."""
        for row, value in zip(self.rows, values, strict=False):
            row[k] = value


def plain_us(spec: Scenario, steps: int) -> float:
    """Time the plain loop."""
    models = Models(spec, steps)
    record = Record(models, steps)
    q_set = np.zeros(len(models.circuit.der_names))
    mail = Mail.empty()
    began = time.perf_counter()
    for k in range(steps):
        v_pu, p_kw, q_kvar, totals = models.solve(k, q_set)
        q_set, mail = models.control(k * models.dt_s, v_pu, p_kw, mail)
        record.put(k, v_pu, p_kw, q_kvar, totals, q_set)
    return (time.perf_counter() - began) / steps * 1e6


def federation_us(spec: Scenario, steps: int, placement: Placement) -> float:
    """Time the scenario under one host, without set-up, with everything recorded to disk."""
    folder = Path(tempfile.mkdtemp())
    try:
        result = run(spec, out=folder / "run", placement=placement, steps=steps)
    finally:
        shutil.rmtree(folder)
    return 1e6 / float(result.summary["steps_per_s"])


def pyhelics_us(spec: Scenario, steps: int) -> float:
    """Time a minimal pair of federates in threads, written with pyhelics' own calls."""
    models = Models(spec, steps)
    record = Record(models, steps)
    dt_s, n_ders = models.dt_s, len(models.circuit.der_names)
    uid = uuid.uuid4().hex
    broker = h.helicsCreateBroker("inproc", f"b{uid}", "-f 2")

    def federate(name: str, offset_s: float) -> Any:
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreTypeFromString(info, "inproc")
        h.helicsFederateInfoSetCoreName(info, f"c{name}{uid}")
        h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 --broker=b{uid}")
        h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, dt_s)
        h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_OFFSET, offset_s)
        return h.helicsCreateValueFederate(name + uid, info)

    def publication(fed: Any, name: str) -> Any:
        kind = h.HELICS_DATA_TYPE_VECTOR
        return h.helicsFederateRegisterGlobalPublication(fed, name + uid, kind, "")

    def subscription(fed: Any, name: str) -> Any:
        return h.helicsFederateRegisterSubscription(fed, name + uid, "")

    spent: list[float] = []

    def feeder(fed: Any, v: Any, p: Any, q: Any) -> None:
        h.helicsFederateEnterExecutingMode(fed)
        began = time.perf_counter()
        for k in range(steps):
            if k:
                h.helicsFederateRequestTime(fed, k * dt_s)
            got = np.array(h.helicsInputGetVector(q))
            q_set = got if got.size == n_ders else np.zeros(n_ders)
            v_pu, p_kw, q_kvar, totals = models.solve(k, q_set)
            h.helicsPublicationPublishVector(v, v_pu.tolist())
            h.helicsPublicationPublishVector(p, p_kw.tolist())
            record.put(k, v_pu, p_kw, q_kvar, totals)
        spent.append(time.perf_counter() - began)
        h.helicsFederateDisconnect(fed)

    def controller(fed: Any, v: Any, p: Any, q: Any) -> None:
        mail = Mail.empty()
        h.helicsFederateEnterExecutingMode(fed)
        for k in range(steps):
            h.helicsFederateRequestTime(fed, (k + 0.5) * dt_s)
            v_pu = np.array(h.helicsInputGetVector(v))
            p_kw = np.array(h.helicsInputGetVector(p))
            q_set, mail = models.control((k + 0.5) * dt_s, v_pu, p_kw, mail)
            h.helicsPublicationPublishVector(q, q_set.tolist())
            record.rows[4][k] = q_set
        h.helicsFederateDisconnect(fed)

    a, b = federate("feeder", 0.0), federate("controller", dt_s / 2)
    jobs = [
        (feeder, (a, publication(a, "v"), publication(a, "p"), subscription(a, "q"))),
        (controller, (b, subscription(b, "v"), subscription(b, "p"), publication(b, "q"))),
    ]
    threads = [threading.Thread(target=target, args=args) for target, args in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    h.helicsBrokerWaitForDisconnect(broker, 2000)
    h.helicsBrokerFree(broker)
    return spent[0] / steps * 1e6


def measure(steps: int, repeats: int) -> dict[str, float]:
    """Return the medians and the ratios."""
    spec = scenario()
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        times.setdefault("plain", []).append(plain_us(spec, steps))
        times.setdefault("pyhelics", []).append(pyhelics_us(spec, steps))
        for placement in PLACEMENTS:
            times.setdefault(placement, []).append(federation_us(spec, steps, placement))
    out = {f"{name}_us": round(statistics.median(v), 1) for name, v in times.items()}
    pairs = [(p, "plain") for p in PLACEMENTS] + [("thread", "pyhelics")]
    for name, base in pairs:
        ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
        out[f"{name}_over_{base}"] = round(statistics.median(ratios), 3)
    return out | {"steps": steps, "repeats": repeats, "agents": 85}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    result = measure(options.steps, options.repeats)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24}{value:>12}")


if __name__ == "__main__":
    main()
