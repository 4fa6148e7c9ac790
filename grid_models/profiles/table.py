"""Time profiles: irradiance, outdoor temperature, load and price over time.

A `Profiles` is a table. The value in a row holds from its `time_s` until the next row's (for
generated profiles it is the mean over that interval), so energies agree at every resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import ProfileError, nearest_name
from grid_models.base.options import checked_choice
from grid_models.profiles.files import KNOWN_COLUMNS, check_columns, read_table, write_table

Array = NDArray[np.float64]
DAY_S = 86_400.0
DEFAULTS: dict[str, float] = {name: default for name, (_, _, default) in KNOWN_COLUMNS.items()}


class Profiles:
    """A time table with the columns time_s, irradiance_pu, temp_c, load_pu, price_per_kwh.

    Parameters
    ----------
    columns : mapping of str to array_like, each (rows,)
        `time_s` (s, strictly growing) and any of `irradiance_pu` (1000 W/m2; default 0), `temp_c`
        (outdoor, degrees C; default 20), `load_pu` (multiple of nominal load; default 1),
        `price_per_kwh` (default 0.15), columns of single loads (`load_pu.NAME`,
        `load_pu.BUS.PHASE`, `load_kw.NAME`, `load_kvar.NAME`, which replace the common profile of
        the load), and any further numeric columns of the user's.
    origin : File or recipe, named in messages.

    Raises ProfileError: A column is missing, misspelt, of another length, or holds an impossible
    value.
    """

    def __init__(self, columns: Mapping[str, ArrayLike], origin: str = "profile") -> None:
        table = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
        for name, values in table.items():
            if values.ndim != 1 or values.shape != next(iter(table.values())).shape:
                raise ProfileError(
                    f"has shape {values.shape}",
                    where=f"{origin}, column {name}",
                    expected="one number per row, all columns equally long",
                )
        if not table or not len(next(iter(table.values()))):
            raise ProfileError("no data rows", where=origin, expected="at least one row")
        check_columns(table, origin)
        n = len(table["time_s"])
        self._columns = {"time_s": table["time_s"]}
        for name, default in DEFAULTS.items():
            self._columns[name] = table.get(name, np.full(n, default))
        self._columns.update(table)
        for values in self._columns.values():
            values.setflags(write=False)
        self.origin = origin

    @classmethod
    def generate(
        cls,
        kind: str = "clear",
        seed: int = 0,
        step_s: int = 60,
        duration_s: int = 86_400,
        *,
        latitude_deg: float = 37.77,
        day_of_year: int = 172,
        temp_mean_c: float = 22.0,
        temp_amplitude_k: float = 7.0,
        load_peak_pu: float = 1.0,
    ) -> Profiles:
        """Generate one day or more; `grid_models.profiles.synthesis` documents the processes.

        The day is made at 1 s and averaged, so the same arguments with another `step_s` give the
        same physical day, and a longer `duration_s` begins with the same days.

        Parameters
        ----------
        kind : Sky. A cloudy sky ramps within seconds, an overcast one drifts.
        seed : Same seed, same day.
        step_s : Resolution, 1 to 900 s.
        duration_s : Length in s; the last interval is whole.
        latitude_deg, day_of_year : float, int
            Where the sun stands; the default is San Francisco at midsummer. Times are solar time.
        temp_mean_c, temp_amplitude_k : float
            Daily mean of the outdoor temperature and half its range under a clear sky.
        load_peak_pu : float
            Evening peak of `load_pu`, 1.0 = nominal load; the day's mean is 0.63 times this.

        Raises ProfileError: A parameter is out of range.
        """
        # scipy.signal takes a fifth of a second to import; a user's own file does not need it.
        from grid_models.profiles.synthesis import Recipe, synthesise

        recipe = Recipe(
            kind, seed, latitude_deg, day_of_year, temp_mean_c, temp_amplitude_k, load_peak_pu
        )
        columns = synthesise(recipe, step_s, duration_s)
        return cls(columns, origin=f"generated {kind} day, seed {seed}")

    @classmethod
    def read(cls, path: str | Path) -> Profiles:
        """Read a CSV or Parquet file; `grid_models.profiles.files.read_table` says what is checked.

        Raises ProfileError: With the file, row and column of the first fault.
        """
        columns, where = read_table(path)
        return cls(columns, origin=where)

    def write(self, path: str | Path) -> None:
        """Write a CSV, or Parquet when the suffix is .parquet or .pq; `read` gives it back."""
        write_table(path, self._columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, without `time_s`."""
        return tuple(name for name in self._columns if name != "time_s")

    @property
    def time_s(self) -> Array:
        """Start of each row's interval, shape (rows,)."""
        return self._columns["time_s"]

    @property
    def end_s(self) -> float:
        """End of the last row's interval: one step after its start (a lone row lasts a day)."""
        time = self.time_s
        return float(time[-1] + (time[-1] - time[-2])) if len(time) > 1 else float(time[0] + DAY_S)

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns:
            raise ProfileError(
                f"no column '{name}'",
                where=self.origin,
                expected=", ".join(self.names),
                nearest=nearest_name(name, self._columns),
            )
        return self._columns[name]

    def __len__(self) -> int:
        return len(self.time_s)

    def sample(
        self,
        times_s: ArrayLike,
        *,
        names: Iterable[str] | None = None,
        how: Literal["previous", "linear"] = "previous",
        repeat_daily: bool = False,
    ) -> dict[str, Array]:
        """Return the columns at given times, by name; arrays have the shape of `times_s`.

        Parameters
        ----------
        times_s : Any shape, s.
        names : Columns wanted; all but `time_s` by default.
        how : 'previous' holds each row until the next (energy is kept); 'linear' interpolates
            between row starts and holds the last row to its end.
        repeat_daily : bool
            Start over when the profile's whole days are used up, forwards and backwards in time.

        Raises ProfileError: A time lies outside the profile (with `repeat_daily`: less than a day
        is covered), or `how` or a name is unknown.
        """
        checked_choice("how", how, ("previous", "linear"), error=ProfileError)
        times = np.asarray(times_s, dtype=np.float64)
        period = self._period_s() if repeat_daily else None
        if period is not None:
            times = self.time_s[0] + np.mod(times - self.time_s[0], period)
        self._require_cover(times)
        wanted = tuple(names) if names is not None else self.names
        if how == "linear":
            sources = {n: self._linear_source(n, period) for n in wanted}
            return {n: np.asarray(np.interp(times, *sources[n])) for n in wanted}
        row = np.searchsorted(self.time_s, times, side="right") - 1
        return {name: self[name][row] for name in wanted}

    def _linear_source(self, name: str, period: float | None) -> tuple[Array, Array]:
        """Return abscissae and values for interpolation, closed to a ring when repeating."""
        values, time = self[name], self.time_s
        if period is None:
            return time, values
        inside = time < time[0] + period
        return (np.append(time[inside], time[0] + period), np.append(values[inside], values[0]))

    def _period_s(self) -> float:
        covered = self.end_s - float(self.time_s[0])
        days = np.floor(covered / DAY_S + 1e-9)
        if days < 1:
            raise ProfileError(
                f"covers {covered:g} s and cannot repeat daily",
                where=self.origin,
                expected="at least 86400 s",
            )
        return float(days * DAY_S)

    def _require_cover(self, times: Array) -> None:
        if times.size == 0:
            return
        first, last = float(times.min()), float(times.max())
        # Negated so that a NaN time fails too.
        if not (first >= self.time_s[0] and last < self.end_s):
            raise ProfileError(
                f"the run needs {first:g} s to {last:g} s",
                where=self.origin,
                expected=f"times from {self.time_s[0]:g} s to before {self.end_s:g} s, "
                "or a profile that repeats daily",
            )
