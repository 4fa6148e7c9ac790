"""The exact three-phase market: optimality, prices, and what OpenDSS makes of its dispatch."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from _three_phase_cases import Plant, market, meshed, plant, replay_pu
from _three_phase_reference import reference_cost
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.clearing import clear
from controllers.market.model.costs import tangent
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.problem import Bids, PortProblem
from controllers.market.three_phase.dispatch import ComplexArray, PortClearing, PortDispatch
from controllers.market.three_phase.exact import ThreePhaseMarket
from controllers.market.three_phase.objective import PortObjective
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.current_injection.model import PortLoads
from grid_models.current_injection.power_flow import power_flow
from grid_models.feeder.model import Der
from grid_models.opendss.ports import port_network

_TRANSFORMER_LOADING = 0.496
"""Of transformer XFM-1's first phase, where nothing limits it, per unit of its rating."""
BAND = {"v_min_pu": 0.95, "v_max_pu": 1.05}


@cache
def _plant(name: str) -> Plant:
    return plant(meshed("ieee13", "632", "675") if name == "meshed" else name, taps=0.5)


def _problem(name: str = "ieee13", **changes: float) -> PortProblem:
    totals = {"load_mw": 2.6, "flexible_mw": 0.4, "generation_mw": 1.2}
    return market(_plant(name), **{**totals, **BAND, **changes})


def _binding() -> PortProblem:
    """Return a problem in which a voltage and a line's limit bind, and the import has a slope."""
    problem = _problem(v_min_pu=1.003, import_slope=2.0)
    limits = 0.85 * problem.network.line_limit * _TRANSFORMER_LOADING
    return replace(problem, network=replace(problem.network, line_limit=limits))


@pytest.mark.parametrize("name", ["ieee13", "meshed"])
def test_opendss_replays_the_dispatch(name: str) -> None:
    problem = _problem(name)
    found = ThreePhaseMarket(problem.network).clear(problem)
    assert found.status == "solved"
    assert found.exactness.exact
    d, at = found.dispatch, _plant(name)
    assert replay_pu(at, d) < 1e-8
    p, q = at.circuit.source_kw_kvar()
    assert 1e3 * d.p_import == pytest.approx(p, abs=1e-4)
    assert 1e3 * d.q_import == pytest.approx(q, abs=1e-4)
    assert 1e3 * d.losses == pytest.approx(at.circuit.losses_kw(), abs=1e-4)


def _whole_price(
    objective: PortObjective, problem: PortProblem, found: PortClearing
) -> ComplexArray:
    """Return the ports' prices in one go: the Lagrangian's gradient through the Jacobian."""
    net, d = problem.network, found.dispatch
    flow = power_flow(net, net.share @ objective.devices(problem).injection(_powers(d)))
    line = net.line_w + net.line_z @ flow.i
    limits = net.z.conj().T @ ((found.v_high - found.v_low) * flow.v / np.abs(flow.v))
    limits = limits + net.line_z.conj().T @ (found.line_limit * line / np.abs(line))
    gradient = objective.gradient(problem, flow) + limits
    return -Sensitivity(net, flow).adjoint(gradient)


def _powers(d: PortDispatch) -> FloatArray:
    return np.stack([d.p_gen, d.q_gen, d.p_load + d.shed, d.shed])


def test_parts_of_the_prices_add_up_and_free_devices_earn_them() -> None:
    problem = _binding()
    market = ThreePhaseMarket(
        problem.network, weights={"voltage": 1.0}, voltage_price=20.0, tolerance=1e-10
    )
    found = market.clear(problem)
    d, bids = found.dispatch, problem.bids
    whole = _whole_price(market.objective, problem, found)
    for of_ports, own in ((found.port_prices.p, whole.real), (found.port_prices.q, whole.imag)):
        named = of_ports.energy + of_ports.losses + of_ports.voltage + of_ports.congestion
        assert np.abs(named + of_ports.voltage_objective - own).max() < 1e-10
    parts = found.prices.p
    assert np.abs(problem.network.share.T @ whole.real - d.lmp_p).max() < 1e-10
    assert (parts.energy == problem.marginal_import_price(d.p_import)).all()
    inside = (d.p_gen > 1e-6) & (d.p_gen < bids.p_gen_max - 1e-6)
    assert inside.any()
    assert np.abs(bids.alpha_p * d.p_gen - d.lmp_p)[inside].max() < 1e-6
    assert np.abs(parts.voltage).max() > 0.1
    assert np.abs(parts.voltage_objective).max() > 0.1


