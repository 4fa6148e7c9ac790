"""Rules between points, of points that others name, of the device, and hints."""

from __future__ import annotations

import math

from hil.devices.rule import Rule, each

PAIR = [
    Rule("parts-of-each-other", "address", lambda c: not c.is_same,
         "overlaps '{c.first.name}'", "registers of its own"),
    Rule("written-twice", "", lambda c: c.is_same and c.is_written,
         "writes the same registers as '{c.first.name}'", "registers, or bits by mask, of its own"),
]  # fmt: skip
"""Two points that share registers."""

USED = [
    Rule("written-by-guard", "",
         lambda c: c.role in ("timer", "write", "heartbeat") and c.other.point.access != "guard",
         "'{c.target}' has access {c.other.point.access}", "a point of access guard"),
    Rule("read-by-others", "",
         lambda c: c.role in ("readback", "scale",
         "sign") and (c.other.point.write_only or c.other.kind == "string"),
         "'{c.target}' has no number to read", "a point with a number that is read"),
    Rule("no-chain", "", lambda c: c.role in ("scale",
         "sign") and (c.other.point.scale_from or c.other.point.sign_from),
         "'{c.target}' has its own scale or sign in another register",
         "a point with a scale of its own"),
    Rule("raw-exponent", "",
         lambda c: c.is_raw and not c.other.is_plain_integer,
         "'{c.target}' is not a plain integer", "an integer type, scale 1, offset 0"),
    Rule("read-as-often", "", lambda c: c.role in ("scale",
         "sign") and c.other.poll_s > c.by.poll_s,
         "'{c.target}' is read every {c.other.poll_s:g} s, less often than the value",
         "at most {c.by.poll_s:g} s"),
    Rule("within-its-limits", "value",
         lambda c: c.other.limits and not c.other.low <= c.value <= c.other.high
         and not math.isnan(c.value),
         "found {c.value:g}", "{c.other.low:g} to {c.other.high:g}, the limits of '{c.target}'"),
    Rule("guard-value-fits", "value",
         lambda c: not math.isnan(c.value) and not c.other.holds(c.value),
         "found {c.value:g}, which {c.other.kind} at scale {c.other.point.scale:g} cannot hold",
         "{c.other.ends[0]:g} to {c.other.ends[1]:g}, in steps of {c.other.step:g}"),
    Rule("guard-value-has-a-name", "value",
         lambda c: c.role == "write" and c.other.point.enum
         and c.value not in c.other.point.enum.values(),
         "found {c.value:g}", "a value of enum of '{c.target}'"),
    Rule("timer-in-seconds", "",
         lambda c: c.role == "timer" and c.other.point.unit.lower() not in ("", "s", "sec",
         "secs", "seconds"),
         "'{c.target}' is in {c.other.point.unit}", "unit s; scale 60 makes seconds of minutes"),
    Rule("read-and-not-commanded", "",
         lambda c: c.role in ("readback", "scale", "sign") and c.target != c.by.name
         and c.other.point.access != "r",
         "'{c.target}' has access {c.other.point.access}", "a point that only the device changes"),
    Rule("readback-holds-the-set-point", "",
         lambda c: c.role == "readback"
         and (c.other.ends[0] > c.by.low or c.other.ends[1] < c.by.high),
         "'{c.target}' cannot show {c.by.low:g} to {c.by.high:g}",
         "a point with the set-point's range"),
    Rule("readback-is-fine-enough", "",
         lambda c: c.role == "readback" and c.by.tolerance < c.rounding * 0.999999,
         "'{c.target}' cannot show every value of the set-point",
         "readback.tolerance of at least {c.rounding:g}"),
    Rule("readback-has-the-unit", "",
         lambda c: c.role == "readback" and c.other.point.unit and c.by.point.unit
         and c.other.point.unit != c.by.point.unit,
         "'{c.target}' is in {c.other.point.unit}, the set-point in {c.by.point.unit}", "one unit"),
    Rule("one-request-is-adjacent", "",
         lambda c: c.role == "write" and c.by.point.one_request and not c.is_in_request,
         "'{c.target}' does not lie beside the others of one request",
         "adjacent whole registers of one table, or no one_request"),
    Rule("heartbeat-range", "value",
         lambda c: c.role == "heartbeat" and c.counts[0] >= c.counts[1],
         "found [{c.counts[0]:g}, {c.counts[1]:g}]", "[lowest, highest]"),
    Rule("heartbeat-fits", "value", lambda c: c.role == "heartbeat" and c.bad_count is not None,
         "'{c.target}' cannot count {c.bad_count:g}", "counts that its type and limits hold"),
    Rule("heartbeat-counts", "",
         lambda c: c.role == "heartbeat" and not c.other.is_bit and not c.other.is_integer,
         "'{c.target}' is {c.other.kind}", "an integer or a coil, which can count"),
    Rule("heartbeat-is-its-own", "", lambda c: c.role == "heartbeat" and c.other_use,
         "'{c.target}' is also {c.other_use}", "a point of its own"),
    Rule("one-timer-one-time", "value", lambda c: c.role == "timer" and c.other_seconds is not None,
         "'{c.target}' is also set to {c.other_seconds:g} s", "one time per timer"),
]  # fmt: skip
"""What the use asks of it."""

