"""The tables of a run that was killed: its streams, converted as the end of the run would have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from federates.attacks.truth import FOLDER as TRUTH
from federates.attacks.truth import finalise_truth
from federates.core.signals import STREAM, finalise_folder


def convert_streams(folder: Path) -> list[str]:
    """Turn the streams of a killed run into Parquet tables, and say so.

    Nothing is done while a process of this machine still has one of them open: the run goes on.

    Parameters
    ----------
    folder : Of a run, or of paired runs.

    Returns
    -------
    list of str
        A sentence for each run that had streams.
    """
    said = []
    for run in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        streams = [p for sub in ("signals", TRUTH) for p in (run / sub).glob(f"*{STREAM}")]
        if not streams or not (run / "manifest.json").is_file():
            continue
        if _in_use(streams):
            said.append(f"{run}: the run goes on; its streams are left as they are")
            continue
        failed = finalise_folder(run / "signals")
        finalise_truth(run)
        said += [f"{run}: {words}" for words in failed]
        n = len(streams) - len(failed)
        said.append(f"{run}: the run was killed; {n} streams are Parquet tables now")
    return said


def _in_use(paths: Collection[Path]) -> bool:
    """Return whether a process of this user has one of the files open."""
    files = {(status.st_dev, status.st_ino) for status in map(os.stat, paths)}
    return any(_opened(process) & files for process in Path("/proc").glob("[0-9]*"))


def _opened(process: Path) -> set[tuple[int, int]]:
    """Return device and number of the files that a process has open; none of another user's."""
    found = set()
    with contextlib.suppress(OSError):
        for handle in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                status = os.stat(process / "fd" / handle)
                found.add((status.st_dev, status.st_ino))
    return found
