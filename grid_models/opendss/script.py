"""Run a user's OpenDSS master file command by command, so that errors name file and row.

Files are read here instead of by the engine's ``compile`` for four reasons: an error can say where
it is; commands that only show, plot, export or solve are skipped; the engine never works in the
user's folder, so that it cannot write there; and sections of zero length, which it cannot invert,
are changed before it sees a solution.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grid_models.base.errors import FeederError, listed, nearest_name
from grid_models.opendss.data_files import DataFiles, find, locate
from grid_models.opendss.elements import each
from grid_models.opendss.engine import DssError, Engine
from grid_models.opendss.refusals import is_missing, nearest_element, refused
from grid_models.opendss.rows import Param, abbreviations, params, read_rows

MAX_DEPTH = 30
ZERO_LENGTH = 1e-7  # of a line's own length unit
_SOLVES = {"solve", "_solvenocontrol", "_solvedirect", "_solvepflow", "solveall"}
# Of these a user sees nothing in a co-simulation.
_PASSED_OVER = {
    "//", "?", "_docontrolactions", "_initsnap", "_samplecontrols", "_showcontrolqueue", "abort",
    "about", "addbusmarker", "allpceatbus", "allpdeatbus", "buildy", "calcincmatrix",
    "calcincmatrix_o", "calclaplacian", "capacity", "cktlosses", "classes", "cleanup",
    "clearbusmarkers", "closedi", "comhelp", "comparecases", "connect", "currents", "di_plot",
    "disconnect", "dump", "export", "exportoverloads", "exportvviolations", "fileedit",
    "finishtimestep", "formedit", "get", "giscoords", "help", "init", "losses",
    "nodediff", "nodelist", "panel", "phaselosses", "plot", "powers", "pstcalc", "puvoltages",
    "quit", "refine_buslevels", "relcalc", "sample", "save", "seqcurrents", "seqpowers",
    "seqvoltages", "show", "summary", "top", "totalpowers", "totals", "userclasses", "variable",
    "varnames", "varvalues", "vdiff", "visualize", "voltages", "yearlycurves", "ysc", "zsc",
    "zsc012", "zsc10", "zscrefresh",
}  # fmt: skip
# These might have changed the circuit, or made a file that is read later. The engine does not
# survive Interpolate where an energy meter is out of service, and Next without a word after it.
_PASSED_OVER_AND_SAID = {
    "alignfile", "clone", "cvrtloadshapes", "distribute", "doscmd", "interpolate", "newactor",
    "next", "reconductor", "rephase", "wait",
}  # fmt: skip
_OPTIONS_PASSED_OVER = {
    "activeactor", "actorprogress", "concatenatereports", "cpu", "demandinterval", "diverbose",
    "dssvisualizationtool", "editor", "numactors", "numcores", "numcpus", "numanodes",
    "overloadreport", "parallel", "querylog", "recorder", "registryupdate", "showexport",
    "showreports", "tracecontrol", "voltexceptionreport",
}  # fmt: skip
# Of versions of OpenDSS that divide a circuit among processors.
_OPTIONS_OF_OTHERS = {"adiakoptics", "coverage", "linkbranches", "num_subcircuits"}
# Direct, dynamic, harmonic, fault, Monte Carlo, load-duration and auto-add solutions.
_MODES_PASSED_OVER = ("di", "dy", "h", "f", "m", "l", "a")
_ELEMENT = {"new", "edit", "select", "batchedit"}
_CONTINUES = {"more", "m", "~"}
_SILENT = {"edit", "disable", "enable"}  # about an element that does not exist
_SOLVES_INSIDE = {"calcvoltagebases", "allocateloads", "estimate"}
# These act on buses, which the engine knows only from a solution; that may have been passed over.
_OF_BUSES = {"buscoords", "latlongcoords", "setbusxy", "setkvbase"}


@dataclass
class MasterFile:
    """What is known of a compiled file beside the circuit in the engine.

    `solved_in`: The control mode in which the file solves a snapshot, so that its controls have
    acted; None where it does not. A time series that it solves is run by the scenario instead.
    `notes`: What was passed over though it might have mattered, one sentence per kind.
    """

    name: str = ""
    solved_in: str | None = None
    notes: tuple[str, ...] = ()


def compile_master(engine: Engine, path: Path) -> MasterFile:
    """Run a master file and everything it redirects to, but do not solve.

    The options of ``Solve`` are set, so that the engine holds the file's last solution mode,
    control mode, time, step size and load multiplier.

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
    # What the engine writes while a file is compiled goes here, and with it.
    with tempfile.TemporaryDirectory(prefix="feederate-", ignore_cleanup_errors=True) as scratch:
        engine.command("clear")
        engine.command(f'set datapath="{scratch}"')
        script = _Script(engine, DataFiles(Path(scratch).resolve()))
        script.run_file(Path(os.path.abspath(path)))
    name = engine.circuit_name()
    if not name:
        raise FeederError(
            "the file defines no circuit",
            where=str(path),
            expected="an OpenDSS master file with 'New Circuit.name'",
        )
    lengthen_zero_lines(engine)
    return MasterFile(name.lower(), script.solved_in, script.notes())


