"""The model beside OpenDSS without load: elements that it would leave out, and rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import PortNetwork

if TYPE_CHECKING:
    from grid_models.opendss.circuit import Circuit

_ROUNDING_PU, _WRONG_PU, _NO_VOLTAGE_PU = 1e-7, 1e-4, 0.1


def as_unloaded(network: PortNetwork, circuit: Circuit) -> PortNetwork:
    """Return the network with the voltages without load that OpenDSS itself finds.

    Where a bus is tied to ground by 1e-6 of its admittance only (behind a delta winding), rounding
    moves its voltages to ground by some 1e-9 pu, together and in each solution alike.

    Raises FeederError: They are others, or a load is left out though its phase has a voltage.
    """
    w = circuit.unloaded_v_pu()
    off = np.abs(w - network.w)
    worst = int(off.argmax()) if off.size else 0
    where = f"circuit '{circuit.name}'"
    if off.max(initial=0.0) > _WRONG_PU:
        raise FeederError(
            f"without load, OpenDSS has {abs(w[worst]):.5g} pu at node {network.nodes[worst]} and "
            f"the batched model {abs(network.w[worst]):.5g} pu",
            where=where,
            expected="loads to ground only where a source or an earthed winding holds the voltage",
        )
    voltage = dict(zip(network.nodes, np.abs(w).tolist(), strict=True))
    fed = network.w_port != 0.0
    partly = network.share @ (network.share.T @ fed.astype(float)) > 0.0
    for j in np.flatnonzero(~fed).tolist():
        port = network.ports[j]
        if partly[j] or voltage.get(port.partition("-")[0], 0.0) > _NO_VOLTAGE_PU:
            raise FeederError(
                f"a load at {port} has a phase with voltage, and one or a neutral without",
                where=where,
                expected="loads whose conductors are all fed or all dead, and earthed neutrals",
            )
    if off.max(initial=0.0) > _ROUNDING_PU:
        return network
    moved = dict(zip(network.nodes, w - network.w, strict=True))
    by_port = [moved.get(label, 0.0) if "-" not in label else 0.0 for label in network.ports]
    w_port = np.where(network.w_port != 0.0, network.w_port + by_port, 0.0)
    return replace(network, w=w, w_port=w_port)
