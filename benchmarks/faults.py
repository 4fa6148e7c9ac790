"""What happens when something breaks: time to stop, exit code, message, what is readable after.

Each case is a run of the command line in a temporary folder, with a federate, a controller or a
profile that misbehaves on purpose, or with a signal sent to one of its processes. Prints the table
of ``docs/faults.md``; ``--json`` prints the figures. Linux only: it looks into /proc.

    python benchmarks/faults.py [--json] [--only WORDS]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from federates.core.signals import read_signal, signal_names
from grid_models.base.errors import FeederateError

MARK = "FEEDERATE_FAULT_CASE"
STEP_TIMEOUT_S = 3.0
PATIENCE_S, GONE_S = 40.0, 10.0
ENOUGH_STEPS = 100

SCENARIO = """\
title: a run that is going to fail
seed: 1
time: {duration_s: 86400, step_s: 0.5, step_timeout_s: 3}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 1000}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: CONTROLLER}
  mine: {kind: "misbehave:Misbehave", options: {what: "WHAT"}}
EXTERNAL
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
  - feeder.losses_kw -> mine.losses_kw
"""

EXTERNAL = """\
  meter:
    kind: external
    inputs: {losses: {unit: kW, labels: [source]}}
    command: [PYTHON, meter.py, "{broker}", "{core}"]
"""

# Misbehaves after it has run for a while, so that there is something to lose; says when.
MISBEHAVE = '''
import os, signal, sys, time
from pathlib import Path
import numpy as np
from controllers.core.ports import Port
from federates.core.federate import Federate, Step

AFTER_S, AFTER_STEPS = 1.6, 200
STAMP = Path(__file__).with_name("stamp")


def misbehave(what):
    if what == "none":
        return
    STAMP.write_text(repr(time.time()))
    if what == "raise":
        raise RuntimeError("a federate of my own broke")
    if what == "exit":
        sys.exit(0)
    if what == "_exit":
        os._exit(0)
    if what == "sleep":
        time.sleep(3600)
    if what == "spin":
        while True:
            pass
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)


class Misbehave(Federate):
    inputs = (Port("losses_kw", "kW", ("source",)),)
    outputs = (Port("x", "kW", ("a", "b")),)

    def __init__(self, context, what):
        super().__init__(context)
        self.what, self.began, self.steps = what, None, 0

    def step(self, time_s, inputs, mail):
        self.began = self.began or time.monotonic()
        self.steps += 1
        if time.monotonic() - self.began > AFTER_S and self.steps > AFTER_STEPS:
            what, self.what = self.what, "none"
            misbehave(what)
        return Step({"x": np.array([time_s, 1.0])})


class BadController:
    """Every agent commands one DER; goes wrong after a while."""

    def __init__(self, site, hosted, what="nan"):
        self.inputs, self.links_in, self.links_out = (), (), ()
        self.outputs = (Port("q_set_kvar", "kvar", tuple(hosted)),)
        self.inputs = (Port("v_pu", "pu", (site.ders[0].labels[0],), initial=1.0),)
        self.n, self.what, self.began, self.steps = len(hosted), what, None, 0

    @classmethod
    def agents(cls, site, what="nan"):
        return tuple(der.name for der in site.ders)

    def step(self, time_s, inputs, mail):
        self.began = self.began or time.monotonic()
        self.steps += 1
        q = np.zeros(self.n)
        if time.monotonic() - self.began > AFTER_S and self.steps > AFTER_STEPS:
            if not STAMP.exists():
                STAMP.write_text(repr(time.time()))
            if self.what == "nan":
                q[1] = np.nan
            if self.what == "shape":
                q = np.zeros(self.n + 1)
        return Step({"q_set_kvar": q})
'''

METER = """
import sys
import helics as h

info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetCoreTypeFromString(info, sys.argv[2])
h.helicsFederateInfoSetBroker(info, sys.argv[1])
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, 0.5)
fed = h.helicsCreateValueFederate("meter", info)
losses = h.helicsFederateRegisterSubscription(fed, "feeder/losses_kw", "")
h.helicsFederateEnterExecutingMode(fed)
t = 0.0
while t < 86400:
    t = h.helicsFederateRequestTime(fed, t + 0.5)
