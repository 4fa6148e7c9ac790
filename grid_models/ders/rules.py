"""DER placement by rule rather than by bus name, so that one scenario fits any feeder.

A *site* is where one unit may stand: a bus with some of its phases. A rule says which sites there
are (`at`), which of them are taken (`fraction`, by seed) and how large the units are.

>>> rule = DerRule(kind="pv", at="load_phases", total_kw=5000.0)   # doctest: +SKIP
>>> feeder = feeder.with_ders(place(feeder, rule))                 # doctest: +SKIP
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, get_args

from grid_models.base.counter_rng import stream_id
from grid_models.base.errors import FeederateError, GridModelError, nearest_name
from grid_models.base.options import Options, checked_choice, option, parse_options
from grid_models.feeder.model import Der, DerKind, Feeder, VehicleUse

SiteRule = Literal["load_buses", "load_phases", "every_bus", "houses"]
_USE_KEYS = ("leave_h", "return_h", "trip_kwh", "soc_target", "soc_start")
#: kVA over kW that leaves 44 % of the kVA for reactive power at full sun: 1 / sqrt(1 - 0.44**2),
#: the Category B capability of IEEE 1547-2018, table 7.
KVA_PER_KW = 1.0 / math.sqrt(1.0 - 0.44**2)
_KVA_KEYS = ("kva", "kva_per_load_kw", "total_kva")
_KW_KEYS = ("kw", "kw_per_load_kw", "total_kw")
_HOURS = {"battery": 2.7, "vehicle": 8.0}
SIZES = (_KVA_KEYS, _KW_KEYS)
"""Keys for apparent and for active power; of each group a rule has one at most."""


class DerError(GridModelError):
    """A DER, or a rule that places some, cannot be used."""


@dataclass(frozen=True, slots=True)
class DerRule(Options):
    """Where units stand and how large they are.

    Raises DerError: A value is out of range, or the sizes contradict one another.
    """

    error: ClassVar[type[FeederateError]] = DerError

    kind: DerKind = option(..., "What a unit is.", choices=get_args(DerKind))
    at: SiteRule | Sequence[str] = option(
        "load_buses",
        "Sites: one per load bus with the phases of its loads; one per load bus and phase (a delta "
        "load counts on the phases it touches); one per bus except the source; one per house DER "
        "of the model or of a rule before (its rating is its load); or the buses that match the "
        "names or globs given (`'65'`, `'6*'`, or `'65.1'` for one phase), in any case, with all "
        "their phases.",
        shown="`load_buses`, `load_phases`, `every_bus`, `houses` or list of text",
    )
    fraction: float = option(
        1.0,
        "Share of the sites taken, 0 < fraction <= 1, at least one. The choice depends on seed, "
        "prefix and the site's own name only: a larger fraction keeps every site of a smaller one.",
        above=0.0,
        high=1.0,
    )
    kva: float | None = option(
        None, "Apparent power rating of each unit. One of the sizes in kVA.", above=0.0, high=1e6
    )
    kva_per_load_kw: float | None = option(
        None, "Apparent power rating per kW of load at the site.", above=0.0, high=1e6
    )
    total_kva: float | None = option(
        None, "Apparent power rating of all units together.", above=0.0, high=1e6
    )
    kw: float | None = option(
        None,
        "Active power rating of each unit. Without a size in kW it is kVA / `kva_per_kw`; without "
        "one in kVA that is kW times it.",
        above=0.0,
        high=1e6,
    )
    kw_per_load_kw: float | None = option(
        None, "Active power rating per kW of load at the site.", above=0.0, high=1e6
    )
    total_kw: float | None = option(
        None, "Active power rating of all units together.", above=0.0, high=1e6
    )
    kva_per_kw: float | None = option(
        None,
        "Oversize of the inverter, 1.1136 unless given (44 % kvar left at full power); 1 for "
        "loads.",
        low=1.0,
        high=100.0,
    )
    share: Literal["load", "equal"] | None = option(
        None,
        "How a total is divided. By load served; equally for 'every_bus' and for buses without "
        "load.",
        choices=("load", "equal"),
    )
    per_phase: bool | None = option(
        None,
        "Split every site into single-phase units. True for 'load_phases'; False for the others.",
    )
    hours: float | None = option(
        None, "Energy over power rating: 2.7 for a battery, 8 for a vehicle.", above=0.0, high=1e3
    )
    v2g: bool = option(False, "A vehicle may also feed the grid (V2G); else it charges only (V1G).")
    leave_h: float | None = option(
        None, "Hour of day at which a vehicle leaves. Drawn from 6.5 to 9.", low=0.0, high=24.0
    )
    return_h: float | None = option(
        None, "At which it returns; with `leave_h`. Drawn from 16 to 19.", low=0.0, high=24.0
    )
    trip_kwh: float | None = option(
        None, "Energy it uses while it is away. Drawn from 5 to 13.", low=0.0, high=1e6
    )
    soc_target: float | None = option(
        None, "Share of its energy that it should have when it leaves; 0.8.", low=0.1, high=1.0
    )
    soc_start: float | None = option(
        None, "Share of its energy at the start of the run; full.", low=0.1, high=1.0
    )
    flexibility: float = option(
        0.3, "Share of a flexible load's power that can be shed, 0..1.", low=0.0, high=1.0
    )
    kw_per_house: float = option(
        7.0, "Rating that counts as one house, for `Der.count`.", above=0.0
    )
    prefix: str | None = option(
        None, "Names start with it; the kind's name by default, 'flex' for flexible loads."
    )
    seed: int = option(0, "For `fraction`.")

    def check(self) -> None:
        """Check the sites, and that one size in kVA and one in kW at most are given."""
        if isinstance(self.at, str):
            checked_choice("at", self.at, get_args(SiteRule), error=DerError)
        elif not isinstance(self.at, Sequence) or not self.at:
            raise DerError(
                f"{self.at!r} is not accepted",
                where="option 'at'",
                expected=f"{' | '.join(get_args(SiteRule))} or a list of buses",
            )
        of_vehicles = [k for k in _USE_KEYS if getattr(self, k) is not None]
        if (of_vehicles or self.v2g) and self.kind != "vehicle":
            name = of_vehicles[0] if of_vehicles else "v2g"
            raise DerError(f"{name} is given", expected="kind: vehicle, which alone uses it")
        given = [[k for k in keys if getattr(self, k) is not None] for keys in SIZES]
        for keys in given:
            if len(keys) > 1:
                raise DerError(f"{' and '.join(keys)} are given", expected="one of them")
        if given == [[], []]:
            expected = f"one of {', '.join((*_KVA_KEYS, *_KW_KEYS))}"
            raise DerError("no size is given", expected=expected)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "DER rule") -> DerRule:
        """Build a rule from a table of a scenario file.

        Raises DerError: An unknown key, with the nearest valid one, or whatever the constructor
        refuses.
        """
        return parse_options(cls, values, where)

    @property
    def name_prefix(self) -> str:
        """What the units' names start with."""
        return self.prefix or ("flex" if self.kind == "flexible_load" else self.kind)

    @property
    def splits_phases(self) -> bool:
        """Whether each site becomes single-phase units."""
        return self.at == "load_phases" if self.per_phase is None else self.per_phase


