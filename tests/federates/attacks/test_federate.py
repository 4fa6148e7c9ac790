"""One attack federate on its own: what it lets through, and what it writes down of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.core.mail import Mail
from controllers.core.ports import Port
from federates.attacks.federate import AttackFederate
from federates.attacks.plan import SitePlan
from federates.attacks.signal.forge import ForgedChannel, ForgePlan, ForgingStep
from federates.attacks.truth import read_truth
from federates.clock import Timing, to_ns
from federates.core.context import FederateContext
from federates.core.run_store import RunStore
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.sections import Record

IN, OUT = "feeder-v_pu", "seen"
Rows = list[dict[str, Any]]
Forge = Callable[..., tuple[np.ndarray, Rows]]


def _spec(action: dict[str, Any], **keys: Any) -> AttackSpec:
    step = {
        "id": "s",
        "layer": "signal",
        "target": {"port": "feeder.v_pu"},
        "trigger": {"at_s": 1.0},
        "action": action,
    }
    return AttackSpec.model_validate({"id": "a", "seed": 7, "steps": [step | keys]})


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """Lead values through a federate, one row per second; what was seen, and the truth."""

    def go(
        true: Sequence[Sequence[float]] | np.ndarray, action: dict[str, Any], **keys: Any
    ) -> tuple[np.ndarray, Rows]:
        rows = np.asarray(true, dtype=np.float64)
        n = rows.shape[1]
        labels = tuple(f"n{k}" for k in range(n))
        spec, at = _spec(action, **keys), np.arange(n)
        forging = tuple(ForgingStep(0, c, at) for c in (None, *range(len(spec.steps[0].conceal))))
        channel = ForgedChannel("feeder", "v_pu", "pu", labels, IN, at, OUT)
        plan = SitePlan(
            "attack",
            Timing(to_ns(1.0)),
            0,
            (Port(IN, "pu", labels),),
            parts=(ForgePlan((channel,), forging),),
        )
        context = FederateContext("attack", plan.timing, None, None, 1)  # type: ignore[arg-type]
        federate = AttackFederate(context, spec, plan, AttackSchedule.of(spec))
        (tmp_path / "run").mkdir()
        federate.start(RunStore(tmp_path / "run", Record()))
        seen = [
            federate.step(float(t), {IN: row}, Mail.empty()).outputs[OUT]
            for t, row in enumerate(rows)
        ]
        federate.close()
        return np.array(seen), read_truth(tmp_path / "run").to_pylist()

    return go


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.75, 1.0])
def test_noise_of_some_values_is_as_normal_as_noise_of_all(
    forge: Forge, probability: float
) -> None:
    n = 20_000
    seen, _ = forge(np.zeros((2, n)), {"kind": "noise", "sigma": 2.0}, probability=probability)
    assert not seen[0].any()  # not yet
    hit = seen[1][seen[1] != 0.0]
    assert abs(len(hit) / n - probability) < 5 * np.sqrt(0.25 / n)
    # Five standard errors of the mean and of the standard deviation of a normal sample.
    assert abs(hit.mean()) < 5 * 2.0 / np.sqrt(len(hit))
    assert abs(hit.std() - 2.0) < 5 * 2.0 / np.sqrt(2 * len(hit))
    assert (hit < 0).mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(len(hit)))


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "bias", "value": 0.0},
        {"kind": "scale", "factor": 1.0},
        {"kind": "ramp", "rate_per_s": 0.0},
        {"kind": "noise", "sigma": 0.0},
        {"kind": "set", "value": 3.0},
        {"kind": "freeze"},
        {"kind": "drop"},
        {"kind": "delay", "delay_s": 1.0},
        {"kind": "replay", "window": {"from_s": 0.0, "to_s": 1.0}},
        {"kind": "swap"},
    ],
)
def test_what_is_shown_as_it_is_is_not_affected(forge: Forge, action: dict[str, Any]) -> None:
    seen, truth = forge(np.full((4, 3), 3.0), action)
    assert (seen == 3.0).all()
    assert truth == []


def test_a_bit_is_a_difference_and_no_value_is_the_same_as_none(forge: Forge) -> None:
    true = [[0.0, -2.0, np.nan, 0.0], [0.0, -2.0, np.nan, 0.0]]
    _, truth = forge(true, {"kind": "scale", "factor": 0.0})
    assert [(r["label"], r["true_value"], str(r["seen_value"])) for r in truth] == [
        ("n1", -2.0, "-0.0")
    ]


def test_only_the_values_that_differ_are_written_down(forge: Forge) -> None:
    true = np.array([[1.0, 2.0, 3.0]] * 2 + [[1.0, 5.0, 3.0]])
    seen, truth = forge(true, {"kind": "freeze"})
    assert seen.tolist() == [[1.0, 2.0, 3.0]] * 3
    assert [(r["time_s"], r["label"], r["true_value"], r["seen_value"]) for r in truth] == [
        (2.0, "n1", 5.0, 2.0)
    ]
    assert {(r["federate"], r["port"], r["step"]) for r in truth} == {("feeder", "v_pu", "s")}


@pytest.mark.parametrize(("shown", "rows"), [(1.0, 0), (9.0, 2)])
def test_a_forged_value_that_is_concealed_again_counts_as_it_was_seen(
    forge: Forge, shown: float, rows: int
) -> None:
    conceal = [{"port": "feeder.v_pu", "show": {"value": shown}}]
    seen, truth = forge([[1.0], [1.0], [1.0]], {"kind": "bias", "value": 0.5}, conceal=conceal)
    assert seen[1:, 0].tolist() == [shown, shown]
    assert [r["seen_value"] for r in truth] == [shown] * rows
