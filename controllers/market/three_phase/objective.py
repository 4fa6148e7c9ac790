"""The objective of the three-phase market and its derivatives, written once for all solvers.

Two sets of variables. Those of the devices are x, (4, t), the rows `P_GEN`, `Q_GEN`, `P_LOAD` and
`SHED` at each terminal. Those of the network are the complex currents i of the ports, (m,)::

    f(x, i) =   w1 sum(beta (x_P_LOAD - P_L0)^2) + w1 shed_price sum(x_SHED)
              + w2 sum(alpha_p/2 x_P_GEN^2 + alpha_q/2 x_Q_GEN^2)
              + w2 (import_price P + import_slope/2 P^2)
              + w3 voltage_price sum_n |v_n - v_set e^{j angle(w_n)}|^2
              + w4 xi (P + Re(i^H u))

P is the active import and u the voltage of the ports, so the last bracket are the losses. All of
the second part is an exact quadratic function of i, the first a separable one of x. A real function
of complex currents has the gradient g with ``df = Re(g^H di)``, and half the Hessian of ``Re(i^H M
i) + ...`` is the Hermitian part of M.

Source: thesis, three-phase market (slides), objective f^S-W. Readings: the printed generation cost
is linear, here it is the quadratic one of the primary market with the import priced at the point
of common coupling; set-point angles are each node's own without port currents (the printed V* = 1
+ j0 is far from any voltage of phases b and c); a load's reactive power follows its active power,
so its disutility has one coefficient; the weights need not add up to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.checks import check_bids
from controllers.market.model.costs import tangent
from controllers.market.model.errors import MarketError
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray
from grid_models.base.errors import nearest_name
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import PortFlow

if TYPE_CHECKING:
    from scipy.sparse import csc_array

P_GEN, Q_GEN, P_LOAD, SHED = range(4)
"""Rows of x."""


@dataclass(frozen=True)
class ObjectiveWeights:
    """Weights w1 to w4 of the objective: 0 or more, and not all 0.

    The default is the objective of the primary market.
    """

    disutility: float = 1.0
    generation: float = 1.0
    voltage: float = 0.0
    losses: float = 1.0

    @staticmethod
    def of(given: Mapping[str, Any] | None) -> ObjectiveWeights:
        """Return the weights of an option; those that are not named keep their default.

        Raises MarketError: There is no such weight, or one is not a finite number of 0 or more.
        """
        where, names = "option 'weights'", [f.name for f in fields(ObjectiveWeights)]
        if not isinstance(given or {}, Mapping):
            raise MarketError(
                f"{given!r} is not accepted", where=where, expected=f"some of {', '.join(names)}"
            )
        for name, value in (given or {}).items():
            if name not in names:
                raise MarketError(
                    f"unknown weight '{name}'",
                    where=where,
                    expected=f"some of {', '.join(names)}",
                    nearest=nearest_name(str(name), names),
                )
            checked_option(f"weights: {name}", value)
        weights = ObjectiveWeights(**{k: float(v) for k, v in (given or {}).items()})
        if not any(getattr(weights, name) for name in names):
            raise MarketError("all weights are 0", where=where, expected="one above 0")
        return weights


def checked_option(name: str, value: Any) -> float:
    """Return a number of 0 or more.

    Raises MarketError: It is none.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0.0 <= value < np.inf:
        raise MarketError(
            f"{value!r} is not accepted", where=f"option '{name}'", expected="a number, 0 or more"
        )
    return float(value)


def _check_voltage_terms(weight: float, named: bool, price: float, set_pu: float) -> None:
    """Raise where an option of the voltage objective has no effect; a weight of 0 may be named."""
    if not set_pu > 0.0:
        raise MarketError(f"is {set_pu:g}", where="option 'v_set_pu'", expected="above 0, per unit")
    if weight > 0.0 and not price > 0.0:
        raise MarketError(
            "weighs nothing: voltage_price is 0",
            where="option 'weights: voltage'",
            expected="voltage_price above 0, money per hour and pu^2",
        )
    for name, given in (("voltage_price", price > 0.0), ("v_set_pu", set_pu != 1.0)):
        if given and not named:
            raise MarketError(
                "is not used: the voltage has no weight",
                where=f"option '{name}'",
                expected="weights: {voltage: 1}, and voltage_price above 0",
            )


