"""The controller `learned-droop`: its formula, its stability bound, its file and their errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from controllers.learned_droop.controller import LearnedDroop, own_slopes
from controllers.learned_droop.files import feeder_hash, policy_of, policy_text
from controllers.learned_droop.policy import Policy, loop_gain, uniform_policy

SITE = sample_site()


def sample_policy(k: float = 20.0, filter_gain: float = 0.2) -> Policy:
    """A policy for the five DERs of the sample site."""
    origin = {"feeder": SITE.feeder.name, "feeder_sha256": feeder_hash(SITE.feeder)}
    policy = replace(uniform_policy(SITE.ders, k, filter_gain), origin=origin)
    b = np.linspace(-0.3, 0.4, policy.b.size).reshape(policy.b.shape)
    return replace(policy, b=b)


def site_with(text: str) -> ControlSite:
    """The sample site where the file 'p.csv' has this text."""
    return replace(SITE, text_of={"p.csv": text}.__getitem__)


def build(text: str) -> LearnedDroop:
    """All agents with the policy of this text."""
    site = site_with(text)
    return LearnedDroop(site, LearnedDroop.agents(site, policy="p.csv"), policy="p.csv")


def test_command_is_the_formula() -> None:
    policy = sample_policy()
    agents = build(policy_text(policy))
    port = agents.inputs[0].labels
    v = {label: 1.0 + 0.01 * i for i, label in enumerate(port)}
    p_kw = np.array([100.0, 150.0, 20.0, -50.0, 0.0])
    inputs = {"v_pu": np.array(list(v.values())), "p_kw": p_kw}
    first = agents.step(0.0, inputs, Mail.empty()).outputs["q_set_kvar"]
    again = agents.step(1.0, {**inputs, "v_pu": inputs["v_pu"] + 0.01}, Mail.empty())
    for i, der in enumerate(SITE.ders):
        own = np.mean([v[label] for label in der.labels])  # several phases: their mean
        x, h = p_kw[i] / der.p_max_kw, np.sqrt(der.kva**2 - p_kw[i] ** 2)
        b = sum(policy.b[i, n] * x**n for n in range(4))
        # The filter begins at the first voltage, and takes a fifth of the change.
        for w, q in ((own, first[i]), (own + 0.002, again.outputs["q_set_kvar"][i])):
            assert q == pytest.approx(h * np.clip(b - 20.0 * (w - 1.0), -1.0, 1.0), rel=1e-4)


def test_follows_the_protocol_split_over_federates() -> None:
    check_controller("learned-droop", site_with(policy_text(sample_policy())), policy="p.csv")


def test_active_power_must_be_fed() -> None:
    assert all(port.required for port in build(policy_text(sample_policy())).inputs)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    share=st.floats(0.05, 0.99),
    k=st.floats(1.0, 200.0),
)
def test_below_the_bound_any_two_voltages_come_closer(
    seed: int, n: int, share: float, k: float
) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n)) + 0.5 * np.eye(n)
    j = 1e-4 * (root @ root.T + 0.1 * np.eye(n))
    policy = Policy(
        tuple(map(str, range(n))), rng.uniform(10, 300, n), k * rng.uniform(0.2, 1, n),
        rng.normal(0, 0.5, (n, 4)), 1.0,
    )  # fmt: skip
    bound = 2.0 / (1.0 + loop_gain(policy.k, policy.kva, j))
    policy = replace(policy, filter_gain=share * min(bound, 1.0))
    room, p = policy.kva * rng.uniform(0, 1, n), rng.uniform(0, 1, n)

    def after(w: np.ndarray) -> np.ndarray:
        return policy.filtered(w, 1.0 + j @ policy.q_kvar(w, p, room))

    a, b = 1.0 + rng.normal(0, 0.05, (2, n))
    inverse = np.linalg.inv(j)

    def distance(x: np.ndarray) -> float:
        return float(np.sqrt(x @ inverse @ x))

    assert distance(after(a) - after(b)) < distance(a - b)


def test_beyond_the_bound_the_linear_loop_grows() -> None:
    j, kva = np.array([[2e-4, 1e-4], [1e-4, 3e-4]]), np.array([100.0, 100.0])
    k = np.full(2, 50.0)
    for factor, grows in ((0.99, False), (1.01, True)):
        gain = factor * 2.0 / (1.0 + loop_gain(k, kva, j))
        step = np.eye(2) * (1.0 - gain) - gain * j @ np.diag(k * kva)
        assert bool(np.abs(np.linalg.eigvals(step)).max() > 1.0) is grows


def test_file_is_read_as_written() -> None:
    policy = sample_policy()
    text = policy_text(policy)
    again = policy_of(text, "p.csv")
    assert (again.names, again.origin) == (policy.names, policy.origin)
    assert np.allclose(again.b, policy.b, rtol=1e-5, atol=1e-9)
    assert policy_text(again) == text


def test_rows_may_come_in_any_order() -> None:
    lines = policy_text(sample_policy()).splitlines()
    head, rows = lines[:-5], lines[-5:]
    mixed = build("\n".join([*head, *reversed(rows)]))
    assert np.array_equal(mixed._policy.b, build("\n".join(lines))._policy.b)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("pv_b2,", "pv_b9,", r"has no row for pv_b2; expected a row for each DER.*'pv_b9'"),
        ("pv_b1,110,20", "pv_b1,110,nan", r"p\.csv, line 6: k of DER 'pv_b1' is 'nan'; expected"),
        ("pv_b1,110,20", "pv_b1,110,-1", r"k of DER 'pv_b1' is '-1'; expected a number above 0"),
        ("pv_b1,110,", "pv_b1,90,", r"was trained for 90 kVA of DER 'pv_b1'; expected its rating"),
        ("pv_b1,110,20", "pv_b1,110", r"6 columns; expected 7: der,kva,k"),
        ("pv_b1,110", '"pv_b1,110', r"p\.csv, line 6: 1 columns; expected 7"),
        ("pv_b2,330", "pv_b1,330", r"DER 'pv_b1' has two rows"),
        ("feeder_sha256: ", "feeder_sha256: 0", r"another network, feeder 'sample5' with hash"),
        ("# feeder_sha256", "# feeder_sha", r"the header has no 'feeder_sha256'.*'feeder_sha'"),
        ("gain: 0.2", "gain: 1.5", r"filter_gain is '1.5'; expected a number above 0 to 1"),
        ("der,kva,k", "der,k", r"the table begins with 'der,k,b0,b1,b2,b3'; expected the columns"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(old: str, new: str, match: str) -> None:
    text = policy_text(sample_policy())
    assert old in text
    with pytest.raises(ControllerError, match=match):
        build(text.replace(old, new))


def test_a_row_too_many_is_refused() -> None:
    text = policy_text(sample_policy()) + "pv_b7,10,1,0,0,0,0\n"
    with pytest.raises(ControllerError, match=r"has a row for what .*: pv_b7; expected"):
        build(text)


def test_a_slope_that_is_unstable_here_is_refused() -> None:
    limit = 2.0 / (1.0 + loop_gain(np.full(5, 400.0), sample_policy().kva, slopes()))
    build(policy_text(sample_policy(400.0, 0.98 * limit)))
    with pytest.raises(ControllerError, match=r"the loop is unstable on feeder 'sample5'.*2/\(1"):
        build(policy_text(sample_policy(400.0, min(1.02 * limit, 1.0))))


def slopes() -> np.ndarray:
    """J of the sample site."""
    return own_slopes(SITE.feeder, SITE.ders)


def test_without_a_file_the_option_is_asked_for() -> None:
    with pytest.raises(ControllerError, match="option 'policy' is missing"):
        LearnedDroop(SITE, LearnedDroop.agents(SITE))
