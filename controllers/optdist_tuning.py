"""Step sizes of OPTDIST-VC from the agents' network, with the bounds they keep.

Published form (with w the largest cost weight, nu the eigenvalues of Y):

    alpha = 0.95 * min over nu of 2 Re(nu (w + c) + d) / |nu (w + c) + d|^2

which for a symmetric Y is 0.95 * 2 / (lambda_max(Y)(w + c) + d). At 1.3 times the bound the
iteration diverges. beta = c, and gamma = g / lambda_max(X)^2 with g = `gain`.

Preconditioned form (nu the eigenvalues of diag(Y)^-1 Y, m the momentum): the inner iteration
``mu <- mu - s (diag(Y)^-1 Y mu - ...) + m (mu - mu_old)`` has the characteristic roots of
``z^2 - (1 + m - s nu) z + m``; for real nu they lie inside the unit circle exactly while
``s < 2 (1 + m) / nu_max``. The library takes 0.95 of that, and less while some complex nu of an
untransposed feeder would leave the circle. The multipliers' gain is `dual_gain` / max_k |X_k|^2:
the integral loop over the fastest single agent.

With mail up to D steps late the inner iteration is an asynchronous Jacobi iteration, which
converges for every bounded delay when diag(Y)^-1 |Y| has a spectral radius of at most 1 and there
is no momentum; the outer loop then needs a lower gain, as the plant's answer meets late prices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.errors import ControllerError
from controllers.mail import FloatArray
from controllers.optdist_forms import PreconditionedSteps, PublishedSteps
from controllers.optdist_network import AgentNetwork
from controllers.optdist_options import checked_choice, checked_number, checked_whole

SAFETY = 0.95
"""Share of the stability bound that the library uses."""


@dataclass(frozen=True, slots=True)
class OptdistOptions:
    """Settings of OPTDIST-VC; None means that the library chooses.

    Attributes
    ----------
    form : 'preconditioned' or 'published'
        Which update rule.
    model : 'three_phase' or 'single_phase'
        The linear model that gives X and the neighbours.
    margin_pu : float
        Tightens the voltage band at both ends, for nodes without an agent and transients.
    max_delay_steps : int
        Longest age of mail, in steps beyond the usual one, that the step sizes must stand.
    loss_weight : float
        d: weighs q'Xq/2, which approximates the losses.
    dual_gain, proportional_gain, momentum, step_share : float, optional
        Preconditioned form: gx, rx, m, and the share of the bound on the step.
    alpha, beta, gamma, gain, augmentation : float, optional
        Published form: its alpha, beta, gamma (or g, which gives gamma), and c.
    """

    form: str = "preconditioned"
    model: str = "three_phase"
    margin_pu: float = 0.0
    max_delay_steps: int = 0
    loss_weight: float = 0.0
    dual_gain: float | None = None
    proportional_gain: float | None = None
    momentum: float | None = None
    step_share: float | None = None
    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    gain: float | None = None
    augmentation: float | None = None

    def __post_init__(self) -> None:
        checked_choice("form", self.form, ("preconditioned", "published"))
        checked_choice("model", self.model, ("three_phase", "single_phase"))
        checked_number("margin_pu", self.margin_pu, low=0.0, high=0.05)
        checked_whole("max_delay_steps", self.max_delay_steps)
        checked_number("loss_weight", self.loss_weight, low=0.0)
        for name in ("dual_gain", "step_share", "alpha", "beta", "gamma", "gain", "augmentation"):
            if getattr(self, name) is not None:
                checked_number(name, getattr(self, name), low=0.0, open_low=True)
        if self.proportional_gain is not None:
            checked_number("proportional_gain", self.proportional_gain, low=0.0)
        if self.momentum is not None:
            checked_number("momentum", self.momentum, low=0.0, high=0.99)
        if self.gamma is not None and self.gain is not None:
            raise ControllerError(
                "both are set", where="options 'gamma' and 'gain'", expected="one of them"
            )
        _refuse_options_of_other_form(self)


_PUBLISHED_ONLY = ("alpha", "beta", "gamma", "gain", "augmentation")
_PRECONDITIONED_ONLY = ("dual_gain", "proportional_gain", "momentum", "step_share")


def _refuse_options_of_other_form(options: OptdistOptions) -> None:
    other = _PRECONDITIONED_ONLY if options.form == "published" else _PUBLISHED_ONLY
    for name in other:
        if getattr(options, name) is not None:
            raise ControllerError(
                f"has no meaning for form '{options.form}'",
                where=f"option '{name}'",
                expected="options of that form",
            )


def published_steps(
    network: AgentNetwork, options: OptdistOptions, weights: FloatArray
) -> PublishedSteps:
    """Return the step sizes of the published form."""
    c = _or(options.augmentation, 0.3)
    d = options.loss_weight
    gain = _or(options.gain, 3.0)
    if options.max_delay_steps:
        gain = _or(options.gain, 3.0 / (1 + options.max_delay_steps))
    nu = np.linalg.eigvals(network.y_dense()) * (float(weights.max()) + c) + d
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
    return PublishedSteps(alpha, _or(options.beta, c), gamma, c, d)


def preconditioned_steps(
    network: AgentNetwork, options: OptdistOptions, weights: FloatArray
) -> PreconditionedSteps:
    """Return the step sizes of the preconditioned form."""
    late = options.max_delay_steps > 0
    momentum = _or(options.momentum, 0.0 if late else 0.4)
    dual = _or(options.dual_gain, 0.3 if late else 1.0)
    proportional = _or(options.proportional_gain, 3.0 if late else 10.0)
    share = _or(options.step_share, SAFETY)
    step = share * step_bound(network, momentum)
    # Weights scale q per price, hence the loop gain of each agent.
    x_sq = float((network.x**2 / weights[None, :]).sum(axis=1).max())
    return PreconditionedSteps(
        step / network.y_diag, dual / x_sq, proportional / x_sq, momentum, options.loss_weight
    )


def step_bound(network: AgentNetwork, momentum: float) -> float:
    """Return the largest s for which the inner iteration is stable (see the module's text)."""
    nu = np.linalg.eigvals(network.y_dense() / network.y_diag[:, None])
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


def _radius(nu: NDArray[np.complex128], s: float, m: float) -> float:
    """Return the largest characteristic root of ``z^2 - (1 + m - s nu) z + m``."""
    b = 1.0 + m - s * nu
    root = np.sqrt(b * b - 4.0 * m + 0j)
    return float(np.maximum(np.abs(b + root), np.abs(b - root)).max()) / 2.0


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)

