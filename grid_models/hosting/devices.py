"""Devices of hosting studies over a day, as linear programmes in proportion to their capacity.

Paper 003, "Device-specific constraints (DER models)": PV behind inverters, batteries (BS), vehicles
(EV), heat pumps (HP). Per kW of capacity x and step of dt hours::

    PV   0 <= c <= a x,  |q| <= tan(phi) (a x - c)                      injects a x - c, q
    BS   e(t) = e(t-1) + dt (eta_c charge - discharge / eta_d)          injects discharge - charge
    EV   the same less what a trip takes; 0 while away; a target at departure
    HP   z(t) = theta z(t-1) + (1 - theta) ((T_out - T_set) x +- rho p) injects -p

with a the output of PV over its rating, c what is curtailed, and z = x (T_in - T_set). The first
step follows the last one, so every day ends as it began. A heat pump heats in steps in which it is
colder outside than the middle of its set-points, else it cools, so no binary is needed. A battery
that charges and discharges at once destroys energy; `DeviceModel.overlap_kw` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.ders.batteries import BatteryParameters
from grid_models.ders.vehicles import SOC_TARGET, VehicleParameters
from grid_models.feeder.model import Der
from grid_models.hosting.model import refuse_darkness

if TYPE_CHECKING:
    from scipy.sparse import csr_array

KINDS = ("pv", "battery", "vehicle", "heat_pump")
STORAGE = BatteryParameters()


@dataclass(frozen=True, slots=True)
class DeviceOptions(Options):
    """What devices can do, per kW of capacity. The defaults are the slides' ratios.

    Heat pumps are those of `HouseParameters.draw`, in the middle of its ranges: a house of 7 kW
    with 75 % of it in the heat pump.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    power_factor: float = option(
        1.0, "Least power factor of PV inverters, leading or lagging.", above=0.0, high=1.0
    )
    battery_h: float = option(3.0, "Energy over power of batteries.", above=0.0, high=100.0)
    vehicle_h: float = option(2700 / 396, "Energy over power of vehicles.", above=0.0, high=100.0)
    v2g: bool = option(False, "Whether vehicles may feed the grid.")
    trip: float = option(0.2, "Energy of a day's trips over a vehicle's energy.", low=0.0, high=0.7)
    full_power_k: float = option(
        31.5, "Indoor less outdoor temperature that a heat pump holds at full power.", above=0.0
    )
    time_constant_h: float = option(4.0, "R C of a house.", above=0.0)
    heat_set_c: float = option(19.5, "Set-point of heating.")
    cool_set_c: float = option(23.5, "Set-point of cooling.")
    band_k: float = option(1.0, "Whole width of the comfort band round a set-point.", low=0.0)


@dataclass(frozen=True)
class _Block:
    """One kind of device at S sites; n columns and r rows at each, per kW of its capacity.

    ``low x <= y <= high x``, ``least x <= rows y <= most x``; injections
    ``kva y + kva_of_capacity x``.

    Attributes
    ----------
    low, high : (S, n).
    own_cost : (S, n). Cost by which a device decides that nobody coordinates, or among plans of
        equal worth; of reactive power, any that leaves no ties.
    rows : (r, n). least, most : (S, r).
    kva : complex (T, n). kva_of_capacity : complex (T,).
    curtailed, charged, discharged : (n,). Whether the column is that power.
    """

    low: FloatArray
    high: FloatArray
    rows: csr_array
    least: FloatArray
    most: FloatArray
    kva: csr_array
    kva_of_capacity: ComplexArray
    own_cost: FloatArray
    curtailed: NDArray[np.bool_]
    charged: NDArray[np.bool_]
    discharged: NDArray[np.bool_]


