"""The frame of our pages: one self-contained file, and the small pieces pages are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from federates.errors import ScenarioError
from federates.reports.format import metric_name, metric_number, metric_unit


def template(name: str) -> str:
    """Return a file of ``federates/templates``."""
    folder = resources.files("federates") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def write_page(path: Path, title: str, body: str) -> Path:
    """Write a page that needs nothing but itself; a reader sees the old one or the new one.

    Raises
    ------
    ScenarioError
        `path` is a folder, or in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder '{path.parent}'"
        raise ScenarioError(what, where=str(path), expected="the path of a page, as in runs.html")
    page = Template(template("page.html")).substitute(
        title=escape(title), style=template("report.css"), body=body, script=template("report.js")
    )
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    wrap: Sequence[int] = (),
    style: str = "",
) -> str:
    """Return a table that scrolls sideways where it must.

    `numbers` are right-aligned columns, `wrap` those whose text may break into lines, `style` is
    a class of the style sheet.
    """

    def cell(tag: str, i: int, text: str) -> str:
        kind = ' class="number"' if i in numbers else ' class="wrap"' if i in wrap else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    top = "".join(cell("th", i, text) for i, text in enumerate(head))
    body = "".join(
        "<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="card scroll {style}"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def tile(name: str, value: str, unit: str = "", hint: str = "", mark: str = "") -> str:
    """Return one key number; `mark` is '', 'good' or 'bad'."""
    below = f'<div class="hint">{escape(hint)}</div>' if hint else ""
    return (
        f'<div class="tile {mark}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)} <span class="unit">{escape(unit)}</span></div>'
        f"{below}</div>"
    )


def metric_tile(key: str, value: float | None, hint: str = "", mark: str = "") -> str:
    """Return the tile of a metric."""
    return tile(metric_name(key), metric_number(key, value), metric_unit(key), hint, mark)


def details(title: str, text: str, *, is_open: bool = False) -> str:
    """Return preformatted text that folds away."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
