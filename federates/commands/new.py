"""``feederate new``: commented starting points that run."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

import typer

from federates.errors import ScenarioError

_OURS = ("controllers", "federates", "feederate", "grid_models", "hil")


_HINTS = {
    "scenario": "; run it with: feederate run {path}",
    "attack": "\n  feederate attack explain {path}"
    "\n  feederate attack run {path} --steps 240 --set time.start_s=43200",
}


def new(what: Literal["scenario", "controller", "attack"], name: str) -> None:
    """Write a commented ``NAME.yaml`` or ``NAME.py`` that runs, and say how.

    Raises ScenarioError: The name cannot be used, or the file exists.
    """
    if what == "controller":
        _new_controller(name)
        return
    stem = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", stem):
        nearest = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_0123456789")
        raise _bad_name(name, "letters, digits, - and _, a letter first", nearest)
    text = Template(template(f"{what}.yaml")).substitute(name=stem)
    path = _write(Path(f"{stem}.yaml"), text)
    typer.echo(f"wrote {path}" + _HINTS[what].format(path=path))


def _new_controller(name: str) -> None:
    module = name.removesuffix(".py")
    if not module.isidentifier() or keyword.iskeyword(module):
        nearest = re.sub(r"\W+", "_", module).strip("_0123456789")
        raise _bad_name(name, "a Python module's name: letters, digits and _", nearest)
    taken = module in _OURS or module in sys.stdlib_module_names
    if taken or (
        importlib.util.find_spec(module) is not None and not Path(f"{module}.py").exists()
    ):
        raise _bad_name(name, "a name that no installed module has", f"my_{module}")
    class_name = "".join(part[:1].upper() + part[1:] for part in module.split("_") if part)
    text = Template(template("controller.py.txt")).substitute(module=module, class_name=class_name)
    path = _write(Path(f"{module}.py"), text)
    typer.echo(
        f"wrote {path}\n\n"
        "In a scenario beside it:\n"
        "  federates:\n"
        f'    volt_var: {{kind: controller, controller: "{module}:{class_name}"}}\n'
        "  connections:\n"
        "    - feeder.v_pu -> volt_var.v_pu\n"
        "    - volt_var.q_set_kvar -> feeder.q_set_kvar\n\n"
        "Or try it at once:\n"
        "  feederate run voltvar-ieee123-droop --steps 400 \\\n"
        f"    --set federates.volt_var.controller={module}:{class_name} \\\n"
        "    --set federates.volt_var.options={}"
    )


def _bad_name(name: str, expected: str, nearest: str) -> ScenarioError:
    return ScenarioError(f"'{name}' cannot be the name", expected=expected, nearest=nearest or None)


def _write(path: Path, text: str) -> Path:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ScenarioError(
            "exists already and is kept", where=str(path), expected="a new name"
        ) from None
    return path


def template(name: str) -> str:
    """Return a file of ``federates/templates``."""
    return (resources.files("federates") / "templates" / name).read_text(encoding="utf-8")
