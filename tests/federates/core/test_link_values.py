"""What links do to numbers: quantisation and privacy noise; noise itself is in test_links."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray, Link, Mail
from federates.core.link_values import LinkQuality
from federates.core.links import Bundle, LinkInbox

S = 1_000_000_000


def _passed(
    quality: LinkQuality, values: FloatArray, counters: int = 0, seed: int = 1
) -> FloatArray:
    """Return messages (n, width) as they leave n links."""
    n, width = values.shape
    links = [Link(f"a{i}", "b", width=width, counters=counters) for i in range(n)]
    inbox = LinkInbox(links, {link.key: quality for link in links}, seed)
    inbox.accept(Bundle(0, Mail(np.arange(n), np.zeros(n, np.int64), values.ravel())))
    return inbox.deliver(S).values.reshape(n, width)


@settings(deadline=None)
@given(
    st.integers(1, 12),
    # Steps of the smallest numbers that a computer has would be smaller still.
    st.lists(st.floats(-1e9, 1e9).filter(lambda x: x == 0.0 or abs(x) > 1e-290), min_size=1),
    st.integers(0, 99),
)
def test_a_number_becomes_one_of_its_two_nearest_levels(
    bits: int, values: list[float], seed: int
) -> None:
    sent = np.array([values])
    got = _passed(LinkQuality(bits=bits), sent, seed=seed)
    largest = np.abs(sent).max()
    reach = 2.0 ** np.frexp(largest)[1] if largest else 0.0
    step = 2.0 * reach / (2.0**bits - 1.0)
    assert (np.abs(got - sent) <= step * (1.0 + 1e-9)).all()
    level = (got + reach) / (step or 1.0)
    assert level == pytest.approx(np.round(level), abs=1e-6)


def test_the_mean_of_a_quantised_number_is_the_number() -> None:
    """Of 20,000 draws of a level at distance 1/3 the mean's deviation is 0.0033 steps."""
    quality = LinkQuality(bits=3, bits_min=0.0, bits_max=7.0)
    got = _passed(quality, np.full((20_000, 1), 2.0 + 1.0 / 3.0))
    assert set(np.unique(got)) == {2.0, 3.0}
    assert got.mean() == pytest.approx(2.0 + 1.0 / 3.0, abs=4 * 0.0033)


def test_numbers_outside_a_stated_range_are_sent_as_its_ends() -> None:
    quality = LinkQuality(bits=8, bits_min=-1.0, bits_max=1.0)
    got = _passed(quality, np.array([[-3.0, 1.0, 1e300, -1.0]]))
    assert got.tolist() == [[-1.0, 1.0, 1.0, -1.0]]


def test_zeros_and_infinite_numbers_pass() -> None:
    got = _passed(LinkQuality(bits=4), np.array([[0.0, 0.0], [np.inf, 1.0], [np.nan, 0.0]]))
    assert got[0].tolist() == [0.0, 0.0]
    assert got[1, 0] == np.inf
    assert np.isnan(got[2, 0])
    assert np.isfinite(_passed(LinkQuality(bits=4), np.array([[1.7e308]]))).all()


@pytest.mark.parametrize(
    "quality",
    [
        LinkQuality(bits=1),
        LinkQuality(noise=3.0),
        LinkQuality(privacy_epsilon=0.1, privacy_sensitivity=1.0),
    ],
)
def test_counters_of_the_protocol_pass_unchanged(quality: LinkQuality) -> None:
    sent = np.tile([0.3, -0.2, 17.0], (50, 1))
    got = _passed(quality, sent, counters=1)
    assert (got[:, 2] == 17.0).all()
    assert (got[:, :2] != sent[:, :2]).all()


def test_privacy_noise_is_laplace_of_sensitivity_over_epsilon() -> None:
    """Scale 2 / 0.5 = 4: |noise| is exponential, mean 4, median 4 log 2; 40,000 draws."""
    got = _passed(LinkQuality(privacy_epsilon=0.5, privacy_sensitivity=2.0), np.zeros((20_000, 2)))
    size = np.abs(got)
    assert size.mean() == pytest.approx(4.0, rel=0.02)
    assert np.median(size) == pytest.approx(4.0 * np.log(2.0), rel=0.03)
    assert got.mean() == pytest.approx(0.0, abs=4 * 4.0 * np.sqrt(2.0 / 40_000))
    assert abs(np.mean(got[:, 0] * got[:, 1])) < 4.0 * 32.0 / np.sqrt(20_000)


def test_bytes_follow_the_bits() -> None:
    link = Link("a", "b", width=11, counters=1)
    assert LinkQuality().message_bytes(link) == 16 + 11 * 8
    # Ten numbers of 4 bits, two bytes for their range, a counter.
    assert LinkQuality(bits=4).message_bytes(link) == 16 + 5 + 2 + 8
    stated = LinkQuality(bits=3, bits_min=0.0, bits_max=1.0)
    assert stated.message_bytes(link) == 16 + 4 + 8


def test_the_summary_has_the_bytes_of_what_was_delivered() -> None:
    links = [Link("a", "b", width=1), Link("a", "c", width=3)]
    inbox = LinkInbox(links, {links[1].key: LinkQuality(bits=8)}, 1)
    inbox.accept(Bundle(0, Mail(np.array([0, 1]), np.zeros(2, np.int64), np.ones(4))))
    inbox.deliver(S)
    assert inbox.summary()["mail_bytes_count"] == (16 + 8) + (16 + 3 + 2)
