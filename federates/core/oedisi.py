"""Messages of OEDI-SI: our vectors as the JSON of its typed arrays, and back.

The types are those of `oedisi.types.data_types` 3.0 (https://openedi.github.io/oedisi), whose
components exchange them as HELICS strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from federates.errors import MessageError
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Der, DerKind, Feeder, Load, node_label

T = TypeVar("T")
LOADS = "loads"
Labels = Sequence[str] | Literal["loads"] | None
"""Labels that a port declares: a list, all loads, or the default of its type."""
TypeName = Literal[
    "VoltagesMagnitude", "VoltagesAngle", "PowersReal", "PowersImaginary", "MeasurementArray"
]


@dataclass(frozen=True)
class MessageType:
    """Units of a type: in our ports, in the message, and what one of ours is in the message's."""

    unit: str
    units: str
    scale: float = 1.0


TYPES: Mapping[str, MessageType] = {
    "VoltagesMagnitude": MessageType("pu", "V"),  # times each node's base voltage
    "VoltagesAngle": MessageType("deg", "radians", np.pi / 180.0),
    "PowersReal": MessageType("kW", "kW"),
    "PowersImaginary": MessageType("kvar", "kVAR"),
}
# Classes of OpenDSS by which components tell kinds of equipment apart.
_CLASSES: Mapping[DerKind, str] = {
    "pv": "PVSystem",
    "battery": "Storage",
    "inverter": "Generator",
    "flexible_load": "Load",
    "house": "Load",
    "vehicle": "Storage",
}


def equipment_id(of: Der | Load) -> str:
    """Return an identifier: ``PVSystem.pv_65``, ``Load.s65a``; the file's own DERs as it says."""
    if isinstance(of, Load):
        return f"Load.{of.name}"
    kind = _CLASSES[of.kind]
    return f"{kind}.{of.name.removeprefix(f'{kind.lower()}_')}"


@dataclass(frozen=True)
class Codec:
    """Writes and reads the messages of one topic.

    A message has one entry per node of a voltage, one per DER or load and phase of a power (in
    equal shares), and one per label of a plain MeasurementArray.

    Parameters
    ----------
    units : Of the message's values.
    n : Length of our vector.
    owner : (n_entries,) Element of our vector that each entry belongs to.
    gain : (n_entries,) ``values = gain * vector[owner]``.
    ids : (n_entries,) Identifier of each entry: its node, or its label.
    equipment_ids : (n_entries,) The DER or load of each entry of a power; empty for other types.
    start : Date and time at the run's time 0.
    """

    units: str
    n: int
    owner: IntArray
    gain: FloatArray
    ids: tuple[str, ...]
    equipment_ids: tuple[str, ...]
    start: np.datetime64

    def encode(self, vector: FloatArray, now_ns: int) -> str:
        """Return the message of a vector; entries that are not finite (no voltage) are left out."""
        values = self.gain * vector[self.owner]
        time = str((self.start + np.timedelta64(now_ns, "ns")).astype("datetime64[us]"))
        finite = np.isfinite(values)
        head = self._head
        if not finite.all():
            head = self._names(np.flatnonzero(finite))
        return f'{{"values": {json.dumps(values[finite].tolist())}, {head}, "time": "{time}"}}'

    @cached_property
    def _head(self) -> str:
        return self._names(np.arange(len(self.ids)))

    def _names(self, kept: IntArray) -> str:
        names = {"ids": [self.ids[i] for i in kept], "units": self.units}
        if self.equipment_ids:
            names["equipment_ids"] = [self.equipment_ids[i] for i in kept]
        return json.dumps(names)[1:-1]

    def decode(self, text: str, topic: str) -> FloatArray:
        """Return the vector of a message.

        Raises MessageError: It is no such message, in another unit, has a value that is not a
        finite number, or identifiers are unknown, missing or given twice.
        """
        message = _parsed(text, topic)
        units = message.get("units", self.units)
        if str(units).lower() != self.units.lower():
            raise MessageError(f"values in '{units}'", where=topic, expected=f"'{self.units}'")
        values = _numbers(message["values"], topic)
        names = message["ids"], message.get("equipment_ids") if self.equipment_ids else None
        known, at = self._last[0]
        if known != names or len(values) != len(self.ids):
            at = self._places(*names, len(values), topic)
            self._last[0] = names, at
        vector = np.bincount(self.owner, self._inverse * values[at], minlength=self.n)
        return np.asarray(vector, dtype=np.float64)

    @cached_property
    def _last(self) -> list[tuple[Any, Any]]:
        """Names in the last message that was read, and where each of our entries is in it."""
        return [(None, None)]

    def _places(self, ids: list[Any], equipment: Any, n_values: int, topic: str) -> IntArray:
        """Return the position in the message of each of our entries."""
        keys = [str(x).lower() for x in ids]
        if self.equipment_ids:
            equipment = [str(x).lower() for x in equipment] if isinstance(equipment, list) else []
            if len(equipment) != len(keys):
                raise MessageError(
                    f"{len(keys)} ids and {len(equipment)} equipment_ids", where=topic
                )
            keys = list(map(_pair, equipment, keys))
        if len(keys) != n_values:
            raise MessageError(f"{n_values} values and {len(keys)} ids", where=topic)
        place = {self._known.get(key, -1): i for i, key in enumerate(keys)}
        if len(keys) == len(self.ids) and len(place) == len(keys) and -1 not in place:
            return np.array([place[i] for i in range(len(keys))], dtype=np.int64)
        unknown = [key for key in keys if key not in self._known]
        if unknown:
            raise MessageError(
                f"unknown id {unknown[0]} ({len(unknown)} of {len(keys)})",
                where=topic,
                expected=f"{', '.join(self._shown[:3])}{', ...' if len(self._shown) > 3 else ''}",
                nearest=nearest_name(unknown[0], self._shown),
            )
        missing = [name for i, name in enumerate(self._shown) if i not in place]
        if missing:
            raise MessageError(
                f"no value for {missing[0]} ({len(missing)} of {len(self.ids)} missing)",
                where=topic,
                expected="every id that the scenario declares; fewer with the key 'labels'",
            )
        raise MessageError("an id is given twice", where=topic, expected="each id once")

    @cached_property
    def _inverse(self) -> FloatArray:
        entries = np.bincount(self.owner, minlength=self.n)[self.owner]
        return np.asarray(1.0 / (self.gain * entries), dtype=np.float64)

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        if not self.equipment_ids:
            return self.ids
        return tuple(map(_pair, self.equipment_ids, self.ids))

    @cached_property
    def _known(self) -> dict[str, int]:
        return {name.lower(): i for i, name in enumerate(self._shown)}


