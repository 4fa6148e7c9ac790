"""A change of an inverter's settings in the registers of SunSpec models 704, 705 and 706."""

from __future__ import annotations

from hil.devices.inverter_change import InverterChange, VoltVarChange

STORED = 3
"""The curve that is written and then adopted; curve 1 is in force, curve 2 its owner's."""
AXES = {705: ("V", "Var"), 706: ("V", "W")}
Values = dict[str, float]


def wanted_points(change: InverterChange) -> Values:
    """Return the points outside curves that a change sets, in the order of writing."""
    if change.power_factor is None:
        return {}
    absorbs = float(change.power_factor < 0.0)
    return {
        "704.PFWInj.PF": abs(change.power_factor),
        "704.PFWInj.Ext": absorbs,
        "704.PFWInjEna": 1.0,
    }


def wanted_curves(change: InverterChange) -> dict[int, Values]:
    """Return what a change sets of the curve of each model; voltages in percent."""
    out: dict[int, Values] = {}
    for model, curve in ((705, change.volt_var), (706, change.volt_watt)):
        if curve is None:
            continue
        head, values = f"{model}.Crv[{STORED}].", {}
        points = curve.points()
        if points is not None:
            x_name, y_name = AXES[model]
            values[f"{head}ActPt"] = float(len(points[0]))
            for i, (v_pu, y_pct) in enumerate(zip(*points, strict=True), start=1):
                values[f"{head}Pt[{i}].{x_name}"] = 100.0 * v_pu
                values[f"{head}Pt[{i}].{y_name}"] = y_pct
        if curve.response_s is not None:
            values[f"{head}RspTms"] = curve.response_s
        if isinstance(curve, VoltVarChange):
            values |= _reference(head, curve)
        out[model] = values
    return out


def _reference(head: str, curve: VoltVarChange) -> Values:
    """Return what a change sets of the reference voltage."""
    values: Values = {}
    if curve.v_ref_pu is not None:
        values |= {f"{head}VRef": 100.0 * curve.v_ref_pu, f"{head}VRefAutoEna": 0.0}
    if curve.v_ref_auto_s is not None:
        values |= {f"{head}VRefAutoTms": curve.v_ref_auto_s, f"{head}VRefAutoEna": 1.0}
    return values
