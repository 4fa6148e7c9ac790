"""Mail between areas: what one does to the DERs and the measurements of another.

An area's message to another holds absolute numbers:

* *toll*: for each DER there the sum of the area's prices times sensitivities, by p and by q;
* *drift*: by how much each quantity measured there will move by what the area commands now;
* *size*: its largest violation, scaled: areas share a correction that each could make alone.

A message that is lost or late leaves the last one in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, LatestMail, Link, Mail
from controllers.real_time_opf.network import AreaNetwork


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest messages of all other areas, summed: (2, ders), (rows,) and a number."""

    toll: FloatArray
    drift: FloatArray
    size: float

    def share(self, own_size: float) -> float:
        """Return the share of its correction that an area makes itself."""
        return own_size / (own_size + self.size) if own_size > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """What an area tells the others; toll (2, n) on all DERs, drift (m,) of all quantities."""

    toll: FloatArray
    drift: FloatArray
    size: float


class AreaMail:
    """Links, inbox and outbox of the areas hosted together.

    Every sum is one area's own, so that its bits do not depend on who else is hosted.

    Parameters
    ----------
    hosted : Positions of the hosted areas.
    """

    def __init__(self, net: AreaNetwork, hosted: Sequence[int]) -> None:
        k, names = len(net.areas), net.areas
        self._parts = [net.of_area(area) for area in range(k)]
        self._hosted = tuple(hosted)
        self._others = [[b for b in range(k) if b != a] for a in hosted]
        self._coupling = [net.coupling[a][bs] for a, bs in zip(hosted, self._others, strict=True)]
        width = [2 * len(ders) + len(rows) + 1 for rows, ders in self._parts]
        pairs = [(a, b) for a, bs in zip(hosted, self._others, strict=True) for b in bs]
        self.links_in = tuple(Link(names[b], names[a], "price", width[a]) for a, b in pairs)
        self.links_out = tuple(Link(names[a], names[b], "price", width[b]) for a, b in pairs)
        self._shape = [(k - 1, width[a]) for a in hosted]
        self._inbox = LatestMail(self.links_in)
        self._round = 0

    def absorb(self, mail: Mail) -> None:
        """Take in messages."""
        self._inbox.absorb(mail)

    def heard(self) -> list[Heard]:
        """Return what each hosted area knows of the others."""
        found, start = [], 0
        for area, shape, coupling in zip(self._hosted, self._shape, self._coupling, strict=True):
            stop = start + shape[0] * shape[1]
            messages = self._inbox.values[start:stop].reshape(shape)
            start = stop
            total, cut = messages.sum(axis=0), 2 * len(self._parts[area][1])
            size = float((coupling * messages[:, -1]).sum())
            found.append(Heard(total[:cut].reshape(2, cut // 2), total[cut:-1], size))
        return found

    def outgoing(self, said: Sequence[Said]) -> Mail:
        """Return this step's messages of the hosted areas."""
        values = []
        for own, others in zip(said, self._others, strict=True):
            for b in others:
                rows, ders = self._parts[b]
                values += [own.toll[:, ders].reshape(-1), own.drift[rows], np.array([own.size])]
        links = np.arange(len(self.links_out), dtype=np.int64)
        rounds = np.full(len(links), self._round, dtype=np.int64)
        self._round += 1
        return Mail(links, rounds, np.concatenate(values)) if values else Mail.empty()
