"""The link model: what it does to mail, and that hosting does not change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import Link, Mail
from federates.core.links import Bundle, LinkInbox, LinkQuality, Outbox
from grid_models.base import counter_rng

STEP_NS = 1_000_000_000


def _links(n: int, width: int = 1) -> list[Link]:
    return [Link(f"a{i}", f"b{i}", width=width) for i in range(n)]


def _mail(links: Sequence[Link], number: int, rng: np.random.Generator) -> Mail:
    n = sum(link.width for link in links)
    return Mail(
        np.arange(len(links)), np.full(len(links), number, dtype=np.int64), rng.normal(size=n)
    )


def _same(quality: LinkQuality, links: Sequence[Link]) -> dict[str, LinkQuality]:
    return {link.key: quality for link in links}


def test_bundle_survives_its_bytes() -> None:
    mail = Mail(np.array([3, 1]), np.array([7, -1]), np.array([0.1, -0.0, 1e-300]))
    back = Bundle.from_bytes(Bundle(123_456_789_012, mail).to_bytes())
    assert back.sent_ns == 123_456_789_012
    for was, now in zip(
        (mail.link, mail.round, mail.values),
        (back.mail.link, back.mail.round, back.mail.values),
        strict=True,
    ):
        assert was.tobytes() == now.tobytes()
    empty = Bundle.from_bytes(Bundle(5, Mail.empty()).to_bytes())
    assert (len(empty.mail), empty.mail.values.size) == (0, 0)


def test_perfect_link_delivers_once_at_the_next_step_unchanged() -> None:
    links = _links(3)
    inbox = LinkInbox(links, {}, seed=1)
    mail = _mail(links, 0, np.random.default_rng(0))
    inbox.accept(Bundle(0, mail))
    got = inbox.deliver(STEP_NS)
    assert got.values.tobytes() == mail.values.tobytes()
    assert len(inbox.deliver(2 * STEP_NS)) == 0
    assert (inbox.delivered, inbox.lost) == (3, 0)


def test_latency_holds_mail_back_to_the_nanosecond() -> None:
    links = _links(1)
    inbox = LinkInbox(links, _same(LinkQuality(latency_s=2.5), links), seed=1)
    inbox.accept(Bundle(STEP_NS, _mail(links, 0, np.random.default_rng(0))))
    assert len(inbox.deliver(STEP_NS + 2_500_000_000 - 1)) == 0
    assert len(inbox.deliver(STEP_NS + 2_500_000_000)) == 1


def test_loss_has_the_rate_asked_for_and_is_counted() -> None:
    links = _links(200)
    inbox = LinkInbox(links, _same(LinkQuality(loss=0.2), links), seed=1)
    rng = np.random.default_rng(0)
    for k in range(100):
        inbox.accept(Bundle(k * STEP_NS, _mail(links, k, rng)))
        inbox.deliver((k + 1) * STEP_NS)
    assert inbox.lost + inbox.delivered == 20_000
    # Binomial with n = 20000, p = 0.2: standard deviation 0.0028 of the rate; four of them.
    assert inbox.lost / 20_000 == pytest.approx(0.2, abs=0.0113)


@pytest.mark.parametrize(("loss", "kept"), [(0.0, 50), (1.0, 0)])
def test_loss_of_none_and_of_all(loss: float, kept: int) -> None:
    links = _links(50)
    inbox = LinkInbox(links, _same(LinkQuality(loss=loss, latency_s=0.1), links), seed=1)
    inbox.accept(Bundle(0, _mail(links, 0, np.random.default_rng(0))))
    assert len(inbox.deliver(STEP_NS)) == kept


def test_jitter_is_uniform_up_to_its_bound() -> None:
    links = _links(4000)
    inbox = LinkInbox(links, _same(LinkQuality(latency_s=1.0, jitter_s=2.0), links), seed=1)
    inbox.accept(Bundle(0, _mail(links, 0, np.random.default_rng(0))))
    shares = []
    for t_s in (1.0, 1.5, 2.0, 2.5, 3.0):
        inbox.deliver(int(t_s * 1e9))
        shares.append(inbox.delivered / 4000)
    # Uniform between 1 s and 3 s; standard deviation of a share 0.008 at most; four of them.
    assert shares == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0], abs=0.032)
    assert shares[0] < 1e-3
    assert shares[-1] == 1.0


def test_noise_has_the_deviation_asked_for_on_every_number_of_a_message() -> None:
    links = _links(2000, width=3)
    inbox = LinkInbox(links, _same(LinkQuality(noise=0.01), links), seed=1)
    mail = _mail(links, 0, np.random.default_rng(0))
    inbox.accept(Bundle(0, mail))
    error = (inbox.deliver(STEP_NS).values - mail.values).reshape(-1, 3)
    assert error.std(axis=0) == pytest.approx([0.01] * 3, rel=0.07)
    assert np.abs(np.corrcoef(error.T) - np.eye(3)).max() < 4 / np.sqrt(2000)


def test_a_link_without_noise_keeps_its_bits_beside_noisy_ones() -> None:
    # Adding a noise of zero would turn -0.0 into 0.0 or not, by the sign of the draw.
    links = _links(20)
    inbox = LinkInbox(links, {links[0].key: LinkQuality(noise=0.5)}, seed=1)
    inbox.accept(Bundle(0, Mail(np.arange(20), np.zeros(20, np.int64), np.full(20, -0.0))))
    values = inbox.deliver(STEP_NS).values
    assert values[0] != 0.0
    assert values[1:].tobytes() == np.full(19, -0.0).tobytes()


def test_two_messages_of_one_link_and_instant_meet_separate_fates() -> None:
    # An asynchronous agent may send several rounds within one step.
    links = _links(300)
    inbox = LinkInbox(links, _same(LinkQuality(loss=0.5, noise=0.1), links), seed=1)
    twice = Mail(np.repeat(np.arange(300), 2), np.tile(np.array([0, 1]), 300), np.zeros(600))
    inbox.accept(Bundle(0, twice))
    got = inbox.deliver(STEP_NS)
    count = np.bincount(got.link, minlength=300)
    # Each kept or lost on its own: about a half of the links keep exactly one of two.
    assert (count == 1).sum() == pytest.approx(150, abs=4 * np.sqrt(300 * 0.25))
    pairs = got.values[np.isin(got.link, np.flatnonzero(count == 2))].reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_other_seeds_lose_other_messages() -> None:
    links = _links(100)
    kept = []
    for seed in (1, 1, 2):
        inbox = LinkInbox(links, _same(LinkQuality(loss=0.5), links), seed)
        inbox.accept(Bundle(0, _mail(links, 0, np.random.default_rng(0))))
        kept.append(inbox.deliver(STEP_NS).link.tolist())
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


qualities = st.builds(
    LinkQuality,
    latency_s=st.sampled_from([0.0, 0.7, 2.0]),
    jitter_s=st.sampled_from([0.0, 3.5]),
    loss=st.sampled_from([0.0, 0.4]),
    noise=st.sampled_from([0.0, 0.1]),
    bits=st.sampled_from([None, 3]),
    privacy_epsilon=st.sampled_from([None, 2.0]),
    privacy_sensitivity=st.just(0.1),
)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Link], dict[str, LinkQuality], int]:
    n = draw(st.integers(1, 7))
    widths = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    links = [Link(f"a{i % 3}", f"b{i % 2}", f"kind{i}", w) for i, w in enumerate(widths)]
    quality = {link.key: draw(qualities) for link in links if draw(st.booleans())}
    return links, quality, draw(st.integers(0, 100))


Delivery = dict[str, list[tuple[int, int, bytes]]]


def _traffic(links: Sequence[Link], seed: int, n_steps: int) -> list[list[tuple[int, int, bytes]]]:
    """Return for every step the messages (link, round, values); some steps repeat a link."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n_steps):
        chosen = rng.integers(0, len(links), rng.integers(0, 2 * len(links) + 1))
        out.append(
            [
                (int(i), 10 * k + j, np.round(rng.normal(size=links[i].width), 1).tobytes())
                for j, i in enumerate(chosen)
            ]
        )
    return out


