"""The card of a data set: README.md in its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from federates.core.run_store import package_versions
from federates.runs.dataset_plan import TEST, TRAIN, DatasetPlan
from federates.runs.dataset_tables import RECOVERING_S
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.attack_techniques import TECHNIQUES

Rows = Sequence[Mapping[str, Any]]

_COLUMNS = f"""\
- `time_s`: when the values were produced, in seconds since the start of the run. **Not a feature.**
- `under_attack`: 1 while any step of the attack is active.
- `recovering`: 1 in the {RECOVERING_S:g} s after a step's end, when the grid is not yet as it was.
  Best left out of training and scores.
- `step`: number of the active step of the attack (the last of several), 0 for none. The names are
  in the table's metadata, `pandas.read_parquet(...).attrs["steps"]`.
"""
_FORMAT = """\
`train/` and `test/` hold a Parquet table per run, float32, a row per step. A reading is the column
`FEDERATE.PORT:LABEL`. It is what the operator read: what the attack forged for all readers is
forged here, and every value has passed a noisy sensor. What only one reader was shown (a target
such as `volt_var.v_pu`) did not reach the operator: its effects did.

`truth/` holds for each attacked run every affected value in long form: `time_s, federate, port,
label, true_value, seen_value, step`, without sensor noise. It is the answer, not an input.
`runs.csv` has a row per run.
"""
_CAUTION = """\
- Split by run, never by row: rows of one run are a day of one seed. The clean run and the attacked
  runs of a seed are the same day and are in the same split.
- The begin of a step with a time of its own is drawn by the seed, and so are the targets that an
  attack draws. Attacks may begin before the first row and end after the last one, so that no time
  is more likely than another. Steps that wait for a signal begin when it comes, {signal}.
- `truth/` and the clean run of the same seed tell the answer: subtracting them is not detection.
- A time step is not an independent sample. Report false alarms per day beside precision and recall.
- The readings are noisy but otherwise perfect: no bias, no lost values, one clock. A score here is
  an upper limit of that in the field.
"""


def card(plan: DatasetPlan, rows: Rows, command: str, licence: str, *, captures: bool) -> str:
    """Return the card as Markdown, the same for the same data set.

    Parameters
    ----------
    rows : Of all runs, as `federates.runs.dataset_tables.write_tables` gives them.
    command : Command line that makes the data set again.
    captures : Whether there are captures of Modbus traffic.
    """
    scenario, time = plan.scenario, plan.scenario.time
    waits = [n for n, spec in plan.attacks.items() if any(s.trigger.when for s in spec.steps)]
    signal = f"which may be at a typical hour: {', '.join(waits)}" if waits else "none here"
    parts = [
        f"# {scenario.title or scenario.name}: clean and attacked runs",
        f"Scenario `{scenario.name}`, runs of {plan.n_steps} steps of {time.step_s:g} s from "
        f"{time.start_s / 3600:g} h, of which the first {plan.lead} are no rows (below). "
        f"Made by Feederate {package_versions()['feederate']}.",
        f"Licence: {licence}.",
        "## Attacks",
        *(_attack(plan, spec, rows) for spec in plan.attacks.values()),
        "## Runs",
        "\n".join(_balance(rows)),
        _split(plan, rows),
        "## Tables",
        _FORMAT.rstrip(),
        _COLUMNS.rstrip(),
        "\n".join(_sensors(plan)),
        *(["## Captures", _captures()] if captures else []),
        "## Before you train",
        _CAUTION.format(signal=signal).rstrip(),
        "## Make it again",
        f"```sh\n{command}\n```",
        "With these versions, on one machine, every file is the same to the last byte"
        + (", captures excepted" if captures else "")
        + "; `manifest.json` has the SHA-256 of each. Another machine may round differently.",
        "\n".join(_versions()),
    ]
    return "\n\n".join(parts) + "\n"


def _attack(plan: DatasetPlan, spec: AttackSpec, rows: Rows) -> str:
    lines = [f"- **{spec.id}**: {spec.title or spec.id}"]
    if spec.techniques:
        names = ", ".join(f"{t} {TECHNIQUES.get(t, '')}".strip() for t in spec.techniques)
        lines.append(f"  (MITRE ATT&CK for ICS {spec.attack_version}: {names})")
    for k, step in enumerate(spec.steps, 1):
        began = [float(r["begin_s"]) for r in rows if r["attack"] == spec.id and r["begin_s"]]
        between = f"begins between {min(began):g} and {max(began):g} s" if began else "never began"
        when = "waits for a signal" if step.trigger.when is not None else "drawn by the seed"
        lines.append(f"  - step {k}, `{step.id}` ({step.layer}, {when}): the attack {between}")
    return "\n".join(lines)


def _balance(rows: Rows) -> Iterator[str]:
    yield "| split | attack | runs | rows | under attack | recovering | share under attack |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for split in (TRAIN, TEST):
        for attack in dict.fromkeys(r["attack"] for r in rows):
            here = [r for r in rows if (r["split"], r["attack"]) == (split, attack)]
            if here:
                n, on, after = (
                    sum(r[key] for r in here)
                    for key in ("rows", "rows_under_attack", "rows_recovering")
                )
                name = attack or "clean"
                yield f"| {split} | {name} | {len(here)} | {n} | {on} | {after} | {on / n:.3f} |"


def _split(plan: DatasetPlan, rows: Rows) -> str:
    seeds = {
        split: ", ".join(
            str(s) for s in dict.fromkeys(r["seed"] for r in rows if r["split"] == split)
        )
        for split in (TRAIN, TEST)
    }
    trained = {r["attack"] for r in rows if r["split"] == TRAIN}
    late = [name for name in plan.attacks if name not in trained]
    attacks = (
        f"In the tests only, so unseen in training: {', '.join(late)}."
        if late
        else "Every attack is in both."
    )
    return f"Seeds to train: {seeds[TRAIN]}; to test: {seeds[TEST]}. {attacks}"


def _sensors(plan: DatasetPlan) -> Iterator[str]:
    yield "| readings | unit | columns | standard deviation of the sensor |"
    yield "| --- | --- | ---: | ---: |"
    for s in plan.sensors:
        yield f"| `{s.source}:...` | {s.unit} | {len(s.labels)} | {s.noise:g} |"


def _captures() -> str:
    return (
        "`pcap/RUN/DEVICE.pcapng`: the Modbus/TCP frames of each device, as the adapter and as the "
        "device saw them. Their times and client ports are those of the machine: they differ from "
        "run to run, and are no features. In clean runs the traffic passes the same proxy."
    )


def _versions() -> Iterator[str]:
    yield "| package | version |"
    yield "| --- | --- |"
    yield f"| python | {sys.version.split()[0]} |"
    for name, version in package_versions().items():
        yield f"| {name} | {version or 'not installed'} |"
