"""The network of the current-injection model: any feeder, reduced to where power is injected.

With loads and DERs taken off, every voltage and current of a feeder is affine in the currents that
they inject, whether it is radial or meshed, balanced or not (thesis, "Admittance-based current
injection model", ``I = Y V``)::

    v = w + z i            nodes
    u = w_port + z_port i  ports; the injected power is  s = u conj(i)

A *port* is a phase of a bus to ground (or to the neutral), or a pair of phases for a delta
connection, so both are exact. A *terminal* is a connection point: one bus, its phases, wye or
delta. What is connected at a terminal has equal power on each of its ports.

Per unit: power on `BASE_KVA`, voltages on the line-to-neutral base of their bus, and the current of
a port on base power over that voltage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError, nearest_name

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

BASE_KVA = 1000.0


@dataclass(frozen=True)
class PortLoads:
    """Loads that draw ``s_pq + s_i |u|/u_nominal + s_z (|u|/u_nominal)^2`` at each port.

    All of shape (m,), per unit; consumption is positive.
    """

    s_pq: ComplexArray
    s_i: ComplexArray
    s_z: ComplexArray
    u_nominal: FloatArray

    @property
    def nominal(self) -> ComplexArray:
        """What the loads draw at nominal voltage, (m,)."""
        return np.asarray(self.s_pq + self.s_i + self.s_z)

    def at(self, ports: NDArray[np.intp]) -> PortLoads:
        """Return the loads of some ports."""
        return PortLoads(self.s_pq[ports], self.s_i[ports], self.s_z[ports], self.u_nominal[ports])

    def scaled(self, factor: float) -> PortLoads:
        """Return the loads with their power multiplied by `factor`."""
        return PortLoads(factor * self.s_pq, factor * self.s_i, factor * self.s_z, self.u_nominal)

    def drawn(self, u: ComplexArray) -> ComplexArray:
        """Return the power drawn at port voltages `u`, (m,)."""
        ratio = np.abs(u) / self.u_nominal
        return np.asarray(self.s_pq + ratio * (self.s_i + ratio * self.s_z))

    def slope(self, u: ComplexArray) -> ComplexArray:
        """Return the derivative of `drawn` with respect to ``|u|``, (m,)."""
        ratio = np.abs(u) / self.u_nominal
        return np.asarray((self.s_i + 2.0 * ratio * self.s_z) / self.u_nominal)


@dataclass(frozen=True)
class PortNetwork:
    """A feeder at its present taps and switches, reduced to n nodes, m ports and t terminals.

    Attributes
    ----------
    nodes : (n,). Labels ``bus.phase``, in the order of `Circuit.node_labels`. A node without a way
        to the source has 0 in `w` and `z`.
    ports : (m,). Labels ``65.1`` (phase to neutral or ground) and ``65.1-2`` (between phases).
    terminals : (t,)
        Labels: the bus where it has one terminal only, else ``48.1``, ``47.1.2.3``, and ``65.1-2``,
        ``76.1-2-3`` for delta connections.
    share : (m, t). Power of the ports per power of a terminal; columns sum to 1.
    live : (t,). Whether the source supplies the terminal; without, its ports have 0 in `w_port`.
    w, z : complex (n,), (n, m). Node voltages.
    w_port, z_port : complex (m,), (m, m). Port voltages.
    source_nodes : (k,). Positions of the source bus in `nodes`.
    i_source0, i_source : complex (k,), (k, m)
        Currents from the source into the feeder at `source_nodes`, affine in the port currents.
    lines : (r,). Labels ``line.l115.1`` of rated lines' and transformers' phases at terminal 1.
    line_w, line_z : complex (r,), (r, m). Their currents.
    line_limit : (r,). Their normal amps, per unit.
    loads : The feeder's own loads at nominal power.
    load_terminal, der_terminal : Terminal of each of the feeder's loads and DERs, by name.
    cut : Cuts the feeder into areas, see `areas`; None: it is an area itself, or made by hand.
    """

    nodes: tuple[str, ...]
    ports: tuple[str, ...]
    terminals: tuple[str, ...]
    share: FloatArray
    live: NDArray[np.bool_]
    w: ComplexArray
    z: ComplexArray
    w_port: ComplexArray
    z_port: ComplexArray
    source_nodes: NDArray[np.intp]
    i_source0: ComplexArray
    i_source: ComplexArray
    lines: tuple[str, ...]
    line_w: ComplexArray
    line_z: ComplexArray
    line_limit: FloatArray
    loads: PortLoads
    load_terminal: Mapping[str, int]
    der_terminal: Mapping[str, int]
    cut: Callable[[PortNetwork, int], tuple[PortArea, ...]] | None = None

    base_kva = BASE_KVA

    @cached_property
    def w_and_z(self) -> ComplexArray:
        """Complex (1 + m, n): what source factor and port currents, side by side, do to `nodes`."""
        return np.vstack([self.w, self.z.T])

    @property
    def size(self) -> int:
        """Number of terminals."""
        return len(self.terminals)

    @property
    def buses(self) -> tuple[str, ...]:
        """The terminals, as a market's problem names its rows."""
        return self.terminals

    def areas(self, k: int) -> tuple[PortArea, ...]:
        """Return `k` connected areas with about equally many buses; the first holds the source.

        Raises FeederError: The network cannot be cut, or not into so many.
        """
        if self.cut is None:
            raise FeederError(
                "the network cannot be cut into areas",
                where="current-injection model",
                expected="a network made from a circuit",
            )
        return self.cut(self, k)

    def terminal_of_der(self, name: str) -> int:
        """Return the terminal of a DER.

        Raises FeederError: The network was made without it.
        """
        try:
            return self.der_terminal[name]
        except KeyError:
            raise FeederError(
                "the network has no such DER",
                where=f"DER '{name}'",
                expected="a DER of the circuit that the network was made from",
                nearest=nearest_name(name, self.der_terminal),
            ) from None

    def source_power(self, i: ComplexArray) -> complex:
        """Return the power that the source feeds in at port currents `i` (m,)."""
        at = self.source_nodes
        v, into = self.w[at] + self.z[at] @ i, self.i_source0 + self.i_source @ i
        return complex(v @ into.conj())

    def source_gradient(self, i: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """Return rows g_p, g_q (m,): ``dP = Re(g_p di)``, ``dQ = Re(g_q di)`` of `source_power`."""
        at = self.source_nodes
        v, into = self.w[at] + self.z[at] @ i, self.i_source0 + self.i_source @ i
        by_voltage, by_current = into.conj() @ self.z[at], v.conj() @ self.i_source
        return by_voltage + by_current, -1j * (by_voltage - by_current)


@dataclass(frozen=True)
class PortArea:
    """An area of a feeder: its own part of the model, and what it shares; per unit.

    The elements of a feeder are dealt out to connected areas, its nodes, too. Where an element of
    one area ends at a node of another, the two share that node: its voltage v and the current j
    that the node's owner gives to the other. Inside an area everything is affine in the currents i
    at its ports, the voltages that it is given and the currents that it gives, with matrices known
    to it alone. Areas that agree on all v and j are the whole feeder. An area has m ports and b
    shared nodes.

    Attributes
    ----------
    network : PortNetwork
        The area's nodes, ports and lines, and all terminals of the feeder. Its matrices have
        m + b columns. They are multiplied with zeta: the m port currents, followed for each shared
        node by the change of what comes from the neighbour: of j where the area owns the node, of
        v where it does not. An area that does not hold the source has no `source_nodes`.
    terminals, nodes, ports : Positions of the area's terminals, nodes and ports in the feeder's.
    shared : (b,). Labels of the shared nodes, by neighbour; a node shared with two appears twice.
    neighbour : (b,). Position of the area that it is shared with.
    owns : (b,). Whether the node belongs to this area.
    v0, v : complex (b,), (b, m + b). Their voltages, those of the whole feeder where zeta is 0.
    j0, j : complex (b,), (b, m + b). The currents from the nodes' owners to the others.
    z : complex (b, b)
        Impedance of the feeder, without ports and without the area that does not own the nodes,
        between the nodes of one pair of owner and other: what j does to v.
    """

    network: PortNetwork
    terminals: NDArray[np.intp]
    nodes: NDArray[np.intp]
    ports: NDArray[np.intp]
    shared: tuple[str, ...]
    neighbour: NDArray[np.intp]
    owns: NDArray[np.bool_]
    v0: ComplexArray
    v: ComplexArray
    j0: ComplexArray
    j: ComplexArray
    z: ComplexArray
