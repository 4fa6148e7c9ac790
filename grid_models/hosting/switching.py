"""Voltage changes when the units of one site are switched off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.power_flow import BatchedFeeder, BatchFlow
from grid_models.current_injection.model import FloatArray

_TRIED_SITES = 3


class Switching:
    """The change of voltages when what a site injects ends at once, before regulators act.

    Of each case the sites with the largest change by the voltages' derivatives without load are
    switched off in power flows of their own, one at a time.

    Parameters
    ----------
    sites : Names of the last DERs of the feeder.
    """

    def __init__(self, feeder: BatchedFeeder, sites: tuple[str, ...]) -> None:
        self.feeder, self.sites = feeder, sites
        self._first = len(feeder.der_names) - len(sites)
        by_p, by_q = feeder.der_slopes(feeder.solve(0.0 * feeder.nominal_kva), 0)
        self._by_kw = np.abs(by_p[:, self._first :]).max(axis=0)
        self._by_kvar = np.abs(by_q[:, self._first :]).max(axis=0)

    def off(
        self, flow: BatchFlow, v_pu: FloatArray, nodes: NDArray[np.intp]
    ) -> tuple[FloatArray, NDArray[np.intp]]:
        """Return the largest change, (N,), and the site that makes it, (N,).

        `v_pu`: (N, n). Voltages of the flow at `nodes`.
        """
        n = len(v_pu)
        kva = np.broadcast_to(flow.cases.der_kva, (n, len(self.feeder.der_names)))
        site_kva = kva[:, self._first :]
        estimate = np.abs(site_kva.real) * self._by_kw + np.abs(site_kva.imag) * self._by_kvar
        tried = min(_TRIED_SITES, len(self.sites))
        site = np.argsort(-estimate, axis=1)[:, :tried]
        without = np.repeat(kva, tried, axis=0)
        without[np.arange(n * tried), self._first + site.ravel()] = 0.0
        load = flow.cases.load_kva
        load = load if len(load) == 1 else np.repeat(load, tried, axis=0)
        source = np.repeat(flow.source_pu, tried)
        after = self.feeder.solve(load, without, source).v_pu[:, nodes]
        change = np.abs(after.reshape(n, tried, -1) - v_pu[:, None]).max(axis=2)
        worst = change.argmax(axis=1)
        rows = np.arange(n)
        return change[rows, worst], site[rows, worst]
