"""Registers of an emulated inverter as delivered: nameplate, defaults, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hil.emulators.inverter import BatterySource, InverterFleet
from hil.emulators.inverter_settings import CURVE_POINTS, TRIP_LIMITS, VarRef
from hil.emulators.reversion import CurveModel
from hil.emulators.sunspec_image import SunSpecImage

CURVES = 3
_REPEATS: Mapping[str, int] = {"NPt": CURVE_POINTS, "NCrv": CURVES}
#: As many points as there are limits of a kind.
_TRIPS: Mapping[str, int] = {"NPt": 2, "NCrvSet": CURVES}
#: What trips by which model.
TRIP_MODELS = {
    707: "under_voltage", 708: "over_voltage", 709: "under_frequency", 710: "over_frequency",
}  # fmt: skip
#: Models in the order of the map, with the counts of their repeating groups.
MODELS: Sequence[tuple[int, Mapping[str, int]]] = (
    (1, {}), (701, {}), (702, {}), (703, {}), (704, {}),
    (705, _REPEATS), (706, _REPEATS), (712, _REPEATS), (713, {}), (715, {}),
    *((model, _TRIPS) for model in TRIP_MODELS), (711, {"NCtl": CURVES}),
)  # fmt: skip
_CATEGORY_B, _CATEGORY_2 = 1, 1
#: CtrlModes bits of model 702: limit of W, W, var, power factor, volt-var, frequency-watt, the four
#: trips, watt-var, volt-watt.
_CTRL_MODES = sum(1 << bit for bit in (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13))


@dataclass(frozen=True)
class Nameplate:
    """Names and nominal values.

    Attributes
    ----------
    phases : 1 or 3.
    v_ln : Nominal voltage, line to neutral, V.
    """

    serial: str
    phases: int = 3
    v_ln: float = 277.0
    model_name: str = "Emulated inverter"


def _scale(largest: float, finest: int) -> int:
    """Return the smallest scale factor, not under `finest`, that fits `largest` into int16."""
    return max(finest, math.ceil(math.log10(max(largest, 1e-9) / 32767.0)))


def fill(
    image: SunSpecImage,
    plate: Nameplate,
    fleet: InverterFleet,
    row: int,
    curves: Sequence[CurveModel],
) -> None:
    """Set every register that the device implements, and the limits of what may be written."""
    kw = float(fleet.settings.rated_kw[row])
    kva = float(fleet.settings.rated_kva[row])
    _put_all(image, 1, {
        "Mn": "Feederate", "Md": plate.model_name, "Vr": "1", "SN": plate.serial,
    })  # fmt: skip
    _measurements(image, plate, kva)
    _capacity(image, plate, fleet, row, kw, kva)
    _put_all(image, 703, {
        "V_SF": -1, "Hz_SF": -2, "ES": 1, "ESVHi": 105.0, "ESVLo": 91.7, "ESHzHi": 60.1,
        "ESHzLo": 59.5, "ESDlyTms": 300, "ESRmpTms": 300, "ESDlyRemTms": 0,
    })  # fmt: skip
    _limit_all(image, 703, {
        "ESVHi": (100, 110), "ESVLo": (88, 100), "ESHzHi": (60, 66), "ESHzLo": (50, 60),
        "ESDlyTms": (0, 600), "ESRmpTms": (0, 1000),
    })  # fmt: skip
    _controls(image, kw, kva)
    _curves(image, fleet, row, curves)
    _trips(image, curves)
    _droop(image, fleet, row, curves[-1])
    _storage(image, fleet, row)
    _put_all(image, 715, {
        "LocRemCtl": 0, "DERHb": 0, "ControllerHb": 0, "AlarmReset": 0, "OpCtl": 1,
    })  # fmt: skip


def _put_all(image: SunSpecImage, model: int, values: Mapping[str, float | str]) -> None:
    for name, value in values.items():
        image.put(model, name, value)


def _limit_all(image: SunSpecImage, model: int, limits: Mapping[str, tuple[float, float]]) -> None:
    image.limits.update({(model, name): span for name, span in limits.items()})


def _measurements(image: SunSpecImage, plate: Nameplate, kva: float) -> None:
    watts = 1.3e3 * kva
    amps = watts / (0.5 * plate.v_ln)
    _put_all(image, 701, {
        "W_SF": _scale(watts, 0), "VA_SF": _scale(watts, 0), "Var_SF": _scale(watts, 0),
        "A_SF": _scale(amps, -2), "V_SF": -1, "Hz_SF": -3, "PF_SF": -3, "TotWh_SF": 0,
        "TotVarh_SF": 0, "ACType": 2 if plate.phases == 3 else 0, "DERMode": 1, "MnAlrmInfo": "",
    })  # fmt: skip


def _capacity(
    image: SunSpecImage, plate: Nameplate, fleet: InverterFleet, row: int, kw: float, kva: float
) -> None:
    watts, va = 1e3 * kw, 1e3 * kva
    var = 1e3 * float(fleet.settings.var_inject_kvar[row])
    stored = isinstance(fleet.source, BatterySource)
    sizes = {"W": watts, "VA": va, "Var": var}
    # Up to 65 534 in uint16, but the same scale factors as in 701 keep both readable together.
    _put_all(image, 702, {f"{k}_SF": _scale(1.3 * va, 0) for k in sizes})
    _put_all(image, 702, {"PF_SF": -3, "V_SF": -1, "A_SF": _scale(2 * va / plate.v_ln, -2)})
    amps = va / (plate.phases * plate.v_ln)
    nominal = plate.v_ln * (math.sqrt(3.0) if plate.phases == 3 else 1.0)
    ratings = {
        "WMax": watts, "VAMax": va, "VarMaxInj": var, "VarMaxAbs": var,
        "VNom": nominal, "VMax": 1.2 * nominal, "VMin": 0.5 * nominal, "AMax": amps,
    }  # fmt: skip
    if stored:
        ratings |= {"WChaRteMax": watts, "WDisChaRteMax": watts}
    for name, value in ratings.items():
        image.put(702, name + "Rtg", value)
        image.put(702, name, value)
    _put_all(image, 702, {
        "NorOpCatRtg": _CATEGORY_B, "AbnOpCatRtg": _CATEGORY_2, "CtrlModes": _CTRL_MODES,
        "IntIslandCatRtg": 1,
    })  # fmt: skip
    for name in ("WMax", "VAMax", "VarMaxInj", "VarMaxAbs"):
        image.limits[702, name] = (0.0, image.get(702, name + "Rtg"))
    for name in ("VNom", "VMax", "VMin", "AMax", "WChaRteMax", "WDisChaRteMax"):
        if image.has(702, name):  # settings without an effect in the emulator keep their value
            image.limits[702, name] = (image.get(702, name), image.get(702, name))


def _controls(image: SunSpecImage, kw: float, kva: float) -> None:
    scales = {"PF_SF": -3, "WMaxLimPct_SF": -2, "WSet_SF": 0, "WSetPct_SF": -2, "VarSet_SF": 0,
              "VarSetPct_SF": -2}  # fmt: skip
    _put_all(image, 704, scales)
    for name in ("PFWInj", "WMaxLimPct", "WSet", "VarSet"):
        for suffix in ("Ena", "EnaRvrt", "RvrtTms", "RvrtRem"):
            image.put(704, name + suffix, 0)
    for suffix in ("", "Rvrt"):
        _put_all(image, 704, {
            f"PFWInj{suffix}.PF": 1.0, f"PFWInj{suffix}.Ext": 0, f"WMaxLimPct{suffix}": 100.0,
            f"WSet{suffix}": 0, f"WSetPct{suffix}": 0, f"VarSet{suffix}": 0,
            f"VarSetPct{suffix}": 0,
        })  # fmt: skip
        _limit_all(image, 704, {
            f"PFWInj{suffix}.PF": (0.5, 1.0), f"WMaxLimPct{suffix}": (0, 100),
            f"WSet{suffix}": (-1e3 * kw, 1e3 * kw), f"WSetPct{suffix}": (-100, 100),
            f"VarSet{suffix}": (-1e3 * kva, 1e3 * kva), f"VarSetPct{suffix}": (-100, 100),
        })  # fmt: skip
    image.limits[704, "VarSetPri"] = (0, 1)
    _put_all(image, 704, {"WSetMod": 1, "VarSetMod": 1, "VarSetPri": 1, "WRmp": 0, "WRmpRef": 1})


def _curves(
    image: SunSpecImage, fleet: InverterFleet, row: int, curves: Sequence[CurveModel]
) -> None:
    s = fleet.settings
    for model in (705, 706, 712):
        _put_all(image, model, {
            "Ena": 0, "AdptCrvReq": 1, "AdptCrvRslt": 1, "RvrtTms": 0, "RvrtRem": 0, "RvrtCrv": 0,
            "DeptRef_SF": -2, ("W_SF" if model == 712 else "V_SF"): -2,
        })  # fmt: skip
        image.limits[model, "RvrtCrv"] = (0, CURVES)
    for model in (705, 706):
        image.put(model, "RspTms_SF", -1)
    volt_var, volt_watt, watt_var = curves[:3]
    extra = {
        705: {"DeptRef": VarRef.va_max, "Pri": 1, "VRef": 100.0, "VRefAuto": 100.0,
              "VRefAutoEna": 0, "VRefAutoTms": 300, "RspTms": s.volt_var_response_s[row]},
        706: {"DeptRef": 0, "RspTms": s.volt_watt_response_s[row]},
        712: {"DeptRef": VarRef.va_max, "Pri": 1},
    }  # fmt: skip
    shapes = [(volt_var, s.volt_var, 100.0), (volt_watt, s.volt_watt, 100.0)]
    shapes.append((watt_var, s.watt_var, 1.0))
    for curve, shape, factor in shapes:
        x, y = (factor * shape.x[row]).tolist(), shape.y[row].tolist()
        points = next(i for i in range(1, len(x) + 1) if i == len(x) or x[i] <= x[i - 1])
        for number in range(1, CURVES + 1):
            curve.put(image, number, x[:points], y[:points], **extra[curve.model])
            image.limits[curve.model, f"Crv[{number}].Pri"] = (0, 1)


def _trips(image: SunSpecImage, curves: Sequence[CurveModel]) -> None:
    for curve in curves:
        if curve.model not in TRIP_MODELS:
            continue
        kind, in_pct = TRIP_MODELS[curve.model], curve.x == "V"
        _put_all(image, curve.model, {
            "Ena": 1, "AdptCrvReq": 1, "AdptCrvRslt": 1, f"{curve.x}_SF": -2, "Tms_SF": -2,
        })  # fmt: skip
        limits = sorted((100.0 * x if in_pct else x, t) for x, t in TRIP_LIMITS[kind])
        x, seconds = map(list, zip(*limits, strict=True))
        for number in range(1, CURVES + 1):
            curve.put(image, number, x, seconds)


def _droop(image: SunSpecImage, fleet: InverterFleet, row: int, model: CurveModel) -> None:
    s = fleet.settings
    _put_all(image, 711, {
        "Ena": 0, "AdptCtlReq": 1, "AdptCtlRslt": 1, "RvrtTms": 0, "RvrtRem": 0, "RvrtCtl": 0,
        "Db_SF": -3, "K_SF": -3, "RspTms_SF": -1,
    })  # fmt: skip
    image.limits[711, "RvrtCtl"] = (0, CURVES)
    for number in range(1, CURVES + 1):
        model.put(image, number, [], [], DbOf=s.droop_over_hz[row], DbUf=s.droop_under_hz[row],
                  KOf=s.droop_over_slope[row], KUf=s.droop_under_slope[row],
                  RspTms=s.droop_response_s[row])  # fmt: skip
        _limit_all(image, 711, {
            f"Ctl[{number}].{key}": span
            for key, span in (("DbOf", (0.017, 1.0)), ("DbUf", (0.017, 1.0)), ("KOf", (0.02, 0.05)),
                              ("KUf", (0.02, 0.05)), ("RspTms", (0.2, 10.0)))
        })  # fmt: skip


def _storage(image: SunSpecImage, fleet: InverterFleet, row: int) -> None:
    if not isinstance(fleet.source, BatterySource):
        return  # model 713 is there, with every point not implemented
    watt_hours = 1e3 * float(fleet.source.energy_kwh[row])
    scale = max(0, math.ceil(math.log10(max(watt_hours, 1.0) / 65534.0)))
    _put_all(image, 713, {"WH_SF": scale, "Pct_SF": -1, "Sta": 0, "SoH": 100.0})
    image.put(713, "WHRtg", watt_hours)
