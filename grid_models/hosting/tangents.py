"""Rows of the network in a linear programme that is linearised again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.power_flow import BatchFlow
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.model import HostingModel
from grid_models.hosting.network_rows import (
    Elements,
    excess_of,
    network_rows,
    worst_elements,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

IntArray = NDArray[np.intp]
_NEAR, _PER_LIMIT = 2e-4, 3
_INVALID = 1e-6


class TangentRows:
    """Tangents ``Re(slopes @ s) <= most`` of limits that power flows came near, s in kVA.

    Each element has one tangent at the last power flow. Where the limit was passed all the same,
    the older tangent is kept, too: currents and voltages are nearly convex in the powers, so that
    it bounds them from below, and plans cannot pass a limit by turns from both sides. One that
    turns out above what it bounds is taken anew.

    Attributes
    ----------
    elements : Elements
    of_element : (R,). Element of each row; rows keep their positions.
    """

    def __init__(self, model: HostingModel, accepted: float) -> None:
        """`accepted`: Excess up to which a limit is kept."""
        self.model, self._accepted = model, accepted
        none = np.zeros(0, dtype=np.intp)
        self.elements = Elements(none, none, none)
        self.of_element, self._last = none, np.zeros(0, dtype=bool)
        self._slopes = np.zeros((0, len(model.sites)), dtype=np.complex128)
        self._most = np.zeros(0)

    def invalid(self, flow: BatchFlow, site_kva: ComplexArray) -> NDArray[np.bool_]:
        """Return which older tangents are above what they bound at a power flow, (R,)."""
        at_step = site_kva[self.elements.case[self.of_element]]
        bound = (self._slopes * at_step).real.sum(axis=1) - self._most
        excess = excess_of(self.model, flow, self.elements)[self.of_element]
        return np.asarray(~self._last & (bound > excess + _INVALID))

    def renew(self, flow: BatchFlow, site_kva: ComplexArray) -> None:
        """Take tangents at a power flow with injections `site_kva`, complex (T, S)."""
        above = self.invalid(flow, site_kva)
        first = len(self.elements)
        self.elements = _joined(self.elements, worst_elements(self.model, flow, -_NEAR, _PER_LIMIT))
        if not len(self.elements):
            return
        rows = network_rows(self.model, flow, self.elements)
        slopes = rows.by_p - 1j * rows.by_q  # Re((by_p - j by_q) s) = by_p p + by_q q
        most = (slopes * site_kva[self.elements.case]).real.sum(axis=1) - rows.excess
        kept = np.flatnonzero(self._last & (rows.excess[self.of_element] > self._accepted))
        new = np.arange(first, len(self.elements), dtype=np.intp)
        at = np.flatnonzero(self._last | above)
        older = self._slopes[kept], self._most[kept]
        self._slopes[at], self._most[at] = slopes[self.of_element[at]], most[self.of_element[at]]
        self._slopes = np.concatenate([self._slopes, slopes[new], older[0]])
        self._most = np.concatenate([self._most, most[new], older[1]])
        self.of_element = np.concatenate([self.of_element, new, self.of_element[kept]])
        self._last = np.concatenate(
            [self._last, np.ones(len(new), dtype=bool), np.zeros(len(kept), dtype=bool)]
        )

    def rows(self) -> tuple[csr_array, FloatArray]:
        """Return the rows as a sparse matrix over steps, then sites, (R, T S), and their limits."""
        from scipy.sparse import csr_array

        n, sites = self._slopes.shape
        step = self.elements.case[self.of_element]
        columns = step[:, None] * sites + np.arange(sites)
        places = np.repeat(np.arange(n), sites), columns.ravel()
        shape = n, len(self.model.hours) * sites
        return csr_array((self._slopes.ravel(), places), shape=shape), self._most


def _joined(elements: Elements, more: Elements) -> Elements:
    """Return the elements, followed by those of `more` that are not among them."""
    both = np.concatenate([np.stack([x.case, x.kind, x.element]) for x in (elements, more)], axis=1)
    _, first = np.unique(both, axis=1, return_index=True)
    return Elements(*both[:, np.sort(first)])
