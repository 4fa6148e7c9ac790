"""Faulty HELICS partners: what a run says of each, how it ends and how long it takes.

Each case is a run of the IEEE 13-node feeder, 30 steps of a minute, with one external program, or
with its federates on two hosts (two loopback addresses). ``--json`` prints the results as data,
``--only WORDS`` runs the cases whose name contains them. Exit code 1 if a case is not as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

LIMIT_S = 60.0
# The nodes of the feeder, in its own order.
PHASES = {"645": "23", "646": "23", "684": "13", "652": "1", "611": "3"}
BUSES = (
    *("650", "650r", "632", "645", "633", "632_671_mid", "646", "634"),
    *("671", "684", "680", "692", "652", "611", "675"),
)
LABELS = [f"{bus}.{phase}" for bus in BUSES for phase in PHASES.get(bus, "123")]

SCENARIO = """\
time: {start_s: 43200, duration_s: 1800, step_s: 60, step_timeout_s: 4, join_timeout_s: JOIN TIME}
grid:
  model: ieee13
  ders: [{kind: pv, at: ["671"], total_kw: 1500}]
federates:
  feeder: {kind: feeder}
  lab:
    kind: external
    command: COMMAND
    KEYS
    inputs:
      v_pu: {unit: pu, labels: LABELS}
    OUTPUTS
connections:
  - feeder.v_pu -> lab.v_pu
  WIRED
"""
OUTPUTS = "outputs: {q_set_kvar: {unit: kvar, labels: [pv_671]}}"
WIRED = "- lab.q_set_kvar -> feeder.q_set_kvar"

PROGRAM = """\
import json, os, sys, time
import helics as h
broker, core, fault = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if fault.get("start") == "exit":
    sys.exit("no licence found")
if fault.get("start") == "sleep":
    time.sleep(1000)
time.sleep(fault.get("late_s", 0))
info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetCoreTypeFromString(info, core)
h.helicsFederateInfoSetBroker(info, broker)
h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, 60.0)
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_OFFSET, 30.0)
lab = h.helicsCreateValueFederate(fault.get("name", "lab"), info)
voltages = h.helicsFederateRegisterSubscription(lab, fault.get("reads", "feeder/v_pu"), "")
topic, kind = fault.get("topic", "lab/q_set_kvar"), h.HELICS_DATA_TYPE_VECTOR
if fault.get("type") == "string":
    kind = h.HELICS_DATA_TYPE_STRING
publication = None
if topic:
    unit = fault.get("unit", "kvar")
    publication = h.helicsFederateRegisterGlobalPublication(lab, topic, kind, unit)
if fault.get("start") == "set-up":
    time.sleep(1000)
h.helicsFederateEnterExecutingMode(lab)
for k in range(30):
    h.helicsFederateRequestTime(lab, 30.0 + 60.0 * k)
    if k >= fault.get("from", 5):
        what = fault.get("then")
        if what == "leave":
            break
        if what == "silent":
            continue
        if what == "raise":
            raise RuntimeError("the laboratory is on fire")
        if what == "hang":
            time.sleep(1000)
        if what == "kill":
            os.kill(os.getpid(), 9)
    if k % fault.get("every", 1) or publication is None:
        continue
    if fault.get("type") == "string":
        h.helicsPublicationPublishString(publication, "twelve")
    else:
        values = fault.get("values", [12.0]) if k >= fault.get("from", 5) else [12.0]
        h.helicsPublicationPublishVector(publication, [float(v) for v in values])
h.helicsFederateDisconnect(lab)
h.helicsCloseLibrary()
"""


@dataclass(frozen=True)
class Case:
    """One faulty partner; `words` are in the message, `event` in ``events.jsonl``."""

    name: str
    code: int
    words: tuple[str, ...] = ()
    fault: dict[str, object] = field(default_factory=dict)
    keys: str = ""
    """More keys of the external federate."""
    outputs: str = OUTPUTS
    wired: str = WIRED
    join_s: float = 20.0
    time: str = ""
    """More keys of the scenario's section `time`."""
    by_hand: bool = False
    """The program is not started by the run."""
    recorder_after_s: float | None = None
    hosts: tuple[tuple[str, ...], ...] = ()
    """Options of each host of a run over two; those of the first have --listen."""
    event: str = ""


@dataclass
class Result:
    """What came of a case; `problems` lists what breaks a promise."""

    case: str
    code: int | None
    seconds: float
    message: str
    problems: list[str]


