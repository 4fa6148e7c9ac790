"""Which requests make a set-point, and which make a point safe: order, groups and encoding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hil.adapter.reader import DeviceReader
from hil.devices.codec import encode, sf_factor
from hil.devices.errors import DeviceError, NotNowError
from hil.devices.places import Place
from hil.devices.points import GuardWrite, PointSpec


@dataclass(frozen=True)
class Write:
    """One value of a request.

    Parameters
    ----------
    why : In words, for the audit log; '' for the set-point itself.
    low, high : Limits that rounding must not pass.
    """

    point: str
    value: float
    why: str = ""
    low: float = -math.inf
    high: float = math.inf


Requests = list[tuple[Write, ...]]
"""One tuple per request, in the order of sending."""


def command_requests(spec: PointSpec, write: Write) -> Requests:
    """Return the requests of a command: reversion, `before`, set-point, `enable`."""
    requests: Requests = []
    if (reversion := spec.reversion) is not None:
        requests += _singly(reversion.before, "reversion value")
        requests.append((Write(reversion.point, reversion.seconds, "reversion timer"),))
    return requests + _around(spec, write)


def safe_requests(spec: PointSpec, point: str) -> Requests:
    """Return the requests that make a point safe; `release` stands in place of the safe value."""
    if spec.release:
        return _singly(spec.release, "release")
    if spec.safe_value is None:
        return []
    return _around(spec, Write(point, float(spec.safe_value)))


def _around(spec: PointSpec, write: Write) -> Requests:
    requests = [
        *_singly(spec.before, "before"), (write,), *_singly(spec.enable, "enable"),
    ]  # fmt: skip
    return [tuple(itertools.chain(*requests))] if spec.one_request else requests


def _singly(writes: Sequence[GuardWrite], why: str) -> Requests:
    return [(Write(w.point, float(w.value), why),) for w in writes]


@dataclass(frozen=True)
class Frame:
    """One Modbus write.

    Parameters
    ----------
    mask : Bits of the one register that are changed; None where it is written whole.
    """

    function: int
    address: int
    registers: list[int]
    mask: int | None = None


def frames_of(
    reader: DeviceReader, request: Sequence[Write]
) -> tuple[list[Frame], dict[str, float]]:
    """Encode a request with the scale factors of now.

    Returns
    -------
    frames : One; more for a point with bits of several registers, or whose words are apart.
    sent : By point; the values that the registers stand for.

    Raises NotNowError: A scale factor is not available.
    Raises DeviceError: A value does not fit, or the points of one request are not adjacent.
    """
    parts: list[tuple[Place, list[int]]] = []
    sent = {}
    for write in request:
        place, sf = reader.place(write.point)
        if not math.isfinite(sf_factor(sf) * place.scale):
            raise NotNowError("the scale factor is not available", where=write.point)
        words, stands_for = encode(place, write.value, sf=sf, low=write.low, high=write.high)
        parts.append((place, words))
        sent[write.point] = stands_for
    if len(parts) > 1:
        return [_joined(parts, ", ".join(sent))], sent
    place, words = parts[0]
    spec = reader.spec.points.get(request[0].point)
    if _is_whole(place):
        # Without an entry in the device file it is a point of a whole SunSpec model.
        n = len(words)
        function = 16 if spec is None else spec.function(bits=place.is_bit, words=n)
        return [Frame(function, place.address, words)], sent
    function = 16 if spec is None else spec.function(bits=False, words=1)
    masks = place.wire_mask or [0xFFFF] * len(words)
    at = place.word_addresses or range(place.address, place.end)
    return [
        Frame(function, address, [word], None if mask == 0xFFFF else mask)
        for address, word, mask in zip(at, words, masks, strict=True)
        if mask
    ], sent


def _is_whole(place: Place) -> bool:
    return not (place.is_masked or place.word_addresses)


def _joined(parts: list[tuple[Place, list[int]]], names: str) -> Frame:
    """Return the one frame of several adjacent points."""
    parts = sorted(parts, key=lambda part: part[0].address)
    places = [place for place, _ in parts]
    for a, b in itertools.pairwise(places):
        if a.end != b.address or a.table != b.table:
            raise DeviceError("points of one request must be adjacent", where=names)
    if not all(map(_is_whole, places)):
        raise DeviceError("points of one request must be whole registers", where=names)
    registers = [word for _, words in parts for word in words]
    return Frame(15 if places[0].is_bit else 16, places[0].address, registers)
