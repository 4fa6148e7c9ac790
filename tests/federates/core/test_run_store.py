"""The run folder: a manifest that is always whole, events from many writers, no run overwritten."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from controllers.core.ports import Port
from federates.core import run_store
from federates.core.run_store import Manifest, RunStore, new_run_dir, write_json
from federates.scenario.schema import scenario_from
from federates.scenario.sections import Record
from federates.scenario.yaml_source import load_yaml

TEXT = "seed: 4\nfederates: {feeder: {kind: feeder}}\n"


def test_manifest_is_whole_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {"n": 0})
    stop = threading.Event()
    broken: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads(path.read_text())
            except (ValueError, OSError) as error:
                broken.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        write_json(path, {"n": n, "padding": "x" * (n * 37 % 5000)})
    stop.set()
    reader.join()
    assert broken == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json"]


def test_a_failed_rewrite_keeps_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {"status": "running"})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"status": float("nan")})
    assert json.loads(path.read_text()) == {"status": "running"}


def test_manifest_says_it_did_not_finish_until_it_does(tmp_path: Path) -> None:
    scenario = scenario_from(load_yaml(Path("s.yaml"), TEXT))
    manifest = Manifest(tmp_path, scenario, "thread", 10)
    running = json.loads((tmp_path / "manifest.json").read_text())
    assert (running["status"], running["seed"], running["steps"]) == ("running", 4, 10)
    assert "not finished" in running["reason"]
    assert running["scenario"] == scenario.resolved()
    assert running["versions"]["helics"].startswith("3.")
    manifest.finish("failed", "feeder: gone")
    ended = json.loads((tmp_path / "manifest.json").read_text())
    assert (ended["status"], ended["reason"]) == ("failed", "feeder: gone")


def test_events_of_many_writers_are_whole_lines(tmp_path: Path) -> None:
    def write(name: str) -> None:
        store = RunStore(tmp_path, Record())
        for k in range(50):
            store.event(name, "tick", float(k), text="x" * 200)

    threads = [threading.Thread(target=write, args=(f"f{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(x) for x in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(lines) == 200
    assert {line["federate"] for line in lines} == {"f0", "f1", "f2", "f3"}


@pytest.mark.parametrize(
    ("record", "files"),
    [
        (Record(), ["feeder.p_kw.arrows", "feeder.v_pu.arrows"]),
        (Record(ports=["*.v_pu"]), ["feeder.v_pu.arrows"]),
        (Record(ports=[]), []),
        (Record(labels=["65.*"]), ["feeder.v_pu.arrows"]),
    ],
)
def test_only_what_is_asked_for_is_recorded(
    tmp_path: Path, record: Record, files: list[str]
) -> None:
    store = RunStore(tmp_path, record)
    ports = (Port("v_pu", "pu", ("65.1", "66.1")), Port("p_kw", "kW", ("pv_1",)))
    writers = [w for port in ports if (w := store.writer("feeder", port)) is not None]
    assert sorted(p.name for p in store.signals.iterdir()) == files
    for writer in writers:
        writer.close()


def test_labels_are_picked_by_glob(tmp_path: Path) -> None:
    store = RunStore(tmp_path, Record(labels=["65.*", "pv_?"]))
    writer = store.writer("f", Port("x", "pu", ("65.1", "66.1", "pv_1", "65.3")))
    assert writer is not None
    writer.write(np.zeros(1), np.array([[1.0, 2.0, 3.0, 4.0]]))
    writer.close()
    _, labels, values = run_store_read(store)
    assert (labels, values.tolist()) == (("65.1", "pv_1", "65.3"), [[1.0, 3.0, 4.0]])


def run_store_read(store: RunStore) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    from federates.core.signals import read_signal

    return read_signal(store.signals, "f.x")


def test_a_run_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {new_run_dir("study", None) for _ in range(5)}
    assert len(folders) == 5
    out = tmp_path / "mine"
    assert new_run_dir("study", out) == out
    (out / "manifest.json").write_text("{}")
    with pytest.raises(FileExistsError, match="mine"):
        new_run_dir("study", out)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        new_run_dir("study", tmp_path / "file")


def test_unknown_package_has_no_version() -> None:
    assert run_store._version("no-such-package-here") is None
