"""Components of OEDI-SI in a federation: the example, what goes wrong with one, and a sensor."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.errors import RunError
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "federates"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLES, tmp_path / "mine")
    return tmp_path / "mine" / "oedisi_droop.yaml"


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_a_component_reads_topology_and_voltages_and_commands_pv(
    ran, example: Path, placement: str
) -> None:
    run = ran(example, placement=placement)
    v_pu, q_kvar = run.values("feeder.v_pu"), run.values("feeder.q_kvar")
    feeder = Assembly(load_scenario(example)).site("feeder").feeder
    assert q_kvar.shape == (30, 3)
    assert (q_kvar[0] == 0.0).all()
    for der, q in zip(feeder.ders, q_kvar.T, strict=True):
        at = [feeder.node_labels.index(label) for label in der.labels]
        # 4 kvar per kW and pu on each phase; what is computed from step k acts in step k + 1.
        wanted = 4.0 * der.p_max_kw * (1.0 - v_pu[:-1, at]).mean(axis=1)
        np.testing.assert_allclose(q[1:], wanted, rtol=1e-9)
    assert np.abs(q_kvar).max() > 50.0


# Edits of the component: old text, new text, words of the message.
WRONG = {
    "JSON that is cut off": ("json.dumps(message)", "json.dumps(message)[:-2]", "not JSON"),
    "another unit": ('"units": "kVAR"', '"units": "VAR"', "values in 'VAR'; expected 'kVAR'"),
    "other ids": ("[node for node,", "[node + '1' for node,", "unknown id pvsystem.* at 634.11"),
    "some ids only": ("in pv],\n", "in pv[1:]],\n", "no value for PVSystem"),
    "NaN": ("gain * kw", "float('nan') * kw", "7 of 7 values are no finite numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_message_ends_the_run_and_names_the_topic(ran, example: Path, case: str) -> None:
    old, new, words = WRONG[case]
    _edit(example.with_name("oedisi_droop") / "oedisi_droop.py", old, new)
    with pytest.raises(RunError, match=rf"federate 'droop': droop/powers_imag: .*{words}"):
        ran(example, placement="thread", steps=3)


def test_a_late_message_acts_when_it_comes_and_the_last_one_holds(ran, example: Path) -> None:
    script = example.with_name("oedisi_droop") / "oedisi_droop.py"
    _edit(
        script,
        "    pub_powers.publish(",
        "    if granted % 180.0 < 2.0:\n        pub_powers.publish(",
    )
    late = ran(example, placement="thread", steps=9).values("feeder.q_kvar")
    assert (late[0] == 0.0).all()
    for first in (1, 4):
        assert (late[first] != late[first - 1]).all()
        assert (late[first : first + 3] == late[first]).all()


def test_a_component_that_dies_is_named(ran, example: Path) -> None:
    script = example.with_name("oedisi_droop") / "oedisi_droop.py"
    _edit(script, "    pub_powers.publish(", "    import os; os._exit(7)\n    pub_powers.publish(")
    with pytest.raises(RunError, match=r"federate 'droop': its program ended \(exit code 7\)"):
        ran(example, placement="process", steps=5)
