"""Consoles, the progress bar and clean standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH = 80
_HEAD_WIDTH = 8
_REFRESH_S = 0.1
# A parent program reads the progress as lines "progress DONE TOTAL" on standard error.
PROGRESS, PROGRESS_LINES, PROGRESS_WORD = "FEEDERATE_PROGRESS", "lines", "progress"
LIVE_WORDS = "live page: "


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends well when its reader has gone."""
        raise BrokenPipeError


def output() -> Console:
    """Return the console of standard output; 80 columns wide without a terminal."""
    console = _Output(highlight=False)
    return console if console.is_terminal else _Output(highlight=False, width=WIDTH)


def messages() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, highlight=False)


def bars(console: Console, unit: str = "steps") -> Progress:
    """Return progress bars that count `unit`; they are removed at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=console, transient=True)


def print_table(
    console: Console, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Container[int]
) -> None:
    """Print rows of plain text; the columns `numbers` stay whole.

    So do names (column 0), unless numbers would be cropped in a narrow terminal.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    lines = [tuple(row) for row in rows]
    longest = [max((_longest(row[i]) for row in lines), default=0) for i in range(len(head))]
    words_of = [" ".join(row[i] for row in lines).split() for i in range(len(head))]
    longest_word = [max(map(len, words), default=0) for words in words_of]
    head_word = [max(map(len, words.split()), default=0) for words in head]
    cells = [longest[i] if i == 0 or i in numbers else longest_word[i] for i in range(len(head))]
    whole = sum(1 + max(pair) for pair in zip(cells, head_word, strict=True))
    for i, words in enumerate(head):
        number = i in numbers
        justify: JustifyMethod = "right" if number else "left"
        if number or i == 0:  # a long heading over short cells takes the width of the others
            width = max(_HEAD_WIDTH, longest[i])
            words = "\n".join(textwrap.wrap(words, width, break_long_words=False))
        stays = number or (i == 0 and whole <= console.width)
        table.add_column(Text(words), justify=justify, no_wrap=stays, overflow="fold")
    for row in lines:
        table.add_row(*map(Text, row))
    console.print(table)


def _longest(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (steps done, in all) that draws a bar, or None without a terminal."""
    if os.environ.get(PROGRESS) == PROGRESS_LINES:
        yield _rarely(_progress_line)
        return
    console = messages()
    if not console.is_terminal:
        yield None
        return
    with bars(console) as bar:
        task = bar.add_task(label, total=None)
        yield _rarely(lambda done, n: bar.update(task, completed=done, total=n))


def _progress_line(done: int, total: int) -> None:
    with contextlib.suppress(OSError):  # the reader may have ended; it stops the run by other means
        os.write(2, f"{PROGRESS_WORD} {done} {total}\n".encode())


def _rarely(show: Callable[[int, int], object]) -> Callable[[int, int], None]:
    """Return a callback that shows ten times a second at most, and the end.

    It is called at every step by the single host, where a drawing would cost more than the step.
    """
    shown = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _REFRESH_S or done >= total:
            shown = now
            show(done, total)

    return tell


@contextlib.contextmanager
def clean_stdout(wanted: bool = True) -> Iterator[None]:
    """Redirect what libraries and users' modules print to standard error."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
