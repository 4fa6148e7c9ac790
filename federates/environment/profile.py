"""A feeder's voltages as text."""

from __future__ import annotations

import numpy as np

from federates.core.federate import FloatArray

_COLUMNS = 72
_STEP_PU = 0.01


def drawn(v_pu: FloatArray, band: tuple[float, float]) -> str:
    """Return a picture of the voltages, (n_nodes,), in the feeder's order of nodes.

    A row is 0.01 pu; ``*`` is a voltage inside the band and ``X`` one outside; rows of ``-`` hold
    the ends of the band.
    """
    v_pu = v_pu[~np.isnan(v_pu)]
    column = np.arange(v_pu.size) * min(_COLUMNS, v_pu.size) // v_pu.size
    row = np.floor(v_pu / _STEP_PU + 0.5).astype(int)
    low, high = (round(end / _STEP_PU) for end in band)
    top, bottom = max(high, row.max()) + 1, min(low, row.min()) - 1
    picture = np.full((top - bottom + 1, column.max() + 1), " ")
    picture[[top - high, top - low]] = "-"
    outside = (v_pu < band[0]) | (v_pu > band[1])
    picture[top - row, column] = "*"
    picture[top - row[outside], column[outside]] = "X"
    lines = [f"{(top - i) * _STEP_PU:5.2f} {''.join(x)}".rstrip() for i, x in enumerate(picture)]
    count = f"{v_pu.size} nodes, {np.count_nonzero(outside)} outside {band[0]:g} to {band[1]:g} pu"
    return "\n".join([*lines, f"{count}; lowest {v_pu.min():.4f}, highest {v_pu.max():.4f}"])
