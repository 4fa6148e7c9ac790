"""The detector federate: reads what the operator sees, gives scores and alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.detection import registry
from controllers.detection.protocol import (
    ALARM_SCORE,
    LEAST_HISTORY,
    DetectionSite,
    Forecast,
    History,
)
from federates.core.context import FederateContext, GridSite
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.core.signals import read_signal, signal_names
from federates.scenario.schema import Connection, Scenario
from grid_models.base.counter_rng import normal, stream_ids
from grid_models.base.errors import FeederateError, nearest_name

if TYPE_CHECKING:
    from federates.core.run_store import RunStore


class DetectorFederate(Federate):
    """A `controllers.detection.protocol.Detector` on the federation's time.

    Outputs: ``score`` and ``alarm`` (0 or 1), one element per label of the detector. A score of 1
    is the alarm's threshold. What the detector has to tell (that nothing was learnt of a signal)
    becomes events of the run.

    Parameters
    ----------
    context : FederateContext
    detector : str
        Shipped name, or module:Class.
    calibrate_s : float
        Learn from the first so many seconds of the run itself, which are taken for clean; no
        alarm while it learns.
    clean_run : str, optional
        Learn from a recorded clean run before the first step: its folder, relative to the
        scenario file or to where the user stands.
    **options
        Passed to the detector.
    """

    def __init__(
        self,
        context: FederateContext,
        detector: str | None,
        calibrate_s: float = 0.0,
        clean_run: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(context)
        self._context = context
        if detector is None:
            raise context.error(
                "a detector federate needs the key 'detector'",
                expected=f"one of {', '.join(registry.descriptions())}, or module:Class",
            )
        try:
            cls = registry.resolve(detector)
        except FeederateError as error:
            error.where = context.scenario.where("federates", context.name, "detector")
            raise
        forecast = _forecast(context.scenario, context.site, context.n_steps)
        self._site = DetectionSite(context.site.feeder, context.period_s, forecast)
        try:
            self._detector = cls(self._site, **options)
        except FeederateError as error:
            place = context.scenario.where("federates", context.name, "options")
            error.where = f"{place}: {error.where}" if error.where else place
            raise
        self._learner = getattr(self._detector, "calibrate", None)
        self._take_events = getattr(self._detector, "take_events", None)
        self._store: RunStore | None = None
        self.inputs = self._detector.inputs
        labels = self._detector.labels
        self.outputs = (Port("score", "1", labels), Port("alarm", "1", labels))
        self._calibrate_s = self._checked(calibrate_s, clean_run)
        self._seen: list[tuple[float, dict[str, FloatArray]]] = []
        if clean_run is not None and self._learner is not None:
            self._learn(self._clean_history(clean_run), "clean_run")
        self._steps_in_alarm = 0
        self._steps = 0

    def start(self, store: RunStore) -> None:
        """Keep the run's list of events at hand for a detector that has some to tell."""
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
            for event in self._take_events():
                details = {key: value for key, value in event.items() if key != "event"}
                self._store.event(self.name, event["event"], time_s, **details)
        return self._out(score)

    def summary(self) -> dict[str, float]:
        """Return the share of the judged steps that were in alarm."""
        share = self._steps_in_alarm / self._steps if self._steps else 0.0
        return {f"{self.name}_alarm_share": share}

    def _learn(self, history: History, option: str) -> None:
        assert self._learner is not None
        try:
            self._learner(history)
        except FeederateError as error:
            place = self._context.scenario.where("federates", self.name, "options", option)
            error.where = f"{place}: {error.where}" if error.where else place
            raise

    def _out(self, score: FloatArray) -> Step:
        alarm = (score >= ALARM_SCORE).astype(np.float64)
        self._steps_in_alarm += bool(alarm.any())
        return Step({"score": score, "alarm": alarm})

    def _checked(self, calibrate_s: float, clean_run: str | None) -> float:
        duration_s = self._context.scenario.time.duration_s
        number = isinstance(calibrate_s, (int, float)) and not isinstance(calibrate_s, bool)
        if not number or not 0.0 <= calibrate_s < duration_s:
            raise self._context.error(
                f"{calibrate_s!r} is not accepted",
                "options",
                "calibrate_s",
                expected=f"seconds from 0 to below duration_s = {duration_s:g}",
            )
        asked = "clean_run" if clean_run is not None else "calibrate_s" if calibrate_s else None
        if asked == "clean_run" and calibrate_s:
            raise self._context.error(
                "two sources of clean data", "options", expected="calibrate_s or clean_run"
            )
        if asked is not None and self._learner is None:
            raise self._context.error(
                "this detector does not learn from clean data: it has no method 'calibrate'",
                "options",
                asked,
            )
        least = int(getattr(self._detector, "least_history", LEAST_HISTORY))
        if 0.0 < calibrate_s < least * self._context.period_s:
            raise self._context.error(
                f"{calibrate_s:g} s are too short to learn from",
                "options",
                "calibrate_s",
                expected=f"at least {least} steps, {least * self._context.period_s:g} s",
            )
        return float(calibrate_s)

    def _clean_history(self, clean_run: str) -> History:
        """Return what this federate would have read in a recorded run, sensor noise included."""
        context = self._context
        beside = context.scenario.base_dir / clean_run
        folder = beside if beside.exists() else Path(clean_run)
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            clean = Scenario.model_validate(manifest["scenario"])
        except (OSError, ValueError, KeyError) as error:
            raise context.error(
                f"'{clean_run}' is not the folder of a run ({type(error).__name__})",
                "options",
                "clean_run",
                expected="a folder with a manifest.json, as 'feederate run' writes it",
            ) from None
        clean._base_dir = Path(manifest["base_dir"])
        forecast = _forecast(clean, GridSite(clean), int(manifest["steps"]))
        time_s: FloatArray = np.empty(0)
        inputs: dict[str, FloatArray] = {}
        for connection in context.scenario.connections:
            assert isinstance(connection, Connection)
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
        at = {label: i for i, label in enumerate(labels)}
        here = [i for i, label in enumerate(port.labels) if label in at]
        values = np.full((len(time_s), len(port.labels)), np.nan)
        values[:, here] = found[:, [at[port.labels[i]] for i in here]]
        if connection.noise:
            # What was recorded is the truth; what a detector reads has passed a sensor.
            streams = stream_ids(f"calibration:{connection.target}:{x}" for x in port.labels)
            seed = self._context.scenario.seed
            steps = np.arange(len(time_s), dtype=np.uint64)[:, None]
            values += connection.noise * normal(seed, streams[None, :], steps, 0)
        return time_s, values


def _forecast(scenario: Scenario, site: GridSite, n_steps: int) -> Forecast:
    """Return the day of the scenario as its operator expects it: exact but for single loads."""
    time = scenario.time
    since: FloatArray = time.step_s * np.arange(n_steps, dtype=np.float64)
    day = site.profiles().sample(time.start_s + since, repeat_daily=scenario.grid.profiles.repeat)
    load_pu = scenario.grid.load_scale * day["load_pu"]
    return Forecast(since, load_pu, day["irradiance_pu"])
