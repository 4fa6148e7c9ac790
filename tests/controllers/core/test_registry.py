"""Controllers by name: lazily imported, and messages that say what a user's class lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controllers.core.errors import ControllerError
from controllers.core.protocol import Controller
from controllers.core.registry import CONTROLLERS, descriptions, resolve
from controllers.core.sample_site import sample_site


def test_every_shipped_name_gives_a_controller() -> None:
    assert set(descriptions()) == {
        "none",
        "bad-policy",
        "volt-var-1547",
        "volt-var-adaptive",
        "learned-droop",
        "optdist-vc",
        "optimum",
        "rt-opf",
        "optimisation",
        "dmpc",
        "dmpc-circuit",
        "averaging-pi",
        "market",
        "consumer-market",
        "local-market",
        "resilience-manager",
        "reconfiguration",
        "dppd",
        "alc",
    }
    site = sample_site()
    for name, text in descriptions().items():
        assert "\n" not in text
        cls = resolve(name)
        lacks = {"market": "no resource to dispatch", "reconfiguration": "no switch"}
        lacks["learned-droop"] = "option 'policy' is missing"
        lacks["resilience-manager"] = lacks["market"]
        if name in lacks:  # the sample feeder
            with pytest.raises(ControllerError, match=lacks[name]):
                cls(site, cls.agents(site))
            continue
        assert isinstance(cls(site, cls.agents(site)), Controller)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, controllers.core.registry as r\n"
        "r.descriptions()\n"
        "assert not {'scipy', 'controllers.optdist.controller'} & set(sys.modules)\n"
        "r.resolve('optdist-vc'), r.resolve('optimum')\n"
        "assert not {'cvxpy', 'clarabel', 'opendssdirect', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


GOOD = """
class Mine:
    inputs = outputs = links_in = links_out = ()
    def __init__(self, site, hosted, **options): ...
    @classmethod
    def agents(cls, site, **options): return ()
    def step(self, time_s, inputs, mail): ...
"""


@pytest.mark.parametrize(
    ("source", "name", "match"),
    [
        (GOOD, "Min", "did you mean 'Mine'"),
        ("import no_such_thing_at_all", "Mine", "ModuleNotFoundError"),
        ("def broken(:", "Mine", "SyntaxError"),
        ("1 / 0", "Mine", "ZeroDivisionError"),
        ("Mine = 3", "Mine", "not a class"),
        (GOOD.replace("def step", "def stop"), "Mine", r"lacks step\(time_s, inputs, mail\)"),
        (GOOD.replace("    @classmethod\n", ""), "Mine", "classmethod"),
        (GOOD.replace("time_s, inputs, mail", "time_s"), "Mine", "another signature"),
        (GOOD.replace("site, hosted, **options", "site"), "Mine", "another signature"),
    ],
)
def test_a_users_class_that_cannot_be_used(
    module_folder: Path, source: str, name: str, match: str, request: pytest.FixtureRequest
) -> None:
    module = f"user_module_{abs(hash(request.node.name)) % 10**9}"
    (module_folder / f"{module}.py").write_text(source)
    with pytest.raises(ControllerError, match=match):
        resolve(f"{module}:{name}")


def test_a_users_class_is_found(module_folder: Path) -> None:
    (module_folder / "user_module_good.py").write_text(GOOD)
    assert resolve("user_module_good:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "match"),
    [("optdist_vc", "did you mean 'optdist-vc'"), ("module:", "no such"), ("no_mod_x:A", "cannot")],
)
def test_unknown_names(name: str, match: str) -> None:
    with pytest.raises(ControllerError, match=match):
        resolve(name)


def test_a_new_controller_is_one_file_and_one_line_of_the_registry(
    module_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that the change touches: the class's own, and `controllers/core/registry.py`."""
    (module_folder / "half_droop.py").write_text(
        GOOD.replace("return ()", "return tuple(der.name for der in site.ders)")
    )
    line = ("half_droop:Mine", "half of the droop")
    monkeypatch.setitem(CONTROLLERS.shipped, "half-droop", line)  # type: ignore[misc]
    assert descriptions()["half-droop"] == "half of the droop"
    assert resolve("half-droop").agents(sample_site())
    with pytest.raises(ControllerError, match="did you mean 'half-droop'"):
        resolve("half-drop")