def test_a_der_of_no_power_gives_its_node_a_price() -> None:
    """Prices are at ports. A port may be anywhere, and changes nothing by being there."""
    problem, at = _problem(v_min_pu=1.003), _plant("ieee13")
    feeder = at.circuit.feeder
    ders = [
        Der(f"at_{bus.name}_{phase}", "inverter", bus.name, (phase,), 1.0, 0.0)
        for bus in feeder.buses.values()
        for phase in bus.phases
    ]
    wide = plant(feeder, taps=0.5, ders=ders).network
    assert set(wide.nodes) < set(wide.ports)
    narrow = problem.network
    there = [wide.load_terminal[x] for x in narrow.load_terminal]
    here = list(narrow.load_terminal.values())
    bids = {f.name: np.zeros(wide.size) for f in fields(problem.bids)}
    for name, values in bids.items():
        values[there] = getattr(problem.bids, name)[here]
    other = replace(problem, network=wide, bids=Bids(**bids))
    found = ThreePhaseMarket(wide).clear(other)
    own = ThreePhaseMarket(narrow).clear(problem)
    assert found.dispatch.cost == pytest.approx(own.dispatch.cost, rel=1e-9)
    of_port = dict(zip(wide.ports, found.port_prices.p.total.tolist(), strict=True))
    for port, price in zip(narrow.ports, own.port_prices.p.total.tolist(), strict=True):
        assert of_port[port] == pytest.approx(price, rel=1e-6)
    assert [of_port[f"650.{k}"] for k in (1, 2, 3)] == pytest.approx([60.0] * 3, abs=1e-4)
    assert of_port["680.1"] == pytest.approx(of_port["671.1"], rel=1e-4)


def test_what_an_open_switch_cuts_off_has_no_part_in_the_dispatch() -> None:
    circuit = plant("ieee13", taps=0.5).circuit
    switch = circuit.feeder.switches[0].name
    at = Plant(circuit, port_network(circuit, {switch: False}))
    problem = market(at, load_mw=2.6, flexible_mw=0.4, generation_mw=1.2, **BAND, alpha_q=5.0)
    found = ThreePhaseMarket(at.network, weights={"voltage": 1.0}, voltage_price=9.0).clear(problem)
    dead, d = ~at.network.live, found.dispatch
    assert dead.any()
    for values in (d.p_load, d.q_load, d.p_gen, d.q_gen, d.lmp_p, d.lmp_q):
        assert not values[dead].any()
        assert np.isfinite(values).all()
    balance = d.p_import + d.p_gen.sum() - d.p_load.sum() - d.losses
    assert balance == pytest.approx(0.0, abs=1e-9)


def test_it_is_a_way_to_clear_by_name() -> None:
    problem = _problem()
    found = clear(problem, "three-phase", voltage_price=3.0, weights={"voltage": 0.0})
    assert found.dispatch.cost == pytest.approx(
        ThreePhaseMarket(problem.network).clear(problem).dispatch.cost
    )
    with pytest.raises(ControllerError, match=r"unknown option 'voltage_prize'.*voltage_price"):
        clear(problem, "three-phase", voltage_prize=3.0)


def _inflexible(problem: PortProblem, terminal: int) -> PortProblem:
    low = problem.bids.p_load_min.copy()
    low[terminal] = problem.bids.p_load0[terminal]
    return replace(problem, bids=replace(problem.bids, p_load_min=low))


