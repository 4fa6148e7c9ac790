"""Projection onto a line's cone: the optimality conditions of a projection, on any points."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controllers.market.solvers.cone import project_limited_line, project_line

numbers = st.floats(-100.0, 100.0, allow_subnormal=False)
points = arrays(np.float64, (4, 7), elements=numbers)
limits = arrays(np.float64, 7, elements=st.floats(0.01, 50.0))


def assert_in_cone(z: np.ndarray) -> None:
    p, q, l_sq, w = z
    size = 1.0 + np.abs(z).max() ** 2
    assert (l_sq >= -1e-9).all()
    assert (w >= -1e-9).all()
    assert (p * p + q * q <= 2.0 * w * l_sq + 1e-9 * size).all()


@given(points)
def test_a_point_less_its_projection_lies_in_the_polar_cone_at_a_right_angle(z) -> None:
    # Moreau: z = proj(z) + rest, rest in the polar cone, <proj, rest> = 0; this cone is self-dual.
    near = np.array(project_line(*z))
    assert_in_cone(near)
    assert_in_cone(near - z)
    angle = np.sum(near * (z - near), axis=0)
    np.testing.assert_allclose(angle, 0.0, atol=1e-8 * (1.0 + np.abs(z).max() ** 2))


@given(points, limits)
def test_with_a_limit_no_other_point_of_the_set_is_nearer(z, l_max) -> None:
    near = np.array(project_limited_line(*z, l_max))
    assert_in_cone(near)
    assert (near[2] <= l_max * (1.0 + 1e-12)).all()
    # The variational inequality <z - near, other - near> <= 0 for other points of the set.
    rng = np.random.default_rng(0)
    size = 1.0 + np.abs(z).max() ** 2
    for _ in range(20):
        other = np.array(project_line(*rng.normal(0.0, 20.0, (4, 7))))
        other *= np.minimum(1.0, l_max / np.maximum(other[2], 1e-12))
        assert (np.sum((z - near) * (other - near), axis=0) <= 1e-7 * size).all()


def test_a_line_does_not_depend_on_which_others_are_in_the_arrays() -> None:
    z = np.random.default_rng(1).normal(0.0, 5.0, (4, 33))
    l_max = np.abs(z[0]) + 0.1
    whole = np.array(project_limited_line(*z, l_max))
    for i in range(33):
        one = np.array(project_limited_line(*z[:, i : i + 1], l_max[i : i + 1]))
        assert one.tobytes() == whole[:, i : i + 1].tobytes()
