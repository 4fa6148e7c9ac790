"""The iterating part of a DMPC instance: receive the neighbours' rows, iterate, send own rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.core.ports import Port
from controllers.dmpc.boundary_mail import BoundaryMail
from controllers.dmpc.splitting import RowSplitting

BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class Exchange:
    """Iterations of the hosted clusters; coupling rows travel by mail.

    Parameters
    ----------
    splitting : Of the hosted clusters.
    rows_in : int (links_in, width)
        Where each value of an incoming message belongs in the flattened (C, coupled) rows.
    rows_out : (links_out, width). What each outgoing message is made of.
    own : (links_in, width). Which values of an incoming message speak of the receiver's own
        quantities: at a boundary in local mode these are left free, the others held.
    inner : Passes over the cluster's own bounded rows in one iteration, the last of them with the
        coupling rows: they cost arithmetic, not mail, and pay where mail is slow.

    Attributes
    ----------
    t, v : (C, rows, 1). State of the splitting, and the rows' values at the last iteration.
    inside : (C, bounded, 1). Bounded rows, inside their hard bounds.
    """

    def __init__(
        self,
        splitting: RowSplitting,
        links_out: Sequence[Link],
        rows_in: IntArray,
        rows_out: IntArray,
        own: BoolArray,
        post: BoundaryMail,
        relaxation: float,
        inner: int = 1,
    ) -> None:
        self._inner = inner
        self._split, self._post, self._alpha = splitting, post, relaxation
        self._rows_in, self._rows_out, self._own = rows_in, rows_out, own
        self._links = np.arange(len(links_out))
        shape = (len(splitting.give), splitting.bounded + splitting.coupled, 1)
        self.t: FloatArray = np.zeros(shape)
        self.v: FloatArray = np.zeros(shape)
        self._w = np.zeros(shape)
        self.inside: FloatArray = np.zeros((shape[0], splitting.bounded, 1))

    def _coupled(self, rows: FloatArray) -> FloatArray:
        """Return a flat copy of the coupling rows."""
        return np.ascontiguousarray(rows[:, self._split.bounded :, 0]).reshape(-1)

    def _put_coupled(self, flat: FloatArray) -> None:
        part = self.t[:, self._split.bounded :, 0]
        part[:] = flat.reshape(part.shape)

    def start(self, rows: IntArray, values: FloatArray) -> None:
        """Set the state of some coupling rows, given by their place in the flattened rows."""
        flat = self._coupled(self.t)
        flat[rows] = values
        self._put_coupled(flat)

    def agreed(self, column: int) -> FloatArray:
        """Return the last plan's value of one column of every incoming message, (links_in,)."""
        return self._coupled(self.v)[self._rows_in[:, column]]

    def receive(self, sample: int) -> None:
        """Take over the neighbours' new rows; a lost or implausible message changes nothing."""
        links, rows = self._post.fresh(sample)
        if len(links):
            flat, at = self._coupled(self.t), self._rows_in[links]
            flat[at] += self._alpha * (rows[:, : at.shape[1]] - flat[at])
            self._put_coupled(flat)

    def iterate(self, g0: FloatArray, low: FloatArray, high: FloatArray, hold: FloatArray) -> None:
        """Do one iteration; `hold` (links_in, width) is what local boundaries are held at."""
        t, w, nb = self.t, self._w, self._split.bounded
        if self._inner > 1:
            self._settle(g0, low, high)
        self.v = self._split.times(t)
        self.v += g0
        np.subtract(2.0 * self.v, t, out=w)
        self.inside = self._split.project(w[:, :nb], low, high)
        t[:, :nb] += self._alpha * (2.0 * self.inside - w[:, :nb] - t[:, :nb])
        lost = np.flatnonzero(self._post.local)
        if lost.size:
            # No agreement: what is mine is free (projection: itself), the far end a fixed number.
            flat, at = self._coupled(t), self._rows_in[lost]
            row = self._coupled(w)[at]
            reflected = np.where(self._own[lost], row, 2.0 * hold[lost] - row)
            flat[at] += self._alpha * (reflected - flat[at])
            self._put_coupled(flat)

    def _settle(self, g0: FloatArray, low: FloatArray, high: FloatArray) -> None:
        """Do the passes before the last, in which only the bounded rows move."""
        nb = self._split.bounded
        rows = np.ascontiguousarray(self.t[:, :nb])
        settled = self._split.bounded_map(self.t, g0)
        for _ in range(self._inner - 1):
            w = 2.0 * settled(rows) - rows
            inside = self._split.project(w, low, high)
            rows += self._alpha * (2.0 * inside - w - rows)
        self.t[:, :nb] = rows

    def outgoing_mail(self, step: int, tail: FloatArray | None = None) -> Mail:
        """Return the mail of this step; `tail` (links_out, columns) is appended to each message."""
        rows = self._coupled(self._w)[self._rows_out]
        if tail is not None:
            rows = np.concatenate([rows, tail], axis=1)
        return Mail(self._links, np.full(len(self._links), step), rows.ravel())


class Measured:
    """One vector of all known quantities; a measurement that is not finite is held."""

    def __init__(self, **parts: FloatArray) -> None:
        self.values: FloatArray = np.concatenate([*parts.values(), [1.0, 0.0]])
        self._slice: dict[str, slice] = {}
        start = 0
        for name, part in parts.items():
            self._slice[name] = slice(start, start + len(part))
            start += len(part)
        self.one, self.zero = start, start + 1
        self.held = 0

    def start(self, part: str) -> int:
        """Return where a part starts."""
        return self._slice[part].start or 0

    def of(self, part: str) -> FloatArray:
        """Return a view of a part."""
        return self.values[self._slice[part]]

    def take(self, part: str, given: FloatArray | None) -> None:
        """Overwrite a part with the numbers among `given`; None leaves it."""
        if given is not None:
            good = np.isfinite(given)
            self.held += int(good.size - np.count_nonzero(good))
            np.copyto(self.of(part), given, where=good)


def positions(ports: Sequence[Port], name: str) -> dict[str, int]:
    """Return the position of each label of a port."""
    port = next(p for p in ports if p.name == name)
    return {label: i for i, label in enumerate(port.labels)}
