"""DC power flow of a case: lossless, flat voltages, flows linear in injections.

``P_from = (theta_from - theta_to - shift) / (x tap)`` on each branch, balances at each bus
(B. Stott, J. Jardim and O. Alsac, "DC Power Flow Revisited", IEEE Trans. Power Systems, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import splu

from grid_models.transmission.model import FloatArray, TransmissionError
from grid_models.transmission.opf_case import OpfCase


@dataclass(frozen=True)
class DcFlow:
    """Flows into the first end of branches.

    Attributes
    ----------
    factors : (n_branches, n_buses). Change of a flow per injection at a bus that the slack bus
        takes out again; MW per MW.
    offset_mw : (n_branches,). Flows at injections of 0, which phase shifters drive.
    """

    factors: FloatArray
    offset_mw: FloatArray

    @classmethod
    def of(cls, case: OpfCase) -> DcFlow:
        """Return the flows of a case.

        Raises TransmissionError: A branch has no reactance.
        """
        branches, n = case.branches, len(case.buses.names)
        without = np.flatnonzero(branches.x_pu == 0.0)
        if without.size:
            raise TransmissionError(
                f"branch '{branches.names[without[0]]}' has no reactance",
                where=f"case '{case.name}'",
                expected="x other than 0, which a DC power flow divides by",
            )
        susceptance = 1.0 / (branches.x_pu * branches.tap_ratio)
        m = len(susceptance)
        at = np.tile(np.arange(m), 2)
        ends = np.concatenate([branches.from_bus, branches.to_bus])
        sign = np.repeat([1.0, -1.0], m)
        incidence = csr_array((sign, (at, ends)), shape=(m, n))
        flow = csr_array((sign * np.tile(susceptance, 2), (at, ends)), shape=(m, n))
        free = np.delete(np.arange(n), case.buses.slack)
        whole = csc_array(incidence.T @ flow)
        angles = splu(csc_array(whole[free][:, free]))
        factors = np.zeros((m, n))
        factors[:, free] = angles.solve(flow[:, free].toarray().T).T  # it is symmetric
        turned = case.base_mva * susceptance * np.radians(branches.shift_deg)
        return cls(factors, np.asarray(factors @ (incidence.T @ turned) - turned))
