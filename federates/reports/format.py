"""Names, units and digits of metrics, for the terminal and for pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federates.runs.data import RunData

_NAMES = {
    "v_max_pu": "Highest voltage",
    "v_min_pu": "Lowest voltage",
    "v_std_pu": "Standard deviation of voltages, all nodes and steps",
    "out_of_band_node_hours": "Out of the voltage band",
    "dead_node_hours": "Nodes without voltage",
    "losses_kwh": "Losses",
    "import_kwh": "Import",
    "import_peak_kw": "Highest import",
    "loading_max_pct": "Highest loading of a line or transformer",
    "overload_h": "Time with an overload",
    "line_losses_kwh": "Losses of lines",
    "transformer_losses_kwh": "Losses of transformers",
    "tap_changes": "Tap changes",
    "cap_switchings": "Switchings of capacitors",
    "energy_not_served_kwh": "Energy not served",
    "balance_error_max_ppm": "Largest error of the power balance",
    "abs_q_kvarh": "Reactive energy of DERs, sum of |q|",
    "mail_delivered_count": "Messages delivered",
    "mail_bytes_count": "Bytes of messages delivered",
    "mail_lost_count": "Messages lost",
    "attacked_values_count": "Values affected",
    "attack_steps_never_triggered_count": "Steps that never began",
    "attack_window_out_of_band_node_hours": "Out of the voltage band in the attack's time",
    "attack_window_oscillation_pu": "Voltage oscillation in the attack's time",
    "attack_window_unbalance_pct": "Voltage unbalance in the attack's time",
    "lmp_mean_per_kwh": "Locational price, mean",
    "tariff_mean_per_kwh": "Local tariff, mean",
    "unit_peak_kw": "Highest power of the grid-forming unit",
    "unit_least_kw": "Lowest power of the grid-forming unit",
    "shed_kwh": "Load shed",
    "critical_shed_kwh": "Critical load shed",
    "curtailed_kwh": "Generation curtailed",
    "recovery_s": "Time to recover after the attack",
    "feeder_v_max_pu": "Highest voltage in any feeder",
    "feeder_v_min_pu": "Lowest voltage in any feeder",
    "import_mwh": "Import of all feeders",
    "import_peak_mw": "Highest import of all feeders",
    "feeders_dark_h": "Time without supply",
    "referee_max_dev_pu": "Largest deviation from OpenDSS",
    "frequency_min_hz": "Lowest frequency, centre of inertia",
    "frequency_max_hz": "Highest frequency, centre of inertia",
    "frequency_final_hz": "Frequency at the end, centre of inertia",
    "bus_frequency_min_hz": "Lowest frequency of a bus",
    "tie_mw": "Tie flow at the end",
    "load_shed_mw": "Load shed by under-frequency relays",
    "collapsed_at_s": "Time of the collapse",
}
FIRST_OF_MANY = "representative_"
"""What metrics of the first of many feeders begin with."""
# Longest first, so that "_kvarh" is not taken for "_h".
_UNITS: tuple[tuple[str, str, int | None], ...] = (
    ("_per_kwh", "money/kWh", 4),
    ("_per_mwh", "money/MWh", 2),
    ("_money", "money", 2),
    ("_node_hours", "node-h", 1),
    ("_count", "", 0),
    ("_kvarh", "kvarh", 1),
    ("_steps", "steps", 0),
    ("_changes", "", 0),
    ("_switchings", "", 0),
    ("_ppm", "ppm", 3),
    ("_kvar", "kvar", 1),
    ("_kwh", "kWh", 1),
    ("_mwh", "MWh", 3),
    ("_kva", "kVA", 1),
    ("_kw", "kW", 1),
    ("_mw", "MW", 2),
    ("_dev_pu", "pu", None),
    ("_hz", "Hz", 4),
    ("_pu", "pu", 4),
    ("_pct", "%", 1),
    ("_ms", "ms", 1),
    ("_s", "s", 2),
    ("_h", "h", 2),
)


def metric_unit(key: str) -> str:
    """Return the unit that a metric's key ends with."""
    return next((unit for suffix, unit, _ in _UNITS if key.endswith(suffix)), "")


def metric_digits(key: str) -> int | None:
    """Return the decimals that a metric is written with; None where its unit is not known."""
    return next((n for suffix, _, n in _UNITS if key.endswith(suffix)), None)


def metric_name(key: str) -> str:
    """Return a metric's name in words; ``plant.metric`` names the plant first."""
    plant, _, whole = key.rpartition(".")
    key = whole.removeprefix(FIRST_OF_MANY)
    suffix = next((s for s, _, _ in _UNITS if key.endswith(s)), "")
    words = key.removesuffix(suffix).replace("_", " ").strip() or key
    name = _NAMES.get(key, words[0].upper() + words[1:])
    name += ", first feeder" if key != whole else ""
    return f"{plant}: {name}" if plant else name


def with_unit(name: str, unit: str) -> str:
    """Return a name with its unit after a comma, where it has one."""
    return f"{name}, {unit}" if unit else name


def metric_number(key: str, value: float | None) -> str:
    """Return a metric's value without its unit; a metric that is not a number gives a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    digits = metric_digits(key)
    return f"{value:.4g}" if digits is None else f"{value:,.{digits}f}"


def clock(time_s: float) -> str:
    """Write a time of day as ``13:05`` or, off the minute, ``13:05:30``; later days as ``d1``."""
    day, rest = divmod(round(time_s, 3), 86400.0)
    hours, rest = divmod(rest, 3600.0)
    minutes, seconds = divmod(rest, 60.0)
    text = f"{int(hours):02d}:{int(minutes):02d}"
    if seconds:
        text += f":{seconds:02.0f}" if seconds == int(seconds) else f":{seconds:06.3f}"
    return f"d{int(day)} {text}" if day else text


def event_details(event: Mapping[str, Any]) -> str:
    """Return what an event says beside its time, federate and name; six digits of fractions."""
    known = ("wall", "time_s", "federate", "event")
    return ", ".join(
        f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in event.items()
        if k not in known and v is not None
    )


def pace(run: RunData) -> str:
    """Say what a run's steps per second are counted from, and what it took in all."""
    stepping_s, wall_s = run.summary.get("stepping_s"), run.summary["wall_s"]
    stepping = "" if stepping_s is None else f"in {stepping_s:.1f} s of stepping; "
    return f"{stepping}{wall_s:.1f} s of wall time"


def warm_up_words(runs: Sequence[RunData]) -> list[str]:
    """Say what the metrics of runs leave out, or include; nothing where there is no warm-up."""
    notes = dict.fromkeys(str(run.manifest.get("warm_up_note") or "") for run in runs)
    notes.pop("", None)
    found = sorted({run.warm_up_s for run in runs} - {0.0})
    if not found:
        return list(notes)
    span_s = " or ".join(f"{seconds:g}" for seconds in found)
    return [
        f"The first {span_s} s of the run, its warm-up (time.warm_up_s), are left out of metrics, "
        "maps and extremes; curves and signals begin with the first step.",
        *notes,
    ]
