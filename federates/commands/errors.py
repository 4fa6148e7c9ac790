"""Exit code and message of a failure."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from pathlib import Path

from federates.errors import NoAnswerError, RunError, RunInterruptedError
from grid_models.base.errors import FeederateError

WRONG_INPUT, FAILED, INTERRUPTED = 2, 3, 130
# Errors of a path given by the user for which Python has no exception class.
_PATHS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP, errno.EROFS)
_LONGEST_LINE = 200


def explain(error: BaseException) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print; an unexpected error is logged to a file."""
    if isinstance(error, RunError):
        lines = _lines(error)
        if error.run_dir is not None:
            lines.append(f"the run failed; what it recorded is in {error.run_dir}")
            own_log = error.run_dir / "logs" / f"{error.federate}.log"
            told = str(own_log.name) in error.what  # of an external program: its own output
            if own_log.is_file() and own_log.stat().st_size and not told:
                lines.append(f"its traceback is in {own_log}")
        return FAILED, lines
    if isinstance(error, RunInterruptedError):
        return INTERRUPTED, [f"{error.what}; what was recorded is readable in {error.where}"]
    if isinstance(error, NoAnswerError):
        return FAILED, _lines(error)
    if isinstance(error, FeederateError):
        lines = _lines(error)
        if error.__cause__ is not None and not isinstance(error.__cause__, FeederateError):
            # A user's own module failed; its author needs the traceback.
            lines.append(f"the traceback is in {_log(error)}")
        return WRONG_INPUT, lines
    if isinstance(error, FileExistsError):
        return WRONG_INPUT, [
            f"{_place(error)} exists already; expected the path of a new or empty folder"
        ]
    if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        return WRONG_INPUT, [f"{_place(error)}: {error.strerror or error}"]
    if isinstance(error, OSError) and error.errno in _PATHS:
        return WRONG_INPUT, [_shortened(f"{_place(error)}: {error.strerror}")]
    if isinstance(error, OSError) and error.strerror:
        return FAILED, [f"{_place(error)}: {error.strerror}"]
    log = _log(error)
    words = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
    return FAILED, [f"{what} (unexpected; the traceback is in {log})"]


def run_folder(error: BaseException) -> Path | None:
    """Return the folder of the run that ended with `error`, if it had one."""
    if isinstance(error, RunError):
        return error.run_dir
    if isinstance(error, RunInterruptedError) and error.where:
        return Path(error.where)
    return None


def _lines(error: FeederateError) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]


def _shortened(line: str) -> str:
    """Return a line without its middle part if it is too long."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def _place(error: OSError) -> str:
    # new_run_dir raises with the path as its only argument.
    return str(error.filename or (error.args[0] if error.args else error))


def _log(error: BaseException) -> str:
    handle, path = tempfile.mkstemp(prefix="feederate-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return path
