"""Expressions of MATLAB with numbers, as case files contain them, evaluated without MATLAB."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grid_models.base.errors import nearest_name
from grid_models.transmission.model import FloatArray, TransmissionError
from grid_models.transmission.system import IntArray

Value = FloatArray | str | tuple[str, ...]  # a matrix, also of one number; a text; a list of texts

_MOST_NESTED, _LONGEST_RANGE = 30, 1_000_000
_COLUMNS = """PQ=1 PV=2 REF=3 NONE=4 BUS_I=1 BUS_TYPE=2 PD=3 QD=4 GS=5 BS=6 BUS_AREA=7 VM=8 VA=9
BASE_KV=10 ZONE=11 VMAX=12 VMIN=13 LAM_P=14 LAM_Q=15 MU_VMAX=16 MU_VMIN=17 GEN_BUS=1 PG=2 QG=3
QMAX=4 QMIN=5 VG=6 MBASE=7 GEN_STATUS=8 PMAX=9 PMIN=10 PC1=11 PC2=12 QC1MIN=13 QC1MAX=14 QC2MIN=15
QC2MAX=16 RAMP_AGC=17 RAMP_10=18 RAMP_30=19 RAMP_Q=20 APF=21 MU_PMAX=22 MU_PMIN=23 MU_QMAX=24
MU_QMIN=25 F_BUS=1 T_BUS=2 BR_R=3 BR_X=4 BR_B=5 RATE_A=6 RATE_B=7 RATE_C=8 TAP=9 SHIFT=10
BR_STATUS=11 ANGMIN=12 ANGMAX=13 PF=14 QF=15 PT=16 QT=17 MU_SF=18 MU_ST=19 MU_ANGMIN=20
MU_ANGMAX=21 PW_LINEAR=1 POLYNOMIAL=2 MODEL=1 STARTUP=2 SHUTDOWN=3 NCOST=4 COST=5"""
# Names of columns and codes in MATPOWER, from 1.
CONSTANTS = {name: float(number) for name, number in re.findall(r"(\w+)=(\d+)", _COLUMNS)}
_NUMBERS = {"pi": np.pi, "Inf": np.inf, "inf": np.inf, "NaN": np.nan, "nan": np.nan}
_NUMPY_NAMES = {"acos": "arccos", "asin": "arcsin", "atan": "arctan"}
_FUNCTIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    name: getattr(np, _NUMPY_NAMES.get(name, name))
    for name in ("sqrt", "sin", "cos", "tan", "acos", "asin", "atan", "exp", "log", "log10", "abs")
}
_OPERATIONS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power
}  # fmt: skip

# A quote after an operand transposes it.
TEXT = r"(?<=[\w\])}'.])'|'(?:[^'\n]|'')*'|\"(?:[^\"\n]|\"\")*\""
_TOKEN = re.compile(
    r"(?P<space>\s*)(?:"
    r"(?P<number>(?:\d+(?:\.(?![*/^'])\d*)?|\.\d+)(?:[eEdD][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)"
    rf"|(?P<text>{TEXT})"
    r"|(?P<mark>\.[*/^']|[-+*/^()\[\]{},;:=])|$)"
)


class Source(Protocol):
    """Where an expression stands: values of names, and the error that points at a line."""

    values: dict[str, Value]

    def error(
        self, line: int, what: str, expected: str | None = None, nearest: str | None = None
    ) -> TransmissionError:
        """Return the error that points at a line."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, text, mark; "" at the end
    text: str
    spaced: bool  # blanks stand before it


