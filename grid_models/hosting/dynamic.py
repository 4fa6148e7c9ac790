"""Dynamic hosting capacity: PV that a feeder takes when its devices are coordinated over the day.

Paper 003, "Dynamic hosting capacity": batteries, vehicles and heat pumps of given size move their
power to where it makes room, and PV inverters absorb reactive power. `ray` solves one pattern of
PV. The two levers act together; `decomposed` shows each alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from grid_models.base.errors import FeederError, nearest_name
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.devices import KINDS, DeviceModel, DeviceOptions, device_model
from grid_models.hosting.model import HostingModel
from grid_models.hosting.ray import RayOptions, RayProgram, RayResult
from grid_models.hosting.result import Binding, HostingResult
from grid_models.hosting.warm_lp import WarmLp

CASES = {
    "nothing": (False, False),
    "power factor": (True, False),
    "devices": (False, True),
    "all": (True, True),
}
"""Whether inverters move reactive power, and whether devices are coordinated."""


def dynamic(
    model: HostingModel,
    patterns: FloatArray,
    capacity_kw: Mapping[str, FloatArray],
    devices: DeviceOptions | None = None,
    options: RayOptions | None = None,
    *,
    coordinated: bool = True,
    seed: int = 0,
) -> HostingResult:
    """Return the dynamic hosting capacity of K patterns of PV.

    Parameters
    ----------
    patterns : (K, S). PV at the sites, of any scale.
    capacity_kw : (S,) by kind of `KINDS` except PV. Power of the devices at the sites.
    coordinated : False: devices do what suits them (`uncoordinated_kva`); only curtailment and
        reactive power are planned.
    seed : Of the hours at which vehicles are away.

    Raises FeederError: A kind does not exist, or a size is negative or not finite.
    """
    devices, options = devices or DeviceOptions(), options or RayOptions()
    sizes = checked_sizes(model, capacity_kw)
    others = devices_of(model, devices, tuple(sizes), seed) if sizes else None
    fixed: ComplexArray | float = 0.0
    kinds: tuple[str, ...] = ("pv", *sizes)
    if others is not None and not coordinated:
        fixed, kinds = uncoordinated_kva(others, np.concatenate(list(sizes.values()))), ("pv",)
    planned = devices_of(model, devices, kinds, seed)
    none = np.zeros(len(model.sites))
    capacity = np.concatenate([none, *(sizes[kind] for kind in kinds[1:])])
    found = [
        RayProgram(model, planned, pattern, capacity, options, fixed).solve()
        for pattern in np.atleast_2d(patterns)
    ]
    return _result(model, np.atleast_2d(patterns), found)


def decomposed(
    model: HostingModel,
    patterns: FloatArray,
    capacity_kw: Mapping[str, FloatArray],
    devices: DeviceOptions,
    options: RayOptions | None = None,
    seed: int = 0,
) -> dict[str, HostingResult]:
    """Return the capacity with nothing, each lever alone, and both; by the names of `CASES`.

    The devices are there in every case. Parameters as in `dynamic`.
    """
    solved: dict[tuple[float, bool], HostingResult] = {}
    found = {}
    for name, (reactive, coordinated) in CASES.items():
        of_case = devices if reactive else replace(devices, power_factor=1.0)
        key = of_case.power_factor, coordinated  # at power factor 1 two cases are two others
        if key not in solved:
            solved[key] = dynamic(
                model, patterns, capacity_kw, of_case, options, coordinated=coordinated, seed=seed
            )
        found[name] = solved[key]
    return found


def uncoordinated_kva(devices: DeviceModel, capacity_kw: FloatArray) -> ComplexArray:
    """Return what devices inject when each follows its own interest, complex (T, S).

    Batteries rest, vehicles charge as soon as they are back, and heat pumps use the least energy
    that keeps the comfort band.
    """
    alone = WarmLp(
        devices.own_cost, devices.limits(capacity_kw), devices.rows, devices.row_limits(capacity_kw)
    ).solve()
    if alone is None:
        raise FeederError(
            "no plan of the devices keeps their own limits",
            where="hosting, devices",
            expected="vehicles that can charge while they are at home",
        )
    return devices.injection_kva(alone.x, capacity_kw)


def checked_sizes(
    model: HostingModel, capacity_kw: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Return the sizes of the kinds that are there, in the order of `KINDS`."""
    sizes = {kind: np.asarray(value, dtype=np.float64) for kind, value in capacity_kw.items()}
    for kind, value in sizes.items():
        where = f"hosting, size of '{kind}'"
        if kind not in KINDS[1:]:
            raise FeederError(
                "no such device",
                where=where,
                expected="one of " + ", ".join(KINDS[1:]),
                nearest=nearest_name(kind, KINDS[1:]),
            )
        if value.shape != (len(model.sites),) or not (np.isfinite(value) & (value >= 0.0)).all():
            raise FeederError(
                f"an array of shape {value.shape} with a least value of {value.min(initial=0.0)}",
                where=where,
                expected=f"{len(model.sites)} numbers of at least 0, one for each site",
            )
    return {kind: sizes[kind] for kind in KINDS[1:] if kind in sizes and sizes[kind].any()}