"""


@dataclass(frozen=True)
class Case:
    """One fault: how the run is made, what breaks it, what must come of it."""

    name: str
    placement: str
    federate: str
    code: int
    what: str = "none"
    controller: str = "volt-var-1547"
    sign: signal.Signals | None = None
    target: str | None = None
    external: bool = False
    file_limit_bytes: int | None = None
    small_disk: bool = False
    arguments: tuple[str, ...] = ()
    nan_profile: bool = False
    words: tuple[str, ...] = ()
    limit_s: float = 10.0
    steps_before: bool = True

    @property
    def key(self) -> str:
        """What `--only` searches."""
        return f"{self.name} ({self.placement})"


@dataclass
class Result:
    """What came of a case; `problems` lists what breaks a promise."""

    case: str
    placement: str
    seconds: float = 0.0
    code: int | None = None
    message: str = ""
    status: str = ""
    reason: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    left_processes: list[str] = field(default_factory=list)
    left_ports: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """Return the fault matrix."""
    out = []
    kill, stop, ctrl_c = signal.SIGKILL, signal.SIGSTOP, signal.SIGINT
    out += [
        Case(f"kill -9 of {name}", "process", name, 3, sign=kill, target=name, words=("SIGKILL",))
        for name in ("feeder", "volt_var", "mine", "broker")
    ]
    out += [
        Case("kill -9 of an external program", placement, "meter", 3, sign=kill,
             target="meter", external=True, words=("its program ended",))
        for placement in ("process", "thread")
    ]  # fmt: skip
    for placement in ("process", "thread", "single"):
        out += [
            Case("kill -9 of the whole run's parent", placement, "", -9, sign=kill,
                 target="parent", external=placement != "single"),
            Case("exception in a federate", placement, "mine", 3, "raise",
                 words=("RuntimeError: a federate of my own broke",)),
            Case("sys.exit(0) in a federate", placement, "mine", 3, "exit",
                 words=("SystemExit",)),
            Case("hang: sleeps", placement, "mine", 3, "sleep", limit_s=STEP_TIMEOUT_S + 10,
                 words=("one step took longer than step_timeout_s = 3 s",)),
            Case("hang: busy loop", placement, "mine", 3, "spin", limit_s=STEP_TIMEOUT_S + 10,
                 words=("one step took longer than step_timeout_s = 3 s",)),
            Case("Ctrl-C", placement, "", 130, sign=ctrl_c, target="parent",
                 words=("interrupted after", "readable")),
            Case("file size limit", placement, "", 3, file_limit_bytes=120_000,
                 words=("File too large",), steps_before=False),
            Case("disk full", placement, "", 3, small_disk=True, steps_before=False,
                 words=("No space left on device",)),
            Case("NaN from a controller", placement, "volt_var", 3,
                 controller="misbehave:BadController, options: {what: nan}",
                 words=("output port 'q_set_kvar'", "nan for '", "expected finite numbers")),
            Case("wrong shape from a controller", placement, "volt_var", 3,
                 controller="misbehave:BadController, options: {what: shape}",
                 words=("output port 'q_set_kvar'", "shape (", "expected a float64 array")),
            Case("power flow that does not converge", placement, "feeder", 3,
                 arguments=("--set", "grid.load_scale=40"), steps_before=False,
                 words=("at time_s=",)),
            Case("NaN in a profile", placement, "", 2, nan_profile=True, steps_before=False,
                 words=("day.csv",)),
        ]  # fmt: skip
    out += [
        Case("os._exit(0) in a federate", "process", "mine", 3, "_exit",
             words=("its process ended (exit code 0)",)),
        Case("crash of native code", "process", "mine", 3, "segfault", words=("SIGSEGV",)),
        Case("hang: SIGSTOP of a federate", "process", "mine", 3, "stop",
             limit_s=STEP_TIMEOUT_S + 10, words=("one step took longer than",)),
        Case("hang: SIGSTOP of the broker", "process", "", 3, sign=stop, target="broker",
             limit_s=STEP_TIMEOUT_S + 10),
        Case("hang: SIGSTOP of an external program", "process", "", 3, sign=stop,
             # Nobody waits for a program that only reads, until HELICS' buffers are full.
             target="meter", external=True, limit_s=STEP_TIMEOUT_S + 30,
             words=("'meter'",)),
    ]  # fmt: skip
    return out


def measure(case: Case, folder: Path) -> Result:
    """Run one case in an empty folder."""
    result = Result(case.name, case.placement)
    _write_inputs(case, folder)
    out = folder / "out"
    mark = uuid.uuid4().hex
    with _disk(case, out):
        process = _start(case, folder, out, mark)
        try:
            began = _break_it(case, folder, out, process, mark, result)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, stderr = process.communicate()
            result.problems.append(f"did not stop within {PATIENCE_S:g} s")
            began = time.time() - PATIENCE_S
        ended = _last_end(mark, result)
        stamp = folder / "stamp"
        if stamp.exists():
            began = float(stamp.read_text())
        elif case.sign is None:
            began = max((p.stat().st_mtime for p in out.glob("signals/*.arrows")), default=began)
        result.seconds = round(ended - began, 2)
        result.code = process.returncode
        lines = [line for line in stderr.splitlines() if "error:" in line]
        result.message = "\n".join(lines).replace(str(folder), "FOLDER")
        _look_at_folder(out, result)
        result.problems += _judge(case, result, stderr)
    return result


def _write_inputs(case: Case, folder: Path) -> None:
    external = EXTERNAL.replace("PYTHON", json.dumps(sys.executable)) if case.external else ""
    text = SCENARIO.replace("WHAT", case.what).replace("CONTROLLER", case.controller)
    text = text.replace("EXTERNAL\n", external)
    if case.external:
        text += "  - feeder.losses_kw -> meter.losses\n"
    if case.nan_profile:
        text = text.replace("  model:", "  profiles: {path: day.csv}\n  model:")
        rows = "\n".join(f"{t},1,0.5,20,30" for t in (0, 43200))
        (folder / "day.csv").write_text(
            f"time_s,load_pu,irradiance_pu,temp_c,price_per_kwh\n{rows}\n86400,1,nan,20,30\n"
        )
    (folder / "fails.yaml").write_text(text)
    (folder / "misbehave.py").write_text(MISBEHAVE)
    (folder / "meter.py").write_text(METER)


@contextlib.contextmanager
def _disk(case: Case, out: Path) -> Iterator[None]:
    if not case.small_disk:
        yield
        return
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "feederate-fault", str(out)]
    subprocess.run(mount, check=True, capture_output=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(out)], check=False, timeout=10)


def can_mount() -> bool:
    """Whether a small disk can be made here (root with the right to mount)."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", "size=100k", "probe", place]
        if subprocess.run(command, capture_output=True, timeout=10, check=False).returncode:
            return False
        subprocess.run(["umount", place], check=False, timeout=10)
    return True


