"""Characteristics, operating points and ranges of IEEE Std 1547.1-2020 and IEEE Std 1547-2018.

Sources: IEEE Std 1547-2018, doi:10.1109/IEEESTD.2018.8332112 (tables 8, 10, 14 to 19, 24); IEEE Std
1547.1-2020, doi:10.1109/IEEESTD.2020.9097534 (5.4, 5.5, 5.13 to 5.16). Voltages in pu of nominal,
reactive power in pu of the rated apparent power, active power in pu of its rating.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hil.type_tests.functions import Curve, Droop

V_LOW, V_HIGH = 0.88, 1.10
F_LOW, F_HIGH = 58.8, 61.2

#: Volt-var, tables 25 to 27: shortest response time is 1 s in each.
VOLT_VAR = {
    "A": (
        Curve((0.90, 1.00, 1.10), (0.25, 0.0, -0.25), 10.0),
        Curve((0.88, 1.04, 1.07, 1.10), (0.44, 0.22, 0.22, -0.25), 1.0),
        Curve((0.90, 0.93, 0.96, 1.10), (0.44, -0.125, -0.125, -0.25), 90.0),
    ),
    "B": (
        Curve((0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44), 5.0),
        Curve((0.88, 1.04, 1.07, 1.10), (0.44, 0.22, 0.22, -0.44), 1.0),
        Curve((0.90, 0.93, 0.96, 1.10), (0.44, -0.22, -0.22, -0.44), 90.0),
    ),
}
#: Volt-watt, tables 31 to 33, with P2 as the least power of the device, 0, or 0.2 where that is
#: larger: 0.2 only in the test of priorities.
VOLT_WATT = (
    Curve((1.06, 1.10), (1.0, 0.0), 10.0),
    Curve((1.05, 1.10), (1.0, 0.0), 60.0),
    Curve((1.09, 1.10), (1.0, 0.0), 0.5),
)
VOLT_WATT_PRIORITY = Curve((1.06, 1.10), (1.0, 0.2), 10.0)
#: Watt-var, characteristic 1.
WATT_VAR = {
    "A": Curve((-1.0, -0.5, -0.2, 0.2, 0.5, 1.0), (0.25, 0.0, 0.0, 0.0, 0.0, -0.25)),
    "B": Curve((-1.0, -0.5, -0.2, 0.2, 0.5, 1.0), (0.44, 0.0, 0.0, 0.0, 0.0, -0.44)),
}
#: Frequency-droop: default and most aggressive settings of table 24.
DROOP = {
    "I": (Droop(0.036, 0.036, 0.05, 0.05, 5.0), Droop(0.017, 0.017, 0.03, 0.03, 1.0)),
    "II": (Droop(0.036, 0.036, 0.05, 0.05, 5.0), Droop(0.017, 0.017, 0.03, 0.03, 1.0)),
    "III": (Droop(0.036, 0.036, 0.05, 0.05, 5.0), Droop(0.017, 0.017, 0.02, 0.02, 0.2)),
}
#: Shortest response time that may be set, s.
SHORTEST_VAR_S, SHORTEST_WATT_S = 1.0, 0.5
SHORTEST_DROOP_S = {"I": 1.0, "II": 1.0, "III": 0.2}
#: Longest time of constant power factor and constant reactive power (5.3), of a limit (4.6.2), s.
CONSTANT_S, LIMIT_S = 10.0, 30.0
POWER_FACTORS = {"A": (0.90, -0.97, 0.95, -0.98), "B": (0.90, -0.90, 0.95, -0.95)}
Q_SHARES = (1.0, -1.0, 0.5, -0.5)
LIMITS = (0.66, 0.33, 0.0)
#: Voltage and frequency of the steps of tables 38 and 39.
PRIORITY = (
    (1.0, 60.0), (1.09, 60.0), (1.09, 60.33), (1.09, 60.0), (1.09, 59.36), (1.0, 59.36),
    (1.0, 60.0), (1.0, 59.36),
)  # fmt: skip


class Ride(NamedTuple):
    """A row of the ride-through tables 14 to 16 and 19.

    At this voltage (pu) or frequency (Hz) the device stays for `seconds` in `mode`.
    """

    value: float
    seconds: float
    mode: Literal["mandatory", "permissive", "cessation"]


#: Just inside each row; mandatory operation of I and II lasts longer with the voltage.
VOLTAGE_RIDES = {
    "I": (
        Ride(0.86, 0.7 + 4.0 * 0.16, "mandatory"), Ride(0.72, 0.7 + 4.0 * 0.02, "mandatory"),
        Ride(0.52, 0.16, "permissive"), Ride(1.14, 1.0, "permissive"),
        Ride(1.165, 0.5, "permissive"), Ride(1.19, 0.2, "permissive"),
    ),
    "II": (
        Ride(0.86, 3.0 + 8.7 * 0.21, "mandatory"), Ride(0.67, 3.0 + 8.7 * 0.02, "mandatory"),
        Ride(0.47, 0.32, "permissive"), Ride(0.32, 0.16, "permissive"),
        Ride(1.14, 1.0, "permissive"), Ride(1.165, 0.5, "permissive"),
        Ride(1.19, 0.2, "permissive"),
    ),
    "III": (
        Ride(0.86, 20.0, "mandatory"), Ride(0.52, 10.0, "mandatory"), Ride(0.02, 1.0, "cessation"),
        Ride(1.18, 12.0, "cessation"),
    ),
}  # fmt: skip
FREQUENCY_RIDES = (Ride(61.7, 299.0, "mandatory"), Ride(57.2, 299.0, "mandatory"))
#: After a disturbance that it rode through, 80 % of the current is back within this time, s
#: (6.4.2.7), and in mandatory operation it never falls below.
RESTORE_S, RESTORE_SHARE = 0.4, 0.8
#: Longest time to begin momentary cessation (table 16), s.
CESSATION_S = 0.083

#: Ranges of trip settings, tables 11 to 13 and 18: limit (pu or Hz) and clearing time (s), by
#: SunSpec model, the nearer limit first.
_TRIPS_I_II = {
    707: (((0.0, 0.88), (2.0, 21.0)), ((0.0, 0.50), (0.16, 2.0))),
    708: (((1.10, 1.20), (1.0, 13.0)), ((1.20, 1.20), (0.16, 0.16))),
    709: (((50.0, 59.0), (180.0, 1000.0)), ((50.0, 57.0), (0.16, 1000.0))),
    710: (((61.0, 66.0), (180.0, 1000.0)), ((61.8, 66.0), (0.16, 1000.0))),
}
_TRIPS_III = _TRIPS_I_II | {707: (((0.0, 0.88), (21.0, 50.0)), ((0.0, 0.50), (2.0, 21.0)))}
TRIP_RANGES = {"I": _TRIPS_I_II, "II": _TRIPS_I_II, "III": _TRIPS_III}
