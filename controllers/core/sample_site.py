"""A hand-made five-bus feeder with a few DERs, so that a controller can be tried without data.

::

    sub ---- b1 ---- b2 ---- b3        sub-b1-b2-b3: three phases
                     |
                     b4                b2-b4: phase 2 only
"""

from __future__ import annotations

import numpy as np

from controllers.core.protocol import ControlSite
from grid_models.feeder.model import Bus, Der, Feeder, Line, Load, Source

_KV_LN = 4.16 / np.sqrt(3.0)
# Ohm per mile of configuration 601 of the IEEE 13-node feeder, phases A, B, C (IEEE PES test
# feeder document): an ordinary overhead line.
_Z_OHM_PER_MILE = np.array(
    [
        [0.3465 + 1.0179j, 0.1560 + 0.5017j, 0.1580 + 0.4236j],
        [0.1560 + 0.5017j, 0.3375 + 1.0478j, 0.1535 + 0.3849j],
        [0.1580 + 0.4236j, 0.1535 + 0.3849j, 0.3414 + 1.0348j],
    ]
)
_FT_PER_MILE = 5280.0


def _line(from_bus: str, to_bus: str, phases: tuple[int, ...], length_ft: float) -> Line:
    pick = np.array(phases) - 1
    z_ohm = _Z_OHM_PER_MILE[np.ix_(pick, pick)] * (length_ft / _FT_PER_MILE)
    zero = np.zeros((len(phases), len(phases)))
    return Line(f"{from_bus}_{to_bus}", from_bus, to_bus, phases, z_ohm, zero, length_ft)


def sample_feeder() -> Feeder:
    """Return the five-bus, 4.16 kV feeder with loads of 900 kW and DERs of 950 kVA."""
    three = (1, 2, 3)
    buses = {
        name: Bus(name, phases, _KV_LN, x_ft, y_ft)
        for name, phases, x_ft, y_ft in (
            ("sub", three, 0.0, 0.0),
            ("b1", three, 2000.0, 0.0),
            ("b2", three, 4000.0, 0.0),
            ("b3", three, 6000.0, 0.0),
            ("b4", (2,), 4000.0, -1500.0),
        )
    }
    return Feeder(
        name="sample5",
        source=Source("sub", 4.16, v_pu=1.02),
        buses=buses,
        lines=(
            _line("sub", "b1", three, 2000.0),
            _line("b1", "b2", three, 2000.0),
            _line("b2", "b3", three, 2000.0),
            _line("b2", "b4", (2,), 1500.0),
        ),
        loads=(
            Load("load_b2", "b2", three, "wye", "PQ", 450.0, 150.0, 4.16),
            Load("load_b3", "b3", three, "wye", "PQ", 300.0, 100.0, 4.16),
            Load("load_b4", "b4", (2,), "wye", "PQ", 150.0, 50.0, float(_KV_LN)),
        ),
        ders=(
            Der("pv_b1", "pv", "b1", (1,), kva=110.0, p_max_kw=100.0),
            Der("pv_b2", "pv", "b2", three, kva=330.0, p_max_kw=300.0),
            Der("pv_b3", "pv", "b3", three, kva=220.0, p_max_kw=200.0),
            Der("bat_b3", "battery", "b3", (1,), 100.0, 100.0, p_min_kw=-100.0, energy_kwh=200.0),
            Der("pv_b4", "pv", "b4", (2,), kva=190.0, p_max_kw=170.0),
        ),
        origin="hand-made; line impedances of IEEE 13 configuration 601",
    )


def sample_site(period_s: float = 1.0, seed: int = 0) -> ControlSite:
    """Return the site of `sample_feeder`: every DER is commanded, band 0.95 to 1.05 pu."""
    feeder = sample_feeder()
    return ControlSite(feeder, feeder.ders, period_s, seed=seed)
