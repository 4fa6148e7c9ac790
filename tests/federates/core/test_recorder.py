"""What a step gives is checked and kept, in blocks, without changing a bit."""

from pathlib import Path

import numpy as np
import pytest

from controllers.core.ports import Port
from federates.core.recorder import Recorder
from federates.core.run_store import RunStore
from federates.core.signals import read_signal
from federates.errors import OutputError
from federates.scenario.sections import Record

PORTS = (
    Port("v_pu", "pu", ("1.1", "1.2", "1.3")),
    Port("p_set_kw", "kW", ("pv",), initial=float("nan")),
)


def _step(k: int) -> dict[str, np.ndarray]:
    return {"v_pu": np.array([k, k + 0.1, k + 0.2]), "p_set_kw": np.array([np.nan])}


def test_every_port_is_kept_to_the_bit_over_many_blocks(tmp_path: Path) -> None:
    recorder = Recorder("f", PORTS, RunStore(tmp_path, Record()))
    n = 10_000  # more than two blocks
    for k in range(n):
        recorder.take(15.0 * k, _step(k))
    recorder.close()
    time_s, labels, v_pu = read_signal(tmp_path / "signals", "f.v_pu")
    assert labels == PORTS[0].labels
    assert time_s.tolist() == [15.0 * k for k in range(n)]
    assert v_pu.tobytes() == np.array([_step(k)["v_pu"] for k in range(n)]).tobytes()
    assert np.isnan(read_signal(tmp_path / "signals", "f.p_set_kw")[2]).all()


def test_every_nth_step_of_chosen_ports_and_labels(tmp_path: Path) -> None:
    record = Record(every=3, ports=["*.v_pu"], labels=["1.[23]"])
    recorder = Recorder("f", PORTS, RunStore(tmp_path, record))
    for k in range(10):
        recorder.take(float(k), _step(k))
    recorder.close()
    assert [p.name for p in (tmp_path / "signals").iterdir()] == ["f.v_pu.parquet"]
    time_s, labels, v_pu = read_signal(tmp_path / "signals", "f.v_pu")
    assert (time_s.tolist(), labels) == ([0.0, 3.0, 6.0, 9.0], ("1.2", "1.3"))
    assert v_pu[:, 0].tolist() == [k + 0.1 for k in (0, 3, 6, 9)]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"p_set_kw": np.zeros(1)}, "'v_pu': its step at time_s=7 gave nothing"),
        ({**_step(0), "v_pu": np.ones(2)}, r"'v_pu': .* gave shape \(2,\); .* shape \(3,\)"),
        ({**_step(0), "v_pu": [1.0, 1.0, 1.0]}, "'v_pu': .* gave a list"),
        (
            {**_step(0), "v_pu": np.array([1.0, np.inf, np.nan])},
            r"'v_pu': .* gave inf for '1.2' \(2 of 3 labels\); expected finite numbers",
        ),
    ],
)
def test_a_bad_output_is_refused_by_port_and_label(
    tmp_path: Path, outputs: dict[str, np.ndarray], message: str
) -> None:
    recorder = Recorder("f", PORTS, RunStore(tmp_path, Record()))
    with pytest.raises(OutputError, match=message):
        recorder.take(7.0, outputs)
    recorder.close()


def test_a_large_finite_number_is_not_refused(tmp_path: Path) -> None:
    recorder = Recorder("f", PORTS[:1], RunStore(tmp_path, Record()))
    recorder.take(0.0, {"v_pu": np.full(3, 1e200)})  # its square overflows
    recorder.close()
    assert read_signal(tmp_path / "signals", "f.v_pu")[2].tolist() == [[1e200] * 3]
