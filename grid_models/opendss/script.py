"""Run a user's OpenDSS master file command by command, so that errors name file and row.

Files are read here instead of by the engine's ``compile`` for three reasons: an error can say where
it is; commands that only show, plot, export or solve are skipped; and sections of zero length,
which the engine cannot invert, are changed before it sees a solution.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from grid_models.base.errors import FeederError, nearest_name
from grid_models.opendss.elements import each
from grid_models.opendss.engine import DssError, Engine

MAX_DEPTH = 30
ZERO_LENGTH = 1e-7  # of a line's own length unit
_PASSED_OVER = {
    "solve", "show", "plot", "export", "visualize", "dos", "doscmd", "cd", "quit", "help", "save",
    "panel", "about", "fileedit", "buildy", "init", "_initsnap", "_solvenocontrol",
    "_solvedirect", "_solvepflow", "_samplecontrols", "_docontrolactions", "_showcontrolqueue",
    "sample", "sampleenergymeters", "summary", "interpolate", "cvrtloadshapes", "comparecases",
    "yearlycurves", "cleanup", "clone", "solveall", "newactor", "wait", "?",
}  # fmt: skip
_VERB = re.compile(r"\s*([^\s=,]+)")
_FILE = re.compile(r"\s*(?:file\s*=\s*)?(?:\"([^\"]*)\"|'([^']*)'|\(([^)]*)\)|\[([^\]]*)\]|(\S+))")


@dataclass
class MasterFile:
    """What is known of a compiled file beside the circuit in the engine.

    `solved`: Whether the file solves its circuit, so that its controls have acted.
    """

    name: str = ""
    solved: bool = False


def compile_master(engine: Engine, path: Path) -> MasterFile:
    """Run a master file and everything it redirects to, but do not solve.

    Raises FeederError: A file is missing, not text or empty, a command is refused, or no circuit
    results.
    """
    path = path.expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FeederError(
            "no such file",
            where=str(path),
            expected="an OpenDSS master file",
            nearest=nearest_name(path.name, siblings),
        )
    engine.command("clear")
    master = MasterFile()
    _run_file(engine, path.resolve(), master, depth=0)
    name = engine.circuit_name()
    if not name:
        raise FeederError(
            "the file defines no circuit",
            where=str(path),
            expected="an OpenDSS master file with 'New Circuit.name'",
        )
    lengthen_zero_lines(engine)
    master.name = name.lower()
    return master


def _read_rows(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FeederError(f"the file cannot be read ({error.strerror})", where=str(path)) from None
    if b"\0" in raw:
        raise FeederError("the file is not text", where=str(path), expected="OpenDSS commands")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.splitlines()


def _run_file(engine: Engine, path: Path, master: MasterFile, depth: int) -> Path:
    """Run one file and return the folder that later relative paths start from."""
    folder = path.parent
    engine.command(f'set datapath="{folder}"')
    in_comment = False
    for number, row in enumerate(_read_rows(path), start=1):
        text = row.strip()
        if in_comment or text.startswith("/*"):
            in_comment = "*/" not in text
            continue
        match = _VERB.match(text)
        if match is None or text.startswith(("!", "//")):
            continue
        verb = match.group(1).lower()
        where = f"{path}, row {number}"
        if verb in _PASSED_OVER or (len(verb) > 2 and "solve".startswith(verb)):
            master.solved |= len(verb) > 2 and "solve".startswith(verb)
            continue
        if verb == "compile" or (len(verb) > 3 and "redirect".startswith(verb)):
            folder = _follow(engine, text[match.end() :], verb, folder, master, depth, where)
            continue
        if verb in ("buscoords", "latlongcoords"):
            wanted = _file_name(text[match.end() :], verb, where)
            text = f'{verb} "{_find(folder, wanted, where)}"'
        if verb.startswith("calcv"):
            lengthen_zero_lines(engine)
        try:
            engine.command(text)
        except DssError as error:
            raise FeederError(f"OpenDSS: {error}", where=where) from None
    return folder


def _follow(
    engine: Engine,
    rest: str,
    verb: str,
    folder: Path,
    master: MasterFile,
    depth: int,
    where: str,
) -> Path:
    wanted = _file_name(rest, verb, where)
    if depth >= MAX_DEPTH:
        raise FeederError(
            f"files redirect to each other more than {MAX_DEPTH} deep",
            where=where,
            expected="no file that redirects to itself",
        )
    target = _find(folder, wanted, where)
    inner = _run_file(engine, target, master, depth + 1)
    if verb == "compile":
        return inner
    engine.command(f'set datapath="{folder}"')
    return folder


def _file_name(rest: str, verb: str, where: str) -> str:
    match = _FILE.match(rest)
    wanted = next((g for g in match.groups() if g is not None), "") if match else ""
    if not wanted:
        raise FeederError(f"'{verb}' names no file", where=where, expected="a file name")
    return wanted


def _find(folder: Path, wanted: str, where: str) -> Path:
    """Find a file as Windows would: either slash, any case."""
    here = folder
    parts = wanted.replace("\\", "/").split("/")
    if wanted.startswith("/"):
        here, parts = Path("/"), parts[1:]
    for part in parts:
        if part in ("", "."):
            continue
        names = [p.name for p in here.iterdir()] if here.is_dir() else []
        same = [n for n in names if n.lower() == part.lower()]
        if part == ".." or (here / part).exists():
            here = here / part
        elif same:
            here = here / same[0]
        else:
            raise FeederError(
                f"the file '{wanted}' does not exist",
                where=where,
                expected=f"a file under {folder}",
                nearest=nearest_name(part, names),
            )
    if not here.is_file():
        raise FeederError(f"'{wanted}' is not a file", where=where, expected="a file")
    return here.resolve()


def lengthen_zero_lines(engine: Engine) -> None:
    """Give lines of no length a very short one: their impedance cannot be inverted."""
    if not engine.circuit_name():
        return
    lines = engine.dss.Lines
    for name in [str(lines.Name()) for _ in each(lines) if lines.Length() == 0.0]:
        engine.command(f'edit "line.{name}" length={ZERO_LENGTH!r}')