@dataclass(frozen=True)
class Topic:
    """A HELICS topic of an external program: a vector, or messages where there is a codec."""

    name: str
    codec: Codec | None = None


@dataclass(frozen=True)
class Message:
    """An output port that is also published as messages, on the topic `topic`."""

    port: str
    topic: str
    codec: Codec


def codec_of(
    kind: TypeName,
    unit: str | None,
    labels: Labels,
    feeder: Feeder | None,
    start: np.datetime64,
) -> tuple[str, tuple[str, ...], Codec]:
    """Return unit, labels and codec of a port whose topic carries messages of type `kind`.

    Parameters
    ----------
    unit, labels : As the scenario declares them; None takes the type's own.
    feeder : The grid; None for a MeasurementArray, which does not need one.

    Raises MessageError: The type has another unit, or the grid has no such label.
    """
    if feeder is None:
        assert unit is not None
        assert labels is not None
        n = len(labels)
        plain = Codec(unit, n, np.arange(n), np.ones(n), tuple(labels), (), start)
        return unit, tuple(labels), plain
    type_ = TYPES[kind]
    if unit not in (None, type_.unit):
        raise MessageError(f"unit '{unit}' for {kind}", expected=f"'{type_.unit}', or no unit")
    chosen = _powers if kind.startswith("Powers") else _voltages
    names, owner, gain, ids, equipment_ids = chosen(type_, labels, feeder)
    codec = Codec(type_.units, len(names), owner, gain, ids, equipment_ids, start)
    return type_.unit, names, codec


_Entries = tuple[tuple[str, ...], IntArray, FloatArray, tuple[str, ...], tuple[str, ...]]


def _voltages(type_: MessageType, labels: Labels, feeder: Feeder) -> _Entries:
    base_v = {x: 1e3 * bus.base_kv_ln for bus in feeder.buses.values() for x in bus.labels}
    chosen = _chosen(base_v, labels, "node")
    gain = np.full(len(chosen), type_.scale)
    if type_.unit == "pu":
        gain *= np.array(list(chosen.values()))
    return tuple(chosen), np.arange(len(chosen)), gain, tuple(map(str.upper, chosen)), ()


def _powers(type_: MessageType, labels: Labels, feeder: Feeder) -> _Entries:
    loads: dict[str, Der | Load] = {load.name: load for load in feeder.loads}
    ders: dict[str, Der | Load] = {der.name: der for der in feeder.ders}
    if labels == LOADS:
        chosen = loads
    else:
        chosen = ders if labels is None else _chosen(loads | ders, labels, "DER or load")
    phases = np.array([len(x.phases) for x in chosen.values()], dtype=np.int64)
    owner = np.repeat(np.arange(len(phases)), phases)
    at = [(equipment_id(x), node_label(x.bus, i)) for x in chosen.values() for i in x.phases]
    ids, equipment = tuple(node.upper() for _, node in at), tuple(name for name, _ in at)
    return tuple(chosen), owner, type_.scale / phases[owner], ids, equipment


def _chosen(known: Mapping[str, T], labels: Labels, what: str) -> dict[str, T]:
    if labels is None:
        return dict(known)
    if isinstance(labels, str):
        raise MessageError(f"labels '{labels}'", expected=f"a list, or no labels: every {what}")
    for label in labels:
        if label not in known:
            raise MessageError(
                f"label '{label}'",
                expected=f"a {what} of the grid, such as '{next(iter(known), '')}'",
                nearest=nearest_name(label, known),
            )
    chosen = {label: known[label] for label in labels}
    if len(chosen) < len(labels):
        raise MessageError("a label is given twice", expected="each label once")
    return chosen


def _pair(equipment: str, node: str) -> str:
    return f"{equipment} at {node}"


def _parsed(text: str, topic: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        raise MessageError(
            f"not JSON ({error.msg} at character {error.pos}): {text[:40]!r}", where=topic
        ) from None
    lists = [message.get(key) for key in ("values", "ids")] if isinstance(message, dict) else []
    if not lists or not all(isinstance(x, list) for x in lists):
        raise MessageError(
            "not a measurement array",
            where=topic,
            expected="a JSON object with the lists 'values' and 'ids'",
        )
    assert isinstance(message, dict)
    return message


def _numbers(values: Sequence[Any], topic: str) -> FloatArray:
    # JSON's null, which pydantic writes for NaN, becomes NaN here.
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if numbers.ndim != 1 or bad.size:
        raise MessageError(
            f"{bad.size} of {len(values)} values are no finite numbers",
            where=topic,
            expected="finite numbers; without a message the last one holds",
        )
    return numbers