class Devices:
    """The devices of one problem: ranges, costs, and what they inject. Arrays (4, t), rows of x.

    Attributes
    ----------
    low, high : Ranges. What is at a terminal without a way to the source neither draws nor feeds
        in: its ranges are 0.
    curvature : Second derivative of the cost.
    """

    def __init__(self, problem: PortProblem, weights: ObjectiveWeights) -> None:
        bids, live = problem.bids, problem.network.live
        self.bids, self._live = bids, live
        none = np.zeros(len(bids.p_load0))
        floor = problem.p_load_floor
        room = none if floor is None else bids.p_load_min - floor
        self.low = np.stack([bids.p_gen_min, bids.q_gen_min, bids.p_load_min, none]) * live
        self.high = np.stack([bids.p_gen_max, bids.q_gen_max, bids.p_load_max, room]) * live
        w1, w2 = weights.disutility, weights.generation
        self.curvature = np.stack(
            [w2 * bids.alpha_p, w2 * bids.alpha_q, 2.0 * w1 * bids.beta, none]
        )
        # Gradient at x is slope + curvature * x.
        self._slope = np.zeros_like(self.curvature)
        self._slope[P_LOAD] = -2.0 * w1 * bids.beta * bids.p_load0
        if floor is not None:
            self._slope[SHED] = w1 * problem.shed_price
        self._constant = w1 * float(bids.beta @ bids.p_load0**2)
        self.tangent = tangent(bids)

    def nominal(self) -> FloatArray:
        """Return loads as wished and generators at rest, in their ranges, (4, t)."""
        wished = np.zeros_like(self.low)
        wished[P_LOAD] = self.bids.p_load0
        return np.asarray(np.clip(wished, self.low, self.high))

    def cost(self, x: FloatArray) -> float:
        """Return the devices' part of the objective."""
        return float(((self._slope + 0.5 * self.curvature * x) * x).sum()) + self._constant

    def gradient(self, x: FloatArray) -> FloatArray:
        """Return its gradient, (4, t)."""
        return np.asarray(self._slope + self.curvature * x)

    def injection(self, x: FloatArray) -> ComplexArray:
        """Return the complex power that each terminal injects, (t,)."""
        served = x[P_LOAD] - x[SHED]
        return np.asarray(x[P_GEN] - served + 1j * (x[Q_GEN] - self.reactive(served)))

    def reactive(self, served: FloatArray) -> FloatArray:
        """Return the reactive load of active load that is served, (t,)."""
        bids = self.bids
        return np.asarray(self._live * (bids.q_load0 + self.tangent * (served - bids.p_load0)))

    def mix(self) -> csc_array:
        """Return the active, then reactive power of the terminals by x, (2 t, 4 t)."""
        from scipy.sparse import block_array, csc_array, diags_array

        ones = np.ones(len(self.tangent))
        one, tan, none = diags_array(ones), diags_array(self.tangent), diags_array(0.0 * ones)
        return csc_array(block_array([[one, none, -one, one], [none, one, -tan, tan]]))

    def pulled_back(self, value: ComplexArray) -> FloatArray:
        """Return what x is worth, (4, t), where one pu of injection is worth `value`, (t,).

        The real part is the worth of active, the imaginary part of reactive injection.
        """
        load = value.real + self.tangent * value.imag
        return np.stack([value.real, value.imag, -load, load])


def check_problem(problem: PortProblem, network: PortNetwork) -> None:
    """Raise where `problem` is none, or is not one of `network`.

    Raises
    ------
    BidError, MarketError: See `checks.check_bids`; or the ranges of the import or of shed load are
        none.
    """

    def refuse(what: str, expected: str) -> MarketError:
        return MarketError(what, where="clearing problem", expected=expected)

    if problem.network is not network:
        raise refuse(
            "the problem is of another network", "the network that this market was made for"
        )
    check_bids(problem)
    low, high, floor = problem.import_min, problem.import_max, problem.p_load_floor
    if not low <= high:
        raise refuse(f"import_min is {low}", f"at most import_max ({high})")
    if floor is None:
        return
    if floor.shape != problem.bids.p_load_min.shape:
        raise refuse(f"p_load_floor has shape {floor.shape}", "one number per terminal")
    if not (floor <= problem.bids.p_load_min).all():
        at = int(np.argmin(floor <= problem.bids.p_load_min))
        raise refuse(
            f"p_load_floor is {floor[at]} at terminal '{network.terminals[at]}'",
            f"at most p_load_min ({problem.bids.p_load_min[at]})",
        )
    if not 0.0 <= problem.shed_price < np.inf:
        raise refuse(f"shed_price is {problem.shed_price}", "a finite price, 0 or more")