def devices_of(
    model: HostingModel, options: DeviceOptions, kinds: tuple[str, ...], seed: int
) -> DeviceModel:
    """Return the devices of some kinds at the sites of a study, over its day."""
    names = [site.name for site in model.sites]
    return device_model(
        options, kinds, names, model.hours, model.step_h, model.pv_pu, model.temp_c, seed
    )


def _result(model: HostingModel, patterns: FloatArray, found: list[RayResult]) -> HostingResult:
    share = patterns / patterns.sum(axis=1, keepdims=True)
    hc_kw = np.array([r.pv_kw for r in found])
    names = tuple(f"placement {k + 1}" for k in range(len(found)))
    lost = int(np.isnan(hc_kw).sum())
    notes = []
    if lost:
        notes.append(
            f"{lost} of {len(found)} placements: no plan keeps the limits without any PV, or none "
            "was found; they are not in the means"
        )
    endless = sum(not r.weight.any() and np.isfinite(r.pv_kw) for r in found)
    if endless:
        notes.append(
            f"{endless} of {len(found)} placements reach most_kw, the end of the search, within "
            "all limits; their hosting capacity is larger"
        )
    early = sum(not r.settled and np.isfinite(r.pv_kw) for r in found)
    if early:
        notes.append(
            f"{early} of {len(found)} placements: the search ended before PV rested; the plans "
            "keep the limits, and more PV may be possible"
        )
    return HostingResult(
        names=names,
        hc_kw=hc_kw,
        binding=tuple(_binding(model, r) for r in found),
        site_kw=hc_kw[:, None] * share,
        site_kva=np.stack([r.site_kva for r in found]),
        notes=tuple(notes),
        tables={
            "dynamic": {
                "placement": names,
                "hc_kw": hc_kw,
                "with_overlap_kw": np.array([r.relaxed_kw for r in found]),
                "curtailed": np.array([r.curtailed for r in found]),
                "excess": np.array([r.excess for r in found]),
                "linear_programmes": np.array([r.rounds for r in found]),
                "network_rows": np.array([r.rows for r in found]),
            },
            "limits": _limits(model, names, found),
        },
    )


def _binding(model: HostingModel, found: RayResult) -> Binding:
    """Return the limit that prevents the largest part of a rise of PV."""
    if np.isnan(found.pv_kw):
        return Binding("no plan", "", np.nan)
    if not found.weight.any():
        return Binding("", "", np.nan)
    top, at = int(found.weight.argmax()), found.elements
    kind = model.check.kinds[at.kind[top]]
    label = model.check.labels(kind)[at.element[top]]
    return Binding(kind, label, float(model.hours[at.case[top]]))


def _limits(
    model: HostingModel, names: tuple[str, ...], found: list[RayResult]
) -> dict[str, list[object]]:
    """Return all limits that bind, a row each."""
    table: dict[str, list[object]] = {
        key: [] for key in ("placement", "limit", "element", "hour", "weight")
    }
    for name, result in zip(names, found, strict=True):
        at = result.elements
        for row in np.argsort(-result.weight).tolist():
            if result.weight[row] <= 0.0:
                break
            kind = model.check.kinds[at.kind[row]]
            label = model.check.labels(kind)[at.element[row]]
            hour = float(model.hours[at.case[row]])
            values = name, kind, label, hour, float(result.weight[row])
            for key, value in zip(table, values, strict=True):
                table[key].append(value)
    return table