class _Script:
    """The state of a compilation that is not in the engine."""

    def __init__(self, engine: Engine, files: DataFiles) -> None:
        self._engine = engine
        self._files = files
        words = engine.dss.Executive
        self._verbs = abbreviations(words.Command(i + 1) for i in range(words.NumCommands()))
        self._option_names = [str(words.Option(i + 1)) for i in range(words.NumOptions())]
        self._options = abbreviations(self._option_names)
        self._folder = Path()
        self._depth = 0
        self._kind = ""
        self._mode = ""
        self._duplicates = False
        self._renamed: list[str] = []
        self._without_bus: list[str] = []
        self._missing: list[str] = []
        self._passed_over: Counter[str] = Counter()
        self._notes: dict[str, None] = {}
        self.solved_in: str | None = None

    def notes(self) -> tuple[str, ...]:
        """Return what was passed over though it might have mattered."""
        counted = (
            f"{n} '{verb}' command{'s' if n > 1 else ''} of the file passed over"
            for verb, n in self._passed_over.items()
        )
        notes = (*counted, *self._notes)
        if self._renamed:
            names = listed(self._renamed, 4)
            notes += (f"renamed since the file gives a name twice ({len(self._renamed)}): {names}",)
        if self._missing:
            rows = listed(self._missing, 4)
            notes += (f"commands for elements that are not there ({len(self._missing)}): {rows}",)
        if self._without_bus:
            rows = listed(self._without_bus, 4)
            notes += (
                f"'setkvbase' for a bus that is not there ({len(self._without_bus)}): {rows}",
            )
        if self._no_power_flow():
            mode = f"the file's solution mode '{self._mode}' is passed over; power flows are solved"
            return (*notes, mode)
        return notes

    def run_file(self, path: Path) -> None:
        """Run one file; relative paths in it start from its folder."""
        self._folder = path.parent
        opened = 0
        for number, row in enumerate(read_rows(path), start=1):
            text = row.strip()
            if opened or text.startswith("/*"):
                opened = 0 if "*/" in text else opened or number
            elif text:
                self._run(text, f"{path}, row {number}")
        if opened:
            self._notes[f"{path}: the comment from row {opened} to the end is not closed"] = None

    def _run(self, text: str, where: str) -> None:
        first = next(params(text), None)
        if first is None:
            return
        if first.name:
            self._kind = first.name.partition(".")[0].lower() if "." in first.name else self._kind
            self._command(self._files.rewritten(text, self._kind, self._folder, where), where)
            return
        verb = self._verbs.get(first.value.lower())
        rest = text[first.end :]
        if verb in _OF_BUSES and self._engine.circuit_name():
            self._command("makebuslist", where)
        if verb is None:
            raise FeederError(
                f"OpenDSS: Unknown Command '{first.value}'",
                where=where,
                expected="an OpenDSS command, or 'property=value' of the last element",
                nearest=nearest_name(first.value, self._verbs.values()),
            )
        if verb in ("set", "solve"):
            self._set(rest, where)
        elif verb in ("compile", "redirect"):
            self._follow(rest, verb, where)
        elif verb == "cd":
            self._folder = locate(self._folder, self._file_name(rest, verb, where), where)
        elif verb in ("buscoords", "latlongcoords", "uuids"):
            path = find(self._folder, self._file_name(rest, verb, where), where)
            self._command(f'{verb} "{self._files.usable(path, where)}"', where)
        elif verb in _PASSED_OVER_AND_SAID:
            self._passed_over[verb] += 1
        elif verb not in _PASSED_OVER and verb not in _SOLVES:
            self._edit(verb, rest, where)
        if verb in _SOLVES and self._engine.circuit_name():
            self._note_solution()

    def _note_solution(self) -> None:
        if self._engine.command("get mode").lower().startswith("snap"):
            self.solved_in = self._engine.command("get controlmode").lower()

    def _edit(self, verb: str, rest: str, where: str) -> None:
        """Run a command that changes the circuit."""
        if verb in _ELEMENT:
            first = next(params(rest), None)
            if first is not None and "." in first.value:
                self._kind = first.value.partition(".")[0].lower()
        elif verb in ("clear", "clearall"):
            self.solved_in, self._mode, self._duplicates = None, "", False
        elif verb in _SOLVES_INSIDE:
            lengthen_zero_lines(self._engine)
        elif verb == "open":
            self._solve_before_opening(rest)
        if verb in _ELEMENT or verb in _CONTINUES:
            rest = self._files.rewritten(rest, self._kind, self._folder, where)
        if verb == "new" and self._duplicates:
            rest = self._with_own_name(rest)
        elif verb in _SILENT and self._engine.circuit_name():
            self._note_missing(rest, where)
        self._command(f"{verb} {rest}", where)

    def _solve_before_opening(self, rest: str) -> None:
        """Solve once: a load that is opened before any solution has currents that were never set.

        Its later solutions would begin from whatever stood in the engine's memory.
        """
        first = next(params(rest), None)
        of_line = first is not None and first.value.lower().startswith("line.")
        if self._engine.circuit_name() and not of_line:
            lengthen_zero_lines(self._engine)
            self._engine.lib.ctx_Solution_SolveNoControl(self._engine.ctx)
            self._engine.take_error()

    def _note_missing(self, rest: str, where: str) -> None:
        first = next(params(rest), None)
        if first is None or "." not in first.value or "*" in first.value:
            return
        if is_missing(self._engine, first.value):
            near = nearest_element(self._engine, first.value)
            hint = f" (did you mean '{near}'?)" if near else ""
            self._missing.append(f"{where}: '{first.value}'{hint}")

    def _with_own_name(self, rest: str) -> str:
        """Rename a new element that has the name of another: only the first would be found."""
        first = next(params(rest), None)
        exists = self._engine.dss.Circuit.SetActiveElement
        if first is None or "." not in first.value or exists(first.value) < 0:
            return rest
        number = 2
        while exists(name := f"{first.value}_{number}") >= 0:
            number += 1
        self._renamed.append(name)
        return f'{rest[: first.start]}"{name}"{rest[first.end :]}'

    def _set(self, rest: str, where: str) -> None:
        """Set options, also those of ``Solve``, one by one."""
        for name, param in self._named_options(rest, where):
            if name == "mode":
                self._mode = param.value.lower()
            if name == "datapath":
                self._set_data_path(param.value, where)
            elif name in _OPTIONS_PASSED_OVER or (name == "mode" and self._no_power_flow()):
                continue
            else:
                if name in ("class", "element", "object", "type"):
                    self._kind = param.value.partition(".")[0].lower()
                text = f"set {name}={rest[param.start : param.end]}"
                self._command(self._files.rewritten(text, "", self._folder, where), where)
                if name == "allowduplicates":
                    self._duplicates = self._engine.command(f"get {name}").lower() == "yes"

    def _no_power_flow(self) -> bool:
        return self._mode.startswith(_MODES_PASSED_OVER)

    def _named_options(self, rest: str, where: str) -> Iterator[tuple[str, Param]]:
        """Yield each option with its full name; one without a name is the next of the engine's."""
        position = 0
        for param in params(rest):
            if param.name.lower() in _OPTIONS_OF_OTHERS:
                continue
            if param.name:
                name = self._options.get(param.name.lower())
                if name is None:
                    raise FeederError(
                        f"OpenDSS has no option '{param.name}'",
                        where=where,
                        expected="an option of 'Set'",
                        nearest=nearest_name(param.name, self._option_names),
                    )
                position = next(
                    i for i, word in enumerate(self._option_names, 1) if word.lower() == name
                )
            else:
                position += 1
                if position > len(self._option_names):
                    return
                name = self._option_names[position - 1].lower()
            yield name, param

    def _set_data_path(self, wanted: str, where: str) -> None:
        try:
            folder = locate(self._folder, wanted, where)
        except FeederError:
            # The engine would make it, for what it writes.
            self._notes[f"{where}: there is no folder '{wanted}', and none is made"] = None
        else:
            self._folder = folder

    def _follow(self, rest: str, verb: str, where: str) -> None:
        """Run another file; afterwards paths start where they did, or from a compiled file."""
        wanted = self._file_name(rest, verb, where)
        if self._depth >= MAX_DEPTH:
            raise FeederError(
                f"files redirect to each other more than {MAX_DEPTH} deep",
                where=where,
                expected="no file that redirects to itself",
            )
        folder = self._folder
        target = find(folder, wanted, where, suffix=".dss")
        self._depth += 1
        self.run_file(target)
        self._depth -= 1
        self._folder = target.parent if verb == "compile" else folder

    def _file_name(self, rest: str, verb: str, where: str) -> str:
        first = next(params(rest), None)
        if first is None:
            raise FeederError(f"'{verb}' names no file", where=where, expected="a file name")
        if first.value.startswith("@"):
            return self._engine.command(f"var {first.value}").strip() or first.value
        return first.value

    def _command(self, text: str, where: str) -> None:
        try:
            answer = self._engine.command(text)
        except DssError as error:
            raise refused(self._engine, text, error, where) from None
        if text.startswith("setkvbase") and "not found" in answer:
            self._without_bus.append(where)


def lengthen_zero_lines(engine: Engine) -> None:
    """Give lines of no length a very short one: their impedance cannot be inverted."""
    if not engine.circuit_name():
        return
    lines = engine.dss.Lines
    for name in [str(lines.Name()) for _ in each(lines) if lines.Length() == 0.0]:
        engine.command(f'edit "line.{name}" length={ZERO_LENGTH!r}')