def cases() -> list[Case]:
    """Return the faulty partners."""
    lab, topic = "federate 'lab'", "lab/q_set_kvar"
    one, other = ("--only", "feeder"), ("--only", "volt_var")
    return [
        Case("none: a partner as declared", 0),
        Case("publishes in another unit", 3, (lab, topic, "'var'", "'kvar'"), {"unit": "var"}),
        Case("publishes under another topic", 3, (lab, topic, "did you mean 'lab/q_set'"),
             {"topic": "lab/q_set"}),
        Case("publishes nothing it declares", 3, (lab, topic, "nobody publishes"), {"topic": ""}),
        Case("has another federate name", 3, (lab, "'labb'", "not ready within"),
             {"name": "labb"}, join_s=5.0),
        Case("reads a topic that does not exist", 3, (lab, "feeder/v_pu", "'feeder/v_puu'"),
             {"reads": "feeder/v_puu"}),
        Case("gives two numbers for one label", 3, (lab, topic, "2 numbers", "expected 1"),
             {"values": [1, 2]}),
        Case("gives NaN", 3, (lab, topic, "nan for 'pv_671'"), {"values": ["nan"]}),
        Case("gives infinity", 3, (lab, topic, "inf for 'pv_671'"), {"values": ["inf"]}),
        Case("gives text", 3, (lab, topic, "string"), {"type": "string"}),
        Case("steps, but never publishes", 3, (lab, topic, "no value"),
             {"then": "silent", "from": 0}, event="topic_silent"),
        Case("falls silent after 5 steps", 0, (lab, topic, "no value since 270 s"),
             {"then": "silent"}, event="topic_silent"),
        Case("falls silent, and `max_silence_s: 120`", 3, (lab, topic, "max_silence_s"),
             {"then": "silent"}, keys="max_silence_s: 120"),
        Case("publishes every second period", 0, (lab, topic, "expected one at least every 60 s"),
             {"every": 2}, event="topic_silent"),
        Case("leaves after 5 steps", 3, (lab, topic, "left the federation"), {"then": "leave"}),
        Case("only reads, and leaves after 5 steps", 3, (lab, "left the federation"),
             {"topic": "", "then": "leave"}, outputs="", wired="",
             keys="offset_s: 30", time=", real_time: {factor: 300}"),
        Case("ends with an exception", 3, (lab, "logs/lab.log"), {"then": "raise"}),
        Case("is killed, started by hand", 3, (lab,), {"then": "kill"}, by_hand=True),
        Case("hangs in a step", 3, (lab, "step_timeout_s"), {"then": "hang"}),
        Case("hangs before it initialises", 3, (lab, "waiting for 'lab'", "it does not initialise"),
             {"start": "set-up"}, join_s=5.0),
        Case("exits before it joins", 3, (lab, "its program ended (exit code 1)"),
             {"start": "exit"}),
        Case("never joins", 3, (lab, "waiting for 'lab' at broker tcp://127.0.0.1:", "tcp_ss"),
             {"start": "sleep"}, join_s=5.0),
        Case("joins after 6 s", 0, ("waiting for 'lab'",), {"late_s": 6}),
        Case("nothing reads its output", 0, ("nothing reads its output 'q_set_kvar'",), wired=""),
        Case("a recorder that nobody declared, from the start", 0, recorder_after_s=0.0,
             fault={"late_s": 4}),
        Case("a recorder that comes late", 0, recorder_after_s=5.0,
             time=", real_time: {factor: 100}"),
        # Which host compares first, and so which value is "here", depends on the machine.
        Case("another host has another seed", 3, ("do not run the same: seed: ",),
             hosts=(one, (*other, "--seed", "2"))),
        Case("another host has other steps", 3, ("do not run the same: steps: ",),
             hosts=(one, (*other, "--steps", "20"))),
        Case("another host has another scenario", 3, ("scenario's links:",),
             hosts=(one, (*other, "--set", "links=[{loss: 0.5}]"))),
        Case("the other host never comes", 3, ("'volt_var'", "not ready within", "tcp://127.0.0.1"),
             hosts=((*one, "--set", "time.join_timeout_s=5"),)),
        Case("no broker where a host is to join", 3, ("no HELICS broker answers at",),
             hosts=((), (*other, "--set", "time.join_timeout_s=5"))),
        Case("`--only` without `--listen` or `--join`", 2, ("--only", "--listen", "--join"),
             hosts=(("ALONE", *one),)),
    ]  # fmt: skip


