"""Projection on what a DER can inject."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controllers.real_time_opf.capability import project

number = st.floats(-3.0, 3.0)


@given(p=number, q=number, low=st.floats(-1.0, 0.0), high=st.floats(0.0, 1.0), data=st.data())
def test_no_point_of_the_set_is_nearer(
    p: float, q: float, low: float, high: float, data: st.DataObject
) -> None:
    # A point of a convex set is the nearest one when every other makes an obtuse angle with it.
    new_p, new_q = (x[0] for x in project(*(np.array([x]) for x in (p, q, low, high)), np.ones(1)))
    assert low <= new_p <= high
    assert new_p**2 + new_q**2 <= 1.0 + 1e-12
    other_p = data.draw(st.floats(low, high))
    room = np.sqrt(1.0 - other_p**2)
    other_q = data.draw(st.floats(-room, room))
    assert (p - new_p) * (other_p - new_p) + (q - new_q) * (other_q - new_q) <= 1e-9


def test_a_der_without_rating_injects_nothing() -> None:
    zero = np.zeros(1)
    np.testing.assert_array_equal(project(np.ones(1), np.ones(1), zero, zero, zero), ([0], [0]))
