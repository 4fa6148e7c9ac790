"""Messages about the words of a command line, in ours. Imports the standard library only."""

from __future__ import annotations

import re
from typing import Any

_WORDS = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "expected a whole number"),
    (r"Input should be a valid number.*", "expected a number"),
    (r"Input should be a valid boolean.*", "expected true or false"),
    (r"Input should be greater than or equal to (.*)", r"expected at least \1"),
    (r"Input should be less than or equal to (.*)", r"expected at most \1"),
    (r"Input should be ", "expected "),
)


def usage_lines(error: Any) -> list[str]:
    """Return what is wrong with a command line, without the words of the libraries that read it."""
    text = str(error.format_message())
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    context = getattr(error, "ctx", None)
    help_line = [] if context is None else [f"see '{context.command_path} --help'"]
    return [*text.splitlines(), *help_line]