DEVICE = [
    Rule("nothing-to-read", "points", lambda c: not c.spec.points and not c.spec.sunspec,
         "nothing to read", "points or sunspec models"),
    Rule("timeout-within-heartbeat", "connection.timeout_s",
         lambda c: c.is_written and c.spec.connection.timeout_s >= c.spec.guard.heartbeat_s,
         "one lost reply takes {c.spec.connection.timeout_s:g} s",
         "less than guard.heartbeat_s, {c.spec.guard.heartbeat_s:g} s"),
    Rule("range-of-a-heartbeat", "guard.heartbeat_range",
         lambda c: c.spec.guard.heartbeat_range and c.spec.guard.heartbeat_point is None,
         "there is no heartbeat_point", "the point that counts, or no range"),
    Rule("units-of-a-line", "connection.unit",
         lambda c: c.spec.connection.framing != "tcp" and not 1 <= c.spec.connection.unit <= 247,
         "found {c.spec.connection.unit}, to which nothing answers on a serial line", "1 to 247"),
    Rule("delay-of-each-poll", "connection.connect_delay_s",
         lambda c: c.spec.connection.close_after_poll
         and c.spec.connection.connect_delay_s >= c.spec.poll_s,
         "each poll connects anew and waits this long", "less than poll_s, {c.spec.poll_s:g} s"),
    Rule("base-of-sunspec", "connection.sunspec_base",
         lambda c: c.spec.connection.sunspec_base is not None and not c.spec.has_sunspec,
         "the file has no SunSpec point", "a SunSpec point or model, or no such key"),
    Rule("base-of-points", "connection.base_address",
         lambda c: c.spec.connection.base_address
         and not any(p.table for p in c.spec.points.values()),
         "the file has no point with an address", "a point with an address, or no such key"),
    Rule("stale-between-polls", "stale_after_s",
         lambda c: c.spec.stale_after_s and c.spec.stale_after_s < c.longest_poll_s,
         "values would be stale between two polls",
         "at least the poll period, {c.longest_poll_s:g} s"),
    Rule("bad-after-stale", "bad_after_s",
         lambda c: c.spec.bad_after_s
         and c.spec.bad_after_s < max(c.longest_poll_s, c.spec.stale_after_s or 0),
         "values would be bad before they are stale, or between two polls",
         "at least stale_after_s and the poll period, {c.longest_poll_s:g} s"),
    Rule("pauses-within-poll", "connection.pause_s",
         lambda c: c.requests * c.spec.connection.pause_s > c.spec.poll_s,
         "{c.requests} requests with this pause take longer than one poll",
         "a shorter pause, a longer poll_s or a larger max_gap"),
]  # fmt: skip

CURVE = [
    Rule("curve-model", "", lambda c: not 705 <= c.model <= 712, "not a curve model",
         "705 to 712"),
    *each("curve-order", "x y", "falling", "{value[0]:g} > {value[1]:g}", "low, high"),
    Rule("safe-curve-inside", "safe", lambda c: c.outside, "{c.outside}", "inside x and y"),
    Rule("safe-curve-rises", "safe", lambda c: c.falls, "first coordinates fall",
         "first coordinates that rise"),
    Rule("safe-curve-has-points", "safe",
         lambda c: c.curve.safe is not None and len(c.curve.safe) < 2,
         "found fewer than two points", "at least 2"),
]  # fmt: skip

HINTS = [
    Rule("manual-address", "address", lambda c: c.manual_address is not None,
         "{c.point.address} looks like the number of a register in a manual",
         "the address on the wire; if it is one, {c.manual_address} in table {c.point.table}"),
    Rule("order-of-one-word", "word_order",
         lambda c: c.given("word_order") and c.kind != "string" and c.words == 1,
         "not used: {c.kind} has one word", "byte_order, if the bytes are meant"),
]  # fmt: skip
"""What can work but is often a slip: shown by `device check`, refused by nobody."""
