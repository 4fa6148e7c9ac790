"""Generated days, sampling, and the checks of a user's own table."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import ProfileError
from grid_models.profiles.synthesis import (
    LOAD_BY_HOUR,
    SMOOTHING_S,
    clear_sky_irradiance_pu,
    load_shape,
)
from grid_models.profiles.table import Profiles

KINDS = ("clear", "cloudy", "overcast")
COLUMNS = ("irradiance_pu", "temp_c", "load_pu", "price_per_kwh")


@pytest.fixture(scope="module")
def seconds():
    return {kind: Profiles.generate(kind, seed=3, step_s=1) for kind in KINDS}


# --- clear-sky geometry -------------------------------------------------------------------------


def test_sun_in_the_zenith_gives_haurwitz_own_number():
    # Equator, day 81 (Cooper's declination is 0), noon: 1098 exp(-0.057) = 1037.2 W/m2.
    noon = clear_sky_irradiance_pu(np.array([43_200.0]), 0.0, 81)
    assert noon[0] == pytest.approx(1.0372, abs=5e-5)


def test_day_length_follows_the_sunset_equation():
    # cos(w) = -tan(37.77) tan(23.45) = -0.3361, so 2 w / 15 = 14.62 h (hand calculation). The
    # model is dark for the last 0.06 degrees above the horizon, well under a minute.
    lit = clear_sky_irradiance_pu(np.arange(86_400.0), 37.77, 172) > 0.0
    assert lit.sum() / 3600.0 == pytest.approx(14.62, abs=0.02)
    assert not lit[0]


def test_winter_sun_is_lower_than_summer_sun_and_southern_summer_is_in_january():
    t = np.arange(0.0, 86_400.0, 60.0)
    north, south = 37.77, -37.77
    assert (
        clear_sky_irradiance_pu(t, north, 355).sum() < clear_sky_irradiance_pu(t, north, 172).sum()
    )
    assert (
        clear_sky_irradiance_pu(t, south, 10).sum() > clear_sky_irradiance_pu(t, south, 172).sum()
    )


# --- one physical day at every resolution -------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(step=st.integers(1, 900), kind=st.sampled_from(KINDS))
def test_every_resolution_is_the_mean_of_the_same_day(seconds, step, kind):
    coarse = Profiles.generate(kind, seed=3, step_s=step, duration_s=86_400 // step * step)
    n = len(coarse)
    for name in COLUMNS:
        mean = seconds[kind][name][: n * step].reshape(n, step).mean(axis=1)
        np.testing.assert_allclose(coarse[name], mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(coarse.time_s, np.arange(n) * step)


def test_a_longer_run_begins_with_the_same_day_and_goes_on_with_another():
    one = Profiles.generate("cloudy", seed=5, step_s=60)
    two = Profiles.generate("cloudy", seed=5, step_s=60, duration_s=2 * 86_400)
    for name in COLUMNS:
        np.testing.assert_array_equal(two[name][:1440], one[name])
    assert not np.allclose(two["irradiance_pu"][1440:], one["irradiance_pu"], atol=0.05)


def test_days_meet_at_midnight_without_a_jump():
    two = Profiles.generate("cloudy", seed=5, step_s=1, duration_s=2 * 86_400)
    for name, jump in (("temp_c", 0.001), ("load_pu", 0.001), ("irradiance_pu", 0.0)):
        assert abs(two[name][86_400] - two[name][86_399]) <= jump
        # So does a day that follows itself.
        assert abs(two[name][0] - two[name][86_399]) <= jump


def test_same_seed_same_day_other_seed_other_day():
    a, b, c = (Profiles.generate("cloudy", seed=s, step_s=60) for s in (1, 1, 2))
    for name in COLUMNS:
        np.testing.assert_array_equal(a[name], b[name])
        assert not np.array_equal(a[name], c[name])


def test_skies_differ_as_their_names_say(seconds):
    energy = {k: seconds[k]["irradiance_pu"].sum() for k in KINDS}
    assert energy["clear"] > 1.2 * energy["cloudy"] > 1.5 * energy["overcast"]
    noon = slice(36_000, 50_400)
    ramp_60s = {k: np.abs(np.diff(seconds[k]["irradiance_pu"][noon][::60])).max() for k in KINDS}
    assert ramp_60s["clear"] < 0.01
    # Passing clouds take away more than a third of full sun within a minute, as sites report.
    assert ramp_60s["cloudy"] > 0.3
    assert ramp_60s["overcast"] < 0.15


def test_no_ramp_is_faster_than_the_plant_is_wide(seconds):
    # A running mean over 10 s of values in 0..1.15 changes by at most 0.115 a second.
    steps = np.abs(np.diff(seconds["cloudy"]["irradiance_pu"]))
    assert 0.01 < steps.max() < 1.15 / SMOOTHING_S


def test_columns_are_plausible(seconds):
    clear = seconds["clear"]
    assert 0.95 < clear["irradiance_pu"].max() < 1.04
    assert clear["irradiance_pu"].min() == 0.0
    assert clear["load_pu"].max() == pytest.approx(1.0, abs=0.08)
    assert clear["load_pu"].mean() == pytest.approx(0.63, abs=0.02)
    assert 14.0 < np.argmax(clear["temp_c"]) / 3600.0 < 16.5
    assert clear["temp_c"].mean() == pytest.approx(22.0, abs=1.0)
    assert clear["price_per_kwh"].min() > 0.0
    assert np.unique(clear["price_per_kwh"]).size == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cloudly"}, "did you mean 'cloudy'"),
        ({"step_s": 0}, "step_s is 0"),
        ({"step_s": 901}, "from 1 to 900 s"),
        ({"step_s": 1.5}, "whole seconds"),
        ({"duration_s": 0}, "duration_s is 0"),
        ({"latitude_deg": 91.0}, "latitude_deg is 91"),
        ({"temp_mean_c": float("nan")}, "temp_mean_c is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_generate_refuses_impossible_arguments(arguments, message):
    with pytest.raises(ProfileError, match=message):
        Profiles.generate(**arguments)


# --- sampling -----------------------------------------------------------------------------------

SMALL = {"time_s": [0, 10, 30], "load_pu": [1.0, 2.0, 4.0], "mine": [5.0, 6.0, 7.0]}


def test_sample_previous_and_linear_by_hand():
    table = Profiles(SMALL)
    assert table.sample([0, 9.9, 10, 29, 49.9])["load_pu"].tolist() == [1, 1, 2, 2, 4]
    assert table.sample([0, 5, 20, 30, 40], how="linear")["load_pu"].tolist() == [1, 1.5, 3, 4, 4]
    assert table.sample(5.0)["mine"] == 5.0
    assert set(table.sample([0], names=["mine"])) == {"mine"}


def test_left_out_columns_have_their_documented_defaults():
    table = Profiles(SMALL)
    assert table["irradiance_pu"].tolist() == [0, 0, 0]
    assert table["temp_c"].tolist() == [20, 20, 20]
    assert table["price_per_kwh"].tolist() == [0.15, 0.15, 0.15]


@pytest.mark.parametrize("times", [[-0.1], [50.0], [float("nan")], [0.0, 1e6]])
def test_a_run_outside_the_profile_is_refused(times):
    with pytest.raises(ProfileError, match="from 0 s to before 50 s"):
        Profiles(SMALL).sample(times)


def test_repeat_daily_wraps_and_linear_closes_the_ring():
    table = Profiles({"time_s": [0, 43_200], "load_pu": [1.0, 3.0]})
    hold = table.sample([86_399, 86_400, 130_000, -1.0], repeat_daily=True)["load_pu"]
    assert hold.tolist() == [3, 1, 3, 3]
    line = table.sample([64_800, 86_400 + 21_600], how="linear", repeat_daily=True)["load_pu"]
    assert line.tolist() == [2, 2]


def test_a_table_of_less_than_a_day_cannot_repeat():
    with pytest.raises(ProfileError, match="at least 86400 s"):
        Profiles(SMALL).sample([0], repeat_daily=True)


def test_unknown_names_are_met_with_the_nearest():
    table = Profiles(SMALL)
    with pytest.raises(ProfileError, match="did you mean 'load_pu'"):
        table["load_p"]
    with pytest.raises(ProfileError, match="did you mean 'linear'"):
        table.sample([0], how="linaer")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 100.0), min_size=2, max_size=30), st.data())
def test_holding_keeps_the_integral(gaps, data):
    time = np.round(np.cumsum([0.0, *gaps]), 1)
    values = np.array(data.draw(st.lists(st.floats(0, 10), min_size=len(time), max_size=len(time))))
    if (np.diff(time) <= 0).any():
        return
    table = Profiles({"time_s": time, "load_pu": values})
    fine = np.arange(0.05, time[-1], 0.1)
    integral = float(np.sum(np.diff(time) * values[:-1]))
    sampled = table.sample(fine)["load_pu"].sum() * 0.1
    assert sampled == pytest.approx(integral, rel=1e-9, abs=1e-9)


# --- the user's own files -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_written_table_is_read_back_bit_for_bit(tmp_path, suffix):
    made = Profiles.generate("cloudy", seed=9, step_s=60)
    made.write(tmp_path / f"day{suffix}")
    read = Profiles.read(tmp_path / f"day{suffix}")
    assert read.names == made.names
    for name in ("time_s", *made.names):
        np.testing.assert_array_equal(read[name], made[name])


def test_extra_columns_bom_and_blank_lines_are_welcome(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_bytes(b"\xef\xbb\xbftime_s, load_pu,ev_kw\r\n0,1,2\r\n\r\n60,1,3\r\n")
    assert Profiles.read(file)["ev_kw"].tolist() == [2, 3]


BAD_FILES = {
    "empty": (b"", ["the file is empty"]),
    "only blank": (b"\n\n", ["the file is empty"]),
    "header only": (b"time_s,load_pu\n", ["no data rows"]),
    "binary": (b"\x7fELF\x00\x01\x02", ["binary", "UTF-8"]),
    "latin": ("time_s,größe\n0,1\n".encode("latin-1"), ["not UTF-8"]),
    "no time": (b"load_pu\n1\n", ["column 'time_s' is missing"]),
    "other time": (b"time_h,load_pu\n0,1\n", ["'time_h'", "did you mean 'time_s'"]),
    "fahrenheit": (b"time_s,temp_f\n0,70\n", ["'temp_f'", "did you mean 'temp_c'"]),
    "misspelt": (b"time_s,irradience_pu\n0,1\n", ["did you mean 'irradiance_pu'"]),
    "watts": (b"time_s,irradiance_pu\n0,0\n60,850\n", ["row 3", "irradiance_pu", "1000 W/m2"]),
    "kelvin": (b"time_s,temp_c\n0,293.15\n", ["row 2, column temp_c", "degrees C"]),
    "nan": (b"time_s,load_pu\n0,1\n60,nan\n", ["row 3, column load_pu", "finite"]),
    "inf time": (b"time_s,load_pu\n0,1\ninf,1\n", ["row 3, column time_s"]),
    "text": (b"time_s,load_pu\n0,1\n60,high\n", ["'high'", "row 3, column load_pu"]),
    "gap": (b"time_s,load_pu\n0,1\n60,\n", ["'' is not a number", "row 3"]),
    "ragged": (b"time_s,load_pu\n0,1\n60\n", ["1 fields", "row 3"]),
    "back in time": (b"time_s,load_pu\n0,1\n60,1\n30,1\n", ["row 4, column time_s", "60 to 30"]),
    "standing time": (b"time_s,load_pu\n0,1\n0,1\n", ["row 3", "strictly growing"]),
    "semicolons": (b"time_s;load_pu\n0;1\n", ["a comma"]),
    "twice": (b"time_s,load_pu,load_pu\n0,1,1\n", ["'load_pu' appears twice"]),
    "nameless": (b"time_s,,load_pu\n0,1,1\n", ["column 2 has no name"]),
    "quote": (b'time_s,load_pu\n0,"1\n', ["not a CSV table"]),
    "torn parquet": (b"PAR1 and then nothing", ["not a Parquet file"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(tmp_path, name):
    content, parts = BAD_FILES[name]
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        Profiles.read(file)
    message = str(caught.value)
    for part in (str(file), *parts):
        assert part in message


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "weather.csv").write_text("time_s\n0\n")
    with pytest.raises(ProfileError, match=r"did you mean 'weather\.csv'"):
        Profiles.read(tmp_path / "wether.csv")
    with pytest.raises(ProfileError, match="cannot be read"):
        Profiles.read(tmp_path)


@pytest.mark.parametrize(
    ("column", "parts"),
    [
        (pa.array(["a", "b"]), ["column load_pu", "holds string"]),
        (pa.array([1.0, None]), ["row 2, column load_pu", "finite"]),
    ],
)
def test_a_bad_parquet_column_is_refused(tmp_path, column, parts):
    file = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"time_s": [0.0, 60.0], "load_pu": column}), file)
    with pytest.raises(ProfileError) as caught:
        Profiles.read(file)
    for part in (str(file), *parts):
        assert part in str(caught.value)


def test_no_heavy_import_for_a_users_file(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("time_s,load_pu\n0,1\n60,1\n")
    code = (
        "import sys\nfrom grid_models.profiles.table import Profiles\n"
        f"Profiles.read({str(file)!r}).sample([0.0])\n"
        "print([m for m in ('pandas', 'pyarrow', 'scipy.signal', 'opendssdirect')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"


def test_the_load_shape_is_the_periodic_spline_of_scipy_to_the_last_bit() -> None:
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(np.arange(25.0), (*LOAD_BY_HOUR, LOAD_BY_HOUR[0]), bc_type="periodic")
    hours = np.append(np.arange(24.0), np.linspace(0.0, 24.0, 9973, endpoint=False))
    np.testing.assert_array_equal(load_shape(hours), spline(hours))
