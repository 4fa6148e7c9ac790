"""The grids of a scenario: feeder, DERs and day of each plant."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from federates.errors import ScenarioError
from federates.scenario.schema import Scenario
from grid_models.base.errors import GridModelError, ProfileError
from grid_models.catalog import is_master, load_feeder, open_circuit, shipped_feeders
from grid_models.ders.rich_feeder import ders_from_table
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.ratings import ratings_file, with_ratings
from grid_models.profiles.files import KNOWN_COLUMNS
from grid_models.profiles.table import DAY_S, Profiles

if TYPE_CHECKING:
    from grid_models.current_injection.model import PortNetwork
    from grid_models.opendss.circuit import Circuit
    from grid_models.opendss.solution import RegulatorMode


_SHARED: dict[str, Feeder] = {}
_MOST_SHARED = 8
_LONGEST_KEPT = 20_000  # steps: 1 MB


@lru_cache(maxsize=32)
def _kept_day(kind: str, seed: int, step_s: int, duration_s: int, **weather: Any) -> Profiles:
    """Return a generated day; the points of a sweep share those of their seeds."""
    return Profiles.generate(kind, seed, step_s, duration_s, **weather)


@contextmanager
def located(place: str) -> Iterator[None]:
    """Let errors of the grid's models name a place in the user's file."""
    try:
        yield
    except GridModelError as error:
        error.where = f"{place}: {error.where}" if error.where else place
        raise


class GridSite:
    """A plant's grid, built on first use and shared by the federates of one process.

    Parameters
    ----------
    plant : Name of the federate that simulates the grid. Default: the only plant; the scenario's
        ``grid`` where it has none or several.
    """

    def __init__(self, scenario: Scenario, plant: str | None = None) -> None:
        self._scenario = scenario
        plants = scenario.plants
        if plant is None and len(plants) == 1:
            plant = next(iter(plants))
        self.plant = plant
        self.grid = scenario.grid if plant is None else plants[plant]
        own = plant is not None and self.grid is not scenario.grid
        self._path = ("federates", str(plant), "grid") if own else ("grid",)
        self._ports: dict[tuple[tuple[str, bool], ...], PortNetwork] = {}
        self._ports_lock = threading.Lock()

    def where(self, *path: str | int) -> str:
        """Return the place of a key of the grid in the user's file."""
        return self._scenario.where(*self._path, *path)

    def located(self, *path: str | int) -> AbstractContextManager[None]:
        """Let errors of the grid's models name a key of the grid in the user's file."""
        return located(self.where(*path))

    @property
    def model(self) -> str | Path:
        """Shipped name, or absolute path of the user's OpenDSS master file."""
        model = self.grid.model
        if model.lower() in shipped_feeders():
            return model.lower()
        return self._user_path(model).absolute()

    def _user_path(self, name: str) -> Path:
        """Return a path of the user's: beside the scenario file, or else where the user stands."""
        path = Path(name).expanduser()
        beside = self._scenario.base_dir / path
        return beside if beside.exists() else path

    @property
    def regulators(self) -> RegulatorMode:
        """Whether regulators act; by default those of a user's OpenDSS file do."""
        return self.grid.regulators or ("auto" if is_master(self.model) else "fixed")

    @cached_property
    def _compiled(self) -> Circuit:
        """The circuit of the user's OpenDSS file, without the DERs that the grid places."""
        from grid_models.opendss.master import open_master

        own_series = self.grid.profiles.kind == "master"
        return open_master(
            self.model,
            regulators=self.regulators,
            file_ders=self.grid.file_ders,
            load_shapes=own_series,
            step_s=self._scenario.time.step_s,
            tolerance_pu=self.grid.tolerance_pu or (1e-6 if own_series else 1e-7),
        )

    def take_circuit(self) -> Circuit:
        """Return the circuit with the grid's DERs and settings, for one owner.

        An OpenDSS file is compiled once for `feeder` and the first circuit.
        """
        feeder, grid = self.feeder, self.grid
        with self.located("taps") if grid.taps else self.located():
            if not is_master(self.model):
                return open_circuit(
                    self.model if grid.ratings is None else feeder,
                    feeder.ders,
                    regulators=self.regulators,
                    taps=grid.taps or None,
                    source_v_pu=grid.source_v_pu,
                    tolerance_pu=grid.tolerance_pu,
                )
            from grid_models.opendss.edit import set_normal_amps

            circuit = self._compiled
            del self.__dict__["_compiled"]
            circuit.place_ders(feeder.ders[len(circuit.feeder.ders) :])
            if grid.ratings is not None:
                set_normal_amps(circuit.engine, feeder.lines)
                circuit.feeder = replace(circuit.feeder, lines=feeder.lines)
            return circuit.adjusted(grid.taps or None, grid.source_v_pu)

    @cached_property
    def feeder(self) -> Feeder:
        """The feeder with the grid's DERs placed on it.

        The runs of one process share it where no file of the user's decides, and with it what is
        derived from it, as a controller's network: most of the time that a run takes to build.
        """
        grid, shipped = self.grid, self.grid.model.lower() in shipped_feeders()
        if not shipped or grid.der_table is not None or grid.profiles.kind == "master":
            return self._placed()
        key = grid.model_dump_json(include={"model", "file_ders", "taps", "ders", "ratings"})
        if key not in _SHARED:
            while len(_SHARED) >= _MOST_SHARED:
                _SHARED.pop(next(iter(_SHARED)), None)
            _SHARED[key] = self._placed()
        return _SHARED[key]

    def _placed(self) -> Feeder:
        with self.located("model"):
            master = is_master(self.model)
            feeder = self._compiled.feeder if master else load_feeder(self.model)
        if self.grid.profiles.kind == "master":
            self._take_shapes(master)
        if not master and self.grid.file_ders != "engine":
            unused = "grid.file_ders is not used: grid.model is no OpenDSS file"
            feeder = replace(feeder, notes=(*feeder.notes, unused))
        if self.grid.ratings is not None:
            with self.located("ratings"):
                file = ratings_file(self.grid.ratings)
                file = file if file.is_absolute() else self._user_path(self.grid.ratings)
                feeder = with_ratings(feeder, file)
        rules = [
            DerRule.from_mapping(rule, where=self.where("ders", i))
            for i, rule in enumerate(self.grid.ders)
        ]
        placed: tuple[Der, ...] = place(feeder, rules) if rules else ()
        placed += self._der_table()
        ders = (*feeder.ders, *placed)
        self._refuse_duplicates(ders)
        # `open_circuit` refuses names that are no regulators.
        taps = self.grid.taps
        regulators = tuple(
            replace(unit, tap_step=taps.get(unit.name, unit.tap_step)) for unit in feeder.regulators
        )
        return replace(feeder, regulators=regulators, ders=ders)

    def _der_table(self) -> tuple[Der, ...]:
        name = self.grid.der_table
        if name is None:
            return ()
        with self.located("der_table"):
            return ders_from_table(self._user_path(name))

    def _refuse_duplicates(self, ders: Sequence[Der]) -> None:
        for name, n in Counter(der.name for der in ders).items():
            if n > 1:
                raise ScenarioError(
                    f"two DERs are called '{name}'",
                    where=self.where("ders"),
                    expected="another prefix for one of the rules",
                )

    def _take_shapes(self, master: bool) -> None:
        """Keep the means of the file's load shapes, for those who forecast the feeder."""
        time = self._scenario.time
        if not master or self.grid.profiles.path is not None:
            raise ScenarioError(
                "'master' uses the load shapes of an OpenDSS file",
                where=self.where("profiles", "kind"),
                expected="profiles without a path" if master else "the path of one in grid.model",
            )
        if self.grid.load_diversity:
            raise ScenarioError(
                "not used with profiles.kind 'master': the loads follow their own shapes",
                where=self.where("load_diversity"),
                expected="0",
            )
        times_s = time.start_s + time.step_s * np.arange(self._scenario.n_steps)
        means = self._compiled.mean_shapes(times_s)
        # A forecast need not be exact; a shape may be in kW.
        bounded = {k: np.clip(v, *KNOWN_COLUMNS[k][:2]) for k, v in means.items()}
        self._shapes = {"time_s": times_s, **bounded}

    def profiles(self) -> Profiles:
        """Return the day, at the feeder's resolution.

        Of an OpenDSS file's own time series it has the means; temperature and price, and without
        a PVSystem the irradiance, are those of a clear day.
        """
        spec = self.grid.profiles
        if spec.kind == "master":
            _ = self.feeder
            times_s = self._shapes["time_s"]
            clear = self._generated("clear").sample(times_s)
            return Profiles({**clear, **self._shapes}, origin="load shapes of the OpenDSS file")
        if spec.path is not None:
            with self.located("profiles", "path"):
                return Profiles.read(self._user_path(spec.path))
        return self._generated(spec.kind)

    def outlook(self) -> Profiles:
        """Return the day as forecasts have it: a generated one with a day after the run's end."""
        return self._outlook

    @cached_property
    def _outlook(self) -> Profiles:
        # Agents look at it several times a step: a user's table is read once.
        spec = self.grid.profiles
        if spec.kind == "master" or spec.path is not None:
            return self.profiles()
        return self._generated(spec.kind, ahead_s=DAY_S)

    def ports(self, closed: Mapping[str, bool] | None = None) -> PortNetwork:
        """Return the current-injection model of the grid as it starts.

        `closed`: Lines and switches that are to be closed (True) or open (False) instead.

        Raises FeederError, PowerFlowError: There is no such line, or the circuit has no solution.
        """
        from grid_models.opendss.port_areas import with_areas
        from grid_models.opendss.ports import port_network

        key = tuple(sorted((closed or {}).items()))
        with self._ports_lock:
            if key not in self._ports:
                circuit = self.take_circuit()
                self._ports[key] = with_areas(port_network(circuit, closed), circuit)
            return self._ports[key]

    def _generated(self, kind: str, ahead_s: float = 0.0) -> Profiles:
        """Return a generated day that covers the run, and `ahead_s` after it."""
        spec, time = self.grid.profiles, self._scenario.time
        seed = self._scenario.seed if spec.seed is None else spec.seed
        step_s = min(900, max(60 if ahead_s else 1, round(time.step_s)))
        length_s = int(-(-(time.start_s + time.duration_s + ahead_s) // 1))
        try:
            make = _kept_day if length_s <= _LONGEST_KEPT * step_s else Profiles.generate
            return make(kind, seed, step_s, length_s, **spec.generated)
        except ProfileError as error:  # of its length: the schema checks the rest
            error.where = f"{self._scenario.where('time')}: {error.where}"
            raise
