"""What is wrong with a YAML text, in a user's terms: the parser speaks of tokens and nodes."""

from __future__ import annotations

import re

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

_QUOTES = "put text in quotes"
# Problem of the parser, as a pattern -> what is wrong. The first that matches applies.
_WORDS: tuple[tuple[str, str], ...] = (
    (r"found unexpected end of stream", "a text in quotes has no closing quote"),
    (
        r"expected ',' or '([\]}])'.*stream end",
        r"a '\1' is missing at the end",
    ),
    (r"expected ',' or '([\]}])'", r"a ',' or '\1' is missing in a list or mapping"),
    (r"mapping values are not allowed", f"a ':' where no key can be ({_QUOTES}; check the indent)"),
    (r"sequence entries are not allowed", "a '-' where no list can begin (check the indent)"),
    (r"mapping keys are not allowed", "a '?' where no key can be"),
    (r"could not find expected ':'", "a key without ':'"),
    (r"found undefined alias '(.*)'", r"the alias '*\1' has no anchor '&\1' before it"),
    (r"found duplicate anchor '([^']*)'", r"the anchor '&\1' is given twice"),
    (r"found character '\\t'", "a tab where a value or key begins; expected blanks"),
    (r"found character '(.*)' that cannot", rf"a value cannot begin with '\1' ({_QUOTES})"),
    (r"found unknown escape character '(.*)'", r"\\\1 is no escape in double quotes"),
    (r"(expected|found).*escape sequence", "an escape of too few hexadecimal digits"),
    (r"expected the node content, but found '<.*>'", "a value is missing"),
    (r"expected the node content, but found '(.*)'", r"a value is missing before '\1'"),
    (
        r"expected <block end>",
        f"text after a value, or another indent than before ({_QUOTES})",
    ),
    (r"another document|document separator|document end", "a second document; expected one"),
    (r"incompatible YAML document|YAML directive", "a %YAML line of another version"),
    (
        r"tag handle|while parsing a tag|scanning a tag|expected URI",
        "a tag ('!') that is unknown",
    ),
    (r"could not determine a constructor for the tag '(.*)'", r"the tag '\1' is not accepted"),
    (r"indentation indicator|chomping|comment or a line break", "a wrong sign after '|' or '>'"),
    (r"alphabetic or numeric character", "a name is missing after '&' or '*'"),
    (r"intendation", "a list or mapping that is not closed, or a wrong indent"),
)


def plain_problem(error: MarkedYAMLError) -> str:
    """Return what is wrong in plain words; problems that this project raises stay as they are."""
    text = " ".join(str(part) for part in (error.context, error.problem) if part)
    for pattern, words in _WORDS:
        found = re.search(pattern, text)
        if found:
            return found.expand(words)
    return str(error.problem or "not valid YAML")


def deepest_line(yaml: YAML, text: str, most: int) -> int:
    """Return the line (from 1) where a text is nested more than `most` times; 0 if it is not."""
    depth = 0
    for event in yaml.parse(text):
        name = type(event).__name__
        depth += name in ("MappingStartEvent", "SequenceStartEvent")
        depth -= name in ("MappingEndEvent", "SequenceEndEvent")
        if depth > most:
            return int(event.start_mark.line) + 1
    return 0
