"""The project around the code: what it promises to a newcomer is checked, not remembered."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from packaging.requirements import Requirement

from federates.cli import app
from federates.installation import PACKAGES, InstallationError, check_installation, common_parent
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_scenarios
from grid_models.base.yaml_lines import parse_yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMAND = "from federates.cli import main; main()"
_IGNORED = {"__pycache__", "build", "dist", "runs", "site", ".venv", ".git"}


def project_files() -> Iterator[Path]:
    """Yield the text files of the project, without what tools leave behind."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in _IGNORED and (f == ".ci" or f[0] != ".")]
        yield from (Path(folder, f) for f in files if f[0] != "." or f == ".gitignore")


def pages() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".md"]


def python(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def docs_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- imports ---------------------------------------------------------------------------------


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from federates.cli import call; code = call(['--help'])\n"
        "heavy = {'cvxpy', 'pandas', 'matplotlib', 'opendssdirect', 'dss', 'helics', 'numpy',\n"
        "         'scipy', 'pyarrow', 'pydantic', 'yaml', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy or code else 0)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: feederate" in done.stdout


def test_a_run_needs_no_pandas_cvxpy_or_matplotlib(tmp_path: Path) -> None:
    # Taken away, not only looked for: OpenDSSDirect imports pandas by itself where it finds it.
    code = (
        "import sys; from pathlib import Path\n"
        "sys.modules |= dict.fromkeys(('pandas', 'cvxpy', 'matplotlib'))\n"
        "from federates.runs.runner import run\n"
        "from federates.scenario.schema import load_scenario\n"
        "result = run(load_scenario('voltvar-ieee123'), out=Path('out'), steps=2)\n"
        "sys.exit(result.summary['status'] != 'finished')"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["grid_models", "controllers", "hil"])
def test_models_and_controllers_load_neither_helics_nor_opendss(
    package: str, tmp_path: Path
) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module('{package}')\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "heavy = {'helics', 'opendssdirect', 'cvxpy', 'pandas', 'matplotlib', 'federates'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_public_names_of_the_architecture_page_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## What others may build on")[2].partition("\n## ")[0]
    names = re.findall(r"`((?:federates|controllers|grid_models)\.[\w.]+)`", section)
    assert len(names) > 20
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_where_to_extend_names_files_and_registries_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Where to extend")[2].partition("\n## ")[0]
    registries = re.findall(r"`([A-Z]+)` in `([\w/]+\.py)`", section)
    assert len(registries) == 8
    for name, path in registries:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^{name}\b", text, re.MULTILINE), f"{path} has no {name}"
    for path in re.findall(r"`((?:federates|controllers)/[\w/.]+)`", section):
        assert (ROOT / path).exists(), path


# --- installation ----------------------------------------------------------------------------


def test_the_packages_lie_in_one_folder() -> None:
    folder = check_installation()
    assert all((folder / name / "py.typed").is_file() for name in PACKAGES)
    assert set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)


def test_a_package_from_elsewhere_is_named_with_both_paths(tmp_path: Path) -> None:
    ours = check_installation()
    folders = {name: ours / name for name in PACKAGES}
    assert common_parent(folders) == ours
    stranger = tmp_path / "controllers"
    with pytest.raises(InstallationError) as error:
        common_parent(folders | {"controllers": stranger})
    assert str(stranger) in str(error.value)
    assert str(ours / "controllers") in str(error.value)
    with pytest.raises(InstallationError, match="'hil' is missing"):
        common_parent(folders | {"hil": None})


def test_the_command_line_refuses_a_shadowed_package(tmp_path: Path) -> None:
    stranger = tmp_path / "path" / "controllers"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").touch()
    done = python("-c", COMMAND, "list", cwd=tmp_path, PYTHONPATH=str(stranger.parent))
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(stranger) in done.stderr
    assert str(check_installation() / "controllers") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_own_folder_does_not_shadow_ours(tmp_path: Path) -> None:
    (tmp_path / "controllers").mkdir()
    (tmp_path / "controllers" / "__init__.py").write_text("raise RuntimeError('not ours')")
    script = Path(sys.executable).with_name("feederate")
    if not script.exists():
        pytest.skip("the console script is not installed")
    command = [str(script), "run", "voltvar-ieee13", "--steps", "2", "--placement", "process"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_dependency_is_pinned_within_its_range() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lock if line.strip() and line[0] != "#"]
    project = PYPROJECT["project"]
    wanted = [Requirement(r) for r in project["dependencies"]]
    for extra in ("dev", "docs"):
        wanted += [Requirement(r) for r in project["optional-dependencies"][extra]]
    for requirement in wanted:
        mine = [p for p in pins if _same_name(p.name, requirement.name)]
        assert mine, f"{requirement.name} is not in requirements.lock"
        for pin in mine:
            (version,) = (s.version for s in pin.specifier if s.operator == "==")
            assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


def test_the_lock_names_no_place() -> None:
    # It must serve wherever the packages come from.
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|@|--(extra-)?index|--find-links|/", text)


def _same_name(a: str, b: str) -> bool:
    return re.sub(r"[-_.]+", "-", a).lower() == re.sub(r"[-_.]+", "-", b).lower()


# --- README and CI ---------------------------------------------------------------------------


