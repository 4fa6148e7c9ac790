"""Every code block of README.md and docs/ is run, at a short horizon, and so are the examples.

- python: executed; the blocks of a page share their names.
- sh: each `feederate` command is called in this process, but for plain runs of shipped scenarios,
  which .ci/run makes. A block without such commands is run by bash.
- console: the command is run, and what it prints is compared.
- yaml: read and checked as an attack, a device file, an emulator configuration, or as a change of
  a scenario.
- text and mermaid are not code.

Two comments before a block change this: ``<!-- not run: why -->`` and ``<!-- first: statement -->``
(Python that a reader does not need to see).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import feederate
from federates.cli import call
from federates.scenario.attack_files import load_attack
from federates.scenario.overrides import merged
from federates.scenario.schema import find_scenario, scenario_from, shipped_scenarios
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.yaml_lines import parse_yaml, yaml_text
from hil.devices.file import load_device_file
from hil.emulators.register_config import load_emulator_config

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples" / "python"
SHIPPED = [[name] for name in shipped_scenarios()]
NOT_CODE = {"text", "mermaid"}
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_NOTE = re.compile(r"<!-- (not run|first|command|code): (.*?) -->")
pytestmark = pytest.mark.scenario


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its line, and the comment before it."""

    language: str
    text: str
    line: int
    note: str
    said: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        note = _NOTE.fullmatch(before.strip())
        found.append(
            Block(
                match.group(2),
                textwrap.dedent(match.group(3)) if match.group(1) else match.group(3),
                text.count("\n", 0, match.start()) + 1,
                note.group(1) if note else "",
                note.group(2) if note else "",
            )
        )
    return found


PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if any(block.language not in NOT_CODE for block in blocks_of(path))
}


# -- a short horizon -------------------------------------------------------------------------------

STEPS, STEP_S = 24, 60.0


def shortened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs, with fewer and longer steps."""

    def short(*args: Any, set: Any = None, steps: int | None = None, **rest: Any) -> Any:
        longer = {**(set or {}), "time.step_s": STEP_S, "time.warm_up_s": 0}
        return function(*args, set=longer, steps=min(steps or STEPS, STEPS), **rest)

    return short


def short_sweep(scenario: str, grid: Any = None, *, seeds: Any = None, **rest: Any) -> Any:
    few = {key: values[:2] for key, values in (grid or {}).items()}
    return _SWEEP(scenario, few, seeds=1, workers=1, **rest)


_SWEEP = shortened(feederate.sweep)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", "attack_run"):
        monkeypatch.setattr(feederate, name, shortened(getattr(feederate, name)))
    monkeypatch.setattr(feederate, "sweep", short_sweep)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an attacked run, which pages call runs/my-run."""
    attack = {"attack.steps.0": {"trigger": {"at_s": 300}, "duration_s": 300}}
    out = tmp_path_factory.mktemp("recorded") / "run"
    run = shortened(feederate.run)
    return Path(run("voltvar-ieee13", attack="false-voltage", set=attack, out=out).folder)


