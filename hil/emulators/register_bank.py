"""The registers of an emulated device, as its configuration describes them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hil.devices.codec import decode_one, encode, merged
from hil.devices.errors import DeviceError, ServerError
from hil.devices.places import Place, place_of
from hil.emulators.register_config import EmulatorConfig, RegisterSpec
from hil.emulators.sunspec_image import SunSpecImage
from hil.modbus.pdu import ExceptionCode, Table
from hil.servers.pdu import Refused

At = tuple[Table, int]


class RegisterBank:
    """A `hil.servers.pdu.Bank` of named registers.

    Parameters
    ----------
    written : Called with the names of the registers after a write.

    Raises ServerError: A register cannot hold its value.
    """

    def __init__(
        self, config: EmulatorConfig, written: Callable[[Sequence[str]], None] = lambda _: None
    ) -> None:
        self.config, self._written = config, written
        self._words: dict[At, int] = {
            (Table(b.table), b.address + i): 0 for b in config.blocks for i in range(b.count)
        }
        self._places: dict[str, tuple[Place, float]] = {}
        self._owners: dict[At, list[str]] = {}
        image = self._sunspec()
        for name, spec in config.registers.items():
            self._places[name] = place, _ = self._place(name, spec, image)
            for at in _addresses(place):
                self._owners.setdefault(at, []).append(name)
                self._words.setdefault(at, 0)
        for name, spec in config.registers.items():
            self.put(name, spec.value)

    def _sunspec(self) -> SunSpecImage | None:
        spec = self.config.sunspec
        if spec is None:
            return None
        image = SunSpecImage([(m, {}) for m in spec.models], spec.base, padded=spec.padded)
        for name, value in spec.values.items():
            model, _, point = name.partition(".")
            if not model.isdigit() or (int(model), point) not in image.points:
                raise ServerError(f"no SunSpec point '{name}' in the models", where="emulator")
            image.put(int(model), point, value)
        self._words |= {(Table.holding, spec.base + i): w for i, w in enumerate(image.words)}
        return image

    def _place(
        self, name: str, spec: RegisterSpec, image: SunSpecImage | None
    ) -> tuple[Place, float]:
        place = place_of(spec)
        if place is not None:
            return (replace(place, words=spec.length) if spec.type == "string" else place), 0.0
        model, _, point = str(spec.sunspec).partition(".")
        known = None
        if image is not None and model.isdigit():
            known = image.points.get((int(model), point))
        if image is None or known is None:
            where = f"emulator, registers.{name}"
            raise ServerError("neither an address nor a SunSpec point", where=where)
        sf = known.place.sf
        if isinstance(sf, str):
            return known.place, image.get(int(model), sf.partition(".")[2])
        return known.place, float(sf or 0.0)

    def write_functions(self) -> dict[At, tuple[int, ...]]:
        """Return the functions that may write an address, where not all may."""
        return {
            at: spec.functions
            for name, spec in self.config.registers.items()
            if spec.functions
            for at in _addresses(self._places[name][0])
        }

    def get(self, name: str) -> float:
        """Return the value of a register in its unit; nan where it is not implemented."""
        return self._decoded(name, self._words)

    def _decoded(self, name: str, words: Mapping[At, int]) -> float:
        place, sf = self._places[name]
        return decode_one(place, [words.get(at, 0) for at in _span(place)], sf=sf)

    def word(self, table: Table, address: int) -> int:
        """Return a register as it stands, whatever a client may read."""
        return self._words[table, address]

    def put(self, name: str, value: float | str) -> None:
        """Set a register, whatever a client may do; what does not fit is held at its limit."""
        place, sf = self._places[name]
        if isinstance(value, str):
            data = value.encode("ascii", "replace")[: 2 * place.words].ljust(2 * place.words, b"\0")
            words = list(struct.unpack(f">{place.words}H", data))
        else:
            try:
                words, _ = encode(place, value, sf=sf)
            except DeviceError as error:
                raise ServerError(error.what, where=f"emulator, registers.{name}") from None
        span = _span(place)
        whole = dict(
            zip(span, merged(place, [self._words.get(at, 0) for at in span], words), strict=True)
        )
        self._words |= {at: whole[at] for at in _addresses(place)}

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return registers; see `hil.servers.pdu.Bank`."""
        found = [(table, start + i) for i in range(count)]
        if any(at not in self._words for at in found):
            raise Refused(self.config.absent)
        specs = self.config.registers
        if any(specs[name].write_only for at in found for name in self._owners.get(at, ())):
            raise Refused(ExceptionCode.illegal_address)
        return [self._words[at] for at in found]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write registers, all or none; see `hil.servers.pdu.Bank`."""
        staged: dict[At, int] = {(table, start + i): v for i, v in enumerate(values)}
        if any(at not in self._words for at in staged):
            raise Refused(self.config.absent)
        if any(at not in self._owners for at in staged):
            raise Refused(ExceptionCode.illegal_address)
        names = list(dict.fromkeys(name for at in staged for name in self._owners[at]))
        before = dict(self._words)
        self._words |= staged
        try:
            for name in names:
                self._check(name, staged, before)
        except Refused:
            self._words = before
            raise
        self._written(names)

    def _check(self, name: str, staged: Mapping[At, int], before: Mapping[At, int]) -> None:
        """Refuse what the device does not accept; the new words are in place already."""
        spec, (place, _) = self.config.registers[name], self._places[name]
        addresses = _addresses(place)
        shared = any(len(self._owners[at]) > 1 for at in addresses)
        if shared and self.get(name) == self._decoded(name, before):
            return  # other bits of the same register were meant
        if spec.access == "r" or any(at not in staged for at in addresses):
            raise Refused(ExceptionCode.illegal_address)
        if any(self.get(other) != value for other, value in spec.needs.items()):
            raise Refused(spec.refused_with)
        value = self.get(name)
        low = float("-inf") if spec.min is None else spec.min
        high = float("inf") if spec.max is None else spec.max
        inside = low - 1e-9 <= value <= high + 1e-9
        if not inside and (spec.outside == "refuse" or value != value):
            raise Refused(ExceptionCode.illegal_value)
        if not inside:
            self.put(name, min(max(value, low), high))


def _span(place: Place) -> list[At]:
    """Return the addresses of a place from its first to its last register."""
    return [(Table(place.table), place.address + i) for i in range(place.words)]


def _addresses(place: Place) -> list[At]:
    """Return the addresses whose registers are the place's own."""
    apart = [(Table(place.table), address) for address in place.word_addresses]
    return apart or _span(place)