@dataclass(frozen=True, slots=True)
class Site:
    """A place for one unit: `load_kw` is the nominal load on its phases.

    `label`: The bus, fit for an OpenDSS element name.
    """

    bus: str
    label: str
    phases: tuple[int, ...]
    load_kw: float
    single_phase: bool

    @property
    def suffix(self) -> str:
        """The label, with the phase for a single-phase site."""
        return f"{self.label}_{self.phases[0]}" if self.single_phase else self.label


def _bus_labels(feeder: Feeder) -> dict[str, str]:
    """Return each bus with other characters as underscores: x/1 is x_1, or x_1-2 beside an x_1."""
    plain = {bus: re.sub(r"[^0-9A-Za-z_-]", "_", bus) for bus in feeder.buses}
    labels: dict[str, str] = {}
    taken: set[str] = set()
    # Buses that keep their name come first, whatever the order of the feeder.
    for bus in sorted(plain, key=lambda bus: plain[bus] != bus):
        label, n = plain[bus], 1
        while label.lower() in taken:
            n += 1
            label = f"{plain[bus]}-{n}"
        taken.add(label.lower())
        labels[bus] = label
    return labels


def load_kw_by_node(feeder: Feeder) -> dict[str, dict[int, float]]:
    """Return the nominal load per bus and phase, kW, in the feeder's order of buses.

    A load's power counts equally on each phase it touches. Loads without positive power (a user's
    file may model generators as negative loads) count nothing.
    """
    found: dict[str, dict[int, float]] = {}
    for load in feeder.loads:
        if load.kw > 0.0:
            phases = found.setdefault(load.bus, {})
            for phase in load.phases:
                phases[phase] = phases.get(phase, 0.0) + load.kw / len(load.phases)
    return {bus: found[bus] for bus in feeder.buses if bus in found}


