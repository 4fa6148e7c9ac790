"""What case files in MATLAB consist of: assignments of numbers, texts and matrices.

A file is split into statements and each is evaluated here, without MATLAB: arithmetic, ranges,
elementary functions, indices and assignment to parts of a matrix. Control flow and calls of other
functions are refused with the line.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from grid_models.base.errors import nearest_name
from grid_models.transmission.matlab_expressions import CONSTANTS, TEXT, Expression, Value
from grid_models.transmission.model import FloatArray, TransmissionError

_CONTROL = {"if", "for", "while", "switch", "try", "parfor", "end", "return", "break", "continue"}
_BLOCK_COMMENT = re.compile(r"(?ms)^[ \t]*%\{[ \t]*$.*?^[ \t]*%\}[ \t]*$")
_NOT_CODE = re.compile(rf"({TEXT})|%[^\n]*|\.\.\.[^\n]*\n")
_MARK = re.compile(rf"{TEXT}|[\[\](){{}};,\n]|(?P<unclosed>['\"])")
_FUNCTION = re.compile(r"function\s+(?:(?P<output>\[[^\]]*\]|\w+)\s*=\s*)?\w+\s*(?:\([^)]*\))?")
_MATRIX = re.compile(r"(?P<name>[A-Za-z][\w.]*)\s*=\s*\[(?P<body>[^\[\]{}'\"=]*)\]")
_INDICES = re.compile(r"\[(?P<names>[^\]]*)\]\s*=\s*idx_\w+|define_constants")
_CLOSES = {"]": "[", ")": "(", "}": "{"}


@dataclass
class Script:
    """What the statements of a file have assigned.

    `values`: By name, such as ``mpc.bus``. `lines`: First line of each value. `rows`: Line of each
    row of a matrix that the file writes out. `output`: What the function of the file returns.
    """

    path: str
    values: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    output: str = ""

    def error(
        self, line: int, what: str, expected: str | None = None, nearest: str | None = None
    ) -> TransmissionError:
        """Return the error that points at a line."""
        where = f"{self.path}, line {line}"
        return TransmissionError(what, where=where, expected=expected, nearest=nearest)


def run_script(path: str, text: str) -> Script:
    """Return what the statements of a file assign; `path` is for messages.

    Raises TransmissionError: A statement that cannot be evaluated, with file and line.
    """
    script = Script(path)
    text = _BLOCK_COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = _NOT_CODE.sub(lambda f: f[1] or ("\v" if f[0].startswith("...") else ""), text)
    statements = [s for s in _statements(script, text) if s[1]]
    if statements and statements[-1][1] in ("end", "return"):
        del statements[-1]
    for number, (line, statement) in enumerate(statements):
        function = _FUNCTION.fullmatch(statement)
        if function and number == 0:
            script.output = function["output"] or ""
        elif function or re.split(r"\W", statement, maxsplit=1)[0] in _CONTROL:
            raise script.error(
                line,
                f"'{statement.splitlines()[0][:40]}' is not evaluated",
                "assignments, without control flow or further functions",
            )
        else:
            _run(script, line, statement)
    return script


def _statements(script: Script, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each statement; a continued line end is a vertical tab in it."""
    line_ends = [found.start() for found in re.finditer("[\n\v]", text)]

    def line(at: int) -> int:
        return bisect_left(line_ends, at) + 1

    opened: list[int] = []
    start = 0
    for mark in _MARK.finditer(text + "\n"):
        found, at = mark[0], mark.start()
        if mark["unclosed"]:
            raise script.error(line(at), "a text is not closed", "a second quote in the line")
        if found in _CLOSES.values():
            opened.append(at)
        elif found in _CLOSES:
            if not opened or text[opened.pop()] != _CLOSES[found]:
                raise script.error(line(at), f"'{found}' closes nothing")
        elif found in (",", ";", "\n") and not opened:
            blank = len(text[start:at]) - len(text[start:at].lstrip())
            yield line(start + blank), text[start:at].strip()
            start = at + 1
    if opened:
        raise script.error(line(opened[0]), f"'{text[opened[0]]}' is not closed")


def _run(script: Script, line: int, statement: str) -> None:
    """Evaluate one statement."""
    indices = _INDICES.fullmatch(statement)
    if indices:
        for name in re.findall(r"\w+", indices["names"] or ""):
            if name not in CONSTANTS:
                raise script.error(
                    line, f"'{name}' is no name of MATPOWER", nearest=nearest_name(name, CONSTANTS)
                )
        return
    matrix = _MATRIX.fullmatch(statement)
    if matrix:
        name = matrix["name"]
        script.values[name], script.rows[name] = _matrix(script, line, statement, matrix)
    else:
        # A line end that is left stands inside of brackets, where it ends a row.
        name, value = Expression(statement.replace("\n", ";"), script, line).assignment()
        script.values[name] = value
    script.lines.setdefault(name, line)


def _matrix(
    script: Script, line: int, statement: str, matrix: re.Match[str]
) -> tuple[FloatArray, tuple[int, ...]]:
    """Return a matrix without brackets in it, and the line of each of its rows."""
    values: list[list[float]] = []
    lines: list[int] = []
    line += sum(statement.count(end, 0, matrix.start("body")) for end in "\n\v")
    for text in matrix["body"].split("\n"):
        for part in text.split(";"):
            row = _numbers(script, line, part)
            if row and values and len(row) != len(values[0]):
                raise script.error(
                    line,
                    f"row {len(values) + 1} of '{matrix['name']}' has {len(row)} values",
                    f"{len(values[0])} as in the first row",
                )
            if row:
                values.append(row)
                lines.append(line + part.count("\v"))
            line += part.count("\v")
        line += 1
    return np.array(values, float).reshape(len(values), -1 if values else 0), tuple(lines)


def _numbers(script: Script, line: int, text: str) -> list[float]:
    if "_" not in text:  # which Python takes in a number and MATLAB does not
        try:
            return [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            pass
    return [float(x) for x in Expression(f"[{text}]", script, line).number().ravel()]
