"""One run of a user's OpenDSS feeder, by the engine alone or by Feederate; see `feeders.py`.

`python benchmarks/_feeder_runs.py WHO WHAT STEPS STEP_S MASTER FILE` runs in a process of its own:
figures as JSON on standard output, voltages in volt, (n_steps, n_nodes), in the npy file FILE.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

#: Load and sun of the steps with a profile: midnight, noon, evening; then from the start again.
LEVELS = ((0.35, 0.0), (0.7, 0.9), (1.0, 0.0))
TOLERANCE_PU = 1e-7
SHAPES = {"daily": "daily", "yearly": "yearly", "duty": "dutycycle"}
_DERS = ("PVsystems", "Storages", "Generators")
_WRITES = re.compile(
    rb"(?im)^[ \t]*(?:sh|sho|show|pl|plot|exp|expo|export|vis|visualize|dump|save|fileedit|dos)\b"
)
_SOLVES = re.compile(rb"(?im)^[ \t]*(?:sol|solve)\b([^\r\n!]*)")


def copy_without_series(folder: Path, target: Path) -> None:
    """Copy a folder of masters whose time series have no steps and that show and write nothing."""
    shutil.copytree(folder, target, symlinks=True)
    for path in target.rglob("*"):
        if path.suffix.lower() in (".dss", ".txt") and path.is_file():
            text = path.read_bytes()
            # A snapshot takes no notice of the number.
            once = rb"solve \1 number=0 maxcontroliter=100 maxiterations=100 "
            changed = _WRITES.sub(b"! ", _SOLVES.sub(once, text))
            if changed != text:
                path.write_bytes(changed)


def engine_alone(master: Path, what: str, steps: int, step_s: float) -> dict[str, Any]:
    """Compile a copy with the engine's own `compile` and solve step by step with `solve`."""
    from opendssdirect import dss

    out: dict[str, Any] = {"unsettled": 0}

    def say(text: str) -> str:
        """Run a command; controls that do not settle are a warning of the engine."""
        try:
            dss.Text.Command(text)
        except Exception as error:
            if "Max Control Iterations" not in str(error):
                raise
            out["unsettled"] += 1
        return str(dss.Text.Result())

    dss.Basic.AllowEditor(False)
    began = time.perf_counter()
    say(f'compile "{master}"')
    out["compile_s"] = time.perf_counter() - began
    out |= {"loads": dss.Loads.Count(), "ders": sum(getattr(dss, x).Count() for x in _DERS)}
    mode, control_mode = str(dss.Solution.ModeID()).lower(), say("get controlmode")
    own_mult = dss.Solution.LoadMult()
    say("set maxiterations=100 maxcontroliter=100")
    if what != "day":
        # Settled, whatever the control mode: as `open_master` does.
        say(f"set controlmode={'off' if control_mode.lower() == 'off' else 'static'}")
        say("solve mode=snapshot")
    for _ in dss.Loads:
        dss.Loads.Vminpu(min(dss.Loads.Vminpu(), 0.7))
        dss.Loads.Vmaxpu(max(dss.Loads.Vmaxpu(), 1.3))
    names = [str(n).lower() for n in dss.Circuit.AllElementNames()]
    if what == "fixed":
        for name in (n for n in names if n.startswith(("regcontrol.", "capcontrol."))):
            say(f'edit "{name}" enabled=no')
    shapes = {n: [x for x in SHAPES if say(f"? {n}.{x}").strip("[] ")] for n in names if _shaped(n)}
    if mode not in SHAPES.values():
        every = [x for found in shapes.values() for x in found]
        mode = SHAPES[max(SHAPES, key=every.count)] if what == "day" else "daily"
    sunny = []
    if what != "day":
        say("new loadshape.constant npts=1 interval=1 mult=(1)")
        for name, found in shapes.items():
            if found and name.startswith(("load.", "pvsystem.")):
                say(f'edit "{name}" daily=constant yearly=constant duty=constant')
                sunny += [name.partition(".")[2]] if name.startswith("pv") else []
    say(f"set mode={mode}")
    say(f"set number=1 stepsize={step_s}s controlmode={control_mode} tolerance={TOLERANCE_PU}")
    if what != "day":
        dss.Solution.SolveSnap()  # as `open_master` does
    seconds, rows, taps = [], [], []
    for k in range(steps):
        if what != "day":
            load_pu, sun = LEVELS[k % len(LEVELS)]
            dss.Solution.LoadMult(own_mult * load_pu)
            for name in sunny:
                dss.PVsystems.Name(name)
                dss.PVsystems.Irradiance(sun)
        began = time.perf_counter()
        if k < len(LEVELS) or what == "day":
            say("solve")
        elif not out["unsettled"]:
            # Without the sampling of meters and monitors, for its time. Controls that did not
            # settle end all further solutions of this kind.
            dss.Solution.SolveSnap()
        seconds.append(time.perf_counter() - began)
        if k < len(LEVELS) or what == "day":
            if not dss.Solution.Converged() and not out["unsettled"]:
                raise RuntimeError(f"the engine alone does not converge at step {k}")
            taps.append(tap_steps(dss))
            rows.append(dss.Circuit.AllBusVMag())
    out |= {"v": np.array(rows), "labels": [n.lower() for n in dss.Circuit.AllNodeNames()]}
    return out | {"taps": taps, "step_ms": undisturbed_ms(seconds)}


