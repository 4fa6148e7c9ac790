"""Step sizes of OPTDIST-VC from the agents' network, with the bounds they keep.

Published form (nu the eigenvalues of Y; the cost is q^2 / 2):

    alpha = 0.95 * min over nu of 2 Re(nu (1 + c) + d) / |nu (1 + c) + d|^2

which for a symmetric Y is 0.95 * 2 / (lambda_max(Y)(1 + c) + d). At 1.3 times the bound the
iteration diverges. beta = c, and gamma = g / lambda_max(X)^2 with g = `gain`.

Preconditioned form (m the momentum). Three loops, each with its bound:

1. inner, ``mu <- mu - s diag(Y)^-1 (Y mu - ...) + m (mu - mu_old)``: with nu the eigenvalues of
   diag(Y)^-1 Y the characteristic roots of ``z^2 - (1 + m - s nu) z + m`` lie inside the unit
   circle, for real nu exactly while ``s < 2 (1 + m) / nu_max``. The library takes 0.95 of the
   bound, which is lower where an untransposed feeder has complex nu.
2. proportional, through the plant: with S = s diag(Y)^-1 and gains P = kappa diag(p), the loop
   matrix is S P E X M F M', where E and F select the points at a voltage limit and the agents
   not at a limit of q, and M spreads an agent's q on its points. Its eigenvalues lie within the
   spectral radius of ``S P |X| M M'`` for *every* E and F
   (Perron-Frobenius: a submatrix of a non-negative matrix has no larger radius). kappa puts that
   radius at `proportional_gain` times 2 (1 + m), the bound for this loop alone.
   p_k = sqrt(Y_kk / sum_j (|X| M M')_kj) is half-way, in logarithm, between equal gains (p = 1)
   and equal loop gains; of 0, 1/3, 1/2, 2/3 and 1 of that way it served best on IEEE 123.
3. integral: `dual_gain` / max_k |X_k|^2, at most 2 (1 with late mail).

Loops overlap, most of all on short feeders. So the gains of 2 and 3 that the library chooses are
lowered by steps of 2^(-1/4) until the linear loop still decays: loops 1 and 2 at 1.25 times the
proportional gain with all points, and with each of the 24 most sensitive points alone, at a
voltage limit; loops 1 to 3 at 3 times the integral gain with each of these alone. A gain that the
user sets is taken as it is.

With mail up to D steps late the inner iteration is an asynchronous Jacobi iteration, which
converges for every bounded delay when diag(Y)^-1 |Y| has a spectral radius of at most 1 and there
is no momentum; the outer loop then needs a lower gain, as the plant's answer meets late prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigs

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.options import ControllerOptions, option
from controllers.optdist.forms import PreconditionedSteps, PublishedSteps
from controllers.optdist.network import DENSE_POINTS, MODELS, PATTERNS, AgentNetwork

# Instances of one site have one network; a run has few sites.
_STEPS_KEPT = 8
_PROPORTIONAL_MARGIN, _DUAL_MARGIN = 1.25, 3.0
_LADDER, _RUNG = 60, 2.0**-0.25
_POINTS_TRIED = 24
_LOOP_STEPS = 800
# On large feeders.
_CANDIDATES, _FEW_TRIED, _OUTERMOST, _POWER_STEPS = 64, 8, 6, 200
_PUBLISHED_LOOP_STEPS, _PUBLISHED_MARGIN = 3000, 1.5
_AT_REST, _GONE = 1e-6, 1e12

SAFETY = 0.95
"""Share of the stability bound that the library uses."""


@dataclass(frozen=True, slots=True)
class OptdistOptions(ControllerOptions):
    """Settings of OPTDIST-VC; None means that the library chooses."""

    form: str = option(
        "preconditioned", "Which update rule.", choices=("preconditioned", "published")
    )
    model: str = option(
        "three_phase", "The linear model that gives X and the neighbours.", choices=MODELS
    )
    pattern: str = option(
        "exact",
        "Who are neighbours: all that Y couples, or only agents that share a phase (fewer "
        "messages at a higher cost of q, see `grid_models.linear.kron`).",
        choices=PATTERNS,
    )
    margin_pu: float = option(
        0.0,
        "Tightens the voltage band at both ends, for nodes without an agent and transients.",
        low=0.0,
        high=0.05,
    )
    max_delay_steps: int = option(
        0,
        "Longest age of mail, in steps beyond the usual one, that the step sizes must stand.",
        low=0,
    )
    loss_weight: float = option(0.0, "d: weighs q'Xq/2, which approximates the losses.", low=0.0)
    dual_gain: float | None = option(None, "Preconditioned form: integral gain.", above=0.0)
    proportional_gain: float | None = option(
        None, "Preconditioned form: share of the proportional loop's bound.", low=0.0
    )
    momentum: float | None = option(
        None, "Preconditioned form: m, the heavy ball's momentum.", low=0.0, high=0.99
    )
    step_share: float | None = option(
        None, "Preconditioned form: share of the inner step's bound.", above=0.0
    )
    alpha: float | None = option(None, "Published form: its alpha.", above=0.0)
    beta: float | None = option(None, "Published form: its beta.", above=0.0)
    gamma: float | None = option(None, "Published form: its gamma.", above=0.0)
    gain: float | None = option(
        None, "Published form: g, which gives gamma = g / lambda_max(X)^2.", above=0.0
    )
    augmentation: float | None = option(None, "Published form: c.", above=0.0)

    def check(self) -> None:
        """Refuse a gain that is given twice, and the options of the other form."""
        if self.gamma is not None and self.gain is not None:
            raise ControllerError(
                "both are set", where="options 'gamma' and 'gain'", expected="one of them"
            )
        for name in _PRECONDITIONED_ONLY if self.form == "published" else _PUBLISHED_ONLY:
            if getattr(self, name) is not None:
                raise ControllerError(
                    f"has no meaning for form '{self.form}'",
                    where=f"option '{name}'",
                    expected="options of that form",
                )


_PUBLISHED_ONLY = ("alpha", "beta", "gamma", "gain", "augmentation")
_PRECONDITIONED_ONLY = ("dual_gain", "proportional_gain", "momentum", "step_share")


@lru_cache(maxsize=_STEPS_KEPT)
def published_steps(network: AgentNetwork, options: OptdistOptions) -> PublishedSteps:
    """Return the step sizes of the published form."""
    c = _or(options.augmentation, 0.25)
    d = options.loss_weight
    gain = _or(options.gain, 25.0 / (1 + options.max_delay_steps))
    nu = _eigenvalues(network.y_dense()) * (1.0 + c) + d
    bound = float((2.0 * nu.real / np.abs(nu) ** 2).min())
    if bound <= 0.0:
        raise ControllerError(
            "the feeder's sensitivities leave no stable step",
            where="optdist-vc",
            expected="a feeder whose Y has eigenvalues with a positive real part",
        )
    alpha = _or(options.alpha, SAFETY * bound)
    x_max = float(np.linalg.norm(network.x, 2))
    gamma = _or(options.gamma, gain / x_max**2)
    steps = PublishedSteps(alpha, _or(options.beta, c), gamma, c, d)
    if options.gain is None and options.gamma is None and options.alpha is None:
        for _ in range(_LADDER):
            if _published_decays(network, replace(steps, gamma=_PUBLISHED_MARGIN * steps.gamma)):
                break
            steps = replace(steps, gamma=steps.gamma * _RUNG)
    return steps


def _published_decays(network: AgentNetwork, steps: PublishedSteps) -> bool:
    """As `decays`, for the published form away from the limits of q."""
    x, y = network.x, network.y_dense()
    worst = np.argsort(-(x**2).sum(axis=1), kind="stable")[:_POINTS_TRIED]
    at_limit = np.eye(len(y))[:, worst]
    q_hat, lam = _start(len(y), len(worst)), np.zeros((len(y), len(worst)))
    size: list[float] = []
    for _ in range(4):
        for _ in range(_PUBLISHED_LOOP_STEPS // 4):
            lam = lam + steps.gamma * at_limit * (x @ q_hat)
            q_hat = q_hat - steps.alpha * (lam + steps.d * q_hat + y @ q_hat)
            if not np.abs(q_hat).max() < _GONE:
                return False
        size.append(float(np.abs(q_hat).max()))
    return size[-1] <= max(size[1], _AT_REST)


def _start(points: int, columns: int) -> FloatArray:
    """Return a start that excites smooth and rough modes alike, in every run the same."""
    return np.repeat(np.cos(np.arange(points) ** 2)[:, None], columns, axis=1)


@lru_cache(maxsize=_STEPS_KEPT)
def preconditioned_steps(network: AgentNetwork, options: OptdistOptions) -> PreconditionedSteps:
    """Return the step sizes of the preconditioned form, for all points."""
    late = options.max_delay_steps > 0
    momentum = _or(options.momentum, 0.0 if late else 0.5)
    proportional = _or(options.proportional_gain, 0.65 if late else 0.8)
    share = _or(options.step_share, SAFETY)
    step = share * step_bound(network, momentum) / network.y_diag
    reach = reached(network, np.ones(len(step)))
    shape = np.where(network.relays(), 0.0, np.sqrt(network.y_diag / reach))
    kappa = proportional * 2.0 * (1.0 + momentum) / _reach_radius(network, step * shape)
    x_sq = float((_most_sensitive(network).response ** 2).sum(axis=1).max())
    steps = PreconditionedSteps(step, 0.0, kappa * shape, momentum, options.loss_weight)
    if options.proportional_gain is None:
        # Loops 1 and 2 together: their fast modes overlap on short feeders.
        steps = _lowered(network, steps, "proportional", _PROPORTIONAL_MARGIN)
    if options.dual_gain is not None:
        return replace(steps, dual=options.dual_gain / x_sq)
    steps = replace(steps, dual=(1.0 if late else 2.0) / x_sq)
    return _lowered(network, steps, "dual", _DUAL_MARGIN)


def reached(network: AgentNetwork, price: FloatArray) -> FloatArray:
    """Return ``|X| M M' price``: how prices move voltages, through the agents that answer them."""
    spread = network.spread()
    return network.sensitivity.times_abs(np.asarray(spread @ (spread.T @ price)))


