"""A feeder whose lines change the numbers of phases is controlled as the one where they stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal

pytestmark = pytest.mark.scenario

HEAD = "clear\nnew circuit.road basekv=12.47 bus1=src r1=.1 x1=.6 r0=.1 x0=.6\n"
TAIL = "\nset voltagebases=[12.47]\ncalcvoltagebases\n"
LINE = "rmatrix=[.4|.1 .4|.1 .1 .4] xmatrix=[1|.4 1|.4 .4 1] cmatrix=[9|-2 9|-2 -2 9] length=3"
# Number of phases A, B, C at each bus.
PLAIN = {"a": (1, 2, 3), "b": (1, 2, 3), "c": (1, 2, 3)}
RENAMED = {"a": (2, 3, 1), "b": (4, 6, 5), "c": (3, 1, 2)}
KW = {"a": (300, 500, 100), "b": (200, 0, 700), "c": (400, 300, 200)}
GRID = [
    "grid.ders=[{kind: pv, at: load_phases, total_kw: 9000, kva_per_kw: 1.1136}]",
    "time.start_s=43200",
]


def master(folder: Path, numbers: dict[str, tuple[int, ...]]) -> Path:
    rows, before = [], ("src", (1, 2, 3))
    for bus, own in numbers.items():
        ends = [".".join(map(str, (name, *nodes))) for name, nodes in (before, (bus, own))]
        rows.append(f"new line.{bus} bus1={ends[0]} bus2={ends[1]} {LINE}")
        before = (bus, own)
    for bus, kw in KW.items():
        for node, p in zip(numbers[bus], kw, strict=True):
            if p:
                rows.append(f"new load.{bus}{node} bus1={bus}.{node} phases=1 kv=7.2 kw={p} pf=.95")
    folder.mkdir()
    path = folder / "master.dss"
    path.write_text(HEAD + "\n".join(rows) + TAIL)
    return path


@pytest.mark.parametrize("scenario", ["voltvar-ieee123", "dmpc-ieee123"])
def test_control_does_not_depend_on_numbers(ran, tmp_path: Path, scenario: str) -> None:
    found = []
    for name, numbers in (("plain", PLAIN), ("renamed", RENAMED)):
        path = master(tmp_path / name, numbers)
        run = ran(scenario, *GRID, f"grid.model={path}", steps=12)
        values = {}
        for port in ("v_pu", "q_kvar", "p_kw"):
            _, labels, series = read_signal(run.signals, f"feeder.{port}")
            at = {label: i for i, label in enumerate(labels)}
            names = [
                (f"{bus}.{n}" if port == "v_pu" else f"pv_{bus}_{n}")
                for bus in KW
                for n, kw in zip(numbers[bus], KW[bus], strict=True)
                if kw
            ]
            values[port] = series[:, [at[x] for x in names]]
        found.append(values)
    plain, renamed = found
    assert np.abs(plain["q_kvar"][-1]).max() > 20.0
    for port, tolerance in (("v_pu", 1e-5), ("q_kvar", 0.1), ("p_kw", 0.1)):
        np.testing.assert_allclose(renamed[port], plain[port], atol=tolerance, err_msg=port)