def _pack(messages: Sequence[tuple[int, int, bytes]]) -> Mail:
    return Mail(
        np.array([m[0] for m in messages], dtype=np.int64),
        np.array([m[1] for m in messages], dtype=np.int64),
        np.frombuffer(b"".join(m[2] for m in messages)),
    )


def _unpack(mail: Mail, links: Sequence[Link]) -> list[tuple[str, int, bytes]]:
    ends = np.cumsum([links[i].width for i in mail.link])
    parts = np.split(mail.values, ends[:-1]) if len(mail) else []
    return [
        (links[i].key, int(r), v.tobytes())
        for i, r, v in zip(mail.link, mail.round, parts, strict=True)
    ]


def _run(
    links: Sequence[Link],
    quality: Mapping[str, LinkQuality],
    seed: int,
    sender_of: Sequence[int],
    receiver_of: Sequence[int],
) -> Delivery:
    """Send the same traffic with links spread over federates; return what each link delivered."""
    senders, receivers = sorted(set(sender_of)), sorted(set(receiver_of))
    links_in = {
        r: [x for x, at in zip(links, receiver_of, strict=True) if at == r] for r in receivers
    }
    inboxes = {r: LinkInbox(links_in[r], quality, seed) for r in receivers}
    out: Delivery = {link.key: [] for link in links}
    outboxes = {}
    for s in senders:
        mine = [i for i, at in enumerate(sender_of) if at == s]
        routes = [(str(receiver_of[i]), links_in[receiver_of[i]].index(links[i])) for i in mine]
        outboxes[s] = (mine, Outbox([links[i] for i in mine], routes))
    n_steps = 8
    for k, messages in enumerate(_traffic(links, seed, n_steps)):
        for r in receivers:
            for key, number, values in _unpack(inboxes[r].deliver(k * STEP_NS), links_in[r]):
                out[key].append((k, number, values))
        # Senders later in the alphabet get through first: order between hosts must not matter.
        for s in reversed(senders):
            mine, outbox = outboxes[s]
            own = [(mine.index(i), n, v) for i, n, v in messages if i in mine]
            for peer, bundle in outbox.bundles(_pack(own), k * STEP_NS):
                inboxes[int(peer)].accept(Bundle.from_bytes(bundle.to_bytes()))
    return out


