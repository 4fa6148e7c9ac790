"""The live page beside real runs: what it shows, its buttons, and that no run depends on it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federates import cli
from federates.core.progress import Progress
from federates.live import page as page_module
from federates.live.address import parse_address
from federates.runs.runner import Started, run
from federates.scenario.schema import load_scenario

# A step of 60 s each 0.1 s of the wall clock, so that there is time to look.
PACED = ["--set", "time.step_s=60", "--set", "time.real_time.factor=600"]
PACED += ["--set", "time.step_timeout_s=0.5"]
RUN = ["run", "voltvar-ieee13", "--no-report"]
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "federates"
SHORT = load_scenario("voltvar-ieee13", ["time.duration_s=600", "time.step_timeout_s=1"])
MAIN = "from federates.cli import main; main()"


def get(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=20) as answer:
        return json.load(answer)


def post(url: str, order: str, key: str) -> int:
    headers = {"x-feederate-key": key}
    request = urllib.request.Request(url + order, b"", headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Live:
    """A run of the command line with its page."""

    def __init__(self, folder: Path, scenario: str, *words: str) -> None:
        self.folder = folder
        command = [sys.executable, "-c", MAIN, "run", scenario, "--no-report", "--live", *words]
        self.process = subprocess.Popen(
            [*command, "--out", str(folder)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stderr is not None
        line = next((x for x in self.process.stderr if x.startswith("live page: ")), "")
        self.url = line.split()[-1]

    def state(self, query: str = "first=1") -> Any:
        return get(self.url, f"state?{query}")

    def wait(self, status: str, patience_s: float = 20.0) -> Any:
        deadline = time.monotonic() + patience_s
        while (state := self.state())["status"] != status:
            assert time.monotonic() < deadline, state["status"]
            time.sleep(0.05)
        return state

    def summary(self) -> Any:
        return json.loads((self.folder / "summary.json").read_text())


@contextmanager
def live(folder: Path, *words: str, scenario: str = "voltvar-ieee13") -> Iterator[Live]:
    found = Live(folder, scenario, *words)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        found.process.stderr.close()  # type: ignore[union-attr]


@pytest.mark.scenario
def test_a_run_is_shown_paused_and_stopped(tmp_path: Path) -> None:
    with live(tmp_path / "run", *PACED) as page:
        state = page.wait("running")
        roster = get(page.url, "run")
        assert page.url.startswith("http://127.0.0.1:")
        assert roster["plants"] == ["feeder"]
        assert [f["name"] for f in state["federates"]] == ["feeder", "volt_var"]
        grid = get(page.url, "grid?plant=feeder")
        assert {bus for bus, _, _ in grid["buses"]} >= {"650", "671"}

        assert post(page.url, "pause", "guessed") == 403
        assert post(page.url, "pause", roster["key"]) == 200
        paused = page.wait("paused")
        time.sleep(1.2)  # longer than step_timeout_s, which a pause must not trip
        later = page.state("curve=feeder.v_pu")
        steps = [[f["steps"] for f in s["federates"]] for s in (paused, later)]
        assert max(b - a for a, b in zip(*steps, strict=True)) <= 1
        assert len({f["steps"] for f in later["federates"]}) <= 2
        assert later["status"] == "paused"
        assert later["paused_s"] > 1.0
        assert later["federates"][0]["held_by"] == "pause"

        assert post(page.url, "resume", roster["key"]) == 200
        on = page.wait("running")
        while page.state()["federates"][0]["steps"] <= on["federates"][0]["steps"] + 2:
            time.sleep(0.05)
        shown = page.state("curve=feeder.v_pu&curve=feeder.v_pu%20671.1&curve=feeder.nothing")
        assert set(shown["curves"]["feeder.v_pu"]["labels"]) == set(shown["map"]["v_pu"]["values"])
        assert 0.8 < shown["curves"]["feeder.v_pu 671.1"]["mid"][-1] < 1.2
        assert shown["curves"]["feeder.nothing"] is None

        post(page.url, "pause", roster["key"])  # a paused run can be stopped, too
        assert post(page.url, "stop", roster["key"]) == 200
        assert page.process.wait(20) == 130
        assert page.summary()["status"] == "interrupted"
        assert page.summary()["steps"] > 0
        assert not list((tmp_path / "run" / "signals").glob("*.arrows"))


@pytest.mark.scenario
def test_a_run_that_waits_for_a_program_says_for_whom_and_where(tmp_path: Path) -> None:
    text = (EXAMPLES / "plain_pyhelics.yaml").read_text()
    file = tmp_path / "alone.yaml"
    file.write_text("".join(x for x in text.splitlines(True) if "command:" not in x))
    with live(tmp_path / "run", scenario=str(file)) as page:
        while not (state := page.state())["said"]:
            time.sleep(0.1)
        assert state["status"] == "starting"
        feeder, lab = state["federates"]
        assert (feeder["does"], feeder["for"]) == ("waits", ["lab"])
        assert (lab["where"], lab["does"]) == ("external", "unseen")
        assert "waiting for 'lab' at broker tcp://127.0.0.1:" in state["said"]
        assert post(page.url, "stop", get(page.url, "run")["key"]) == 200
        assert page.process.wait(20) == 130


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(SHORT, out=tmp_path_factory.mktemp("plain"), placement="single").folder


@pytest.mark.scenario
@pytest.mark.parametrize("placement", ["single", "shared", "thread", "process"])
def test_a_pause_holds_the_run_and_changes_no_byte(
    tmp_path: Path, plain: Path, placement: Any
) -> None:
    def pause(started: Started) -> None:
        progress = Progress(len(started.here), started.store.heartbeat)
        progress.pause()

        def go_on() -> None:
            held.extend(progress.steps(row) for row in range(len(started.here)))
            progress.resume()

        threading.Timer(2.0, go_on).start()  # longer than step_timeout_s

    held: list[int] = []
    shown = run(SHORT, out=tmp_path, placement=placement, on_start=pause)
    assert held == [0, 0]
    for file in sorted((plain / "signals").iterdir()):
        assert file.read_bytes() == (shown.folder / "signals" / file.name).read_bytes()
    assert not (shown.folder / ".progress").exists()


@pytest.mark.scenario
@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_page_that_is_killed_or_hangs_holds_no_step(
    tmp_path: Path, plain: Path, how: str
) -> None:
    with page_module.LivePage("auto") as page, socket.socket() as reader:

        def start(started: Started) -> None:
            page.start(started)
            assert page._process is not None
            key = get(page.url, "run")["key"]
            if how == "killed":  # what it has paused goes on
                assert post(page.url, "pause", key) == 200
                page._process.kill()
                return
            reader.connect(("127.0.0.1", int(page.url[:-1].rpartition(":")[2])))
            reader.sendall(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page._process.send_signal(signal.SIGSTOP)

        result = run(SHORT, out=tmp_path, placement="single", on_start=start)
    assert result.summary["status"] == "finished"
    assert result.summary["steps"] == json.loads((plain / "summary.json").read_text())["steps"]


@pytest.mark.scenario
def test_a_browser_draws_the_run_and_its_buttons_work(tmp_path: Path, browser: Any) -> None:
    title = "<img src=x onerror=document.title=1>"  # text of a scenario is no HTML
    lacks = ["--set", "record.ports=[feeder.v_pu, volt_var.*]", "--set", f"title={title}"]
    with live(tmp_path / "run", *PACED, *lacks) as page:
        browser.size(390, 844)
        browser.open(page.url)
        browser.wait("document.querySelectorAll('#map circle').length >= 10")
        browser.wait("document.querySelector('#charts canvas')")
        assert browser.text("#status") == "running"
        assert browser.text("#title") == title
        assert browser.js("document.images.length") == 0
        assert browser.js("document.documentElement.scrollWidth") <= 390
        assert "volt_var" in browser.text("#federates")
        assert "feeder.import_kw" in browser.text("#not-recorded")
        browser.wait("document.querySelector('#map .bus:not(.none)')")
        browser.js("document.querySelector('#colour').value = 'loading_pct'")
        browser.wait("document.querySelector('#map-readout').innerText.includes('not recorded')")
        browser.js("document.querySelector('#pause').click()")
        browser.wait("document.querySelector('#status').innerText === 'paused'")
        assert page.state()["status"] == "paused"
        assert browser.text("#pause") == "Resume"
        browser.js("window.confirm = () => true; document.querySelector('#stop').click()")
        assert page.process.wait(20) == 130
        browser.wait("document.querySelector('#status').innerText === 'interrupted'")
        assert "stays as it is" in browser.text("#alert")
        assert browser.js("document.querySelector('#stop').disabled")


# -- what can be wrong ----------------------------------------------------------------------------


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.call([*RUN, *words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "70000", "8080x", "host:", ":80", "a:b:c", "127.0.0.1:-1"])
def test_a_wrong_address_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    code, words = called(capsys, "--live", word)
    assert code == 2
    assert f"found '{word}', expected a port (1 to 65535), or HOST:PORT" in words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:81", ("0.0.0.0", 81)),
        ("[::1]:82", ("::1", 82)),
        ("auto", ("127.0.0.1", None)),
    ],
)
def test_addresses(text: str, found: tuple[str, int | None]) -> None:
    assert parse_address(text) == found


def test_a_port_in_use_is_refused_before_a_folder_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, words = called(capsys, "--out", str(tmp_path / "run"), "--live", str(port))
    assert code == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in words
    assert not (tmp_path / "run").exists()


def test_without_the_extra_the_command_to_install_it_is_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module.util, "find_spec", lambda name: None)
    code, words = called(capsys, "--out", str(tmp_path / "run"), "--live")
    assert code == 2
    assert "pip install 'feederate[live]'" in words
    assert not (tmp_path / "run").exists()


@pytest.mark.scenario
def test_a_page_of_the_attacked_run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bias.yaml"
    step = "{id: a, layer: signal, target: {port: volt_var.v_pu}, trigger: {at_s: 0}"
    file.write_text(f"id: bias\nsteps:\n  - {step}, action: {{kind: bias, value: 0.01}}}}\n")
    words = ["attack", "run", "voltvar-ieee13", str(file), "--steps", "10", "--json", "--live"]
    code = cli.call([*words, "--out", str(tmp_path / "runs")])
    out, err = capfd.readouterr()
    assert (code, json.loads(out)["states"]) == (0, ["baseline", "attacked"])
    assert err.count("live page: http://127.0.0.1:") == 1
    assert (tmp_path / "runs" / "attacked" / "logs" / "live.log").exists()


@pytest.mark.scenario
def test_json_stays_alone_on_standard_output(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = cli.call([*RUN, "--live", "--json", "--steps", "3", "--out", str(tmp_path / "run")])
    out, err = capfd.readouterr()
    assert code == 0
    assert json.loads(out)["status"] == "finished"
    assert "live page: http://127.0.0.1:" in err
