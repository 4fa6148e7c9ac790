"""The detector federate: reads what the operator sees, gives scores and alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field

from controllers.detection import registry
from controllers.detection.protocol import (
    ALARM_SCORE,
    LEAST_HISTORY,
    DetectionSite,
    Forecast,
    History,
)
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.core.signals import read_signal, signal_names
from federates.core.sites import GridSite
from federates.core.wiring import paired_elements
from federates.scenario.kinds import GridUserSection
from federates.scenario.schema import Scenario, recorded_scenario
from federates.scenario.sections import Connection
from grid_models.base.counter_rng import normal, stream_ids
from grid_models.base.errors import FeederateError, nearest_name
from grid_models.base.sections import Section

if TYPE_CHECKING:
    from federates.core.run_store import RunStore


class DetectorOptions(Section):
    """What a detector learns from; further keys are the detector's own options."""

    model_config = ConfigDict(extra="allow")

    calibrate_s: float = Field(
        0.0,
        ge=0,
        description="Learn from the first so many seconds of the run itself, which are taken for "
        "clean; no alarm meanwhile.",
    )
    clean_run: str | None = Field(
        None,
        description="Learn from a recorded clean run before the first step: its folder, relative "
        "to the scenario file or to the current folder.",
    )


class DetectorSection(GridUserSection):
    """A detector that watches what the operator sees."""

    kind: Literal["detector"]
    detector: str = Field(description="A shipped name, or module:Class of your own.")
    options: DetectorOptions = DetectorOptions()