class Expression:
    """Recursive descent over the tokens of one statement or expression.

    range = sum (':' sum (':' sum)?)?, sum = product (('+'|'-') product)*, product = sign
    (('*'|'/') sign)*, sign = ('+'|'-')* power, power = operand ('^' sign)?, operand = number, text,
    name, name(indices), (range), [rows] or {texts}, each perhaps transposed.
    """

    def __init__(self, text: str, source: Source, line: int) -> None:
        self._source, self._line = source, line
        self._tokens = self._split(text)
        self._at = 0
        self._nested = 0
        self._in_matrix = False

    def number(self) -> FloatArray:
        """Return the value of the whole expression, a matrix.

        Raises TransmissionError: It cannot be evaluated.
        """
        value = self._matrix_of(self._range())
        self._end()
        return value

    def assignment(self) -> tuple[str, Value]:
        """Return name and new value of a statement ``name = ...`` or ``name(indices) = ...``.

        Raises TransmissionError: The statement is not an assignment, or cannot be evaluated.
        """
        name = self._next()
        whole = self._now.text != "("
        if name.kind != "name" or (whole and self._now.text != "="):
            raise self._error(f"'{name.text} ...' is not evaluated", "an assignment")
        if whole:
            self._next()
            value = self._range()
            self._end()
            return name.text, value
        old = self._matrix_of(self._named(name.text)).copy()
        rows, columns = self._indices(old)
        self._expect("=")
        new = self._matrix_of(self._range())
        self._end()
        target = np.ix_(rows, columns)
        if new.size != 1 and new.shape != old[target].shape:
            raise self._error(f"{_size(new)} values are assigned", f"{_size(old[target])}, or one")
        old[target] = new
        return name.text, old

    def _split(self, text: str) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while not tokens or tokens[-1].kind:
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._error(f"'{text[at:].strip()[:20]}' is not evaluated", "an expression")
            kind = found.lastgroup if found.lastgroup != "space" else ""
            tokens.append(_Token(kind or "", found[kind] if kind else "", bool(found["space"])))
            at = found.end()
        return tokens

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._now
        self._at += bool(token.kind)
        return token

    def _take(self, *marks: str) -> str:
        """Return the mark that is next and step over it, if it is one of `marks`; else ''."""
        if self._now.kind == "mark" and self._now.text in marks:
            return self._next().text
        return ""

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise self._error(f"'{self._now.text or 'the end'}' is in the wrong place", f"'{mark}'")

    def _end(self) -> None:
        if self._now.kind:
            raise self._error(f"'{self._now.text}' is in the wrong place", "the end of a statement")

    def _error(
        self, what: str, expected: str | None = None, nearest: str | None = None
    ) -> TransmissionError:
        return self._source.error(self._line, what, expected, nearest)

    def _matrix_of(self, value: Value) -> FloatArray:
        if not isinstance(value, np.ndarray):
            raise self._error("a text stands where a number is needed", "a number")
        return value

    def _named(self, name: str) -> Value:
        known = self._source.values
        if name in known:
            return known[name]
        if name in CONSTANTS or name in _NUMBERS:
            return np.array([[_NUMBERS.get(name, CONSTANTS.get(name, np.nan))]])
        raise self._error(
            f"'{name}' has no value",
            "a number, or a name that was assigned before",
            nearest_name(name, [*known, *_FUNCTIONS]),
        )

    def _range(self) -> Value:
        first = self._sum()
        if not self._take(":"):
            return first
        parts = [self._scalar(first), self._scalar(self._sum())]
        if self._take(":"):
            parts.append(self._scalar(self._sum()))
        start, step, stop = parts if len(parts) == 3 else (parts[0], 1.0, parts[1])
        with np.errstate(all="ignore"):
            count = np.floor(np.divide(stop - start, step) + 1e-10) + 1
        if not count <= _LONGEST_RANGE:
            raise self._error("the range has too many values", f"at most {_LONGEST_RANGE}")
        return np.asarray(start + step * np.arange(max(int(count), 0)))[None, :]

    def _scalar(self, value: Value) -> float:
        matrix = self._matrix_of(value)
        if matrix.size != 1 or not np.isfinite(matrix).all():
            raise self._error(f"{_size(matrix)} values stand in a range", "one finite number")
        return float(matrix[0, 0])

    def _sum(self) -> Value:
        value = self._product()
        while self._now.text in ("+", "-") and not self._begins_element():
            value = self._combined(value, self._next().text, self._product())
        return value

    def _begins_element(self) -> bool:
        """Whether a sign begins the next element of a row: ``[1 -2]`` has two, ``[1 - 2]`` one."""
        after = self._tokens[self._at + 1]
        return self._in_matrix and self._now.spaced and not after.spaced

    def _product(self) -> Value:
        value = self._signed()
        while mark := self._take("*", "/", ".*", "./"):
            value = self._combined(value, mark, self._signed())
        return value

    def _signed(self) -> Value:
        if not (sign := self._take("+", "-")):
            return self._power()
        self._deeper()
        value = self._matrix_of(self._signed())
        self._nested -= 1
        return -value if sign == "-" else value

    def _power(self) -> Value:
        value = self._operand()
        while mark := self._take("^", ".^"):
            sign = self._take("+", "-")
            exponent = self._matrix_of(self._operand())
            value = self._combined(value, mark, -exponent if sign == "-" else exponent)
        return value

    def _combined(self, left: Value, mark: str, right: Value) -> FloatArray:
        a, b = self._matrix_of(left), self._matrix_of(right)
        alone = {"*": a.size == 1 or b.size == 1, "/": b.size == 1, "^": a.size == b.size == 1}
        if not alone.get(mark, True):
            raise self._error(f"'{mark}' of matrices is not evaluated", f"'.{mark}'")
        try:
            with np.errstate(all="ignore"):
                return _OPERATIONS[mark[-1]](a, b)
        except ValueError:
            raise self._error(f"'{mark}' of {_size(a)} and {_size(b)} values") from None

    def _operand(self) -> Value:
        self._deeper()
        value = self._without_quotes()
        while self._now.text in ("'", ".'") and not (self._in_matrix and self._now.spaced):
            self._next()
            value = self._matrix_of(value).T
        self._nested -= 1
        return value

    def _deeper(self) -> None:
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise self._error("the expression is nested too deeply", f"{_MOST_NESTED} levels")

    def _without_quotes(self) -> Value:
        token = self._next()
        if token.kind == "number":
            return np.array([[float(token.text.lower().replace("d", "e"))]])
        if token.kind == "text" and token.text not in ("'", '"'):
            return token.text[1:-1].replace(token.text[0] * 2, token.text[0])
        if token.kind == "name":
            return self._name(token.text)
        if token.text == "(":
            return self._inside(")", self._range)
        if token.text == "[":
            return self._inside("]", self._rows)
        if token.text == "{":
            return self._inside("}", self._texts)
        raise self._error(f"'{token.text or 'the end'}' is in the wrong place", "a value")

    def _inside(self, closing: str, content: Callable[[], Value]) -> Value:
        outside, self._in_matrix = self._in_matrix, closing != ")"
        value = content()
        self._expect(closing)
        self._in_matrix = outside
        return value

    def _name(self, name: str) -> Value:
        indexed = self._now.text == "(" and not (self._in_matrix and self._now.spaced)
        if indexed and name in _FUNCTIONS and name not in self._source.values:
            self._next()
            argument = self._matrix_of(self._inside(")", self._range))
            with np.errstate(all="ignore"):
                return np.asarray(_FUNCTIONS[name](argument))
        value = self._named(name)
        if not indexed:
            return value
        matrix = self._matrix_of(value)
        return np.asarray(matrix[np.ix_(*self._indices(matrix))])

    def _indices(self, matrix: FloatArray) -> tuple[IntArray, IntArray]:
        """Return the rows and columns, from 0, that ``(rows, columns)`` means."""
        self._expect("(")
        outside, self._in_matrix = self._in_matrix, False
        found = [self._index(matrix.shape[0])]
        self._expect(",")
        found.append(self._index(matrix.shape[1]))
        self._expect(")")
        self._in_matrix = outside
        return found[0], found[1]

    def _index(self, size: int) -> IntArray:
        if self._now.text == ":":
            self._next()
            return np.arange(size)
        values = self._matrix_of(self._range()).ravel()
        wrong = values[~((values >= 1) & (values <= size) & (np.trunc(values) == values))]
        if wrong.size:
            raise self._error(f"there is no row or column {wrong[0]:g}", f"1 to {size}")
        return values.astype(np.int64) - 1

    def _rows(self) -> Value:
        rows: list[list[FloatArray]] = [[]]
        while self._now.kind and self._now.text != "]":
            if self._take(";"):
                rows.append([])
            elif not self._take(","):
                rows[-1].append(self._matrix_of(self._range()))
        try:
            filled = [np.hstack(row) for row in rows if row]
            return np.vstack(filled) if filled else np.zeros((0, 0))
        except ValueError:
            raise self._error("the rows of a matrix differ in length") from None

    def _texts(self) -> Value:
        texts: list[str] = []
        while self._now.kind and self._now.text != "}":
            if not self._take(",", ";"):
                text = self._range()
                if not isinstance(text, str):
                    raise self._error("a number stands in a list of texts", "a text")
                texts.append(text)
        return tuple(texts)


def _size(matrix: FloatArray) -> str:
    return "x".join(str(n) for n in matrix.shape)
