"""The elements of a plant that a physical step can act on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from grid_models.feeder.model import Feeder, node_label


@dataclass(frozen=True)
class PhysicalElements:
    """Elements of a plant by label.

    Of a feeder: ``load.NAME``, ``der.NAME``, ``line.NAME``, ``switch.NAME``. Of a transmission
    system: ``load.BUS``, ``line.BRANCH``, ``machine.NAME``.

    Attributes
    ----------
    kind : load, line, switch, machine, or the kind of the DER.
    nominal_kw : Nominal demand, or the power of a DER or machine; 0 for lines and switches.
    closed : What holds without an attack; True for loads, DERs and machines.
    node : Label of the (first) node that a load, DER or machine stands at.
    on_devices : DERs that are devices: the feeder has their power from elsewhere.
    """

    labels: tuple[str, ...]
    kind: Mapping[str, str]
    nominal_kw: Mapping[str, float]
    closed: Mapping[str, bool]
    node: Mapping[str, str]
    on_devices: frozenset[str] = frozenset()

    @classmethod
    def of(cls, feeder: Feeder, on_devices: Collection[str] = ()) -> PhysicalElements:
        """List a feeder's elements; `on_devices` are names of DERs."""
        kind: dict[str, str] = {}
        nominal: dict[str, float] = {}
        closed: dict[str, bool] = {}
        node: dict[str, str] = {}
        for load in feeder.loads:
            label = f"load.{load.name}"
            kind[label], nominal[label], closed[label] = "load", abs(load.kw), True
            node[label] = node_label(load.bus, load.phases[0])
        for der in feeder.ders:
            label = f"der.{der.name}"
            rating = max(der.p_max_kw, -der.p_min_kw)
            kind[label], nominal[label], closed[label] = der.kind, rating, True
            node[label] = der.labels[0]
        for family, branches in (("line", feeder.lines), ("switch", feeder.switches)):
            for branch in branches:
                label = f"{family}.{branch.name}"
                kind[label], nominal[label], closed[label] = family, 0.0, branch.closed
        devices = frozenset(f"der.{name}" for name in on_devices)
        return cls(tuple(kind), kind, nominal, closed, node, devices)

    def example(self) -> str:
        """Return a label of each family that there is."""
        first: dict[str, str] = {}
        for label in self.labels:
            first.setdefault(label.partition(".")[0], label)
        return ", ".join(f"'{x}'" for x in first.values())

    def refused(self, label: str) -> str:
        """Return an element's label and what it is, for a message that refuses it."""
        kind = self.kind[label]
        what = "" if label.startswith(f"{kind}.") else f", a {kind.replace('_', ' ')}"
        device = " whose power a device federate gives" if label in self.on_devices else ""
        return f"{label}{what}{device}"