def measure(case: Case, folder: Path) -> Result:
    """Run one case in an empty folder."""
    port = _free_port()
    began = time.monotonic()
    others: list[subprocess.Popen[bytes]] = []
    runs = _hosts(case, folder, port) if case.hosts else [_partner(case, folder, port, others)]
    texts = []
    for run in runs:
        try:
            texts.append(run.communicate(timeout=LIMIT_S + 10)[1])
        except subprocess.TimeoutExpired:
            run.kill()
            texts.append(run.communicate()[1])
    seconds = round(time.monotonic() - began, 1)
    for other in others:
        other.kill()
        other.wait()
    text = "\n".join(texts).replace(str(folder), "FOLDER")
    codes = [run.returncode for run in runs]
    problems = [f"lacks '{words}'" for words in case.words if words not in text]
    problems += [f"exit codes {codes}, not {case.code}"] * any(c != case.code for c in codes)
    problems += [f"took {seconds} s"] * (seconds > LIMIT_S)
    problems += ["a traceback on the terminal"] * ("Traceback" in text)
    events = folder / "out0" / "events.jsonl"
    if case.event and f'"event": "{case.event}"' not in events.read_text():
        problems.append(f"no event '{case.event}'")
    if problems:
        problems.append(text[-1500:])
    return Result(case.name, codes[-1], seconds, _message(text), problems)


def _message(text: str) -> str:
    """Return the error, or else the last warning."""
    text = re.sub(r"tcp://[\d.]+:\d+", "tcp://HOST:PORT", text)
    blocks = re.split(r"^(?=error: |warning: )", text, flags=re.MULTILINE)
    errors = [b for b in blocks if b.startswith("error: ")]
    found = errors or [b for b in blocks if b.startswith("warning: ")] or [""]
    words = (found[0] if errors else found[-1]).split("\n\n")[0]
    return " ".join(words.split()).removeprefix("error: ")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    """Return when a run's broker listens."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)


def _feederate(folder: Path, *words: str) -> subprocess.Popen[str]:
    code = "from federates.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, "run", *words, "--no-report"],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _partner(
    case: Case, folder: Path, port: int, others: list[subprocess.Popen[bytes]]
) -> subprocess.Popen[str]:
    """Start a run with an external program; `others` takes what is started beside it."""
    (folder / "lab.py").write_text(PROGRAM)
    command = [sys.executable, "lab.py", "{broker}", "{core}"]
    fault = json.dumps(case.fault)
    filled = json.dumps([*command, fault.replace("{", "{{").replace("}", "}}")])
    text = SCENARIO.replace("LABELS", json.dumps(LABELS)).replace("JOIN", f"{case.join_s:g}")
    text = text.replace(" TIME", case.time)
    text = text.replace("COMMAND", "null" if case.by_hand else filled)
    text = text.replace("KEYS", case.keys).replace("OUTPUTS", case.outputs)
    text = text.replace("WIRED", case.wired)
    (folder / "lab.yaml").write_text(text)
    words = ["lab.yaml", "--out", "out0", "--placement", "process"]
    url = f"tcp://127.0.0.1:{port}"
    run = _feederate(folder, *words, "--listen", url)
    if case.by_hand:
        program = [sys.executable, "lab.py", url, "tcp_ss", fault]
        others.append(subprocess.Popen(program, cwd=folder, stderr=subprocess.DEVNULL))
    if case.recorder_after_s is not None:
        wait_for(port)
        time.sleep(case.recorder_after_s)
        recorder = ["helics_recorder", "--name", "recorder", "--coretype", "tcp_ss"]
        recorder[0] = str(Path(sys.executable).with_name("helics_recorder"))
        (folder / "recorder.txt").write_text("tag feeder/v_pu\n")
        recorder += ["--broker", url, "--output", "rec.txt", "--observer", "recorder.txt"]
        recorder += ["--stop", "1800s"]
        env = os.environ | {"HELICS_CORE_INIT_STRING": "--maxsize=1048576"}
        others.append(
            subprocess.Popen(
                recorder,
                cwd=folder,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    return run


def _hosts(case: Case, folder: Path, port: int) -> list[subprocess.Popen[str]]:
    """Start the hosts of a run."""
    url, runs = f"tcp://127.0.0.1:{port}", []
    for i, options in enumerate(case.hosts):
        words = ["voltvar-ieee13", "--steps", "30", "--out", f"out{i}", *options]
        alone = "ALONE" in words
        if options:
            words += [] if alone else ["--join" if i else "--listen", url]
            runs.append(_feederate(folder, *(word for word in words if word != "ALONE")))
            time.sleep(1.0)  # the first to arrive is the one that the others are compared with
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--only", default="", help="cases whose name contains these words")
    options = parser.parse_args()
    results = []
    for case in cases():
        if options.only not in case.name:
            continue
        with tempfile.TemporaryDirectory(prefix="feederate-partner-") as folder:
            result = measure(case, Path(folder))
        results.append(result)
        if not options.json:
            print(f"| {result.case} | {result.code} | {result.seconds} | {result.message or '-'} |",
                  flush=True)  # fmt: skip
            for problem in result.problems:
                print(f"    PROBLEM: {problem}", flush=True)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    return 1 if any(result.problems for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
