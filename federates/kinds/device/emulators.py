"""Emulators that a run starts itself, and the terminal conditions that they get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from federates.errors import RunError
from federates.kinds.device.models import Surroundings, house_labels
from federates.kinds.device.roles import RoleName
from grid_models.feeder.model import Der
from hil.devices.errors import ServerError
from hil.emulators.options import Clock, EmulatorOptions, EmulatorRole
from hil.emulators.process import EmulatorProcess


def rating_groups(ders: Sequence[Der], configs: Sequence[str] = ()) -> Iterator[list[int]]:
    """Yield the positions of DERs that one emulator process can serve.

    Those of inverters, batteries and configurations have equal ratings; thermostats may differ.
    `configs` are the names of their configurations, '' for the models of this package.
    """
    groups: dict[tuple[str, float, float, float, float, int], list[int]] = {}
    for i, (der, config) in enumerate(zip(ders, configs or [""] * len(ders), strict=True)):
        key = (config, der.kva, der.p_max_kw, der.p_min_kw, der.energy_kwh, len(der.phases))
        if not config and der.kind in ("house", "flexible_load"):
            key = ("", 0.0, 0.0, 0.0, 0.0, 0)
        groups.setdefault(key, []).append(i)
    yield from groups.values()


def _options(
    role: RoleName,
    ders: Sequence[Der],
    seed: int,
    dt_s: float,
    config: str,
    houses: Literal["own", "feeder"],
) -> EmulatorOptions:
    der = ders[0]
    ratings: dict[str, Any] = {"kw": der.p_max_kw, "phases": 3 if len(der.phases) == 3 else 1}
    if config:
        ratings = {"kw": max(der.p_max_kw, -der.p_min_kw), "config": config}
    elif role == "inverter":
        ratings["kva"] = der.kva
    elif role == "battery":
        ratings["kwh"] = der.energy_kwh
    else:
        ratings = {
            "kw_each": tuple(-d.p_min_kw for d in ders),
            "houses": tuple(house_labels(ders, houses)),
            "seed": seed,
        }
    names = ",".join(d.name for d in ders)
    kind = EmulatorRole.device if config else EmulatorRole(role)
    return EmulatorOptions(kind, names=names, time=Clock.grid, grid_port=0, step_s=dt_s, **ratings)


@contextmanager
def _run_errors() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        raise RunError(str(error), federate="emulator") from None


class Emulator:
    """One process with emulated devices that live in the run's simulated time.

    Parameters
    ----------
    ders : One device each; equal ratings, except those of thermostats.
    seed : Of the houses.
    dt_s : Period of the device federate; the physics takes one step per period.
    log : Takes what the process writes on standard error.
    config : Emulator configuration; '' for the model of this package.
    houses : Behind thermostats, see `house_labels`.

    Raises
    ------
    RunError: The process did not start; later, it does not answer.
    """

    def __init__(
        self, role: RoleName, ders: Sequence[Der], seed: int, dt_s: float, log: Path,
        config: str = "", houses: Literal["own", "feeder"] = "own",
    ) -> None:  # fmt: skip
        self._role, self._dt_s, self._time_s = role, dt_s, 0.0
        self._config = config
        log.parent.mkdir(parents=True, exist_ok=True)
        with _run_errors():
            self.device = EmulatorProcess(_options(role, ders, seed, dt_s, config, houses), log)
        self.places = self.device.places

    def send(self, around: Surroundings) -> None:
        """Ask for the next step; `wait` for it."""
        self._time_s += self._dt_s
        inputs: dict[str, Any] = {
            "v_pu": around.v_pu.tolist(),
            "irradiance_pu": around.irradiance_pu,
        }
        weather = {"temp_out_c": around.temp_c, "load_pu": around.load_pu}
        if self._config:
            inputs |= weather
        elif self._role == "thermostat":
            inputs = weather
        with _run_errors():
            self.device.send(t=self._time_s, **inputs)

    def wait(self) -> dict[str, Any]:
        """Return the answer to `send`."""
        with _run_errors():
            return self.device.answer()

    def close(self) -> None:
        """End the process."""
        self.device.close()