def _with_more(problem: PortProblem, terminal: int, extra: complex) -> PortProblem:
    """Return the problem with more load at a terminal whose load is not flexible."""
    more = np.zeros(problem.network.size, dtype=np.complex128)
    more[terminal] = extra
    b, p, q = problem.bids, more.real, more.imag
    bids = replace(
        b,
        p_load0=b.p_load0 + p,
        q_load0=b.q_load0 + q,
        p_load_min=b.p_load_min + p,
        p_load_max=b.p_load_max + p,
    )
    return replace(problem, bids=bids)


@pytest.mark.parametrize("terminal", ["671.1-2", "634.2", "675.3"])
def test_prices_are_slopes_of_the_optimal_cost(terminal: str) -> None:
    """With the voltage objective, a voltage limit, a line's limit and a sloped import price."""
    problem = _binding()
    k = problem.network.terminals.index(terminal)
    problem = _inflexible(problem, k)

    def solved(at: PortProblem) -> PortClearing:
        market = ThreePhaseMarket(
            at.network, weights={"voltage": 1.0}, voltage_price=20.0, tolerance=1e-11
        )
        return market.clear(at)

    found, step = solved(problem), 1e-4
    assert found.v_low.any()
    assert found.line_limit.any()
    for unit, price in ((1.0, found.dispatch.lmp_p[k]), (1j, found.dispatch.lmp_q[k])):
        up, down = (solved(_with_more(problem, k, s * step * unit)) for s in (1, -1))
        slope = (up.dispatch.cost - down.dispatch.cost) / (2.0 * step)
        assert slope == pytest.approx(price, abs=1e-5 * np.abs(found.dispatch.lmp_p).max())


def test_with_loads_that_depend_on_the_voltage_prices_are_slopes_too() -> None:
    problem = _problem()
    own = problem.bids.p_load0 + 1j * problem.bids.q_load0
    ports = 0.5 * problem.network.share @ own
    fixed = PortLoads(0.2 * ports, 0.5 * ports, 0.3 * ports, np.abs(problem.network.w_port))
    k = problem.network.terminals.index("675.1")
    problem = _inflexible(replace(problem, fixed=fixed, v_min_pu=1.003), k)

    def solved(at: PortProblem) -> PortClearing:
        return ThreePhaseMarket(at.network, tolerance=1e-11).clear(at)

    found, step = solved(problem), 1e-4
    assert found.v_low.any()
    assert found.iterations <= 5  # quadratic convergence: the Hessian has the loads' part
    up, down = (solved(_with_more(problem, k, s * step)) for s in (1, -1))
    slope = (up.dispatch.cost - down.dispatch.cost) / (2.0 * step)
    assert slope == pytest.approx(found.dispatch.lmp_p[k], abs=1e-5 * found.dispatch.lmp_p[k])


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(["ieee13", "meshed"]),
    load_mw=st.floats(2.0, 3.0),
    generation_mw=st.floats(0.0, 3.0),
    v_max_pu=st.floats(1.04, 1.05),
    alpha_q=st.sampled_from([0.0, 5.0, 50.0]),
)
def test_no_small_change_of_a_dispatch_is_cheaper(
    seed: int, name: str, load_mw: float, generation_mw: float, v_max_pu: float, alpha_q: float
) -> None:
    """Optimality by trial: costs and limits of other dispatches, from the power flow alone."""
    problem = _problem(
        name,
        seed=seed,
        load_mw=load_mw,
        generation_mw=generation_mw,
        v_max_pu=v_max_pu,
        alpha_q=alpha_q,
    )
    market = ThreePhaseMarket(problem.network)
    found = market.clear(problem)
    d, net = found.dispatch, problem.network
    devices = market.objective.devices(problem)
    x = _powers(d)
    assert (x >= devices.low - 1e-12).all()
    assert (x <= devices.high + 1e-12).all()
    held = np.delete(np.abs(d.voltage), net.source_nodes)
    assert (held <= v_max_pu + 1e-8).all()
    # What limits are worth is charged where a trial exceeds them.
    worth = np.concatenate([found.v_high, found.v_low])
    rng = np.random.default_rng(seed)
    for size in (1e-4, 1e-2):
        trial = np.clip(x + size * rng.standard_normal(x.shape), devices.low, devices.high)
        flow = power_flow(net, net.share @ devices.injection(trial))
        v = np.abs(flow.v)
        over = np.concatenate([v - v_max_pu, problem.v_min_pu - v])
        charged = market.objective.cost(problem, devices, trial, flow) + float(worth @ over)
        assert charged >= d.cost - 1e-7 * abs(d.cost)


