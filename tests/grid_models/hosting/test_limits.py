import numpy as np
import pytest

from grid_models.base.errors import FeederError
from grid_models.base.options import parse_options
from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import load_feeder
from grid_models.feeder.ratings import ratings_file, with_ratings
from grid_models.hosting.limits import LimitCheck, Limits
from grid_models.opendss.circuit import Circuit


def test_excess_is_that_of_the_engine() -> None:
    feeder = with_ratings(load_feeder("ieee123"), ratings_file("ieee123-assumed"))
    circuit = Circuit.from_feeder(feeder)
    batched = BatchedFeeder(circuit)
    limits = Limits(v_min_pu=0.97, v_max_pu=1.04, reverse_kw=0.0)
    check = LimitCheck(batched.network, limits)
    assert check.kinds == ("overvoltage", "undervoltage", "line", "transformer", "reverse power")
    found = check.excess(batched.solve(np.stack([batched.nominal_kva, -0.6 * batched.nominal_kva])))
    for n, factor in enumerate((1.0, -0.6)):
        circuit.set_loads(factor * circuit.load_kw, factor * circuit.load_kvar)
        circuit.solve()
        held = ~np.isin(circuit.node_labels, [f"150.{k}" for k in (1, 2, 3)])
        labels, v_pu = np.array(circuit.node_labels)[held], circuit.v_pu()[held]
        assert found.value[n, 0] == pytest.approx(v_pu.max() - 1.04, abs=1e-6)
        assert found.value[n, 1] == pytest.approx(0.97 - v_pu.min(), abs=1e-6)
        top = labels[int(v_pu.argmax())]
        assert check.labels("overvoltage")[found.element[n, 0]] == top
        kw, _ = circuit.source_kw_kvar()
        assert found.value[n, 4] == pytest.approx(-kw, abs=0.01)
        engine = circuit.engine
        most = 0.0
        for line in feeder.lines:
            engine.dss.Circuit.SetActiveElement(f"line.{line.name}")
            amps = np.array(engine.dss.CktElement.CurrentsMagAng()).reshape(-1, 2)[
                : len(line.phases), 0
            ]
            most = max(most, amps.max() / line.norm_amps)
        assert found.value[n, 2] == pytest.approx(most - 1.0, abs=1e-5)


def test_a_feeder_without_ratings_is_refused_unless_currents_do_not_count() -> None:
    network = BatchedFeeder(Circuit.from_feeder(load_feeder("ieee123"))).network
    with pytest.raises(FeederError, match="no line of the feeder has a rating"):
        LimitCheck(network, Limits())
    assert "line" not in LimitCheck(network, Limits(line_pu=None)).kinds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"v_min_pu": 1.05}, "is not below v_max_pu"),
        ({"short_time_pu": 0.9}, "below the continuous"),
        ({"line_pu": 0.0}, "line_pu"),
        ({"v_mx_pu": 1.0}, "v_max_pu"),
    ],
)
def test_limits_that_contradict_or_do_not_exist_are_refused(values: dict, words: str) -> None:
    with pytest.raises(FeederError) as error:
        parse_options(Limits, values, "hosting.limits")
    assert words in str(error.value)
