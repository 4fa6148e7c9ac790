"""A page as one HTML file that works offline: templates, style sheet, scripts and data in it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from html import unescape
from importlib import resources
from pathlib import Path
from urllib.parse import quote, unquote

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup, escape

from federates.errors import ScenarioError
from federates.reports.blocks import Page, PageLink

_PAGES = re.compile('(<nav class="pages"[^>]*>)(.*?)(</nav>)', re.DOTALL)
_LINK = re.compile('<a href="([^"]*)">([^<]*)</a>')
_FOLDERS = ("templates", "vendor/uplot")


def _read(name: str) -> str:
    package = resources.files("federates.reports")
    found = next(f for folder in _FOLDERS if (f := package / folder / name).is_file())
    return found.read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    loader = FunctionLoader(_read)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["asset"] = lambda name: Markup(_read(name))
    return environment


def render(page: Page) -> str:
    """Return a page as HTML; every text of it is escaped."""
    return _environment().get_template("page.html").render(page=page)


def write_page(path: Path, page: Page) -> Path:
    """Write a page; a reader sees the old file or the new one, never a part.

    Links that `link_back` put into the old file are kept while their pages exist.

    Raises ScenarioError: `path` is a folder, or in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder '{path.parent}'"
        raise ScenarioError(what, where=str(path), expected="the path of a page, as in runs.html")
    return _replaced(path, render(replace(page, links=[*page.links, *_links_in(path)])))


def link_back(path: Path, page: Path, name: str) -> None:
    """Put a link to `page` into the page `path`, if there is one.

    A run's page is written before the pages that show the run among others, so it is changed then.
    """
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    href = Path(os.path.relpath(page.resolve(), path.parent.resolve())).as_posix()
    links = {link.href: link for link in (*_links_in(path), PageLink(quote(href), name))}
    items = "".join(f'<a href="{escape(x.href)}">{escape(x.name)}</a>\n' for x in links.values())
    with suppress(OSError):  # a run of somebody else's is not ours to change
        _replaced(path, _PAGES.sub(lambda found: found[1] + items + found[3], text, count=1))


def _links_in(path: Path) -> list[PageLink]:
    """Return the links to other pages in a file, of those that exist."""
    if not path.is_file():
        return []
    found = _PAGES.search(path.read_text(encoding="utf-8"))
    links = [
        PageLink(unescape(h), unescape(n)) for h, n in _LINK.findall(found[2] if found else "")
    ]
    return [link for link in links if (path.parent / unquote(link.href)).is_file()]


def _replaced(path: Path, text: str) -> Path:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