def readme_command(name: str) -> str:
    found = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"README.md has no command '{name}'"
    return found.group(1)


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_ci_runs_the_readme_commands_word_for_word(name: str) -> None:
    command = readme_command(name)
    assert command.count("\n") == 1, "a command is one line"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    assert function is not None
    assert f"{name}=$(readme_command {name})" in script
    assert f'-c "${name}"' in script
    done = subprocess.run(
        ["bash", "-c", f"{function.group(0)}; readme_command {name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == command


def test_ci_is_a_script_that_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_readme_shows_the_scenario_as_it_ships() -> None:
    script = docs_script("generate_readme")
    name = "voltvar-ieee123"
    assert script.section(README, f"scenario: {name}") == script.scenario_block(name)


_MASTER = """\
Clear
New Circuit.mine basekv=12.47 bus1=a
New Line.l1 bus1=a bus2=b length=1 units=km
New Line.l2 bus1=b bus2=c length=1 units=km
New Load.d1 bus1=b kv=12.47 kw=900
New Load.d2 bus1=c.2 phases=1 kv=7.2 kw=300
Set voltagebases=[12.47]
Calcvoltagebases
"""


def portable_scenarios() -> list[str]:
    """Return the scenarios of a feeder that place all by rule, no bus or device by its name."""
    portable = []
    for name in shipped_scenarios():
        scenario = load_scenario(name)
        if not scenario.grid.ders:
            continue  # its DERs are those of its feeder
        if any(isinstance(rule.get("at"), list) for rule in scenario.grid.ders):
            continue  # it names buses
        specs = scenario.federates.values()
        if any("policy" in getattr(spec, "options", ()) for spec in specs):
            continue  # it has a policy of its feeder
        devices = [device for spec in specs for device in getattr(spec, "devices", ())]
        if any(spec.kind == "feeder" for spec in specs) and all(
            set("*?[") & set(device) and not re.search(r"_\d", device) for device in devices
        ):
            portable.append(name)
    return portable


@pytest.mark.scenario
@pytest.mark.parametrize("name", portable_scenarios())
def test_every_scenario_takes_a_users_own_feeder(name: str, tmp_path: Path) -> None:
    # As the README says; two load buses with four phases in all, names unlike those that ship.
    master = tmp_path / "Master.dss"
    master.write_text(_MASTER)
    scenario = load_scenario(name, [f"grid.model={master}"])
    result = run(scenario, out=tmp_path / "run", steps=5, placement="single")
    assert result.summary["steps"] == 5
    # Where the plants are several, each has its own.
    v_min, v_max = (
        result.metrics.get(f"feeder.{key}", result.metrics.get(key))
        for key in ("v_min_pu", "v_max_pu")
    )
    assert v_min is not None
    assert v_max is not None
    assert 0.9 < v_min < v_max < 1.1


def shell_lines() -> list[str]:
    """Return every command line of ours in the documentation's shell blocks."""
    lines = []
    for page in pages():
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|\s|/)feederate (.*)", line.removeprefix("$ "))
                if found and "pip install" not in line:
                    lines.append(found.group(1))
    return lines


@pytest.mark.parametrize("line", shell_lines())
def test_documented_commands_exist(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert name in commands
    commands[name].make_context(name, arguments)  # parses, runs nothing


# --- documentation ---------------------------------------------------------------------------


def test_the_scenario_page_is_generated_from_the_schema() -> None:
    script = docs_script("generate_scenario_reference")
    page = (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")
    assert page == script.reference(), "python docs/generate_scenario_reference.py"
    page = (ROOT / "docs" / "attack-reference.md").read_text(encoding="utf-8")
    assert page == script.attack_reference(), "python docs/generate_scenario_reference.py"


@pytest.mark.parametrize("name", ["scenario", "attack-reference"])
def test_every_key_of_a_generated_page_has_a_meaning(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    assert len(rows) > 60
    assert [key for key, meaning in rows if not re.search(r"[a-z]", meaning)] == []


def test_the_package_table_is_complete() -> None:
    script = docs_script("generate_package_table")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page == script.updated(page), "python docs/generate_package_table.py"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", h.lower()) for h in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    home = re.compile(rb"/(?:root|home|Users)/\w|[A-Z]:\\\\?Users")
    here = str(ROOT.parent).encode() + b"/"
    for path in project_files():
        data = path.read_bytes()
        assert not home.search(data), path
        # A clone in a folder like /tmp says nothing: such names are common in the text.
        if ROOT.parent not in (Path("/"), Path("/tmp"), Path("/var/tmp")):
            assert here not in data, path


def test_every_benchmark_is_described() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "benchmarks").glob("*.py"):
        if not script.stem.startswith("_"):
            assert script.name in page


def test_what_benchmarks_import_from_the_packages_exists() -> None:
    for script in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.partition(".")[0] in {"grid_models", "controllers", "federates"}:
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name), f"{script.name}: {node.module} has no {name}"


def test_version_is_the_same_everywhere() -> None:
    version = PYPROJECT["project"]["version"]
    citation = parse_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"))[0]
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## (\d\S*)", changelog, re.MULTILINE)
    assert found is not None
    assert found.group(1) == version


def test_every_shipped_scenario_reaches_the_wheel() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"co-sim-configs": "federates/_configs"}
    assert not (ROOT / "federates" / "_configs").exists(), "a copy would hide the originals"


def test_git_ignores_what_runs_leave(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("runs/x/summary.json", ".venv/bin/python", "federates/__pycache__/a.pyc"):
        done = subprocess.run(["git", "check-ignore", "-q", name], cwd=tmp_path, check=False)
        assert done.returncode == 0, name
