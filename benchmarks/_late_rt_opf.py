"""`rt-opf` with measurements that are some steps old; see `real_time_opf.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from controllers.core.mail import FloatArray, Mail
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.real_time_opf.controller import RtOpf


class LateRtOpf(RtOpf):
    """Reads voltages and the import `late_steps` after they were measured.

    The available power is that of the DERs' own inverters, which carry out the commands: it is new.
    """

    def __init__(
        self, site: ControlSite, hosted: Sequence[str], *, late_steps: int, **options: Any
    ) -> None:
        super().__init__(site, hosted, **options)
        self._past: deque[Mapping[str, FloatArray]] = deque(maxlen=late_steps + 1)

    @classmethod
    def agents(cls, site: ControlSite, *, late_steps: int, **options: Any) -> tuple[str, ...]:
        """Return one agent per area."""
        return super().agents(site, **options)

    @classmethod
    def settling_s(cls, period_s: float, *, late_steps: int, **options: Any) -> float:
        """Return what `rt-opf` takes."""
        return super().settling_s(period_s, **options)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Step with old measurements."""
        self._past.append({name: values.copy() for name, values in inputs.items()})
        old = {**self._past[0], "p_avail_kw": inputs["p_avail_kw"]}
        return super().step(time_s, old, mail)
