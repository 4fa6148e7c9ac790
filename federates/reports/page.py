"""A page as one HTML file that works offline: templates, style sheet, scripts and data in it."""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup

from federates.errors import ScenarioError
from federates.reports.blocks import Page

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

    Raises ScenarioError: `path` is a folder, or in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder '{path.parent}'"
        raise ScenarioError(what, where=str(path), expected="the path of a page, as in runs.html")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(render(page), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
