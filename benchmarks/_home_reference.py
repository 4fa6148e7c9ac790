"""Stage I of one home in cvxpy, written from the paper's equations, with or without binaries."""

from types import SimpleNamespace

import cvxpy as cp
import numpy as np

from controllers.market.consumer.device_cases import heat_case, storage_cases


def home_reference(homes, forecast, start, options, i, signs=None, binaries=False):
    """Return the least weighted cost of home `i`.

    signs : Per storage, where it may discharge (else it may charge); None: both at once.
    binaries : Decide that, too (mixed-integer; for linear weights only).
    """
    hours = forecast.step_s / 3600.0
    one = homes.take([i])
    own = forecast.take([i])
    first = dict(zip(("battery", "vehicle", "temp"), (x[[i]] for x in start), strict=True))
    price, steps = own.wide("price_per_kwh")[0], own.shape[1]
    model = SimpleNamespace(cost=[], rules=[], hours=hours, steps=steps, price=price, o=options)
    pv = 0.0
    available = np.clip(own.wide("irradiance_pu")[0], 0.0, None) * one.pv_kw[0]
    available[available < 1e-3] = 0.0
    if one.pv_kw[0] > 0.0:
        pv, delta = cp.Variable(steps), cp.Variable(steps)
        model.rules += [delta >= 0, delta <= options.delta_high * pv, pv + delta <= available]
        model.cost.append(-hours * (price + options.curtail_per_kwh) @ pv)
        model.cost.append(-hours * options.flex_per_kwh * cp.sum(delta))
    powers = []
    for kind, case in storage_cases(one, own, first, options).items():
        if getattr(one, kind).energy_kwh[0] > 0.0:
            allowed = None if signs is None else signs[kind]
            powers.append(_storage(model, getattr(one, kind), case, allowed, binaries))
    if powers and one.pv_kw[0] > 0.0 and options.own_pv_per_kwh > 0.0:
        weight = hours * options.own_pv_per_kwh / one.pv_kw[0] * (available > 0.0)
        model.cost.append(cp.sum(cp.multiply(weight, cp.square(pv + sum(powers)))))
    if one.houses.hvac_kw[0] > 0.0:
        powers.append(-_heat_pump(model, heat_case(one.houses, own, first["temp"])))
    if options.price_rise_per_kw > 0.0:
        net = pv + sum(powers) - own.base_kw[0]
        model.cost.append(0.5 * hours * options.price_rise_per_kw * cp.sum_squares(net))
    problem = cp.Problem(cp.Minimize(sum(model.cost)), model.rules)
    if binaries:
        names = ("mip_rel_gap", "mip_feasibility_tolerance", "primal_feasibility_tolerance")
        problem.solve(solver=cp.HIGHS, **dict.fromkeys(names, 1e-10))
    else:
        exact = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
        problem.solve(solver=cp.CLARABEL, **exact)
    return problem.value


def _storage(model, unit, case, allowed, binaries):
    steps, hours, o = model.steps, model.hours, model.o
    out, into, delta = (cp.Variable(steps, nonneg=True) for _ in range(3))
    below, above = cp.Variable(steps, nonneg=True), cp.Variable(steps, nonneg=True)
    energy = cp.Variable(steps + 1)
    c = {name: value[..., 0] for name, value in case._asdict().items()}
    power, size = out - into, out + into
    eta_c, eta_d = unit.charge_efficiency[0], unit.discharge_efficiency[0]
    home = ~c["away"]
    p_max, p_min = unit.p_max_kw[0] * home, unit.p_min_kw[0] * home
    model.rules += [
        energy[0] == c["start_kwh"],
        energy[1:] == energy[:-1] + hours * (eta_c * into - out / eta_d) - c["trip_kwh"],
        power - delta >= p_min,
        power + delta <= p_max,
        delta >= o.delta_low * size,
        delta <= o.delta_high * size,
        energy[1:] - cp.multiply(c["reserve_low"], delta) * hours / eta_d >= c["low_kwh"] - below,
        energy[1:] + cp.multiply(c["reserve_high"], delta) * hours * eta_c <= c["high_kwh"] + above,
    ]
    if binaries:
        allowed = cp.Variable(steps, boolean=True)
    if allowed is None:
        model.rules += [out <= 20.0 * home, into <= 20.0 * home]
    else:
        model.rules += [
            out <= cp.multiply(p_max, allowed),
            into <= cp.multiply(-p_min, 1 - allowed),
        ]
    model.cost += [
        hours * cp.sum(c["throughput"] * size - cp.multiply(model.price, power)),
        -hours * o.flex_per_kwh * cp.sum(delta),
        c["low_price"] @ below + o.limit_per_kwh * cp.sum(above),
    ]
    if o.ramp_per_kw2 > 0.0:
        model.cost.append(o.ramp_per_kw2 * cp.sum_squares(cp.diff(power)))
    return power


def _heat_pump(model, case):
    steps, hours, o = model.steps, model.hours, model.o
    use, delta, below, above = (cp.Variable(steps, nonneg=True) for _ in range(4))
    temp = cp.Variable(steps + 1)
    c = {name: value[..., 0] for name, value in case._asdict().items()}
    model.rules += [
        temp[0] == c["start_c"],
        temp[1:]
        == c["theta"] * temp[:-1]
        + (1.0 - c["theta"]) * c["outdoor_c"]
        + cp.multiply(c["gain_k_per_kw"], use),
        use + delta <= c["rated_kw"],
        delta >= o.delta_low * use,
        delta <= o.delta_high * use,
        temp[1:] >= c["low_c"] - below,
        temp[1:] <= c["high_c"] + above,
    ]
    model.cost += [
        hours * (model.price @ use - o.flex_per_kwh * cp.sum(delta)),
        hours * o.discomfort_per_k_h * cp.sum(below + above),
    ]
    if o.tracking_per_k2_h > 0.0:
        model.cost.append(hours * o.tracking_per_k2_h * cp.sum_squares(temp[1:] - c["set_c"]))
    return use