class PortObjective:
    """The objective on one network.

    Parameters
    ----------
    weights : mapping, optional. See `ObjectiveWeights`.
    voltage_price : float. Money per hour and pu^2 of a node's distance from its set-point.
    v_set_pu : float
        Magnitude of the voltage set-points; below 1 for conservation voltage reduction.

    Raises MarketError: An option is none.
    """

    def __init__(
        self,
        network: PortNetwork,
        weights: Mapping[str, Any] | None = None,
        voltage_price: float = 0.0,
        v_set_pu: float = 1.0,
    ) -> None:
        self.network = network
        self.weights = ObjectiveWeights.of(weights)
        price = checked_option("voltage_price", voltage_price)
        set_pu = checked_option("v_set_pu", v_set_pu)
        _check_voltage_terms(self.weights.voltage, "voltage" in (weights or {}), price, set_pu)
        self.voltage_price = self.weights.voltage * price
        size = np.abs(network.w)
        # A node without a way to the source has no angle, and no voltage to regulate.
        angle = np.where(size > 0.0, network.w, 0.0) / np.where(size > 0.0, size, 1.0)
        self.v_set = set_pu * angle
        self._import_form = network.i_source.conj().T @ network.z[network.source_nodes]
        self._voltage_form = (
            network.z.conj().T @ network.z if self.voltage_price else np.zeros((1, 1))
        )

    def devices(self, problem: PortProblem) -> Devices:
        """Return the devices of `problem`."""
        return Devices(problem, self.weights)

    def cost(self, problem: PortProblem, devices: Devices, x: FloatArray, flow: PortFlow) -> float:
        """Return the objective, money per hour, of devices at x with the power flow `flow`."""
        p = flow.s_import.real
        imported = (problem.import_price + 0.5 * problem.import_slope * p) * p
        away = flow.v - self.v_set
        return (
            devices.cost(x)
            + self.weights.generation * imported
            + self.voltage_price * float(np.vdot(away, away).real)
            + self.loss_price(problem) * flow.loss
        )

    def loss_price(self, problem: PortProblem) -> float:
        """Return what the objective pays for one pu of losses, besides their import."""
        return self.weights.losses * problem.xi

    def import_price(self, problem: PortProblem, p_import: float) -> float:
        """Return what the objective pays for one more pu of import."""
        return self.weights.generation * problem.marginal_import_price(p_import)

    def import_slope(self, problem: PortProblem) -> float:
        """Return what `import_price` rises by per pu of import."""
        return self.weights.generation * problem.import_slope

    def import_gradient(self, current: ComplexArray) -> ComplexArray:
        """Return the gradient of the active import by the currents, (m,)."""
        return np.conj(self.network.source_gradient(current)[0])

    def loss_gradient(self, flow: PortFlow) -> ComplexArray:
        """Return the gradient of the active losses by the currents, (m,)."""
        into = self.network.z_port.conj().T @ flow.i + flow.u
        return np.asarray(self.import_gradient(flow.i) + into)

    def voltage_gradient(self, voltage: ComplexArray) -> ComplexArray:
        """Return the gradient of the voltage objective by the currents, (m,)."""
        if not self.voltage_price:
            return np.zeros(len(self.network.ports), dtype=np.complex128)
        away = voltage - self.v_set
        return np.asarray(2.0 * self.voltage_price * (self.network.z.conj().T @ away))

    def gradient(self, problem: PortProblem, flow: PortFlow) -> ComplexArray:
        """Return the gradient of the network's part of the objective by the currents, (m,)."""
        price = self.import_price(problem, flow.s_import.real)
        return np.asarray(
            price * self.import_gradient(flow.i)
            + self.loss_price(problem) * self.loss_gradient(flow)
            + self.voltage_gradient(flow.v)
        )

    def form(self, import_price: float, loss_price: float) -> ComplexArray:
        """Return M of ``Re(i^H M i)``, (m, m): import, losses and the voltage objective.

        The slope of the import's price is not in it.
        """
        form = (import_price + loss_price) * self._import_form + loss_price * self.network.z_port
        return form + self.voltage_price * self._voltage_form if self.voltage_price else form