def _start(case: Case, folder: Path, out: Path, mark: str) -> subprocess.Popen[str]:
    def limit() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
        if case.file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_limit_bytes,) * 2)

    code = "from federates.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "run", str(folder / "fails.yaml")]
    command += ["--out", str(out), "--placement", case.placement, "--no-report", *case.arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,  # noqa: PLW1509 - this program has one thread
    )


def _break_it(
    case: Case,
    folder: Path,
    out: Path,
    process: subprocess.Popen[str],
    mark: str,
    result: Result,
) -> float:
    """Wait until there is something to lose, then send the signal; return when."""
    if case.sign is None:
        return time.time()
    deadline = time.time() + PATIENCE_S
    while time.time() < deadline and process.poll() is None:
        if _fewest_rows(out) > ENOUGH_STEPS:
            break
        time.sleep(0.05)
    else:
        result.problems.append("recorded too little before the fault")
    pid = process.pid if case.target == "parent" else _child(mark, out, case.target or "")
    if pid is None:
        result.problems.append(f"no process of '{case.target}' was found")
        process.kill()
        return time.time()
    began = time.time()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, case.sign)
    return began


def _fewest_rows(out: Path) -> int:
    """Return how many steps can be read of the port of which fewest can."""
    rows = []
    for name in ("feeder.v_pu", "volt_var.q_set_kvar", "mine.x"):
        try:
            rows.append(len(read_signal(out / "signals", name)[0]))
        except (OSError, ValueError, FeederateError):
            return 0  # not begun, or cut while it is being written
    return min(rows)


