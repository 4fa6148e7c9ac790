"""The counter-based generator: a pure function whose numbers pass as random."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grid_models.base import counter_rng

N = 20_000
# Fixed inputs give fixed numbers, so a test that passes once passes for ever; 1e-3 then means that
# one in a thousand of all good generators would have been refused.
P_REFUSED = 1e-3


def _names(n: int) -> np.ndarray:
    return counter_rng.stream_ids(f"agent_{i}>agent_{i + 1}:state" for i in range(n))


def test_mixing_function_is_that_of_splitmix64() -> None:
    # First outputs of SplitMix64 from state 0, as published with the reference C code of
    # S. Vigna (prng.di.unimi.it/splitmix64.c): the generator adds gamma, then mixes.
    gamma = np.uint64(0x9E3779B97F4A7C15)
    state = np.arange(1, 4, dtype=np.uint64) * gamma
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(x) for x in counter_rng._mix(state)] == expected


def test_uniform_over_streams_over_counters_and_over_seeds() -> None:
    streams, one = _names(N), _names(1)
    samples = {
        "streams": counter_rng.uniform(1, streams, 5, 0),
        "counters": counter_rng.uniform(1, one, np.arange(N), 0),
        # Times of sending in ns are multiples of a large step.
        "times": counter_rng.uniform(1, one, np.arange(N) * 15_000_000_000, 0),
        "seeds": np.concatenate([counter_rng.uniform(s, one, 5, 0) for s in range(2000)]),
        "channels": np.concatenate([counter_rng.uniform(1, one, 5, c) for c in range(2000)]),
    }
    for what, sample in samples.items():
        assert (sample > 0).all(), what
        assert (sample < 1).all(), what
        assert stats.kstest(sample, "uniform").pvalue > P_REFUSED, what


def test_normal_is_standard_normal() -> None:
    for sample in (
        counter_rng.normal(3, _names(N), 9, 2),
        counter_rng.normal(3, _names(1), np.arange(N), 2),
    ):
        assert stats.kstest(sample, "norm").pvalue > P_REFUSED
        assert np.isfinite(sample).all()


def test_neighbouring_keys_are_uncorrelated() -> None:
    streams = _names(N)
    here = counter_rng.uniform(1, streams, 7, 0)
    others = {
        "next time": counter_rng.uniform(1, streams, 8, 0),
        "next seed": counter_rng.uniform(2, streams, 7, 0),
        "next channel": counter_rng.uniform(1, streams, 7, 1),
        "next stream": np.roll(here, 1),
        "element of the same message": counter_rng.uniform(1, streams + np.uint64(1), 7, 0),
    }
    limit = 4.0 / np.sqrt(N)  # four standard deviations of the correlation of independent samples
    for what, other in others.items():
        assert abs(np.corrcoef(here, other)[0, 1]) < limit, what


def test_every_bit_is_fair() -> None:
    bits = counter_rng.bits(1, _names(N), 3, 0)
    share = np.unpackbits(bits.view(np.uint8).reshape(N, 8), axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() < 5.0 * 0.5 / np.sqrt(N)


@given(
    seed=st.integers(0, 2**70),
    counter=st.integers(0, 2**63 - 1),
    order=st.permutations(range(8)),
    cut=st.integers(0, 8),
)
def test_draws_do_not_depend_on_who_else_draws(
    seed: int, counter: int, order: list[int], cut: int
) -> None:
    streams = _names(8)
    whole = counter_rng.normal(seed, streams, counter, 2)
    counter_rng.uniform(seed, streams, counter + 1, 0)  # somebody else, in between
    apart = np.concatenate(
        [
            counter_rng.normal(seed, streams[order[:cut]], counter, 2),
            counter_rng.normal(seed, streams[order[cut:]], counter, 2),
        ]
    )
    assert apart.tobytes() == whole[order].tobytes()


def test_another_process_draws_the_same() -> None:
    code = (
        "from grid_models.base import counter_rng as r;"
        "print(r.normal(5, r.stream_ids(['a>b:state', 'b>a:state']), 10**15, 2).tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    here = counter_rng.normal(5, counter_rng.stream_ids(["a>b:state", "b>a:state"]), 10**15, 2)
    assert done.stdout.strip() == here.tobytes().hex()


@pytest.mark.parametrize(
    ("streams", "counter"),
    [((5,), (5,)), ((3, 1), (4,)), ((3,), (2, 1)), ((4,), ())],
    ids=["one each", "streams by counters", "counters by streams", "one counter"],
)
def test_channels_drawn_together_are_those_drawn_alone(
    streams: tuple[int, ...], counter: tuple[int, ...]
) -> None:
    of, at = (
        np.arange(7, 7 + np.prod(shape, dtype=int), dtype=np.uint64).reshape(shape)
        for shape in (streams, counter)
    )
    together = counter_rng.uniform(3, of, at, (0, 2))
    for row, channel in zip(together, (0, 2), strict=True):
        np.testing.assert_array_equal(row, counter_rng.uniform(3, of, at, channel))