def sites(feeder: Feeder, rule: DerRule, before: Sequence[Der] = ()) -> tuple[Site, ...]:
    """Return the sites of a rule before `fraction` is applied, in the feeder's order.

    `before`: DERs whose houses are sites, too.

    Raises DerError: The feeder has no such site, or a bus or glob matches nothing.
    """
    if rule.at == "houses":
        return _houses(rule, (*feeder.ders, *before))
    load = load_kw_by_node(feeder)
    if rule.at in ("load_buses", "load_phases"):
        places = [(bus, tuple(sorted(by_phase))) for bus, by_phase in load.items()]
    elif rule.at == "every_bus":
        places = [(b.name, b.phases) for b in feeder.buses.values() if b.name != feeder.source.bus]
    else:
        places = _matching(feeder, rule.at)
    found: list[Site] = []
    labels = _bus_labels(feeder)
    for bus, phases in places:
        kw = load.get(bus, {})
        groups = [(p,) for p in phases] if rule.splits_phases else [phases]
        for group in groups:
            served = sum(kw.get(p, 0.0) for p in group)
            found.append(Site(bus, labels[bus], tuple(group), served, rule.splits_phases))
    if not found:
        raise DerError(
            f"feeder '{feeder.name}' has no site for at: {rule.at}",
            where=f"DER rule '{rule.name_prefix}'",
            expected="a feeder with loads, or at: every_bus",
        )
    return tuple(found)


def _houses(rule: DerRule, ders: Sequence[Der]) -> tuple[Site, ...]:
    """Return a site at each house."""
    found = [
        Site(d.bus, d.name.removeprefix("house_"), group, -d.p_min_kw, rule.splits_phases)
        for d in ders
        if d.kind == "house"
        for group in ([(p,) for p in d.phases] if rule.splits_phases else [d.phases])
    ]
    if not found:
        raise DerError(
            "there is no house for at: houses",
            where=f"DER rule '{rule.name_prefix}'",
            expected="a model with houses (ieee123-der-rich-homes), or a rule of them before",
        )
    return tuple(found)