@settings(deadline=None)
@given(networks(), st.data())
def test_any_split_of_links_over_federates_delivers_the_same(
    network: tuple[list[Link], dict[str, LinkQuality], int], data: st.DataObject
) -> None:
    links, quality, seed = network
    n = len(links)
    together = _run(links, quality, seed, [0] * n, [0] * n)
    split = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    apart = _run(links, quality, seed, data.draw(split), data.draw(split))
    assert apart == together


@settings(deadline=None)
@given(networks())
def test_delivery_is_ordered_by_link_then_round_and_nothing_is_invented(
    network: tuple[list[Link], dict[str, LinkQuality], int],
) -> None:
    links, quality, seed = network
    inbox = LinkInbox(links, quality, seed)
    sent = _traffic(links, seed, 6)
    for k, messages in enumerate(sent):
        mail = inbox.deliver(k * STEP_NS)
        keys = list(zip(mail.link.tolist(), mail.round.tolist(), strict=True))
        assert keys == sorted(keys)
        assert mail.values.size == sum(links[i].width for i in mail.link)
        inbox.accept(Bundle(k * STEP_NS, _pack(messages)))
    inbox.deliver(100 * STEP_NS)
    assert inbox.delivered + inbox.lost == sum(map(len, sent))


def test_noise_stream_is_documented_by_its_key() -> None:
    # The first number of a message is keyed by the link's name alone: a user can redraw it.
    links = _links(1)
    inbox = LinkInbox(links, _same(LinkQuality(noise=2.0), links), seed=9)
    inbox.accept(Bundle(7 * STEP_NS, Mail(np.array([0]), np.array([0]), np.array([1.0]))))
    draw = counter_rng.normal(9, counter_rng.stream_ids(["a0>b0:state"]), 7 * STEP_NS, 2)
    assert inbox.deliver(8 * STEP_NS).values == pytest.approx(1.0 + 2.0 * draw, rel=1e-15)
