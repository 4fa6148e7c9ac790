"""Alarm thresholds from the peaks of clean data.

Scores of a grid are neither independent nor identically distributed: loads and clouds last, so
17,280 samples of a day carry the information of about a hundred independent ones. Hence peaks over
a threshold (A. C. Davison, R. L. Smith, Models for exceedances over high thresholds, J. R. Stat.
Soc. B 52, 1990) on the maxima of blocks: a history is cut into `BLOCKS` equal stretches, and the
`LARGEST` highest maxima are the tail, exponential above the next one. Its mean is estimated from
few excesses; that uncertainty is integrated out, so a shorter history gives a higher threshold.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray

BLOCKS = 24
"""Of a clean day, hours."""
LARGEST = 8


def block_maxima(values: FloatArray) -> FloatArray:
    """Return the maxima (BLOCKS, ...) of equally long stretches of values (k, ...), k >= BLOCKS."""
    starts = np.arange(BLOCKS) * len(values) // BLOCKS
    return np.asarray(np.maximum.reduceat(values, starts, axis=0))


def usual_peak(maxima: FloatArray) -> FloatArray:
    """Return what `LARGEST` of the block maxima (BLOCKS, ...) exceed: the tail's begin."""
    return np.asarray(np.sort(maxima, axis=0)[-1 - LARGEST])


def level(maxima: FloatArray, expected: float) -> float:
    """Return the level that the maximum of a further block exceeds with a given probability.

    With u the `usual_peak` and b the mean excess of the k = `LARGEST` maxima above it, a further
    maximum is above u with probability ``(k + 1) / (BLOCKS + 1)``, and its excess above x with ``(1
    + x / (k b))^-k``: the exponential law, its mean integrated out with Jeffreys' prior. Exact for
    independent maxima with an exponential tail, conservative for a lighter tail. Minus infinity
    where so many exceedances are accepted that the tail does not reach down to them.

    Parameters
    ----------
    maxima : (BLOCKS,)
    expected : Expected number of exceedances per block; positive.
    """
    begin = float(usual_peak(maxima))
    excess = float(np.sort(maxima)[-LARGEST:].mean()) - begin
    ratio = (LARGEST + 1) / (BLOCKS + 1) / expected
    if ratio <= 1.0:
        return -np.inf
    return begin + LARGEST * excess * float(np.expm1(np.log(ratio) / LARGEST))
