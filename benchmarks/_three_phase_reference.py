"""The three-phase market as a full-space non-linear program for Ipopt, independent of ours.

Devices and the real and imaginary parts of the port currents are variables, the power balances are
equations. Nothing of the reduced method is in it: derivatives are casadi's, the solver is Ipopt.
Needs ``pip install casadi`` (the extra `ipopt`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.market.model.costs import tangent
from controllers.market.model.problem import PortProblem


def reference_cost(
    problem: PortProblem, *, voltage_price: float = 0.0, v_set_pu: float = 1.0
) -> float:
    """Return the objective at Ipopt's local optimum; constant-power loads, no shedding."""
    import casadi as ca

    net, bids = problem.network, problem.bids
    t, m = net.size, len(net.ports)
    p_gen, q_gen, p_load = (ca.MX.sym(name, t) for name in ("p_gen", "q_gen", "p_load"))
    i_re, i_im = ca.MX.sym("i_re", m), ca.MX.sym("i_im", m)

    def affine(w: Any, z: Any) -> tuple[Any, Any]:
        zr, zi = ca.DM(np.ascontiguousarray(z.real)), ca.DM(np.ascontiguousarray(z.imag))
        return ca.DM(w.real) + zr @ i_re - zi @ i_im, ca.DM(w.imag) + zr @ i_im + zi @ i_re

    u_re, u_im = affine(net.w_port, net.z_port)
    v_re, v_im = affine(net.w, net.z)
    into_re, into_im = affine(net.i_source0, net.i_source)
    line_re, line_im = affine(net.line_w, net.line_z)
    share = ca.DM(net.share)
    q_load = bids.q_load0 + tangent(bids) * (p_load - bids.p_load0)
    p_port = u_re * i_re + u_im * i_im
    balance_p = p_port - share @ (p_gen - p_load)
    balance_q = u_im * i_re - u_re * i_im - share @ (q_gen - q_load)
    source = net.source_nodes.tolist()
    p_import = ca.dot(v_re[source], into_re) + ca.dot(v_im[source], into_im)
    held = np.setdiff1d(np.flatnonzero(net.w), source).tolist()
    size = v_re[held] ** 2 + v_im[held] ** 2
    target = v_set_pu * net.w / np.abs(net.w)
    cost = (
        0.5 * ca.dot(bids.alpha_p, p_gen**2)
        + 0.5 * ca.dot(bids.alpha_q, q_gen**2)
        + ca.dot(bids.beta, (p_load - bids.p_load0) ** 2)
        + (problem.import_price + 0.5 * problem.import_slope * p_import) * p_import
        + problem.xi * (p_import + ca.sum1(p_port))
        + voltage_price * (ca.sumsqr(v_re - target.real) + ca.sumsqr(v_im - target.imag))
    )
    squared = line_re**2 + line_im**2
    no = np.zeros(2 * m)
    lower = [
        no,
        np.full(len(held), problem.v_min_pu**2),
        np.zeros(len(net.lines)),
        [problem.import_min],
    ]
    upper = [no, np.full(len(held), problem.v_max_pu**2), net.line_limit**2, [problem.import_max]]
    free = np.full(2 * m, np.inf)
    start = np.concatenate([0.5 * bids.p_gen_max, np.zeros(t), bids.p_load0, np.zeros(2 * m)])
    # Ipopt widens limits by 1e-8 of their size if it may, which costs more than our tolerance.
    options = {
        "print_time": False,
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "tol": 1e-10,
            "max_iter": 300,
            "bound_relax_factor": 0.0,
        },
    }
    program = {
        "x": ca.vertcat(p_gen, q_gen, p_load, i_re, i_im),
        "f": cost,
        "g": ca.vertcat(balance_p, balance_q, size, squared, p_import),
    }
    solver = ca.nlpsol("market", "ipopt", program, options)
    found = solver(
        x0=start,
        lbx=np.concatenate([bids.p_gen_min, bids.q_gen_min, bids.p_load_min, -free]),
        ubx=np.concatenate([bids.p_gen_max, bids.q_gen_max, bids.p_load_max, free]),
        lbg=np.concatenate(lower),
        ubg=np.concatenate(upper),
    )
    if not solver.stats()["success"]:
        raise ArithmeticError(f"Ipopt: {solver.stats()['return_status']}")
    return float(found["f"])
