"""Sparse linear algebra of trees: unit triangular solves and inverses by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

Index = NDArray[np.intp]


def unit_lu(strictly_triangular: sparse.csr_array, *, transposed: bool = False) -> SuperLU:
    """Factor I - F (or its transpose), which is triangular already: no fill, no pivoting."""
    factor = sparse.eye_array(strictly_triangular.shape[0]) - strictly_triangular
    ready = sparse.csc_array(factor.T if transposed else factor)
    return splu(ready, permc_spec="NATURAL", diag_pivot_thresh=0.0)


def block_inverse(
    block: sparse.csr_array, bus: Index, diagonal: NDArray[Any] | float = 0.0
) -> sparse.csr_array:
    """Invert ``block + diag(diagonal)``, block diagonal by `bus`; a bus's nodes are consecutive.

    Raises LinAlgError: A block is singular.
    """
    _, first, number, counts = np.unique(
        bus, return_index=True, return_inverse=True, return_counts=True
    )
    within = np.arange(len(bus)) - first[number]
    width = int(counts.max())
    dense = np.zeros((len(first), width, width), dtype=block.dtype)
    dense[:, np.arange(width), np.arange(width)] = 1.0  # padding of narrower buses
    dense[number, within, within] = diagonal
    entries = block.tocoo()
    np.add.at(dense, (number[entries.row], within[entries.row], within[entries.col]), entries.data)
    inverse = np.linalg.inv(dense)
    inside = np.arange(width) < counts[:, None]
    b, i, j = np.nonzero(inside[:, :, None] & inside[:, None, :])
    return sparse.csr_array((inverse[b, i, j], (first[b] + i, first[b] + j)), shape=block.shape)
