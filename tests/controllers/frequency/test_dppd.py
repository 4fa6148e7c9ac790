"""DPPD against a central solver, as a loop and as agents, over imperfect mail."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.sample_site import sample_site
from controllers.frequency.controller import Dppd, SubgradientAlc
from controllers.frequency.iteration import DppdLoop
from controllers.frequency.network import ControlNetwork, control_network
from controllers.frequency.optimum import central_optimum
from controllers.frequency.options import DppdOptions

LIMITS = {"16-17-1": 383.0, "6-11-1": 410.0}
LOST = ("37", "39")


def crash(network: ControlNetwork) -> np.ndarray:
    """Return P with the net injections of two buses lost."""
    p = network.injection_pu.copy()
    p[[network.buses.index(bus) for bus in LOST]] = 0.0
    return p


def iterate(loop: DppdLoop, p: np.ndarray, steps: int) -> np.ndarray:
    omega = np.zeros(len(p))
    for _ in range(steps):
        demand = loop.step(omega, p)
    return demand


def by_marginal_cost(network: ControlNetwork, total: float) -> np.ndarray:
    """Return the optimum without limits of lines: one price for all, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(100):
        price = 0.5 * (low + high)
        free = np.sign(price) * np.maximum(np.abs(price) - network.absolute, 0.0)
        demand = np.clip(free / (2.0 * network.quadratic), -network.limit_pu, network.limit_pu)
        low, high = (price, high) if demand.sum() < total else (low, price)
    return demand


@pytest.mark.parametrize("limits", [None, LIMITS])
def test_loop_reaches_the_optimum(limits: dict[str, float] | None) -> None:
    network = control_network("ieee39", limits)
    p = crash(network)
    best = central_optimum(network, p)
    found = iterate(DppdLoop(network, DppdOptions()), p, 1500)
    assert np.abs(found - best).max() < 1e-6
    if limits is None:
        assert np.abs(found - by_marginal_cost(network, p.sum())).max() < 1e-6
        return
    flow = network.line_factor @ (p - found)
    assert np.abs(flow) == pytest.approx(network.line_limit_pu, abs=1e-6)  # both bind


def test_loads_at_their_limits_and_at_their_kink() -> None:
    """A large imbalance drives loads to their limits, a small one leaves some at 0."""
    network = control_network("ieee39", None)
    for total, at_limit, at_kink in ((-11.0, 3, 0), (-0.2, 0, 7)):
        p = network.injection_pu.copy()
        p[0] += total
        found = iterate(DppdLoop(network, DppdOptions()), p, 4000)
        best = by_marginal_cost(network, total)
        assert np.abs(found - best).max() < 1e-6
        flexible = network.limit_pu > 0.0
        assert np.count_nonzero(best[flexible] == -network.limit_pu[flexible]) >= at_limit
        assert np.count_nonzero(best[flexible] == 0.0) >= at_kink


def test_subgradients_chatter_where_the_optimum_is_at_a_kink() -> None:
    network = control_network("ieee39", None)
    p = network.injection_pu.copy()
    p[0] -= 0.2
    moves = []
    for smooth in (True, False):
        loop = DppdLoop(network, DppdOptions(), smooth=smooth)
        iterate(loop, p, 3000)
        tail = np.array([iterate(loop, p, 1) for _ in range(20)])
        moves.append(np.abs(np.diff(tail, axis=0)).max())
    assert moves[0] < 1e-6
    assert moves[1] > 0.01


def readings(port: Port, step: int) -> np.ndarray:
    """Return frequencies that differ by bus and step; two injections lost from step 10 on."""
    bus = np.array([float(label) for label in port.labels])
    if port.name == "frequency_hz":
        return np.asarray(60.0 + 0.02 * np.sin(0.1 * step + bus))
    lost = np.isin(port.labels, LOST) & (step >= 10)
    return np.where(lost, 0.0, math.nan)


@pytest.mark.parametrize(("cls", "limits"), [(Dppd, LIMITS), (SubgradientAlc, None)])
def test_agents_give_the_bits_of_the_loop(cls: type[Dppd], limits: dict[str, float] | None) -> None:
    options: dict[str, Any] = {"line_limits_mw": limits}
    network = control_network("ieee39", limits)
    everywhere = Port("", "", network.buses)
    for parts in (1, 5):
        bounds = [39 * k // parts for k in range(parts + 1)]
        groups = [network.agents[a:b] for a, b in pairwise(bounds)]
        hosts = [cls(sample_site(), group, **options) for group in groups]
        mail = MailLoop(hosts, measure=readings)
        loop = DppdLoop(network, DppdOptions(**options), smooth=cls.smooth)
        for step in range(40):
            given = mail.outputs(mail.step())
            hz = readings(Port("frequency_hz", "Hz", everywhere.labels), step)
            p = crash(network) if step >= 10 else network.injection_pu
            demand = loop.step(2.0 * math.pi * (hz - 60.0), p)
            for (_, bus), value in given.items():
                assert value == 100.0 * demand[network.buses.index(bus)]


def test_lost_and_late_messages_leave_the_optimum() -> None:
    network = control_network("ieee39", None)
    host = Dppd(sample_site(), network.agents)
    best = 100.0 * central_optimum(network, crash(network))

    def measure(port: Port, step: int) -> np.ndarray:
        steady = port.name == "frequency_hz"
        return np.full(39, 60.0) if steady else readings(port, step + 10)

    mail = MailLoop([host], Post(loss=0.2, max_delay_steps=1, seed=4), measure)
    for _ in range(500):
        given = mail.outputs(mail.step())
    for (_, bus), value in given.items():
        assert value == pytest.approx(best[network.buses.index(bus)], abs=1e-2)  # MW


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(-40.0, 40.0), min_size=39, max_size=39),
    st.lists(st.floats(-50.0, 50.0), min_size=39, max_size=39),
)
def test_limits_of_loads_are_never_broken(omega: list[float], p: list[float]) -> None:
    network = control_network("ieee39", None)
    loop = DppdLoop(network, DppdOptions())
    for _ in range(40):
        demand = loop.step(np.array(omega), np.array(p))
        assert (np.abs(demand) <= network.limit_pu).all()


def test_controller_follows_the_protocol() -> None:
    check_controller("dppd", line_limits_mw=LIMITS)


def test_what_a_user_gets_wrong_is_said() -> None:
    with pytest.raises(ControllerError, match="16-17-1"):
        control_network("ieee39", {"16-17-2": 100.0})
    with pytest.raises(ControllerError, match="do not change the flow of branch '19-33-1'"):
        control_network("ieee39", {"19-33-1": 100.0})
    with pytest.raises(ControllerError, match=r"option 'system'.*flexible_loads.csv"):
        Dppd.agents(sample_site(), system="kundur")
    with pytest.raises(ControllerError, match="mapping"):
        Dppd.agents(sample_site(), line_limits_mw=["16-17-1"])
    with pytest.raises(ControllerError, match="'k_d'"):
        Dppd.agents(sample_site(), k_d=-1.0)
    with pytest.raises(ControllerError, match="cannot restore"):
        central_optimum(control_network("ieee39", None), np.full(39, 1.0))