def _reach_radius(network: AgentNetwork, weight: FloatArray) -> float:
    """Return the spectral radius of diag(weight) |X| M M', or an upper bound close to it."""
    if len(weight) <= DENSE_POINTS:
        matrix = weight[:, None] * reached(network, np.eye(len(weight)))
        return float(np.abs(np.linalg.eigvals(matrix)).max())
    live = weight > 0.0
    v: FloatArray = live.astype(np.float64)
    for _ in range(_POWER_STEPS):
        new = weight * reached(network, v)
        # Collatz and Wielandt: for every positive v the radius lies between these two.
        ratio = new[live] / v[live]
        if ratio.max() <= 1.01 * ratio.min():
            break
        v = new / new.max()
    return float(ratio.max())


@dataclass(frozen=True, slots=True, eq=False)
class _Sensitive:
    """The points whose voltages the agents move most, most first, and their rows of X M."""

    points: IntArray
    response: FloatArray


@lru_cache(maxsize=_STEPS_KEPT)
def _most_sensitive(network: AgentNetwork) -> _Sensitive:
    spread = network.spread()
    points = np.flatnonzero(~network.relays())
    if len(network.points) > DENSE_POINTS:
        # The norms of a few rows only: of those with the largest sums.
        total = reached(network, np.ones(len(network.points)))[points]
        points = points[np.argsort(-total, kind="stable")[:_CANDIDATES]]
    response = np.asarray(network.sensitivity.rows(points) @ spread)
    order = np.argsort(-(response**2).sum(axis=1), kind="stable")
    return _Sensitive(points[order], response[order])


