"""``feederate train``: a local volt/var policy for a scenario's feeder."""

from __future__ import annotations

from pathlib import Path

from federates.commands.options import print_json
from federates.commands.terminal import clean_stdout, messages, output, print_table
from federates.runs.options import RunOptions
from federates.training.study import TrainingResult, train


def train_command(
    options: RunOptions,
    seed: int | None,
    out: Path,
    minutes: float,
    *,
    randomised: bool,
    as_json: bool,
) -> None:
    """Train, and print the held-out days and the shift table."""
    from federates.reports.training import write_training

    console = messages()
    with clean_stdout(as_json), console.status("Reading ...") as status:

        def tell(what: str, done: int, of: int) -> None:
            status.update(f"{what}: {done} of {of}")

        scenario = options.load()
        found = train(
            scenario,
            out,
            minutes=minutes,
            seed=1 if seed is None else seed,
            randomised=randomised,
            report=tell if console.is_terminal else None,
        )
        page = write_training(found)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        print_json({**found.record(), "page": str(page)})
    else:
        _print(found, page)


def _print(found: TrainingResult, page: Path) -> None:
    from federates.reports.training import DAY_HEAD, day_rows, droop_words, shift_table

    console = output()
    console.print(
        f"{len(found.losses)} updates in {found.training_seconds:.0f} s, {found.seconds:.0f} s in "
        f"all, processor time {found.cpu_seconds:.0f} s",
        markup=False,
    )
    print_table(console, DAY_HEAD, day_rows(found), range(1, len(DAY_HEAD)))
    head, rows = shift_table(found, low=False)
    console.print("Shifts: node-h out of the band / losses in kWh", markup=False)
    print_table(console, head, rows, range(1, len(head)))
    console.print(droop_words(found), markup=False, soft_wrap=True)
    for name, path in (("policy", found.policy), ("page", page)):
        console.print(f"{name:<7} {path}", markup=False, soft_wrap=True)
