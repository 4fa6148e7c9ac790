"""What pages are made of: a page has sections, a section has blocks.

A new section of a run's page is one generator of `PageSection` and one line in `run.SECTIONS`. A
block is written by the macro of its `kind` in ``templates/blocks.html``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

FOOTER = "Written by Feederate. Injections are positive: p = generation - load."


class Key(NamedTuple):
    """An entry of a legend; `band` is the curve that a click on it hides."""

    name: str
    style: str
    band: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure; `kind` is its class, by which a script of ``templates`` draws `data`."""

    kind: str
    title: str
    legend: Sequence[Key]
    data: Mapping[str, Any]
    y_title: str = ""
    x_title: str = ""


@dataclass(frozen=True)
class Text:
    """Text as a 'paragraph', an 'alert', 'details' that fold away, or a 'command' to copy."""

    text: str
    kind: str = "paragraph"
    title: str = ""
    style: str = ""


class Tile(NamedTuple):
    """One key number; `mark` is '', 'good' or 'bad'."""

    name: str
    value: str
    unit: str = ""
    hint: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Tiles:
    """Key numbers side by side."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


class PageLink(NamedTuple):
    """A link to another page, and a remark."""

    href: str
    name: str
    text: str = ""


@dataclass(frozen=True)
class TableBlock:
    """A table; `numbers` are right-aligned columns, `wrap` those whose text may break."""

    head: Sequence[str | PageLink]
    rows: Sequence[Sequence[str | PageLink]]
    numbers: Sequence[int] = ()
    wrap: Sequence[int] = ()
    style: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Links:
    """A list of links."""

    links: Sequence[PageLink]
    kind: ClassVar[str] = "links"


@dataclass(frozen=True)
class Figures:
    """Figures in columns; with `shared_axis` they have one range of values.

    `small` leaves out what a small multiple has no room for: legend, axis title, button; `legend`
    is that of all figures then.
    """

    figures: Sequence[Drawing]
    columns: int = 1
    shared_axis: bool = False
    small: bool = False
    legend: Sequence[Key] = ()
    kind: ClassVar[str] = "figures"


Block = Text | Tiles | TableBlock | Links | Figures


@dataclass(frozen=True)
class PageSection:
    """A heading and what stands under it; an empty title gives no heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page; `badge` is (word, class of the style sheet), `head` stands above the sections.

    `links` lead to pages that show this one's run among others.
    """

    title: str
    sections: Sequence[PageSection]
    facts: Sequence[str] = ()
    head: Sequence[Block] = ()
    badge: tuple[str, str] | None = None
    links: Sequence[PageLink] = ()
    footer: str = FOOTER

    @property
    def has_figures(self) -> bool:
        """Whether the page needs the scripts that draw."""
        return any(block.kind == "figures" for part in self.sections for block in part.blocks)