def _matching(feeder: Feeder, patterns: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Return (bus, phases) for bus names, globs and node labels, in the feeder's order."""
    phases: dict[str, set[int]] = {}
    for pattern in patterns:
        bus_part, _, phase = str(pattern).partition(".")
        hits = [b for b in feeder.buses.values() if fnmatchcase(b.name.lower(), bus_part.lower())]
        if phase:
            hits = [b for b in hits if phase in map(str, b.phases)]
        if not hits:
            names = feeder.node_labels if phase else tuple(feeder.buses)
            raise DerError(
                f"no bus matches '{pattern}'",
                where=f"feeder '{feeder.name}'",
                expected="a bus name, a glob such as '6*', or bus.phase",
                nearest=nearest_name(str(pattern), names),
            )
        for bus in hits:
            phases.setdefault(bus.name, set()).update([int(phase)] if phase else bus.phases)
    return [(bus, tuple(sorted(phases[bus]))) for bus in feeder.buses if bus in phases]


def _chosen(found: Sequence[Site], rule: DerRule) -> tuple[Site, ...]:
    """Return the taken sites: those of smallest hash, kept in the feeder's order."""
    n = max(1, round(rule.fraction * len(found)))
    if n == len(found):
        return tuple(found)
    rank = sorted(
        range(len(found)),
        key=lambda i: stream_id(f"{rule.seed}/{rule.name_prefix}/{found[i].suffix}"),
    )
    return tuple(found[i] for i in sorted(rank[:n]))


def _sizes(taken: Sequence[Site], rule: DerRule, quantity: str) -> list[float] | None:
    """Return kVA or kW per site, or None when the rule does not give this quantity."""
    each = getattr(rule, quantity)
    if each is not None:
        return [float(each)] * len(taken)
    per_load = getattr(rule, f"{quantity}_per_load_kw")
    if per_load is not None:
        bare = [s.suffix for s in taken if s.load_kw <= 0.0]
        if bare:
            raise DerError(
                f"{quantity}_per_load_kw is given but site '{bare[0]}' has no load",
                where=f"DER rule '{rule.name_prefix}'",
                expected=f"sites with load, or {quantity} or total_{quantity}",
            )
        return [per_load * s.load_kw for s in taken]
    total = getattr(rule, f"total_{quantity}")
    if total is None:
        return None
    share = rule.share or ("equal" if rule.at == "every_bus" else "load")
    if share == "equal" or any(s.load_kw <= 0.0 for s in taken):
        return [total / len(taken)] * len(taken)
    served = math.fsum(s.load_kw for s in taken)
    return [total * s.load_kw / served for s in taken]


def place(feeder: Feeder, rule: DerRule | Sequence[DerRule]) -> tuple[Der, ...]:
    """Place units by one rule or several.

    `feeder`: Any; of its own DERs only the houses are looked at (`at: houses`).

    Units come rule by rule, in the feeder's order of buses, named ``pv_65`` or, single-phase,
    ``pv_65_1``.

    Raises DerError: No site, an unknown bus (with the nearest name), or two units of one name.
    """
    rules = [rule] if isinstance(rule, DerRule) else list(rule)
    units: list[Der] = []
    for each in rules:
        units += _place_one(feeder, each, units)
    seen: set[str] = set()
    for unit in units:
        # OpenDSS does not tell upper from lower case.
        if unit.name.lower() in seen:
            raise DerError(
                f"two units would be called '{unit.name}'",
                where=f"feeder '{feeder.name}'",
                expected="a different 'prefix' in each rule",
            )
        seen.add(unit.name.lower())
    return tuple(units)


def _place_one(feeder: Feeder, rule: DerRule, before: Sequence[Der]) -> list[Der]:
    taken = _chosen(sites(feeder, rule, before), rule)
    is_load = rule.kind in ("flexible_load", "house")
    ratio = rule.kva_per_kw or (1.0 if is_load else KVA_PER_KW)
    kva, kw = _sizes(taken, rule, "kva"), _sizes(taken, rule, "kw")
    if kw is None:
        assert kva is not None  # DerRule refuses a rule without any size
        kw = [s / ratio for s in kva]
    if kva is None:
        kva = [p * ratio for p in kw]
    return [_unit(rule, site, s, p) for site, s, p in zip(taken, kva, kw, strict=True)]


def _unit(rule: DerRule, site: Site, kva: float, kw: float) -> Der:
    """Return one unit; `kw` is its rating, whatever its direction."""
    if kw > kva * (1.0 + 1e-9):
        raise DerError(
            f"{kw:g} kW at '{site.suffix}' is more than its {kva:g} kVA",
            where=f"DER rule '{rule.name_prefix}'",
            expected="kva at least kw",
        )
    p_max, p_min, energy, count, use = kw, 0.0, 0.0, 1, None
    if rule.kind in ("battery", "inverter", "vehicle"):
        p_min = -kw
    if rule.kind in _HOURS:
        energy = (rule.hours or _HOURS[rule.kind]) * kw
    if rule.kind == "vehicle":
        p_max = kw if rule.v2g else 0.0
        use = VehicleUse(*(getattr(rule, k) for k in _USE_KEYS))
    elif rule.kind == "flexible_load":
        p_max, p_min = -(1.0 - rule.flexibility) * kw, -kw
    elif rule.kind == "house":
        p_max, p_min, count = 0.0, -kw, max(1, round(kw / rule.kw_per_house))
    name = f"{rule.name_prefix}_{site.suffix}"
    return Der(
        name, rule.kind, site.bus, site.phases, kva, p_max, p_min, energy, count, vehicle=use
    )