@dataclass(frozen=True)
class DeviceModel:
    """All devices of S sites over T steps: n columns y, r rows, and U capacities x in kW.

    ``low x[unit] <= y <= high x[unit]``, ``least x[row_unit] <= rows y <= most x[row_unit]``.
    Capacities are in the order of `kinds`, then of sites. Injections, in the order of steps, then
    of sites: ``kva y + kva_of_capacity x``.

    Attributes
    ----------
    kinds : Of `KINDS`.
    low, high : (n,). unit : (n,).
    own_cost : (n,). Cost by which devices decide that nobody coordinates, or among plans of equal
        worth.
    rows : sparse (r, n). least, most : (r,). row_unit : (r,).
    kva : sparse, complex (T S, n). kva_of_capacity : sparse, complex (T S, U).
    curtailed, charged, discharged : (n,). Whether a column is PV's curtailed power, or a storage's.
    """

    kinds: tuple[str, ...]
    n_sites: int
    low: FloatArray
    high: FloatArray
    own_cost: FloatArray
    unit: NDArray[np.intp]
    rows: csr_array
    least: FloatArray
    most: FloatArray
    row_unit: NDArray[np.intp]
    kva: csr_array
    kva_of_capacity: csr_array
    curtailed: NDArray[np.bool_]
    charged: NDArray[np.bool_]
    discharged: NDArray[np.bool_]

    def injection_kva(self, y: FloatArray, capacity_kw: FloatArray) -> ComplexArray:
        """Return what the sites inject, complex (T, S). `capacity_kw`: (U,)."""
        kva = self.kva @ y + self.kva_of_capacity @ capacity_kw
        return np.asarray(kva).reshape(-1, self.n_sites)

    def overlap_kw(self, y: FloatArray) -> float:
        """Return the largest power that a storage charges and discharges at once."""
        both = np.minimum(y[self.charged], y[self.discharged])
        return float(both.max(initial=0.0))

    def limits(self, capacity_kw: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits of the columns at given capacities, (n,) each."""
        x = capacity_kw[self.unit]
        return self.low * x, self.high * x

    def row_limits(self, capacity_kw: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the limits of the rows at given capacities, (r,) each."""
        x = capacity_kw[self.row_unit]
        one_sided = np.isinf(self.least)
        least = np.where(one_sided, -np.inf, np.where(one_sided, 0.0, self.least) * x)
        return least, self.most * x


def device_model(
    options: DeviceOptions,
    kinds: Sequence[str],
    sites: Sequence[str],
    hours: FloatArray,
    step_h: float,
    pv_pu: FloatArray,
    temp_c: FloatArray,
    seed: int = 0,
) -> DeviceModel:
    """Return the devices of some kinds, each at every site.

    Parameters
    ----------
    kinds : Of `KINDS`.
    sites : (S,). Names; the hours at which vehicles are away are drawn by them and by `seed`.
    hours : (T,). Time of day of the steps.
    pv_pu, temp_c : (T,). Output of PV over its rating; outdoor temperature.

    Raises FeederError: The sun does not shine on PV, or no heat pump of these options keeps its
        comfort band at this temperature.
    """
    n_sites = len(sites)
    made = {
        "pv": lambda: _pv(options, n_sites, pv_pu),
        "battery": lambda: _battery(options, n_sites, len(hours), step_h),
        "vehicle": lambda: _vehicle(options, sites, hours, step_h, seed),
        "heat_pump": lambda: _heat_pump(options, n_sites, temp_c, step_h),
    }
    return _stacked(tuple(kinds), [made[kind]() for kind in kinds], n_sites)


def _stacked(kinds: tuple[str, ...], blocks: Sequence[_Block], n_sites: int) -> DeviceModel:
    """Return the blocks of all kinds side by side, site by site within each."""
    from scipy.sparse import block_diag, csr_array, eye_array, hstack, kron

    one, steps = eye_array(n_sites), len(blocks[0].kva_of_capacity)
    # kron puts the steps of a site side by side; injections are in the order of steps.
    order = np.arange(n_sites * steps).reshape(n_sites, steps).T.ravel()

    def injections(parts: Sequence[csr_array]) -> csr_array:
        each = [kron(one, part, format="csr")[order] for part in parts]
        return csr_array(hstack(each, format="csr"))

    def per_site(name: str) -> NDArray[np.bool_]:
        return np.concatenate([np.tile(getattr(b, name), n_sites) for b in blocks])

    def units(name: str) -> NDArray[np.intp]:
        sizes = np.repeat([getattr(b, name).shape[1] for b in blocks], n_sites)
        return np.repeat(np.arange(len(blocks) * n_sites), sizes)

    flat: dict[str, Any] = {
        name: np.concatenate([getattr(b, name).ravel() for b in blocks])
        for name in ("low", "high", "own_cost", "least", "most")
    }
    return DeviceModel(
        kinds=kinds,
        n_sites=n_sites,
        unit=units("low"),
        rows=csr_array(block_diag([kron(one, b.rows) for b in blocks], format="csr")),
        row_unit=units("least"),
        kva=injections([b.kva for b in blocks]),
        kva_of_capacity=injections([csr_array(b.kva_of_capacity[:, None]) for b in blocks]),
        curtailed=per_site("curtailed"),
        charged=per_site("charged"),
        discharged=per_site("discharged"),
        **flat,
    )


def _block(
    n_sites: int,
    parts: Sequence[str],
    steps: NDArray[np.intp],
    n_steps: int,
    kva: dict[str, complex],
    **given: Any,
) -> _Block:
    """Return a block whose columns are `parts`, one per part and step.

    `steps`: (k,). The steps that have columns. `kva`: Injection of each part, per kW of it.
    """
    from scipy.sparse import csr_array

    k = len(steps)
    columns, place = np.arange(len(parts) * k), np.tile(steps, len(parts))
    is_part = {part: np.repeat([p == part for p in parts], k) for part in parts}
    none = np.zeros(len(columns), dtype=bool)
    shape = n_steps, len(columns)
    injected = np.repeat([kva.get(part, 0j) for part in parts], k)
    matrix = csr_array((injected, (place, columns)), shape=shape)
    matrix.eliminate_zeros()
    fields: dict[str, Any] = {
        "own_cost": np.zeros((n_sites, len(columns))),
        "kva": matrix,
        "kva_of_capacity": np.zeros(n_steps, dtype=np.complex128),
        "curtailed": is_part.get("curtailed", none),
        "charged": is_part.get("charge", none) if "discharge" in parts else none,
        "discharged": is_part.get("discharge", none),
    }
    return _Block(**(fields | given))


def _pv(options: DeviceOptions, n_sites: int, pv_pu: FloatArray) -> _Block:
    from scipy.sparse import csr_array, eye_array, hstack

    refuse_darkness(pv_pu)
    sunny = np.flatnonzero(pv_pu > 0.0)
    a, k = pv_pu[sunny], len(sunny)
    tan = float(np.sqrt(1.0 / options.power_factor**2 - 1.0))
    parts, rows, most = ["curtailed"], csr_array((0, k)), np.zeros(0)
    low, high = np.zeros(k), a
    if tan > 0.0:
        # q counts from -tan(phi) p, so that the usual case is at a bound and needs no row.
        parts = ["curtailed", "q"]
        rows = hstack([2.0 * tan * eye_array(k), eye_array(k)], format="csr")
        most = 2.0 * tan * a
        low, high = np.tile(low, 2), np.concatenate([a, most])
    return _block(
        n_sites, parts, sunny, len(pv_pu), {"curtailed": -1.0 + 1j * tan, "q": 1j},
        low=_all(low, n_sites), high=_all(high, n_sites), rows=rows,
        least=np.full((n_sites, len(most)), -np.inf), most=_all(most, n_sites),
        own_cost=_all(np.repeat([0.0, 1.0][: len(parts)], k), n_sites),
        kva_of_capacity=(1.0 - 1j * tan) * pv_pu,
    )  # fmt: skip


def _battery(options: DeviceOptions, n_sites: int, n_steps: int, step_h: float) -> _Block:
    idle = np.zeros((n_sites, n_steps))
    high = idle + 1.0
    energy = idle + options.battery_h
    return _storage(
        step_h, (high, high), (STORAGE.soc_min * energy, STORAGE.soc_max * energy), idle
    )


def _vehicle(
    options: DeviceOptions, sites: Sequence[str], hours: FloatArray, step_h: float, seed: int
) -> _Block:
    """Vehicles as in `VehicleFleet`: plugged in for whole steps, trips spread over the absence."""
    energy = options.vehicle_h
    ders = [Der(f"vehicle_{s}", "vehicle", s, (), 1.0, 0.0, -1.0, energy_kwh=1e3) for s in sites]
    use = VehicleParameters.of_ders(ders, seed)
    away = np.array([use.hours_away(3600.0 * h, 3600.0 * step_h) for h in hours]).T
    share = away / np.maximum(away.sum(axis=1, keepdims=True), 1e-9)
    home = (away == 0.0).astype(np.float64)
    leaves = (home > 0.0) & (np.roll(home, -1, axis=1) == 0.0)
    low = np.where(leaves, SOC_TARGET, STORAGE.soc_min) * energy
    high = np.full_like(low, STORAGE.soc_max * energy)
    # Nobody coordinates: it charges as soon as it is back.
    since = np.mod(hours - use.return_h[:, None], 24.0)
    discharge = home if options.v2g else None
    return _storage(
        step_h, (home, discharge), (low, high), options.trip * energy * share, 1.0 + since / 24.0
    )


def _storage(
    step_h: float,
    power: tuple[FloatArray, FloatArray | None],
    energy: tuple[FloatArray, FloatArray],
    taken_kwh: FloatArray,
    charge_cost: FloatArray | float = 1.0,
) -> _Block:
    """Return storages; (S, T) each: limits of charge, discharge and energy, energy of trips."""
    from scipy.sparse import csr_array, eye_array, hstack

    n_sites, n_steps = taken_kwh.shape
    one, none = eye_array(n_steps), np.zeros_like(taken_kwh)
    before = csr_array(np.roll(np.eye(n_steps), -1, axis=1))
    charge, discharge = power
    parts, high, cost = ["charge"], [charge], [none + charge_cost]
    stored = [-step_h * STORAGE.charge_efficiency * one]
    if discharge is not None:
        parts, high, cost = [*parts, "discharge"], [*high, discharge], [*cost, none + 1.0]
        stored.append(step_h / STORAGE.discharge_efficiency * one)
    low = [none] * len(parts)
    return _block(
        n_sites, [*parts, "energy"], np.arange(n_steps), n_steps,
        {"charge": -1.0, "discharge": 1.0},
        low=np.hstack([*low, energy[0]]), high=np.hstack([*high, energy[1]]),
        rows=hstack([*stored, one - before], format="csr"), least=-taken_kwh, most=-taken_kwh,
        own_cost=np.hstack([*cost, none]),
    )  # fmt: skip


def _heat_pump(options: DeviceOptions, n_sites: int, temp_c: FloatArray, step_h: float) -> _Block:
    from scipy.sparse import csr_array, eye_array, hstack

    n_steps, half = len(temp_c), 0.5 * options.band_k
    middle = 0.5 * (options.heat_set_c + options.cool_set_c)
    reach = 0.5 * (options.cool_set_c - options.heat_set_c) + half
    theta = float(np.exp(-step_h / options.time_constant_h))
    needed = np.abs(temp_c - middle).max() - reach
    if needed > options.full_power_k:
        raise FeederError(
            f"a heat pump holds {options.full_power_k:g} K at full power, and the outdoor "
            f"temperature needs {needed:.1f} K",
            where="option 'full_power_k'",
            expected="at least what the coldest and the hottest hour need",
        )
    heats = np.where(temp_c < middle, 1.0, -1.0)
    gain = (1.0 - theta) * options.full_power_k * heats
    before = csr_array(np.roll(np.eye(n_steps), -1, axis=1))
    rows = hstack([csr_array(np.diag(-gain)), eye_array(n_steps) - theta * before], format="csr")
    drift = (1.0 - theta) * (temp_c - middle)
    ones = np.ones(n_steps)
    return _block(
        n_sites, ["power", "warmth"], np.arange(n_steps), n_steps, {"power": -1.0},
        low=_all(np.concatenate([0.0 * ones, -reach * ones]), n_sites),
        high=_all(np.concatenate([ones, reach * ones]), n_sites),
        rows=rows, least=_all(drift, n_sites), most=_all(drift, n_sites),
        own_cost=_all(np.concatenate([ones, 0.0 * ones]), n_sites),
    )  # fmt: skip


def _all(row: FloatArray, n_sites: int) -> FloatArray:
    return np.tile(row, (n_sites, 1))
