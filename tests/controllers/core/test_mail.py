"""`LatestMail` against the rule written as a plain loop over messages."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import LatestMail, Link, Mail


@st.composite
def inboxes(draw: st.DrawFn) -> tuple[list[Link], list[Mail]]:
    widths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    links = [Link(f"a{i}", "b", width=w) for i, w in enumerate(widths)]
    mails = []
    for _ in range(draw(st.integers(1, 3))):
        heads = draw(st.lists(st.tuples(st.integers(0, len(links) - 1), st.integers(0, 4))))
        rows = [draw(st.lists(st.integers(0, 9), min_size=widths[k], max_size=widths[k]))
                for k, _ in heads]  # fmt: skip
        mails.append(
            Mail(
                np.array([k for k, _ in heads], np.int64),
                np.array([r for _, r in heads], np.int64),
                np.array([x for row in rows for x in row], np.float64),
            )
        )
    return links, mails


@settings(max_examples=300, deadline=None)
@given(inboxes())
def test_the_highest_round_of_each_link_stays(case: tuple[list[Link], list[Mail]]) -> None:
    links, mails = case
    box = LatestMail(links, initial=-1.0)
    expected = [(-1, [-1.0] * link.width) for link in links]
    for mail in mails:
        box.absorb(mail)
        at = 0
        for link, sent in zip(mail.link.tolist(), mail.round.tolist(), strict=True):
            row = mail.values[at : at + links[link].width].tolist()
            at += links[link].width
            if sent > expected[link][0]:
                expected[link] = (sent, row)
        assert [(int(r), box.of(i).tolist()) for i, r in enumerate(box.round)] == expected


@settings(max_examples=100, deadline=None)
@given(inboxes(), st.randoms(use_true_random=False))
def test_order_and_repetition_of_delivery_do_not_matter(case, rng) -> None:  # type: ignore[no-untyped-def]
    """Holds when a link never says two things with one round number, as senders promise."""
    links, mails = case
    said: dict[tuple[int, int], list[float]] = {}
    for mail in mails:
        at = 0
        for link, sent in zip(mail.link.tolist(), mail.round.tolist(), strict=True):
            said.setdefault((link, sent), mail.values[at : at + links[link].width].tolist())
            at += links[link].width
    letters = list(said.items())

    def read(order: list[tuple[tuple[int, int], list[float]]]) -> tuple[list[float], list[int]]:
        box = LatestMail(links)
        for (link, sent), row in order:
            box.absorb(Mail(np.array([link]), np.array([sent]), np.array(row)))
        return box.values.tolist(), box.round.tolist()

    shuffled = letters + letters
    rng.shuffle(shuffled)
    assert read(shuffled) == read(letters)


def test_one_message_per_link_in_order_takes_the_fast_path_and_drops_old_ones() -> None:
    box = LatestMail([Link("a", "c"), Link("b", "c")])
    box.absorb(Mail(np.array([0, 1]), np.array([3, 3]), np.array([1.0, 2.0])))
    box.absorb(Mail(np.array([0, 1]), np.array([2, 4]), np.array([9.0, 5.0])))
    assert box.values.tolist() == [1.0, 5.0]
    assert box.round.tolist() == [3, 4]