def test_the_next_clearing_starts_from_the_last() -> None:
    problem = _binding()
    market = ThreePhaseMarket(problem.network)
    first, again = market.clear(problem), market.clear(problem)
    assert again.iterations == 0
    assert again.dispatch.cost == pytest.approx(first.dispatch.cost, rel=1e-12)


def test_a_lower_set_point_lowers_voltages_and_load_follows_its_price() -> None:
    """Conservation voltage reduction: a set-point below 1 and a weight."""
    problem = _problem(v_min_pu=0.9)
    means = []
    for v_set in (1.0, 0.95):
        market = ThreePhaseMarket(
            problem.network, weights={"voltage": 1.0}, voltage_price=500.0, v_set_pu=v_set
        )
        means.append(np.abs(market.clear(problem).dispatch.voltage).mean())
    assert means[1] < means[0] - 1e-3


def test_load_is_shed_when_nothing_else_is_left_and_flexible_load_first() -> None:
    problem = _problem(generation_mw=0.0)
    critical = 0.5 * problem.bids.p_load0
    limited = replace(
        problem, import_max=1.8, import_min=0.0, shed_price=1e4, p_load_floor=critical
    )
    found = ThreePhaseMarket(problem.network).clear(limited)
    d = found.dispatch
    assert d.p_import == pytest.approx(1.8, abs=1e-9)
    assert d.shed.sum() > 0.1
    gone = d.shed > 1e-7
    assert np.abs((d.p_load + d.shed - limited.bids.p_load_min)[gone]).max() < 1e-7
    assert (d.p_load >= critical - 1e-9).all()
    assert found.import_limit > 0.0
    # One more pu of load costs what is shed for it, wherever shedding has not reached its floor.
    inside = gone & (d.p_load > critical + 1e-7)
    own = found.prices.of_load(tangent(limited.bids))
    assert own[inside] == pytest.approx(1e4, rel=1e-6)
    with pytest.raises(NoDispatchError, match="upper limit of the import stands out"):
        ThreePhaseMarket(problem.network).clear(replace(limited, p_load_floor=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_max_pu": 1.02}, "the upper voltage limit at node '650r.3' stands out"),
        ({"import_min": 9.0}, "the lower limit of the import stands out"),
    ],
)
def test_where_there_is_no_dispatch_the_limit_is_named(
    change: dict[str, float], message: str
) -> None:
    problem = replace(_problem(), **change)
    market = ThreePhaseMarket(problem.network)
    with pytest.raises(NoDispatchError, match=message):
        market.clear(problem)
    # The next one is cleared as if nothing had been.
    assert market.clear(_problem()).status == "solved"


