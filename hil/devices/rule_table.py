"""The rules of device files: what cannot work is refused before anything is connected.

Each rule is a row: its name, the key it speaks of, when it applies, what it says, what was
expected. Texts are format strings of the facts `c` (`hil.devices.rule_facts`). A stage is looked
at only where the stages before it found nothing, so a rule may rely on them. A new rule needs a row
in ``tests/hil/devices/test_rules.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from grid_models.base.yaml_lines import KeyPath


class Rule(NamedTuple):
    """One rule.

    Parameters
    ----------
    name : For its test, and for reading.
    key : Key under the thing that it speaks of, with dots; '' for the thing itself.
    applies : Given the facts; True where the file breaks the rule.
    what, expected, nearest : str
        Format strings of the facts ``c``.
    """

    name: str
    key: str
    applies: Callable[[Any], Any]
    what: str
    expected: str = ""
    nearest: str = ""

    def found(self, facts: Any, at: KeyPath) -> tuple[KeyPath, str, str, str]:
        """Return the problem in words."""
        key = (*at, *filter(None, self.key.split(".")))
        what, expected, nearest = (
            text.format(c=facts) for text in (self.what, self.expected, self.nearest)
        )
        return key, what, expected, nearest


def _unused(
    name: str, keys: str, applies: Callable[[Any], Any], what: str, expected: str
) -> list[Rule]:
    """Return one rule per key that has no meaning where `applies` holds."""

    def given(key: str) -> Callable[[Any], Any]:
        return lambda c: c.given(key) and applies(c)

    return [Rule(name, key, given(key), what, expected) for key in keys.split()]


def _each(name: str, keys: str, fact: str, what: str, expected: str) -> list[Rule]:
    """Return one rule per key; the fact is a mapping of the wrong keys to their values."""

    def wrong(key: str) -> Callable[[Any], Any]:
        return lambda c: key in getattr(c, fact)

    return [
        Rule(name, key, wrong(key), what.replace("{value", f"{{c.{fact}[{key}]"), expected)
        for key in keys.split()
    ]


_READ_KEYS = "scale offset scale_from sign_from enum not_implemented plausible poll_s mask"
_WRITE_KEYS = "max_step max_rate safe_value reversion"

WHERE = [
    *_unused(
        "sunspec-and-place",
        "table address type word_order byte_order length word_addresses not_implemented",
        lambda c: c.point.sunspec is not None,
        "given besides 'sunspec'", "one of the two",
    ),
    Rule("sunspec-name", "sunspec", lambda c: c.sunspec_wrong, "{c.sunspec_wrong.what}",
         "{c.sunspec_wrong.expected}", "{c.sunspec_wrong.nearest}"),
    *_each("place-is-missing", "table address type", "missing", "required key is missing",
           "table, address and type, or sunspec"),
]  # fmt: skip
"""Where a point is."""

TYPE = [
    Rule("bits-are-bool", "type", lambda c: c.is_bit and c.kind != "bool",
         "found {c.kind} in table {c.point.table}", "bool"),
    Rule("bool-is-a-bit", "type", lambda c: not c.is_bit and c.kind == "bool",
         "found bool in table {c.point.table}",
         "a type of registers; one bit of a register is uint16 with a mask"),
    Rule("mask-of-integers", "mask", lambda c: c.point.mask and not c.is_integer,
         "found with type {c.kind}", "an integer type"),
    Rule("mask-is-a-run", "mask", lambda c: c.is_integer and not c.mask_is_run,
         "found {c.point.mask:#x}", "adjacent bits of the {c.bits} of {c.kind}"),
    Rule("words-or-address", "address", lambda c: c.point.word_addresses and c.given("address"),
         "given besides 'word_addresses'", "one of the two"),
    Rule("one-address-per-word", "word_addresses",
         lambda c: c.point.word_addresses and (
             c.is_bit or c.kind == "string"
             or not len(set(c.point.word_addresses)) == len(c.point.word_addresses) == c.words),
         "found {c.point.word_addresses} for type {c.kind}",
         "{c.words} different addresses of registers"),
    Rule("word-gap", "word_addresses",
         lambda c: c.point.word_addresses and c.gap > c.spec.connection.max_gap
         and not c.spec.has_sunspec,
         "{c.gap} registers lie between two words",
         "connection.max_gap of at least that: all words come in one read"),
    Rule("not-implemented-fits", "not_implemented", lambda c: c.mask_is_run and c.sentinel_wrong,
         "{c.sentinel_wrong.what}", "{c.sentinel_wrong.expected}"),
    *_unused("text-has-no-number", f"{_READ_KEYS} write_only", lambda c: c.kind == "string",
             "without meaning for text", "a number type, or no such key"),
    *_unused("bits-have-no-words",
             "word_order byte_order mask word_addresses scale offset scale_from sign_from "
             "not_implemented",
             lambda c: c.is_bit, "without meaning for a bit", "no such key"),
    *_unused("length-is-of-text", "length", lambda c: c.kind != "string",
             "without meaning for {c.kind}", "type string, or no length"),
    Rule("text-is-not-written", "access", lambda c: c.kind == "string" and c.point.access != "r",
         "text cannot be written", "access r"),
    Rule("sunspec-text", "sunspec", lambda c: c.point.sunspec and c.kind == "string",
         "{c.point.sunspec} is text", "a number; texts of model 1 are shown by 'device scan'"),
    Rule("table-is-not-written", "access",
         lambda c: c.point.table in ("discrete", "input") and c.point.access != "r",
         "table {c.point.table} cannot be written", "access r"),
    Rule("sunspec-is-not-written", "access",
         lambda c: c.point.sunspec and c.point.access != "r" and not c.sunspec_is_written,
         "{c.point.sunspec} is read-only in SunSpec", "access r"),
]  # fmt: skip
"""Keys that fit the type and the table."""

PLACE = [
    Rule("last-register", "address", lambda c: c.span[2] > 65536,
         "the point ends behind the last register", "at most 65535"),
    Rule("one-read", "", lambda c: not c.is_bit and c.span_words > c.spec.connection.max_registers,
         "needs {c.span_words} registers in one read",
         "at most connection.max_registers, {c.spec.connection.max_registers}"),
    Rule("write-function", "write_function",
         lambda c: c.point.write_function and c.point.write_function not in c.functions,
         "function {c.point.write_function} cannot write {c.kind} in table {c.place.table}",
         "{c.function_names}"),
    Rule("scale-is-zero", "scale", lambda c: c.point.scale == 0, "found 0",
         "a number other than 0"),
    Rule("scale-size", "scale", lambda c: c.point.scale and not 1e-12 <= abs(c.point.scale) <= 1e12,
         "found {c.point.scale:g}", "1e-12 to 1e12, or the same with a minus"),
    Rule("offset-size", "offset",
         lambda c: abs(c.point.offset) > 1e12 * min(abs(c.point.scale) or 1, 1),
         "found {c.point.offset:g}", "at most 1e12, and 1e12 times the scale"),
    Rule("plausible-order", "plausible",
         lambda c: c.point.plausible and c.point.plausible[0] >= c.point.plausible[1],
         "found [{c.point.plausible[0]:g}, {c.point.plausible[1]:g}]", "[lowest, highest]"),
    Rule("plausible-is-possible", "plausible",
         lambda c: c.point.plausible and c.point.scale
         and (c.point.plausible[1] < c.ends[0] or c.point.plausible[0] > c.ends[1]),
         "no value of {c.kind} is inside", "a part of {c.ends[0]:g} to {c.ends[1]:g}"),
    Rule("not-implemented-is-a-name", "not_implemented",
         lambda c: c.point.not_implemented is not None
         and c.sentinel in (c.point.enum or {}).values(),
         "found {c.point.not_implemented}, which enum gives a name", "a value without a name"),
    Rule("enum-fits", "enum", lambda c: c.point.scale and c.bad_name,
         "{c.bad_name} = {c.bad_value} can be neither written nor read",
         "{c.ends[0]:g} to {c.ends[1]:g} in steps of {c.step:g}, within min and max"),
    Rule("write-only-is-written", "write_only",
         lambda c: c.point.write_only and c.point.access == "r",
         "the point would be neither read nor written", "access rw or guard"),
    *_unused("write-only-is-not-read", "plausible not_implemented poll_s mask",
             lambda c: c.point.write_only, "without meaning for a point that is not read",
             "no such key"),
    Rule("byte-keeps-its-neighbour", "write_only",
         lambda c: c.point.write_only and c.kind in ("int8", "uint8"),
         "the other byte of the register cannot be read", "type int16 or uint16"),
    Rule("words-apart-are-read", "word_addresses",
         lambda c: c.point.word_addresses and c.point.access != "r",
         "words that are not adjacent cannot be written at once", "access r"),
    Rule("masked-write-is-one-register", "mask",
         lambda c: c.point.mask and c.point.access != "r" and c.words > 1,
         "found in {c.words} registers that are written", "a type of one register"),
    Rule("sign-is-read", "sign_from", lambda c: c.point.sign_from and c.point.access != "r",
         "a sign in another register cannot be written", "access r"),
    Rule("sunspec-has-exponents", "scale_from",
         lambda c: c.point.scale_from and c.point.sunspec and c.point.scale_from.kind == "exponent",
         "SunSpec points have scale factors of their own", "kind factor"),
]  # fmt: skip
"""Registers, scale and what may be read."""

ACCESS = [
    *_unused("only-for-rw", _WRITE_KEYS, lambda c: c.point.access != "rw",
         "only for a point of access rw", "access rw"),
    *_unused("written-by-command", "enable readback on_limit", lambda c: c.point.access != "rw",
             "only for a point of access rw", "access rw"),
    *_unused("not-for-r", "min max write_function", lambda c: c.point.access == "r",
             "only for a point that is written", "access rw or guard; plausible for what is read"),
    *_each("limits-are-there", "min max", "missing_limits", "required for a point of access rw",
           "a number"),
    Rule("safe-is-there", "safe_value",
         lambda c: c.point.access == "rw" and c.point.safe_value is None,
         "required for a point of access rw", "the value in safe state"),
    Rule("limits-order", "min", lambda c: c.limits and c.low > c.high,
         "{c.low:g} is above max {c.high:g}", "min <= max"),
    Rule("safe-is-allowed", "safe_value",
         lambda c: c.limits and not math.isnan(c.safe) and not c.low <= c.safe <= c.high,
         "found {c.safe:g}", "{c.low:g} to {c.high:g}"),
    Rule("safe-has-a-name", "safe_value",
         lambda c: c.point.enum and c.low <= c.safe <= c.high
         and c.safe not in c.point.enum.values(),
         "found {c.safe:g}", "a value of enum"),
    *_each("limits-fit", "min max", "unfit_limits",
           "{value:g} does not fit {c.kind} at scale {c.point.scale:g}",
           "{c.ends[0]:g} to {c.ends[1]:g}, what the register can hold"),
    *_each("limits-limit", "min max", "endless_limits", "found {value:g}, which limits nothing",
           "what the device can do, below 1e12"),
]  # fmt: skip
"""What may be written at all."""

SET_POINT = [
    Rule("safe-is-exact", "safe_value", lambda c: not c.holds(c.safe, c.low, c.high),
         "{c.kind} at scale {c.point.scale:g} cannot hold {c.safe:g}",
         "a multiple of the scale, and no reserved value"),
    Rule("not-implemented-is-no-set-point", "not_implemented",
         lambda c: c.point.not_implemented is not None and c.low <= c.sentinel <= c.high
         and not (c.point.enum and c.sentinel not in c.point.enum.values()),
         "{c.sentinel:g} may be commanded", "a value outside {c.low:g} to {c.high:g}"),
    Rule("set-point-is-plausible", "plausible",
         lambda c: c.point.plausible
         and not c.point.plausible[0] <= c.low <= c.high <= c.point.plausible[1],
         "a commanded value of {c.low:g} to {c.high:g} would be bad",
         "all of {c.low:g} to {c.high:g}"),
    Rule("step-is-possible", "max_step", lambda c: c.point.max_step and c.point.max_step < c.step,
         "found {c.point.max_step:g}, below one step of the register", "at least {c.step:g}"),
    Rule("rate-is-possible", "max_rate",
         lambda c: c.point.max_rate and 2.0 * c.heartbeat_s * c.point.max_rate < c.step,
         "found {c.point.max_rate:g} per second: less than a step of the register in 2 heartbeats",
         "at least one step of {c.step:g}"),
    Rule("tolerance-tells", "readback.tolerance",
         lambda c: c.low < c.high and c.tolerance >= c.high - c.low,
         "found {c.tolerance:g}: every value between the limits would pass", "less than max - min"),
    Rule("read-while-a-command-lives", "poll_s",
         lambda c: c.poll_s > c.spec.guard.input_limit_s and not c.point.write_only,
         "a set-point that is read every {c.poll_s:g} s, less often than its commands live",
         "at most guard.input_timeout_s, {c.spec.guard.input_limit_s:g} s"),
    Rule("reversion-outlasts-heartbeat", "reversion.seconds",
         lambda c: c.point.reversion and c.point.reversion.seconds < c.heartbeat_s + c.spec.poll_s,
         "the device reverts after {c.point.reversion.seconds:g} s, before it is written again",
         "at least guard.heartbeat_s + poll_s, {c.heartbeat_s:g} + {c.spec.poll_s:g} s"),
    Rule("refresh-before-reversion", "reversion.refresh_s",
         lambda c: c.point.reversion
         and (c.point.reversion.refresh_s or 0) + c.spec.connection.timeout_s
         >= c.point.reversion.seconds,
         "the timer ends before it is written again", "less than seconds - connection.timeout_s"),
    Rule("read-back-before-reversion", "readback.delay_s",
         lambda c: c.point.readback and c.point.reversion
         and c.point.readback.delay_s >= c.point.reversion.seconds,
         "the device has reverted before the read-back", "less than reversion.seconds"),
]  # fmt: skip
"""What is commanded can be written, is verified and lasts."""

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
         lambda c: c.role == "readback" and not c.is_exact
         and c.by.tolerance < c.other.step / 2 * 0.999999,
         "'{c.target}' has steps of {c.other.step:g}, between those of the set-point",
         "readback.tolerance of at least {c.half_step:g}"),
    Rule("readback-has-the-unit", "",
         lambda c: c.role == "readback" and c.other.point.unit and c.by.point.unit
         and c.other.point.unit != c.by.point.unit,
         "'{c.target}' is in {c.other.point.unit}, the set-point in {c.by.point.unit}", "one unit"),
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
    Rule("curve-model", "", lambda c: c.model not in (705, 706, 712), "not a curve model",
         "705, 706 or 712"),
    *_each("curve-order", "x y", "falling", "{value[0]:g} > {value[1]:g}", "low, high"),
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