@pytest.fixture
def place(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder that has what pages speak of."""
    for name in ("docs", "co-sim-configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    for name in ("my-run", "A", "B"):
        (tmp_path / "runs" / name).symlink_to(recorded)
    (tmp_path / "path" / "to").mkdir(parents=True)
    village = ROOT / "docs" / "examples" / "feeders" / "village.dss"
    (tmp_path / "path" / "to" / "Master.dss").symlink_to(village)
    (tmp_path / "trace.csv").write_text("time_s,port,label,value\n0,feeder.v_pu,71.1,1.02\n")
    monkeypatch.chdir(tmp_path)
    for folder in ("docs/examples", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


# -- one way of running for each language ----------------------------------------------------------


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "feederate":
            yield words[1:]
        elif words:
            pytest.fail(f"not a command of ours: {line}; say why it is not run")


def without(words: list[str], *options: str) -> list[str]:
    """Return the words without these options and their values."""
    gone = {i + k for i, word in enumerate(words) if word in options for k in (0, 1)}
    return [word for i, word in enumerate(words) if i not in gone]


def short_words(words: list[str]) -> list[str]:
    """Return a command with a short horizon; `attack run` becomes its check."""
    if words[:2] == ["attack", "run"]:
        return ["attack", "check", *without(words[2:], "--steps", "--out")]
    if words[0] == "run":
        short = ["--steps", "2", "--no-report", "--placement", "single"]
        return [*without(words, "--steps"), *short]
    if words[0] == "sweep":
        short = ["--steps", "2", "--seeds", "1", "--workers", "1"]
        return [*without(words, "--steps", "--seeds"), *short]
    if words[0] == "replay" and "--into" in words:
        return [*words, "--steps", "730"]  # a trace that begins after an hour
    if words[0] == "optimise":
        return [*without(words, "--max-iterations"), "--max-iterations", "5"]
    if words[0] == "hosting":
        few = [] if "alone" in words else ["--placements", "2"]
        noon = ["--set", "time.start_s=36000", "--set", "time.duration_s=14400"]
        return [*without(words, "--placements", "--out"), *few, *noon]
    quick = {"list", "check", "compare", "new", "replay"}
    quick_pairs = (["attack", "explain"], ["device", "check"], ["device", "test"])
    assert words[0] in quick or words[:2] in quick_pairs, f"feederate {words[0]}: how?"
    return words


def run_shell(block: Block, place: Path) -> None:
    if "feederate" not in block.text:
        done = subprocess.run(["bash", "-euc", block.text], cwd=place, check=False)
        assert done.returncode == 0
        return
    for words in commands(block.text):
        if "my-study.yaml" in words and not Path("my-study.yaml").exists():
            call(["new", "scenario", "my-study"])
        if words[0] == "run" and words[1:] in SHIPPED:
            continue  # .ci/run runs each of them
        if words == ["--install-completion"]:
            continue  # it writes into the home of who calls it
        assert call(short_words(list(words))) == 0, words


def run_console(block: Block, place: Path) -> None:
    command, _, expected = block.text.removeprefix("$ ").partition("\n")
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(
        words, cwd=ROOT / "docs" / "examples", capture_output=True, text=True, check=False
    )
    assert done.stdout == expected


def check_yaml(block: Block, place: Path) -> None:
    text = f"federates:\n{block.text}" if block.text.startswith("  ") else block.text
    data = parse_yaml(text)[0]
    if "action" in data:
        step = {"id": "own", "layer": "signal", "target": {"port": "volt_var.v_pu"}, **data}
        data = {"steps": [{**step, "trigger": {"at_s": 0}, "duration_s": 60}]}
    if "steps" in data:
        path = place / "block.yaml"
        path.write_text(yaml_text({"id": "block", **data}))
        load_attack(path)
        return
    if "physics" in data or "points" in data:  # an emulator configuration, a device file
        path = place / "block.yaml"
        path.write_text(block.text, encoding="utf-8")
        load_emulator_config(path) if "physics" in data else load_device_file(path)
        return
    whole = "grid" in data and "federates" in data
    base = {} if whole else load_yaml(find_scenario("voltvar-ieee123")).data
    scenario_from(YamlSource("block.yaml", merged(base, data)), base_dir=place)


def test_every_block_says_its_language_and_why_it_is_not_run() -> None:
    for name, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        blocks = blocks_of(page)
        assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks), name
        for block in blocks:
            assert block.language in {"python", "sh", "console", "yaml", *NOT_CODE}, name
            assert block.note != "not run" or len(block.said.split()) > 3, name


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run(name: str, place: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(PAGES[name]):
        if block.note in ("not run", "command") or block.language in NOT_CODE:
            continue  # `command`: .ci/run takes it from the page, word for word
        if block.note == "code":  # a file with a test of its own
            assert block.text == (ROOT / "docs" / block.said).read_text(encoding="utf-8")
            continue
        if block.language == "python":
            if file := re.match(r"# (\w+\.py)\n", block.text):
                (place / file.group(1)).write_text(block.text)
            code = f"{block.said}\n" if block.note == "first" else ""
            where = f"{name}, block at line {block.line}"
            exec(compile(code + block.text, where, "exec"), namespace)
            for test in [v for k, v in namespace.items() if k.startswith("test_")]:
                test()
        elif block.language == "sh":
            run_shell(block, place)
        elif block.language == "console":
            run_console(block, place)
        else:
            check_yaml(block, place)


# -- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first_run", "attack_labels"])
def test_an_example_runs(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / f"{name}.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("\n") > 5


def test_the_script_of_the_figure_is_that_of_its_page() -> None:
    page = ROOT / "docs" / "from-idea-to-figure.md"
    blocks = [block.text for block in blocks_of(page) if block.language == "python"]
    script = (EXAMPLES / "loss_figure.py").read_text(encoding="utf-8")
    assert [cell.strip() for cell in script.split("# %%\n")[1:]] == [b.strip() for b in blocks]