def undisturbed_ms(seconds: list[float]) -> float:
    """Return the mean over the levels of the shortest time of each: others use the machine too."""
    n = len(LEVELS)
    return 1e3 * statistics.mean(min(seconds[n + i :: n] or seconds[i::n]) for i in range(n))


def _shaped(name: str) -> bool:
    return name.startswith(("load.", "pvsystem.", "generator.", "storage."))


def tap_steps(dss: Any) -> list[float]:
    """Return the tap of every controlled winding, per unit."""
    taps = []
    for _ in dss.RegControls:
        name, winding = dss.RegControls.Transformer(), dss.RegControls.TapWinding()
        dss.Transformers.Name(name)
        dss.Transformers.Wdg(winding)
        taps.append(round(dss.Transformers.Tap(), 9))
    return taps


def feederate(master: Path, what: str, steps: int, step_s: float) -> dict[str, Any]:
    """Run the same steps as a scenario, without placed DERs."""
    from federates.kinds.feeder.federate import FeederFederate
    from federates.runs.runner import run
    from federates.scenario.schema import load_scenario

    seconds: list[float] = []
    rows: list[Any] = []
    residuals: list[tuple[float, float]] = []
    out: dict[str, Any] = {"taps": []}
    own_step = FeederFederate.step

    def step(self: Any, time_s: float, inputs: Any, mail: Any) -> Any:
        start = time.perf_counter()
        out.setdefault("first_step_s", start - began)
        result = own_step(self, time_s, inputs, mail)
        seconds.append(time.perf_counter() - start)
        circuit = self._circuit
        out["labels"], out["tolerance_pu"] = circuit.node_labels, circuit.tolerance_pu
        out["warnings"] = list(self.warnings)
        if len(rows) < len(LEVELS) or what == "day":
            out["taps"].append(tap_steps(circuit.engine.dss))
            rows.append(circuit.v_pu() * circuit._base_v)
            residuals.append(residual(circuit, result.outputs))
        return result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The engine alone adds a step to its time before it solves.
        changes = {
            "grid.model": master,
            "grid.ders": "[]",
            "grid.tolerance_pu": TOLERANCE_PU,
            "grid.regulators": "fixed" if what == "fixed" else "auto",
            "time": f"{{start_s: {step_s}, step_s: {step_s}, duration_s: {steps * step_s}}}",
        }
        if what == "day":
            changes["grid.profiles"] = "{kind: master}"
        else:
            table = ["time_s,load_pu,irradiance_pu,temp_c"]
            for k in range(steps + 1):
                load_pu, sun = LEVELS[k % len(LEVELS)]
                table.append(f"{step_s * (k + 1)},{load_pu},{sun},25")
            (folder / "day.csv").write_text("\n".join(table))
            changes["grid.profiles.path"] = folder / "day.csv"
        scenario = load_scenario("voltvar-ieee123-none", [f"{k}={v}" for k, v in changes.items()])
        FeederFederate.step = step  # type: ignore[method-assign]
        began = time.perf_counter()
        run(scenario, out=folder / "run", placement="single", steps=steps)
    errors_kw, sizes_kw = np.array(residuals).T
    out |= {"v": np.array(rows), "balance": float(errors_kw.max() / max(sizes_kw.max(), 1e-9))}
    return out | {"step_ms": undisturbed_ms(seconds)}


def residual(circuit: Any, ports: Any) -> tuple[float, float]:
    """Return |import + DERs - loads - losses| and the sum of their sizes, kW."""
    dss = circuit.engine.dss

    def kw(interface: Any) -> float:
        """Return what the elements of a class draw; DERs of the scenario are loads to OpenDSS."""
        powers = (
            float(np.asarray(dss.CktElement.TotalPowers())[::2].sum())
            for _ in interface
            if not interface.Name().startswith("feederate_der")
        )
        return sum(powers)

    file_ders_kw = -sum(kw(getattr(dss, name)) for name in _DERS)
    supply = [float(ports["import_kw"][0]), float(ports["p_kw"].sum()), file_ders_kw]
    demand = [kw(dss.Loads), float(ports["losses_kw"][0])]
    return abs(sum(supply) - sum(demand)), sum(map(abs, supply + demand))


def main(who: str, what: str, steps: str, step_s: str, master: str, file: str) -> None:
    run = {"engine": engine_alone, "ours": feederate}[who]
    with contextlib.redirect_stdout(io.StringIO()):
        out = run(Path(master), what, int(steps), float(step_s))
    np.save(file, out.pop("v"))
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
