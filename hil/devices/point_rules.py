"""Rules of one point, in stages: a stage is looked at only where those before it found nothing.

So a rule may rely on the stages before its own.
"""

from __future__ import annotations

import math

from hil.devices.rule import Rule, each, unused

_READ_KEYS = "scale offset scale_from sign_from enum not_implemented plausible poll_s mask"

WHERE = [
    *unused(
        "sunspec-and-place",
        "table address type word_order byte_order length word_addresses not_implemented",
        lambda c: c.point.sunspec is not None,
        "given besides 'sunspec'", "one of the two",
    ),
    Rule("sunspec-name", "sunspec", lambda c: c.sunspec_wrong, "{c.sunspec_wrong.what}",
         "{c.sunspec_wrong.expected}", "{c.sunspec_wrong.nearest}"),
    *each("place-is-missing", "table address type", "missing", "required key is missing",
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
    *unused("text-has-no-number", f"{_READ_KEYS} write_only", lambda c: c.kind == "string",
             "without meaning for text", "a number type, or no such key"),
    *unused("bits-have-no-words",
             "word_order byte_order mask word_addresses scale offset scale_from sign_from "
             "not_implemented",
             lambda c: c.is_bit, "without meaning for a bit", "no such key"),
    *unused("length-is-of-text", "length", lambda c: c.kind != "string",
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
    Rule("last-register", "address", lambda c: c.wire[1] > 65536,
         "the point ends behind the last register", "at most 65535"),
    Rule("base-address", "address", lambda c: c.point.address is not None and c.wire[0] < 0,
         "{c.point.address} + connection.base_address is below 0", "an address on the wire"),
    Rule("border", "address", lambda c: c.border is not None,
         "a border of the device, {c.border}, lies inside the point", "a point on one side of it"),
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
    *unused("write-only-is-not-read", "plausible not_implemented poll_s mask",
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
    *unused("only-for-rw",
             "max_step max_rate safe_value reversion enable readback on_limit rewrite_s on_change "
             "before one_request release",
             lambda c: c.point.access != "rw", "only for a point of access rw", "access rw"),
    *unused("not-for-r", "min max write_function", lambda c: c.point.access == "r",
             "only for a point that is written", "access rw or guard; plausible for what is read"),
    *each("limits-are-there", "min max", "missing_limits", "required for a point of access rw",
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
    *each("limits-fit", "min max", "unfit_limits",
           "{value:.12g} does not fit {c.kind} at scale {c.point.scale:g}",
           "{c.ends[0]:.12g} to {c.ends[1]:.12g}, what the register can hold"),
    *each("limits-limit", "min max", "endless_limits", "found {value:g}, which limits nothing",
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
    *unused("nothing-to-compare", "readback on_change",
             lambda c: c.point.write_only and not c.is_shown,
             "without meaning for a point that is not read",
             "readback.point, which shows the value"),
    Rule("one-request-of-several", "one_request",
         lambda c: c.point.one_request and not (c.point.before or c.point.enable),
         "there is nothing to send with the set-point", "points under before or enable"),
    Rule("one-request-writes-many", "write_function",
         lambda c: c.point.one_request and c.point.write_function in (5, 6),
         "function {c.point.write_function} writes one register", "15 or 16 for one_request"),
    Rule("reversion-outlasts-heartbeat", "reversion.seconds",
         lambda c: c.point.reversion and c.point.reversion.seconds < c.heartbeat_s + c.spec.poll_s,
         "the device reverts after {c.point.reversion.seconds:g} s, before it is written again",
         "at least guard.heartbeat_s + poll_s, {c.heartbeat_s:g} + {c.spec.poll_s:g} s"),
    Rule("refresh-before-reversion", "reversion.refresh_s",
         lambda c: c.point.reversion
         and (c.point.reversion.refresh_s or 0) + c.spec.connection.timeout_s
         >= c.point.reversion.seconds,
         "the timer ends before it is written again", "less than seconds - connection.timeout_s"),
    Rule("read-back-in-time", "readback.delay_s",
         lambda c: c.point.readback and c.point.readback.delay_s >= c.life_s,
         "the set-point has ended or is written again before it is read",
         "less than {c.life_s:g} s"),
    Rule("rewrite-has-an-effect", "rewrite_s",
         lambda c: c.point.rewrite_s and c.point.reversion and c.point.rewrite_s >= c.refresh_s,
         "reversion repeats the set-point sooner", "less than {c.refresh_s:g} s, or no rewrite_s"),
]  # fmt: skip
"""What is commanded can be written, is verified and lasts."""
