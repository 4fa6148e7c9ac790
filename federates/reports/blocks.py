"""What pages are made of: a page has sections, a section has blocks.

A new section of a run's page is one generator of `Section` and one line in `run.SECTIONS`. A block
has one macro of the same `kind` in ``templates/blocks.html``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from federates.reports.format import metric_name, metric_number, metric_unit

FOOTER = "Written by Feederate. Injections are positive: p = generation - load."


class Block(Protocol):
    """Part of a section; `kind` is the macro that writes it."""

    kind: ClassVar[str]


class Figure(Protocol):
    """A figure: `data` is what ``time_charts.js`` or ``feeder.js`` draws, `kind` its class."""

    kind: ClassVar[str]

    @property
    def data(self) -> dict[str, Any]:
        """Return the figure's data, ready for JSON."""


@dataclass(frozen=True)
class Paragraph:
    """Text; `style` is a class of the style sheet."""

    text: str
    style: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Alert:
    """A warning that stands out."""

    title: str
    text: str
    note: str = ""
    kind: ClassVar[str] = "alert"


@dataclass(frozen=True)
class Tile:
    """One key number; `mark` is '', 'good' or 'bad'."""

    name: str
    value: str
    unit: str = ""
    hint: str = ""
    mark: str = ""


def metric_tile(key: str, value: float | None, hint: str = "", mark: str = "") -> Tile:
    """Return the tile of a metric."""
    return Tile(metric_name(key), metric_number(key, value), metric_unit(key), hint, mark)


@dataclass(frozen=True)
class Tiles:
    """Key numbers side by side."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it must.

    `numbers` are right-aligned columns, `wrap` those whose text may break into lines.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    wrap: Sequence[int] = ()
    style: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Details:
    """Preformatted text that folds away."""

    title: str
    text: str
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Link:
    """A link to a page beside this one, and what is said of it."""

    href: str
    name: str
    text: str


@dataclass(frozen=True)
class Links:
    """A list of links."""

    links: Sequence[Link]
    kind: ClassVar[str] = "links"


@dataclass(frozen=True)
class Figures:
    """Figures in up to three columns; with `shared_axis` they have one range of values."""

    figures: Sequence[Figure]
    columns: int = 1
    shared_axis: bool = False
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; an empty title gives no heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Badge:
    """A word beside the heading, as a run's status."""

    text: str
    style: str


@dataclass(frozen=True)
class Page:
    """A whole page; `head` stands between the heading and the first section."""

    title: str
    sections: Sequence[Section]
    facts: Sequence[str] = ()
    head: Sequence[Block] = ()
    badge: Badge | None = None
    footer: str = FOOTER

    @property
    def heading(self) -> str:
        """The heading: the title without the run's status."""
        return self.title

    @property
    def has_charts(self) -> bool:
        """Whether any section has figures."""
        return any(block.kind == "figures" for part in self.sections for block in part.blocks)