def test_more_load_than_the_feeder_can_carry_is_no_dispatch() -> None:
    problem = _problem(load_mw=80.0)
    with pytest.raises(NoDispatchError, match="no power flow, even with the least load"):
        ThreePhaseMarket(problem.network).clear(problem)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"volts": 1.0}}, "unknown weight 'volts'.*did you mean 'voltage'"),
        ({"weights": {"voltage": -1.0}}, "weights: voltage.*0 or more"),
        ({"weights": [1.0]}, "option 'weights'.*some of disutility"),
        ({"weights": dict.fromkeys(("disutility", "generation", "losses"), 0.0)}, "all weights"),
        ({"voltage_price": "high"}, "option 'voltage_price'.*a number, 0 or more"),
        ({"v_set_pu": float("nan")}, "option 'v_set_pu'"),
        ({"v_set_pu": 0}, "option 'v_set_pu'.*above 0"),
        ({"v_set_pu": 0.95}, "v_set_pu': is not used: the voltage has no weight"),
        ({"voltage_price": 3.0}, "voltage_price': is not used: the voltage has no weight"),
        ({"weights": {"voltage": 1.0}, "v_set_pu": 0.95}, "weighs nothing: voltage_price is 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0; expected more than 0"),
        ({"tolerance": 1e9}, r"tolerance is 1e\+09; expected at most 1e-05"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        ThreePhaseMarket(_plant("ieee13").network, **options)


def test_bids_without_cost_reach_an_import_that_is_given() -> None:
    """Steps along a limit leave it by its curvature: cut short, they took 17 iterations."""
    wide = {"v_min_pu": 0.9, "v_max_pu": 1.08, "import_price": 1e5, "load_mw": 3.466}
    problem = _problem(**wide, flexible_mw=0.7, generation_mw=1.0)
    bids = problem.bids
    beta = np.where(np.arange(problem.network.size) % 2 == 0, 0.0, bids.beta)
    wanted = 0.6 * float(bids.p_load0.sum())
    change = {"bids": replace(bids, beta=beta), "import_min": wanted, "import_max": wanted}
    found = ThreePhaseMarket(problem.network).clear(replace(problem, **change))
    assert found.status == "solved"
    assert found.iterations <= 8
    assert found.dispatch.p_import == pytest.approx(wanted, abs=1e-8)


def test_flat_bids_under_a_steep_import_price_are_not_called_infeasible() -> None:
    """The cost is a narrow valley: steps along it are long, and were cut short until it gave up."""
    terms = {"import_slope": 1e4, "alpha_q": 0.0, "v_min_pu": 0.9, "v_max_pu": 1.08}
    problem = _problem(**terms, load_mw=3.466, flexible_mw=1.4, generation_mw=3.5)
    bids, n, wanted = problem.bids, np.arange(problem.network.size), 0.7 * 3.466
    alpha_p, beta = np.where(n % 3, bids.alpha_p, 0.0), np.where(n % 2, bids.beta, 0.0)
    flat = replace(bids, alpha_p=alpha_p, beta=beta)
    problem = replace(problem, bids=flat, import_min=wanted, import_max=wanted)
    found = ThreePhaseMarket(problem.network).clear(problem)
    assert found.dispatch.p_import == pytest.approx(wanted, abs=1e-8)
    assert found.dispatch.cost == pytest.approx(29577.9298, rel=1e-6)  # Ipopt's


def test_problems_that_are_none_are_refused() -> None:
    problem = _problem()
    market = ThreePhaseMarket(problem.network)
    for change, message in (
        ({"network": _plant("meshed").network}, "of another network"),
        ({"import_min": 2.0, "import_max": 1.0}, "import_min is 2.0.*at most import_max"),
        ({"p_load_floor": problem.bids.p_load0 + 1.0, "shed_price": 1.0}, "p_load_floor is"),
        ({"p_load_floor": np.zeros(2), "shed_price": 1.0}, "shape"),
        ({"p_load_floor": 0.0 * problem.bids.p_load0}, "shed_price is inf"),
    ):
        with pytest.raises(MarketError, match=message):
            market.clear(replace(problem, **change))


def test_ipopt_finds_the_same_cost_on_the_full_program() -> None:
    pytest.importorskip("casadi", reason="pip install casadi")
    problem = _binding()
    cost = ThreePhaseMarket(problem.network).clear(problem).dispatch.cost
    assert cost == pytest.approx(reference_cost(problem), rel=1e-6)
