"""Register map of the project's thermostat: the emulator and the Raspberry Pi agent serve it.

The layout is that of thermostats in the field: measurements x10 in input registers, set-points x10
in holding registers with their limits beside the measurements, a mode, an on/off coil.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from hil.modbus.pdu import Table
from hil.servers.point_map import MapPoint

SET_MIN_C, SET_MAX_C = 5.0, 35.0
#: Version of this table, in input register 12.
MAP_VERSION = 1


class Mode(IntEnum):
    """What the thermostat may do."""

    off = 0
    heat = 1
    cool = 2
    auto = 3


class Verb(IntEnum):
    """Demand response, after the basic messages of ANSI/CTA-2045-B (2021)."""

    end_shed = 0
    shed = 1
    critical_peak = 2
    grid_emergency = 3
    load_up = 4


class Status(IntFlag):
    """Bits of input register 7."""

    sensor_fault = 1
    waiting = 2
    """Wants to switch, but the least time on or off has not passed."""
    reverted = 4
    """The controller's heartbeat stopped; safe set-points hold until it beats again."""


_MODES = {m.name: int(m) for m in Mode}
_VERBS = {v.name: int(v) for v in Verb}
_I, _H, _C, _D = Table.input, Table.holding, Table.coil, Table.discrete


def _celsius(name: str, table: Table, address: int, about: str, start: float) -> MapPoint:
    span = (SET_MIN_C, SET_MAX_C) if table is _H else (None, None)
    return MapPoint(
        name, table, address, "int16", about, 0.1, "degC", span[0], span[1], start=start
    )


THERMOSTAT_MAP: tuple[MapPoint, ...] = (
    _celsius("temp_in_c", _I, 0, "Indoor temperature; -99.9 where the sensor failed", 21.0),
    MapPoint("power_w", _I, 1, "uint16", "Electrical power of heating and cooling", unit="W"),
    MapPoint("relay", _I, 2, "uint16", "1 while heating or cooling is on"),
    MapPoint("verb_now", _I, 3, "uint16", "Demand response that holds now", choices=_VERBS),
    _celsius("cool_target_c", _I, 4, "Set-point in force for cooling, demand response in it", 24.0),
    _celsius("heat_target_c", _I, 5, "Set-point in force for heating, demand response in it", 20.0),
    MapPoint("remaining_s", _I, 6, "uint16", "Time left of the demand response; 0: no end",
             unit="s"),
    MapPoint("status", _I, 7, "uint16",
             "Bits: 1 sensor fault, 2 waiting for the least time, 4 reverted"),
    MapPoint("uptime_s", _I, 8, "uint32", "Time since the start", unit="s"),
    _celsius("temp_out_c", _I, 10, "Outdoor temperature, where known", 30.0),
    MapPoint("total_w", _I, 11, "uint16", "Power of the whole house, where known", unit="W"),
    MapPoint("map_version", _I, 12, "uint16", "Version of this table", start=MAP_VERSION),
    MapPoint("energy_wh", _I, 13, "uint32", "Energy of heating and cooling", unit="Wh"),
    _celsius("set_min_c", _I, 15, "Lowest set-point that is accepted", SET_MIN_C),
    _celsius("set_max_c", _I, 16, "Highest set-point that is accepted", SET_MAX_C),
    _celsius("cool_set_c", _H, 0, "Set-point of cooling; above heating by the band", 24.0),
    _celsius("heat_set_c", _H, 1, "Set-point of heating", 20.0),
    MapPoint("mode", _H, 2, "uint16", "What it may do", choices=_MODES, start=Mode.auto),
    MapPoint("verb", _H, 3, "uint16", "Demand response that is asked for", choices=_VERBS),
    MapPoint("duration_s", _H, 4, "uint16", "How long; write before `verb`; 0: no end", unit="s"),
    MapPoint("heartbeat", _H, 5, "uint16", "A sign of life: any value but the last one"),
    MapPoint("heartbeat_s", _H, 6, "uint16", "Longest time without a heartbeat; 0: any",
             unit="s", start=30),
    _celsius("safe_cool_c", _H, 7, "Set-point of cooling after a lost heartbeat", 24.0),
    _celsius("safe_heat_c", _H, 8, "Set-point of heating after a lost heartbeat", 20.0),
    MapPoint("enabled", _C, 0, "bool", "0 switches everything off", start=1),
    MapPoint("cooling", _D, 0, "bool", "Cooling is on"),
    MapPoint("heating", _D, 1, "bool", "Heating is on"),
    MapPoint("sensor_ok", _D, 2, "bool", "The temperature is trusted", start=1),
)  # fmt: skip
