"""The package `feederate`: what it names, and that importing it costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import feederate

_STUB = Path(feederate.__file__).with_suffix(".pyi")


def newly_loaded(statement: str, cwd: Path) -> set[str]:
    """Return the top-level packages that a statement imports in a fresh interpreter."""
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_the_standard_library_only(tmp_path: Path) -> None:
    loaded = newly_loaded("import feederate", tmp_path)
    assert loaded - sys.stdlib_module_names == {"feederate"}


def test_a_controllers_vocabulary_loads_no_federation(tmp_path: Path) -> None:
    loaded = newly_loaded("from feederate import Controller, Link, Mail, Port", tmp_path)
    assert {"controllers", "numpy"} <= loaded
    assert not {"federates", "pydantic", "pandas", "helics"} & loaded


@pytest.mark.parametrize("name", feederate.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(feederate, name)
    assert name in dir(feederate)
    if isinstance(value, type) or callable(value):
        assert value.__doc__


def test_the_stub_reexports_each_name_as_it_is_called() -> None:
    # `import a as a` is what tells a type checker that the name is public.
    imports = [n for n in ast.parse(_STUB.read_text("utf-8")).body if isinstance(n, ast.ImportFrom)]
    names = [alias for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for alias in names)
    assert len({alias.name for alias in names}) == len(names) == len(feederate.__all__)


def test_the_reference_page_has_every_name_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: feederate\.(\w+)$", page, re.MULTILINE)) == feederate.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        feederate.rum  # noqa: B018
