"""Who takes part in a market on a three-phase network."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.market.model.participants import Costs, Participants, aggregate, participants_of
from grid_models.catalog import open_circuit
from grid_models.feeder.model import Der
from grid_models.opendss.ports import port_network

DERS = (
    Der("gen", "inverter", "675", (1, 2, 3), 300.0, 250.0),
    Der("load_a", "flexible_load", "675", (1,), 60.0, -20.0, -50.0),
    Der("load_d", "flexible_load", "611", (3,), 30.0, 0.0, -20.0),
)
COSTS = Costs({"*": 72.0}, (100.0, 200.0))


def _participants(closed: dict[str, bool] | None = None, critical_pu: float = 0.0) -> Participants:
    circuit = open_circuit("ieee13", DERS)
    network = port_network(circuit, closed)
    return participants_of(circuit.feeder, DERS, COSTS, 1, network, critical_load_pu=critical_pu)


def test_an_operator_is_a_terminal_with_the_loads_that_are_connected_there() -> None:
    table = _participants()
    owner = {d.name: table.buses[i] for d, i in zip(table.ders, table.owner, strict=True)}
    assert owner == {"gen": "675.1.2.3", "load_a": "675.1", "load_d": "611"}
    own_kw = dict(zip(table.buses, 1000.0 * table.fixed_p_mw, strict=True))
    assert own_kw["675.1"] == pytest.approx(485.0)
    assert own_kw["675.1.2.3"] == 0.0
    assert own_kw["671.1-2"] > 0.0
    total = sum(load.kw for load in open_circuit("ieee13").feeder.loads)
    assert sum(own_kw.values()) == pytest.approx(total)


def test_critical_load_is_not_offered() -> None:
    table, all_of_it = _participants(critical_pu=0.7), _participants()
    by_name = dict(zip((d.name for d in table.ders), range(3), strict=True))
    a, d = by_name["load_a"], by_name["load_d"]
    assert 1000.0 * table.least_mw[[a, d]] == pytest.approx([35.0, 14.0])
    assert 1000.0 * all_of_it.least_mw[[a, d]] == pytest.approx([20.0, 0.0])
    assert 1000.0 * table.floor_mw[[a, d]] == pytest.approx([20.0, 0.0])
    assert np.array_equal(aggregate(table)[:, 0], aggregate(all_of_it)[:, 0])


def test_what_an_open_switch_cuts_off_cannot_take_part() -> None:
    with pytest.raises(ControllerError, match=r"675' is cut off in 'ieee13'"):
        _participants({"sw1": False})
