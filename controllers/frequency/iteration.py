"""The distributed proximal primal-dual iteration (DPPD) of load-side frequency control.

Flexible loads d, one a bus, are to bring the frequency back at least cost, within their limits and
those of lines (problem (5) of the paper, with per-unit injections P)::

    min sum a d^2 + b |d|    s.t.  P - d = flows out of each bus,  |d| <= d_max,  |F| <= F_max

The paper's continuous algorithm (9) has virtual angles phi, prices mu of the balance of each bus
and sigma of lines, and z, which tracks the sub-gradient of b |d|. Here, each step, at each bus,
with omega the measured deviation from nominal frequency in rad/s::

    f     = w (phi_i - phi_j), for each neighbour j
    r     = P - d - sum of f
    mu~   = mu + lead_mu r
    z~    = clip(z + d / gamma, -b, b)
    d    += k_d (clip(d - (2 a d + z~ - omega - mu~ - p), -d_max, d_max) - d)
    z    += k_z (z~ - z);    mu += k_mu r;    phi += k_phi mu~

and at the bus that keeps the limit of a line, for each direction::

    sigma~ = max(sigma + lead_sigma (F - F_max) / g, 0);    sigma += k_sigma (sigma~ - sigma)
    p_i    = sum over lines of H_i (sigma~ forward - sigma~ backward)

Two things differ from (9), so that steps of 10 to 100 ms are stable: (9d) moves phi by the
Laplacian of the susceptances, whose eigenvalues lie between 5 and 1033 for 39 buses.

* Flows f are those of a graph with weights w chosen for fast mixing, and phi moves by mu~ itself.
  They need not be the flows of lines: any flows in balance show that all d add up to all P.
* F = H (P - d) with power transfer distribution factors H. With L_B mu~ = C B sigma~, which is
  where (9d) rests, mu~ is the same at all buses but for H' sigma~: hence p. g = sum of H^2 / 2 a is
  how much a flow gives way to its price.

Where it rests, the conditions of an optimum hold (equations (10) of the paper): r = 0, omega = 0,
0 in 2 a d + b d|d| - mu - p + normal cone of the limits, and sigma complementary to F - F_max.

Source: DPPD of the paper "An Operator Splitting Scheme for Distributed Optimal Load-side Frequency
Control with Nonsmooth Cost Functions", equations (5) to (11).
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.frequency.network import ControlNetwork
from controllers.frequency.options import DppdOptions


class Buses:
    """State of the buses of one instance, each array (h,), per unit.

    Parameters
    ----------
    at : (h,). Which buses.
    smooth : Whether the sub-gradient of b |d| is tracked by z, or is b sign(d) (sub-gradient ALC).
    """

    def __init__(
        self, network: ControlNetwork, options: DppdOptions, at: IntArray, *, smooth: bool
    ) -> None:
        self._set, self._smooth = options, smooth
        self._quadratic, self._absolute = network.quadratic[at], network.absolute[at]
        self._limit = network.limit_pu[at]
        self.phi = network.phi[at]
        self.mu: FloatArray = np.zeros(len(at))
        self.mu_tilde = self.mu
        self.demand: FloatArray = np.zeros(len(at))
        self.track: FloatArray = np.zeros(len(at))
        self.net = network.injection_pu[at]
        """P - d as told to those who keep limits of lines."""

    def step(
        self, omega: FloatArray, injection: FloatArray, outflow: FloatArray, price: FloatArray
    ) -> None:
        """Do one step; all arguments (h,): omega in rad/s, P, sum of flows out, p of lines."""
        given, d = self._set, self.demand
        imbalance = injection - d - outflow
        self.mu_tilde = self.mu + given.lead_mu * imbalance
        if self._smooth:
            slope = np.clip(self.track + d / given.gamma, -self._absolute, self._absolute)
            self.track = self.track + given.k_z * (slope - self.track)
        else:
            slope = self._absolute * np.sign(d)
        descent = 2.0 * self._quadratic * d + slope - omega - self.mu_tilde - price
        self.demand = d + given.k_d * (np.clip(d - descent, -self._limit, self._limit) - d)
        self.mu = self.mu + given.k_mu * imbalance
        self.phi = self.phi + given.k_phi * self.mu_tilde
        self.net = injection - self.demand


class Lines:
    """Prices of the limits that one instance keeps, each array (l,), per unit."""

    def __init__(self, network: ControlNetwork, options: DppdOptions, which: IntArray) -> None:
        self._k_sigma, self._limit = options.k_sigma, network.line_limit_pu[which]
        self._lead = options.lead_sigma / network.line_response[which]
        self._sigma = np.zeros((2, len(which)))
        self.price: FloatArray = np.zeros(len(which))

    def step(self, flow: FloatArray) -> None:
        """Do one step: flow (l,) into each branch."""
        excess = np.stack([flow - self._limit, -flow - self._limit])
        ahead = np.maximum(self._sigma + self._lead * excess, 0.0)
        self._sigma = self._sigma + self._k_sigma * (ahead - self._sigma)
        self.price = ahead[0] - ahead[1]


class DppdLoop:
    """The iteration of all buses in one loop, without agents and mail.

    The agents of `controllers.frequency.controller` give the same bits where every message arrives
    at the next step.
    """

    def __init__(
        self, network: ControlNetwork, options: DppdOptions, *, smooth: bool = True
    ) -> None:
        n, lines = len(network.buses), np.arange(len(network.lines))
        self._network = network
        self.buses = Buses(network, options, np.arange(n), smooth=smooth)
        self.lines = Lines(network, options, lines)

    def step(self, omega: FloatArray, injection_pu: FloatArray) -> FloatArray:
        """Do one step; return the flexible demand of all buses, (n,), per unit.

        omega : (n,), rad/s. injection_pu : (n,). P without flexible demand.
        """
        net, buses = self._network, self.buses
        flow = net.weight * (buses.phi[net.target] - buses.phi[net.source])
        line, bus = np.indices(net.line_factor.shape).reshape(2, -1)
        factor, n = net.line_factor.ravel(), len(net.buses)
        price = sums(bus, factor * self.lines.price[line], n)
        line_flow = sums(line, factor * buses.net[bus], len(net.lines))
        buses.step(omega, injection_pu, sums(net.target, flow, n), price)
        self.lines.step(line_flow)
        return buses.demand


def sums(group: IntArray, values: FloatArray, count: int) -> FloatArray:
    """Return the sum of each group, (count,), added one by one in the order given."""
    return np.asarray(np.bincount(group, values, count), dtype=np.float64)