def _lowered(
    network: AgentNetwork,
    steps: PreconditionedSteps,
    gain: Literal["proportional", "dual"],
    margin: float,
) -> PreconditionedSteps:
    """Return `steps` with one gain lowered until the loop decays at `margin` times it."""
    for _ in range(_LADDER):
        value = getattr(steps, gain)
        if decays(network, replace(steps, **{gain: margin * value})):
            break
        steps = replace(steps, **{gain: value * _RUNG})
    return steps


def decays(network: AgentNetwork, steps: PreconditionedSteps) -> bool:
    """Say whether the linear closed loop decays, by simulation.

    One column for each of the most sensitive points alone at a voltage limit; without an integral
    gain also one for all points at a limit.
    """
    spread, sensitive = network.spread(), _most_sensitive(network)
    large = len(network.points) > DENSE_POINTS
    # Of a large feeder's many points alike every few, not all in one street.
    tried = slice(None, None, _CANDIDATES // _FEW_TRIED) if large else slice(_POINTS_TRIED)
    worst, g = sensitive.points[tried], np.asarray(sensitive.response[tried] @ spread.T)
    y = network.y_matrix() if large else network.y_dense()
    one, with_all = np.arange(len(worst)), steps.dual == 0.0
    s, p = steps.step[:, None], steps.proportional[:, None]
    mu = _start(len(s), len(worst) + with_all)
    v, lam, mu_old = np.zeros_like(mu), np.zeros_like(mu), mu
    size = []
    for k in range(_LOOP_STEPS):
        v[worst, one] = -np.einsum("kj,jk->k", g, mu[:, : len(worst)])
        if with_all:
            v[:, -1] = -network.sensitivity.times(spread @ (spread.T @ mu[:, -1]))
        lam[worst, one] += steps.dual * v[worst, one]
        mu, mu_old = mu + s * (lam + p * v - y @ mu) + steps.momentum * (mu - mu_old), mu
        if (k + 1) % (_LOOP_STEPS // 4) == 0:
            size.append(float(np.abs(mu).max()))
            if not size[-1] < _GONE:
                return False
    # Far below the start only rounding is left.
    return size[-1] <= max(size[1], _AT_REST)


def step_bound(network: AgentNetwork, momentum: float) -> float:
    """Return the largest s for which the inner iteration is stable (see the module's text)."""
    nu = _inner_eigenvalues(network)
    if (nu.real <= 0.0).any():
        raise ControllerError(
            "the feeder's sensitivities leave no stable step",
            where="optdist-vc",
            expected="a feeder whose diag(Y)^-1 Y has eigenvalues with a positive real part",
        )
    low, high = 0.0, 2.0 * (1.0 + momentum) / float(np.abs(nu).max())
    if _radius(nu, high * (1 - 1e-9), momentum) < 1.0:
        return high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _radius(nu, middle, momentum) < 1.0 else (low, middle)
    return low


def _inner_eigenvalues(network: AgentNetwork) -> NDArray[np.complex128]:
    """Return the eigenvalues of diag(Y)^-1 Y that bound s: on large feeders the outermost ones.

    Those are the largest, the most oscillating and the smallest, by Arnoldi iteration from a
    fixed start.
    """
    if len(network.points) <= DENSE_POINTS:
        return _eigenvalues(network.y_dense() / network.y_diag[:, None])
    matrix = sparse.csc_array(sparse.diags_array(1.0 / network.y_diag) @ network.y_matrix())
    start = _start(matrix.shape[0], 1)[:, 0]
    found = [
        eigs(matrix, k=_OUTERMOST, which=which, v0=start, return_eigenvectors=False, tol=1e-4)
        for which in ("LM", "LI")
    ]
    found.append(eigs(matrix, k=2, sigma=0.0, v0=start, return_eigenvectors=False, tol=1e-4))
    return np.concatenate(found)


def _radius(nu: NDArray[np.complex128], s: float, m: float) -> float:
    """Return the largest characteristic root of ``z^2 - (1 + m - s nu) z + m``."""
    b = 1.0 + m - s * nu
    root = np.sqrt(b * b - 4.0 * m + 0j)
    return float(np.maximum(np.abs(b + root), np.abs(b - root)).max()) / 2.0


def _eigenvalues(matrix: FloatArray) -> NDArray[np.complex128]:
    return np.asarray(np.linalg.eigvals(matrix), dtype=np.complex128)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