def _child(mark: str, out: Path, name: str) -> int | None:
    """Return the process whose standard error is the log of federate `name`."""
    log = str((out / "logs" / f"{name}.log").resolve())
    for pid in _marked(mark):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if os.readlink(f"/proc/{pid}/fd/2") == log and b"base.parent" not in words:
                return pid
    return None


def _marked(mark: str) -> list[int]:
    """Return the living processes of one case, children of children and orphans included."""
    found = []
    needle = f"{MARK}={mark}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if needle in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found


def _listening(pids: list[int]) -> list[int]:
    """Return the TCP ports on which these processes listen."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    ports = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        part = line.split()
        if part[3] == "0A" and f"socket:[{part[9]}]" in sockets:
            ports.append(int(part[1].split(":")[1], 16))
    return ports


def _last_end(mark: str, result: Result) -> float:
    """Wait until no process of the run is left, for so long at most; return when that was."""
    deadline = time.time() + GONE_S
    while (left := _marked(mark)) and time.time() < deadline:
        time.sleep(0.02)
    ended = time.time()
    result.left_ports = _listening(left)
    for pid in left:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            result.left_processes.append(b" ".join(words).decode()[-80:])
            os.kill(pid, signal.SIGKILL)
    return ended


def _look_at_folder(out: Path, result: Result) -> None:
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((out / "manifest.json").read_text())
        result.status, result.reason = manifest["status"], manifest["reason"] or ""
    if (out / "signals").is_dir():
        for name in signal_names(out / "signals"):
            result.rows[name] = len(read_signal(out / "signals", name)[0])


def _judge(case: Case, result: Result, stderr: str) -> list[str]:
    problems = []
    if result.code != case.code:
        problems.append(f"exit code {result.code}, not {case.code}: {stderr[-300:]}")
    if result.seconds > case.limit_s:
        problems.append(f"took {result.seconds} s, more than {case.limit_s:g} s")
    if case.federate and f"federate '{case.federate}'" not in result.message:
        problems.append(f"the message does not name '{case.federate}': {result.message}")
    problems += [f"the message lacks '{w}': {result.message}" for w in case.words
                 if w not in result.message]  # fmt: skip
    if "Traceback" in stderr:
        problems.append("a traceback on the terminal")
    if result.left_processes:
        problems.append(f"left behind: {result.left_processes}")
    if case.code in (3, 130) or case.code < 0:
        status = {3: "failed", 130: "interrupted"}.get(case.code, "running")
        if result.status != status:
            problems.append(f"the manifest says '{result.status}', not '{status}'")
        if case.federate and case.federate not in result.reason:
            problems.append(f"the manifest's reason lacks '{case.federate}': {result.reason}")
        if case.steps_before and not all(n > ENOUGH_STEPS for n in result.rows.values()):
            problems.append(f"recorded only {result.rows}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--only", default="", help="cases whose name contains these words")
    options = parser.parse_args()
    results = []
    mountable = can_mount()
    for case in cases():
        if options.only not in case.key or (case.small_disk and not mountable):
            continue
        with tempfile.TemporaryDirectory(prefix="feederate-fault-") as folder:
            result = measure(case, Path(folder))
        results.append(result)
        if not options.json:
            print(row(result), flush=True)
            for problem in result.problems:
                print(f"    PROBLEM: {problem}", flush=True)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    return 1 if any(result.problems for result in results) else 0


def row(result: Result) -> str:
    """Return a line of the table in docs/faults.md."""
    message = result.message.replace("error: ", "").split("\n")[0] or "-"
    rows: Any = max(result.rows.values(), default=0)
    cells = [result.case, result.placement, f"{result.seconds:.1f}", str(result.code), message,
             f"{rows} steps, {result.status or 'no run'}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
