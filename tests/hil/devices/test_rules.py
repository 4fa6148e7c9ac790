"""The table of rules: each has a file that breaks it, and is the only one that says so."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from hil.devices import device_rules, point_rules
from hil.devices.file import check_device_file, device_hints
from hil.devices.rule import Rule

STAGES = [
    (module, name, value)
    for module in (point_rules, device_rules)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, list)
]
POINTS = "name: t\npoints:\n"
READ = "  a: {table: input, address: 0, type: "
SET = "  sp: {table: holding, address: 10, type: int16, access: rw, "
LIMITS = "min: 0, max: 100, safe_value: 0, "
GUARD = ", access: guard}\n"
HEART = "name: t\nguard: {heartbeat_point: tm}\npoints:\n"
TIMER = "  tm: {table: holding, address: 20, type: uint16, access: guard}\n"


class Row(NamedTuple):
    """One file and what is said of it: ``LINE: KEY: a part of the message``."""

    rule: str
    text: str
    said: str


ROWS = [
    Row("sunspec-and-place", POINTS + "  a: {sunspec: 701.W, type: int16}\n",
        "3: points.a.type: given besides 'sunspec'"),
    Row("sunspec-and-place", POINTS + "  a: {sunspec: 701.W, not_implemented: 0}\n",
        "3: points.a.not_implemented: given besides"),
    Row("sunspec-name", POINTS + "  a: {sunspec: 701.Wx}\n",
        "3: points.a.sunspec: SunSpec model 701 has no"),
    Row("sunspec-name", POINTS + "  a: {sunspec: 705.Crv.Pt.V}\n", "expected 705.Crv[1].Pt[1].V"),
    Row("sunspec-name", POINTS + "  a: {sunspec: '701#0.W'}\n", "expected MODEL.POINT"),
    Row("place-is-missing", POINTS + "  a: {table: input, address: 0}\n",
        "3: points.a.type: required key"),
    Row("bits-are-bool", POINTS + "  a: {table: coil, address: 0, type: int16}\n",
        "3: points.a.type: found int16"),
    Row("bool-is-a-bit", POINTS + READ + "bool}\n", "one bit of a register is uint16 with a mask"),
    Row("mask-of-integers", POINTS + READ + "float32, mask: 1}\n",
        "3: points.a.mask: found with type float32"),
    Row("mask-is-a-run", POINTS + READ + "uint16, mask: 0x5}\n",
        "3: points.a.mask: found 0x5; expected adjacent"),
    Row("mask-is-a-run", POINTS + READ + "uint16, mask: 0x10000}\n", "the 16 of uint16"),
    Row("words-or-address",
        POINTS + "  a: {table: input, address: 1, type: uint32, word_addresses: [1, 2]}\n",
        "3: points.a.address: given besides 'word_addresses'"),
    Row("one-address-per-word", POINTS + "  a: {table: input, type: uint32, word_addresses: [1]}\n",
        "3: points.a.word_addresses: found [1] for type uint32; expected 2"),
    Row("word-gap", POINTS + "  a: {table: input, type: uint32, word_addresses: [1, 9]}\n",
        "3: points.a.word_addresses: 7 registers lie between"),
    Row("not-implemented-fits", POINTS + READ + "uint16, not_implemented: 65536}\n",
        "3: points.a.not_implemented: 65536 does not fit uint16"),
    Row("text-has-no-number", POINTS + READ + "string, length: 2, scale: 2}\n",
        "3: points.a.scale: without meaning"),
    Row("bits-have-no-words", POINTS + "  a: {table: coil, address: 0, type: bool, scale: 2}\n",
        "3: points.a.scale: without meaning for a bit"),
    Row("length-is-of-text", POINTS + READ + "uint16, length: 4}\n",
        "3: points.a.length: without meaning for uint16"),
    Row("text-is-not-written",
        POINTS + "  a: {table: holding, address: 0, type: string, access: guard}\n",
        "3: points.a.access: text cannot be written"),
    Row("sunspec-text", POINTS + "  a: {sunspec: 1.Mn}\n", "3: points.a.sunspec: 1.Mn is text"),
    Row("table-is-not-written",
        POINTS + READ + "int16" + GUARD, "3: points.a.access: table input cannot be written"),
    Row("sunspec-is-not-written",
        POINTS + "  a: {sunspec: 701.W" + GUARD, "3: points.a.access: 701.W is read-only"),
    Row("sunspec-is-not-written", POINTS + "  a: {sunspec: '705.Crv[1].Pt[1].V'" + GUARD,
        "3: points.a.access: 705.Crv[1].Pt[1].V is read-only"),
    Row("last-register", POINTS + "  a: {table: input, address: 65535, type: uint32}\n",
        "behind the last register"),
    Row("base-address", "name: t\nconnection: {base_address: -1}\npoints:\n" + READ + "int16}\n",
        "4: points.a.address: 0 + connection.base_address is below 0"),
    Row("border", "name: t\nconnection: {borders: [1]}\npoints:\n" + READ + "int32}\n",
        "4: points.a.address: a border of the device, 1, lies inside"),
    Row("one-read",
        "name: t\nconnection: {max_registers: 2}\npoints:\n" + READ + "string, length: 3}\n",
        "4: points.a: needs 3 registers in one read"),
    Row("write-function", POINTS + SET + LIMITS + "write_function: 5}\n",
        "3: points.sp.write_function: function 5 cannot write int16 in table holding; expected"
        " 6 or 16"),
    Row("write-function",
        POINTS + "  sp: {table: holding, address: 1, type: int32, access: guard,"
        " write_function: 6}\n",
        "function 6 cannot write int32 in table holding; expected 16"),
    Row("write-function",
        POINTS + "  sp: {table: coil, address: 1, type: bool, access: guard, write_function: 16}\n",
        "function 16 cannot write bool in table coil; expected 5 or 15"),
    Row("scale-is-zero", POINTS + "  a: {sunspec: 103.W, scale: 0}\n",
        "3: points.a.scale: found 0"),
    Row("scale-size", POINTS + READ + "uint16, scale: 1e+308}\n",
        "3: points.a.scale: found 1e+308"),
    Row("offset-size", POINTS + READ + "uint16, scale: 1e-6, offset: 1e+9}\n",
        "3: points.a.offset: found 1e+09"),
    Row("plausible-order", POINTS + READ + "int16, plausible: [80, -40]}\n",
        "3: points.a.plausible: found [80, -40]"),
    Row("plausible-is-possible", POINTS + READ + "uint16, plausible: [-9, -1]}\n",
        "no value of uint16 is inside"),
    Row("not-implemented-is-a-name",
        POINTS + READ + "uint16, enum: {none: 9}, not_implemented: 9}\n",
        "3: points.a.not_implemented: found 9, which enum gives a name"),
    Row("enum-fits", POINTS + READ + "uint16, enum: {far: 70000}}\n",
        "3: points.a.enum: far = 70000"),
    Row("enum-fits", POINTS + SET + "min: 0, max: 3, safe_value: 0, enum: {off: 0, on: 5}}\n",
        "on = 5"),
    Row("write-only-is-written", POINTS + READ + "uint16, write_only: true}\n",
        "neither read nor written"),
    Row("write-only-is-not-read", POINTS + SET + LIMITS + "write_only: true, poll_s: 1}\n",
        "3: points.sp.poll_s: without meaning for a point that is not read"),
    Row("byte-keeps-its-neighbour",
        POINTS + "  a: {table: holding, address: 1, type: int8, write_only: true" + GUARD,
        "3: points.a.write_only: the other byte"),
    Row("words-apart-are-read", "name: t\nconnection: {max_gap: 9}\npoints:\n"
        "  a: {table: holding, type: uint32, word_addresses: [1, 9]" + GUARD,
        "4: points.a.word_addresses: words that are not adjacent cannot be written"),
    Row("masked-write-is-one-register",
        POINTS + "  a: {table: holding, address: 1, type: uint32, mask: 0xFF" + GUARD,
        "3: points.a.mask: found in 2 registers"),
    Row("sign-is-read", POINTS + SET + LIMITS + "sign_from: {point: b, negative: [1]}}\n"
        "  b: {table: input, address: 0, type: uint16}\n",
        "3: points.sp.sign_from: a sign in another"),
    Row("sunspec-has-exponents", POINTS + "  a: {sunspec: 701.W, scale_from: {point: b}}\n"
        "  b: {table: input, address: 0, type: int16}\n",
        "3: points.a.scale_from: SunSpec points have"),
    Row("only-for-rw", POINTS + READ + "int16, max_step: 1}\n",
        "3: points.a.max_step: only for a point of access rw"),
    Row("only-for-rw",
        POINTS + "  a: {table: holding, address: 1, type: int16, on_limit: refuse" + GUARD,
        "3: points.a.on_limit: only for a point of access rw"),
    Row("not-for-r", POINTS + READ + "int16, min: 0}\n",
        "3: points.a.min: only for a point that is written"),
    Row("limits-are-there", POINTS + SET + "max: 1, safe_value: 0}\n",
        "3: points.sp.min: required"),
    Row("safe-is-there", POINTS + SET + "min: 0, max: 1}\n", "3: points.sp.safe_value: required"),
    Row("limits-order", POINTS + SET + "min: 5, max: 1, safe_value: 5}\n",
        "3: points.sp.min: 5 is above max 1"),
    Row("safe-is-allowed", POINTS + SET + "min: 0, max: 1, safe_value: 2}\n",
        "3: points.sp.safe_value: found 2"),
    Row("safe-has-a-name", POINTS + SET + "enum: {off: 0, on: 2}, safe_value: 1}\n",
        "expected a value of enum"),
    Row("limits-fit", POINTS + SET + "min: 0, max: 40000, safe_value: 0}\n",
        "3: points.sp.max: 40000 does not fit"),
    Row("limits-fit",
        POINTS + "  sp: {table: coil, address: 1, type: bool, access: rw, min: 0, max: 100,"
        " safe_value: 50}\n",
        "3: points.sp.max: 100 does not fit bool"),
    Row("limits-limit",
        POINTS + "  sp: {table: holding, address: 1, type: float32, access: rw, min: -1e+38,"
        " max: 0, safe_value: 0}\n",
        "3: points.sp.min: found -1e+38, which limits nothing"),
    Row("safe-is-exact", POINTS + SET + "scale: 10, min: 0, max: 100, safe_value: 5}\n",
        "3: points.sp.safe_value: int16 at scale 10 cannot hold 5"),
    Row("not-implemented-is-no-set-point", POINTS + SET + LIMITS + "not_implemented: 50}\n",
        "3: points.sp.not_implemented: 50 may be commanded"),
    Row("set-point-is-plausible", POINTS + SET + LIMITS + "plausible: [1, 100]}\n",
        "3: points.sp.plausible: a commanded value of 0 to 100 would be bad"),
    Row("step-is-possible", POINTS + SET + LIMITS + "max_step: 0.0001}\n",
        "3: points.sp.max_step: found 0.0001"),
    Row("rate-is-possible", POINTS + SET + LIMITS + "max_rate: 0.1}\n",
        "3: points.sp.max_rate: found 0.1 per second"),
    Row("tolerance-tells", POINTS + SET + LIMITS + "readback: {tolerance: 100}}\n",
        "3: points.sp.readback.tolerance: found 100"),
    Row("read-while-a-command-lives", POINTS + SET + LIMITS + "poll_s: 11}\n",
        "3: points.sp.poll_s: a set-point that is read every 11 s"),
    Row("nothing-to-compare", POINTS + SET + LIMITS + "write_only: true, on_change: fault}\n",
        "3: points.sp.on_change: without meaning for a point that is not read; expected readback"),
    Row("one-request-of-several", POINTS + SET + LIMITS + "one_request: true}\n",
        "3: points.sp.one_request: there is nothing to send"),
    Row("one-request-writes-many", POINTS + SET + LIMITS
        + "write_function: 6, one_request: true, enable: [{point: tm, value: 1}]}\n" + TIMER,
        "3: points.sp.write_function: function 6 writes one register"),
    Row("one-request-is-adjacent", POINTS + SET + LIMITS
        + "one_request: true, before: [{point: tm, value: 1}]}\n" + TIMER,
        "3: points.sp.before[0].point: 'tm' does not lie beside"),
    Row("heartbeat-range", HEART.replace("tm", "tm, heartbeat_range: [1, 1]") + TIMER,
        "2: guard.heartbeat_range: found [1, 1]"),
    Row("heartbeat-fits", HEART.replace("tm", "tm, heartbeat_range: [0, 70000]") + TIMER,
        "2: guard.heartbeat_range: 'tm' cannot count 70000"),
    Row("heartbeat-fits", HEART + TIMER.replace("access", "not_implemented: 255, access"),
        "2: guard.heartbeat_point: 'tm' cannot count 255"),
    Row("reversion-outlasts-heartbeat",
        POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 2}}\n" + TIMER,
        "3: points.sp.reversion.seconds: the device reverts after 2 s"),
    Row("refresh-before-reversion",
        POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 10, refresh_s: 60}}\n" + TIMER,
        "3: points.sp.reversion.refresh_s: the timer ends"),
    *(
        Row("read-back-in-time", POINTS + SET + LIMITS
            + f"{keys}, readback: {{delay_s: {delay}}}}}\n" + TIMER,
            "3: points.sp.readback.delay_s: the set-point has ended or is written again before it "
            f"is read; expected less than {delay} s")
        for keys, delay in (
            ("reversion: {point: tm, seconds: 10}", 5), ("rewrite_s: 2", 2), ("unit: W", 10)
        )
    ),
    Row("rewrite-has-an-effect",
        POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 10}, rewrite_s: 5}\n" + TIMER,
        "3: points.sp.rewrite_s: reversion repeats the set-point sooner"),
    Row("parts-of-each-other",
        POINTS + READ + "string, length: 2}\n  b: {table: input, address: 1, type: int16}\n",
        "4: points.b.address: overlaps 'a'"),
    Row("written-twice", POINTS + SET + LIMITS + "}\n" + SET.replace("sp",
        "s2") + "min: 0, max: 9, safe_value: 9}\n",
        "4: points.s2: writes the same registers as 'sp'"),
    Row("written-twice",
        POINTS + SET + LIMITS + "}\n  g: {table: holding, address: 10, type: uint16" + GUARD,
        "4: points.g: writes the same registers"),
    Row("written-twice",
        POINTS + "  a: {sunspec: 704.WMaxLimPct, access: rw, min: 0, max: 100, safe_value: 9}\n"
        "  b: {sunspec: 704.WMaxLimPct, access: rw, min: 0, max: 50, safe_value: 9}\n",
        "4: points.b: writes the same"),
    Row("written-by-guard", POINTS + SET + LIMITS + "enable: [{point: sp, value: 1}]}\n",
        "3: points.sp.enable[0].point: 'sp' has access rw"),
    Row("read-by-others",
        POINTS + SET + LIMITS + "readback: {point: a}}\n" + READ + "string, length: 2}\n",
        "3: points.sp.readback.point: 'a' has no number to read"),
    Row("no-chain", POINTS + READ + "int16, scale_from: {point: b, kind: factor}}\n"
        "  b: {table: input, address: 1, type: int16, scale_from: {point: b, kind: factor}}\n",
        "3: points.a.scale_from.point: 'b' has its own scale"),
    Row("raw-exponent", POINTS + READ + "int16, scale_from: {point: b}}\n"
        "  b: {table: input, address: 1, type: int16, scale: 0.1}\n", "'b' is not a plain integer"),
    Row("read-as-often", POINTS + READ + "int16, sign_from: {point: b, negative: [1]}}\n"
        "  b: {table: input, address: 1, type: int16, poll_s: 5}\n", "'b' is read every 5 s"),
    Row("within-its-limits", POINTS + SET + LIMITS + "enable: [{point: g, value: 9}]}\n"
        "  g: {table: holding, address: 11, type: int16, min: 0, max: 1" + GUARD,
        "3: points.sp.enable[0].value: found 9; expected 0 to 1, the limits of 'g'"),
    *(
        Row("guard-value-fits",
        POINTS + SET + LIMITS + f"enable: [{{point: tm, value: {value}}}]}}\n" + TIMER,
            f"3: points.sp.enable[0].value: found {value}, which uint16")
        for value in (-1, 70000, 0.5)
    ),
    Row("guard-value-fits", POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 100}}\n"
        "  tm: {table: holding, address: 20, type: uint16, scale: 0.001" + GUARD,
        "3: points.sp.reversion.seconds: found 100, which uint16 at scale 0.001 cannot hold"),
    Row("guard-value-has-a-name", POINTS + SET + LIMITS + "enable: [{point: g, value: 1}]}\n"
        "  g: {table: holding, address: 11, type: int16, enum: {off: 0, auto: 2}" + GUARD, "a"
        " value of enum of 'g'"),
    Row("timer-in-seconds",
        POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 60}}\n" +
        TIMER.replace("access", "unit: min, access"),
        "3: points.sp.reversion.point: 'tm' is in min; expected unit s"),
    Row("read-and-not-commanded", POINTS + SET + LIMITS + "readback: {point: tm}}\n" + TIMER,
        "3: points.sp.readback.point: 'tm' has access guard; expected a point that only"),
    Row("readback-holds-the-set-point", POINTS + SET + LIMITS + "readback: {point: c}}\n"
        "  c: {table: coil, address: 1, type: bool}\n", "'c' cannot show 0 to 100"),
    *(
        Row("readback-is-fine-enough", POINTS + SET + LIMITS + "scale: 0.1, readback: {point: b}}\n"
            f"  b: {{table: input, address: 1, type: {kind}}}\n",
            f"'b' cannot show every value of the set-point; expected readback.tolerance of {least}")
        for kind, least in (
            ("int16, scale: 1", "at least 0.5"),
            ("int16, scale: 0.1, offset: 0.05", "at least 0.05"),
            ("float32", "at least 5.96046e-06"),
        )
    ),
    Row("readback-has-the-unit", POINTS + SET + LIMITS + "unit: W, readback: {point: b}}\n"
        "  b: {table: input, address: 1, type: int16, unit: kW}\n",
        "'b' is in kW, the set-point in W"),
    Row("heartbeat-counts", "name: t\nguard: {heartbeat_point: g}\npoints:\n"
        "  g: {table: holding, address: 1, type: float32" + GUARD, "2: guard.heartbeat_point:"
        " 'g' is float32"),
    Row("heartbeat-is-its-own", "name: t\nguard: {heartbeat_point: tm}\npoints:\n" + SET + LIMITS +
        "enable: [{point: tm, value: 1}]}\n" + TIMER, "2: guard.heartbeat_point: 'tm' is also"
        " in points.sp.enable[0]"),
    Row("one-timer-one-time", POINTS + SET + LIMITS + "reversion: {point: tm, seconds: 60}}\n"
        + SET.replace("sp", "s2").replace("10",
        "11") + LIMITS + "reversion: {point: tm, seconds: 90}}\n" + TIMER,
        "4: points.s2.reversion.seconds: 'tm' is also set to 60 s"),
    Row("nothing-to-read", "name: t\n", "points: nothing to read"),
    Row("timeout-within-heartbeat",
        "name: t\nconnection: {timeout_s: 30}\npoints:\n" + SET + LIMITS + "}\n",
        "2: connection.timeout_s: one lost reply takes 30 s; expected less than"
        " guard.heartbeat_s, 2 s"),
    Row("range-of-a-heartbeat", "name: t\nguard: {heartbeat_range: [0, 1]}\npoints:\n"
        + READ + "int16}\n",
        "2: guard.heartbeat_range: there is no heartbeat_point"),
    Row("units-of-a-line", "name: t\n"
        "connection: {framing: serial, serial: {port: /dev/x}, unit: 0}\npoints:\n"
        + READ + "int16}\n", "2: connection.unit: found 0"),
    Row("delay-of-each-poll", "name: t\n"
        "connection: {close_after_poll: true, connect_delay_s: 3}\npoints:\n"
        + READ + "int16}\n", "2: connection.connect_delay_s: each poll connects anew"),
    Row("base-of-sunspec", "name: t\nconnection: {sunspec_base: 0}\npoints:\n" + READ + "int16}\n",
        "2: connection.sunspec_base: the file has no SunSpec point"),
    Row("base-of-points", "name: t\nconnection: {base_address: 5}\nsunspec: [1]\n",
        "2: connection.base_address: the file has no point with an address"),
    Row("stale-between-polls", "name: t\nstale_after_s: 0.5\npoints:\n" + READ + "int16}\n",
        "2: stale_after_s: values would"),
    Row("bad-after-stale",
        "name: t\nstale_after_s: 5\nbad_after_s: 4\npoints:\n" + READ + "int16}\n",
        "3: bad_after_s: values would be bad before they are stale"),
    Row("pauses-within-poll", "name: t\nconnection: {pause_s: 0.6}\npoints:\n" + READ + "int16}\n"
        "  b: {table: holding, address: 0, type: int16}\n",
        "2: connection.pause_s: 2 requests with this pause"),
    Row("curve-model", "name: t\nsunspec: [1]\ncurves: {703: {x: [0, 1], y: [0, 1]}}\n",
        "3: curves.703: not a curve model"),
    Row("curve-order", "name: t\nsunspec: [1]\ncurves: {705: {x: [1, 0], y: [0, 1]}}\n",
        "3: curves.705.x: 1 > 0"),
    Row("safe-curve-inside",
        "name: t\nsunspec: [1]\ncurves: {705: {x: [0, 1], y: [0, 1], safe: [[0, 0], [2, 0]]}}\n",
        "3: curves.705.safe: (2, 0); expected inside x and y"),
    Row("safe-curve-rises",
        "name: t\nsunspec: [1]\ncurves: {705: {x: [0, 1], y: [0, 1], safe: [[1, 0], [0, 0]]}}\n",
        "3: curves.705.safe: first coordinates fall"),
    Row("safe-curve-has-points",
        "name: t\nsunspec: [1]\ncurves: {705: {x: [0, 1], y: [0, 1], safe: []}}\n",
        "3: curves.705.safe: found fewer than two points"),
    Row("manual-address", POINTS + "  a: {table: holding, address: 40011, type: int16}\n",
        "3: points.a.address: 40011 looks like the number of a register in a manual"),
    Row("order-of-one-word", POINTS + READ + "int16, word_order: little}\n",
        "3: points.a.word_order: not used"),
]  # fmt: skip


def said(folder: Path, text: str) -> list[str]:
    path = folder / "device.yaml"
    path.write_text(text)
    problems = check_device_file(path) or device_hints(path)
    return [str(p).replace(f"{path}:", "").replace(f"{path}: ", "") for p in problems]


@pytest.mark.parametrize("row", ROWS, ids=[f"{r.rule}-{i}" for i, r in enumerate(ROWS)])
def test_a_rule_says_what_is_wrong(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = said(tmp_path, row.text)
    assert any(row.said in line for line in found), found
    for module, name, stage in STAGES:
        silent = [r._replace(what="") if r.name == row.rule else r for r in stage]
        monkeypatch.setattr(module, name, silent)
    assert len(said(tmp_path, row.text)) == len(found)
    what = row.said.split(": ")[-1].partition(";")[0]
    if what != row.said:  # the words are this rule's, and no other's
        assert not any(what in line for line in said(tmp_path, row.text))


def test_every_rule_has_a_row() -> None:
    rules = [rule for _, _, stage in STAGES for rule in stage]
    assert all(isinstance(rule, Rule) for rule in rules)
    assert {rule.name for rule in rules} == {row.rule for row in ROWS}


@pytest.mark.parametrize(
    "text",
    [
        READ + "int16}\n  b: {table: input, address: 0, type: uint16}\n",
        READ + "uint16, mask: 0x1}\n  b: {table: input, address: 0, type: uint16, mask: 0x6}\n",
        "  a: {table: holding, address: 1, type: uint16, mask: 0x1, access: rw, min: 0, max:"
        " 1, safe_value: 0}\n"
        "  b: {table: holding, address: 1, type: uint16, mask: 0x2, access: rw, min: 0, max:"
        " 1, safe_value: 0}\n",
        SET + LIMITS + "}\n  b: {table: holding, address: 10, type: uint16}\n",
        SET + LIMITS + "one_request: true, before: [{point: m, value: 1}]}\n"
        "  m: {table: holding, address: 9, type: uint16" + GUARD,
        SET + LIMITS + "scale: 0.5, readback: {point: b}}\n"
        "  b: {table: input, address: 1, type: float64}\n",
        READ + "float32, byte_order: little}\n",
        READ + "bcd16}\n",
        "  a: {sunspec: 704.WMaxLimPct, access: rw, scale: 0.01, scale_from: {point: b, kind:"
        " factor},"
        " min: 0, max: 5000, safe_value: 5000}\n  b: {sunspec: 702.WMaxRtg}\n",
    ],
)  # fmt: skip
def test_what_works_is_in_order(tmp_path: Path, text: str) -> None:
    assert said(tmp_path, POINTS + text) == []


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("address: 400011, type: int16", "register 400011 of a manual is 10 on the wire"),
        ("address: '11', type: int16", "found '11'; expected a whole number"),
        ("address: 11, type: int16, scale: '0.1'", "expected a number; a point with the scale"),
        ("address: 11, type: int16, poll_s: 1e-9",
        "found 1e-09; expected a number from 0.02 to 3600"),
        ("address: 11, type: int16, plausible: ['0', 9]", "found '0'; expected a number"),
    ],
)  # fmt: skip
def test_numbers_are_numbers(tmp_path: Path, keys: str, expected: str) -> None:
    found = said(tmp_path, f"{POINTS}  a: {{table: holding, {keys}}}\n")
    assert any(expected in line for line in found), found
