"""The text of OpenDSS files: their rows, the parameters of a command, and abbreviated words.

Quotes, delimiters, comments and abbreviations are those of the engine's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grid_models.base.errors import FeederError

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# Each quote ends at its first closing character or with the row; quotes do not nest.
_TOKEN = re.compile(
    r"\"([^\"]*)\"?|'([^']*)'?|\(([^)]*)\)?|\[([^\]]*)\]?|\{([^}]*)\}?|((?:(?!//)[^ \t!=,])*)"
)
_BLANKS = re.compile(r"[ \t]*")


def decoded(raw: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 (with or without its mark) or Latin-1."""
    for mark, encoding in _BOMS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    # Half of the bytes of Western text in UTF-16 are 0.
    for encoding, zeros, others in (("utf-16-le", raw[1::2], raw[::2]),
                                    ("utf-16-be", raw[::2], raw[1::2])):  # fmt: skip
        if zeros and zeros.count(0) > 0.4 * len(zeros) > others.count(0):
            return raw.decode(encoding, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_rows(path: Path) -> list[str]:
    """Return the rows of a file without NUL bytes, which may stand in comments and at row ends.

    Raises FeederError: The file cannot be read, is XML, or has a NUL byte within a command.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FeederError(f"the file cannot be read ({error.strerror})", where=str(path)) from None
    # Not str.splitlines: it splits at characters that are text to OpenDSS.
    rows = re.split(r"\r\n|\r|\n", decoded(raw))
    if rows[0].lstrip().startswith("<"):
        raise FeederError(
            "the file is XML; a CIM model is not read", where=str(path), expected="OpenDSS commands"
        )
    for i, row in enumerate(rows):
        if "\0" not in row:
            continue
        row = row.rstrip("\0 \t")
        at = row.find("\0")
        if at >= 0 and not any(mark in row[:at] for mark in ("!", "//")):
            raise FeederError(
                "the file is not text: a NUL byte stands within a command",
                where=f"{path}, row {i + 1}, column {at + 1}",
                expected="OpenDSS commands",
            )
        rows[i] = row.replace("\0", " ")
    return rows


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a command: `text[start:end]` is its value with the quotes."""

    name: str
    value: str
    start: int
    end: int


def params(text: str) -> Iterator[Param]:
    """Yield the parameters of a command, up to a comment or an empty value as the engine does."""
    at = _skip_blanks(text, 0)
    while True:
        name = ""
        value, start, end, at = _token(text, at)
        if text[end:at].strip() == "=":
            name = value
            value, start, end, at = _token(text, at)
        if not value:
            return
        yield Param(name, value, start, end)


def _token(text: str, at: int) -> tuple[str, int, int, int]:
    """Return a token without quotes, where it starts and ends, and where the next one starts."""
    match = _TOKEN.match(text, at)
    assert match is not None  # the last alternative matches nothing at all
    value = next((group for group in match.groups() if group is not None), "")
    after = _skip_blanks(text, match.end())
    if text[after : after + 1] in ("=", ","):
        after = _skip_blanks(text, after + 1)
    return value, match.start(), match.end(), after


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def abbreviations(words: Iterable[str]) -> dict[str, str]:
    """Return the words, lower-case, by each abbreviation, which means the first that fits it."""
    lower = [word.lower() for word in words]
    table = {word: word for word in lower}
    for word in lower:
        for n in range(1, len(word)):
            table.setdefault(word[:n], word)
    return table
