from dataclasses import replace

import numpy as np
import pytest
from _hosting_cases import hosting_case

from grid_models.hosting.limits import Limits
from grid_models.hosting.model import HostingModel
from grid_models.hosting.monte_carlo import NoiseOptions, monte_carlo_capacity, sampled_days
from grid_models.hosting.static import StaticOptions, placement_search, static_capacity


@pytest.fixture(scope="module")
def model() -> HostingModel:
    return hosting_case(noon_load_pu=0.35, step_h=3.0, balanced=True)[0]


def test_without_noise_it_is_the_static_study(model: HostingModel) -> None:
    options = StaticOptions(placements=6)
    noisy = monte_carlo_capacity(model, options, NoiseOptions(load_pct=0.0, pv_pct=0.0))
    assert noisy.hc_kw.tolist() == static_capacity(model, options).hc_kw.tolist()


def test_a_sample_does_not_depend_on_how_many_others_there_are(model: HostingModel) -> None:
    for noise in (NoiseOptions(), NoiseOptions(per="step", shared=False)):
        few, many = (
            monte_carlo_capacity(model, StaticOptions(placements=n), noise).hc_kw for n in (3, 9)
        )
        assert few.tolist() == many[:3].tolist()


def test_noise_a_day_widens_and_noise_a_step_lowers_what_is_hosted() -> None:
    model, options = hosting_case(noon_load_pu=0.35, balanced=True)[0], StaticOptions(placements=40)
    plain, day, step, each = (
        placement_search(model, options, *sampled_days(model, options, noise)).found().hc_kw
        for noise in (
            NoiseOptions(0.0, 0.0),
            NoiseOptions(10.0, 10.0),
            NoiseOptions(10.0, 10.0, per="step"),
            NoiseOptions(10.0, 10.0, shared=False),
        )
    )
    assert day.std() > 2.0 * plain.std()
    # Where each step has a draw of its own, the worst of several counts.
    assert step.mean() < plain.mean() - 2.0 * plain.std() / np.sqrt(40)
    # Draws of many loads and sites cancel out.
    assert each.std() < 0.5 * day.std()


def test_samples_that_are_infeasible_without_pv_are_counted_apart(model: HostingModel) -> None:
    base = -model.check.excess(model.flow()).value[:, 2].max()
    tight = replace(model, limits=Limits(line_pu=1.0 - base))
    found = monte_carlo_capacity(tight, StaticOptions(placements=40), NoiseOptions(5.0, 5.0))
    bad = np.isnan(found.hc_kw)
    assert 5 < bad.sum() < 35
    assert (found.hc_kw[~bad] > 0.0).all()
    assert found.notes[1].startswith(f"{bad.sum()} of 40 designs pass a limit without any unit")
    assert {b.kind for b, none in zip(found.binding, bad, strict=True) if none} == {"line"}
    assert "one draw a day for all elements" in found.notes[0]