class DetectorFederate(Federate):
    """A `controllers.detection.protocol.Detector` on the federation's time.

    Outputs: ``score`` and ``alarm`` (0 or 1), one element per label of the detector. A score of 1
    is the alarm's threshold. Events that the detector reports (such as a signal of which nothing
    was learned) become events of the run.
    """

    Section = DetectorSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        section = context.section
        assert isinstance(section, DetectorSection)
        self._context, options = context, section.options
        with context.located(FeederateError, "detector"):
            cls = registry.resolve(section.detector)
        self._site = DetectionSite(
            context.site.feeder,
            context.period_s,
            forecast_of(context.scenario, context.site, context.n_steps),
        )
        with context.option_errors(FeederateError):
            self._detector = cls(self._site, **(options.model_extra or {}))
        self._learner = getattr(self._detector, "calibrate", None)
        self._take_events = getattr(self._detector, "take_events", None)
        self._store: RunStore | None = None
        self.inputs = self._detector.inputs
        labels = self._detector.labels
        self.outputs = (Port("score", "1", labels), Port("alarm", "1", labels))
        self._calibrate_s = options.calibrate_s
        self._check_learning(options)
        self._seen: list[tuple[float, dict[str, FloatArray]]] = []
        if options.clean_run is not None and self._learner is not None:
            self._learn(self._clean_history(options.clean_run), "clean_run")
        self._steps_in_alarm = 0
        self._steps = 0

    def start(self, store: RunStore) -> None:
        """Keep the run's list of events for a detector that reports some."""
        self._store = store

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Score what is seen; while learning only look."""
        if time_s < self._calibrate_s:
            self._seen.append((time_s, {k: v.copy() for k, v in inputs.items()}))
            return self._out(np.zeros(len(self.outputs[0].labels)))
        if self._seen and self._learner is not None:
            kept, self._seen = self._seen, []
            values = {name: np.array([v[name] for _, v in kept]) for name in inputs}
            times = np.array([t for t, _ in kept])
            self._learn(History(times, values, self._site.forecast), "calibrate_s")
        self._steps += 1
        score = self._detector.step(time_s, inputs)
        if self._take_events is not None and self._store is not None:
            self._store.events(self.name, time_s, self._take_events())
        return self._out(score)

    def summary(self) -> dict[str, float]:
        """Return the share of the judged steps that were in alarm."""
        share = self._steps_in_alarm / self._steps if self._steps else 0.0
        return {f"{self.name}_alarm_share": share}

    def _learn(self, history: History, option: str) -> None:
        assert self._learner is not None
        with self._context.located(FeederateError, "options", option):
            self._learner(history)

    def _out(self, score: FloatArray) -> Step:
        alarm = (score >= ALARM_SCORE).astype(np.float64)
        self._steps_in_alarm += bool(alarm.any())
        return Step({"score": score, "alarm": alarm})

    def _check_learning(self, options: DetectorOptions) -> None:
        error, calibrate_s = self._context.error, options.calibrate_s
        duration_s = self._context.scenario.time.duration_s
        if calibrate_s >= duration_s:
            raise error(
                f"{calibrate_s!r} is not accepted",
                "options",
                "calibrate_s",
                expected=f"seconds from 0 to below duration_s = {duration_s:g}",
            )
        if options.clean_run is not None and calibrate_s:
            raise error("two sources of clean data", "options", expected="calibrate_s or clean_run")
        if not calibrate_s and options.clean_run is None:
            return
        if self._learner is None:
            raise error(
                "this detector does not learn from clean data: it has no method 'calibrate'",
                "options",
                "clean_run" if options.clean_run is not None else "calibrate_s",
            )
        least = int(getattr(self._detector, "least_history", LEAST_HISTORY))
        if 0.0 < calibrate_s < least * self._context.period_s:
            raise error(
                f"{calibrate_s:g} s are too short to learn from",
                "options",
                "calibrate_s",
                expected=f"at least {least} steps, {least * self._context.period_s:g} s",
            )

    def _clean_history(self, clean_run: str) -> History:
        """Return what this federate would have read in a recorded run, sensor noise included."""
        context = self._context
        beside = context.scenario.base_dir / clean_run
        folder = beside if beside.exists() else Path(clean_run)
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            clean = recorded_scenario(manifest)
        except (OSError, ValueError, KeyError) as error:
            raise context.error(
                f"'{clean_run}' is not the folder of a run ({type(error).__name__})",
                "options",
                "clean_run",
                expected="a folder with a manifest.json, as 'feederate run' writes it",
            ) from None
        plants, plant = clean.plants, context.site.plant
        site = GridSite(clean, plant if plant in plants else None)
        forecast = forecast_of(clean, site, int(manifest["steps"]))
        time_s: FloatArray = np.empty(0)
        inputs: dict[str, FloatArray] = {}
        for connection in context.scenario.wires:
            federate, _, port_name = connection.target.partition(".")
            port = next((p for p in self.inputs if p.name == port_name), None)
            if federate == self.name and port is not None:
                time_s, values = self._recorded(folder, connection, port)
                known = inputs.setdefault(port_name, np.full_like(values, np.nan))
                np.copyto(known, values, where=np.isfinite(values))
        for port in self.inputs:
            inputs.setdefault(port.name, np.full((len(time_s), len(port.labels)), np.nan))
        return History(time_s, inputs, forecast)

    def _recorded(
        self, folder: Path, connection: Connection, port: Port
    ) -> tuple[FloatArray, FloatArray]:
        names = signal_names(folder / "signals")
        if connection.source not in names:
            raise self._context.error(
                f"the clean run did not record '{connection.source}'",
                "options",
                "clean_run",
                expected=f"a run with it; nearest: {nearest_name(connection.source, names)}",
            )
        time_s, labels, found = read_signal(folder / "signals", connection.source)
        period_s = self._site.period_s
        if len(time_s) < 2 or abs(float(np.median(np.diff(time_s))) - period_s) > 1e-6:
            raise self._context.error(
                "the clean run was recorded at another step than the detector's",
                "options",
                "clean_run",
                expected=f"every step recorded, {period_s:g} s apart",
            )
        pairs = paired_elements(connection.map, labels, port.labels)
        here = [t for _, t in pairs]
        values = np.full((len(time_s), len(port.labels)), np.nan)
        values[:, here] = connection.scale * found[:, [s for s, _ in pairs]]
        if connection.noise:
            # What was recorded is the truth; what a detector reads has passed a sensor.
            streams = stream_ids(f"calibration:{connection.target}:{x}" for x in port.labels)
            seed = self._context.scenario.seed
            steps = np.arange(len(time_s), dtype=np.uint64)[:, None]
            values += connection.noise * normal(seed, streams[None, :], steps, 0)
        return time_s, values


def forecast_of(scenario: Scenario, site: GridSite, n_steps: int) -> Forecast:
    """Return the day of the scenario as its operator expects it: exact but for single loads."""
    time = scenario.time
    since: FloatArray = time.step_s * np.arange(n_steps, dtype=np.float64)
    day = site.profiles().sample(time.start_s + since, repeat_daily=site.grid.profiles.repeat)
    load_pu = site.grid.load_scale * day["load_pu"]
    return Forecast(since, load_pu, day["irradiance_pu"])
