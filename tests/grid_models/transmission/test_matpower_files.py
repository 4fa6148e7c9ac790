"""MATPOWER files: every way of writing the same case, and what is wrong with a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid_models.transmission.matlab_expressions import Expression
from grid_models.transmission.matlab_script import Script
from grid_models.transmission.matpower import load_case
from grid_models.transmission.model import TransmissionError
from grid_models.transmission.opf_case import OpfCase

CASE = """function mpc = tiny
%TINY  Three buses, written by hand for these tests.
mpc.version = '2';
mpc.baseMVA = 100;
%	bus_i type Pd Qd Gs Bs area Vm Va baseKV zone Vmax Vmin
mpc.bus = [
	10	3	0	0	0	0	1	1	0	345	1	1.1	0.9;
	20	2	90	30	0	5	1	1	-2	345	1	1.1	0.9;
	30	1	60	20	1	0	2	1	-3	345	1	1.1	0.9;
];
%	bus Pg Qg Qmax Qmin Vg mBase status Pmax Pmin
mpc.gen = [
	10	90	0	Inf	-Inf	1	100	1	250	10;
	20	60	0	50	-50	1	100	1	300	10;
	20	60	0	50	-50	1	100	0	300	10;
];
%	fbus tbus r x b rateA rateB rateC ratio angle status angmin angmax
mpc.branch = [
	10	20	0.01	0.1	0.02	150	0	0	0	0	1	-360	360;
	20	30	0.01	0.1	0.02	0	0	0	0.98	30	1	-30	0;
	10	30	0.02	0.2	0.04	80	0	0	0	0	1	0	0;
	10	30	0.02	0.2	0.04	80	0	0	0	0	0	0	0;
	10	30	0.02	0.2	0.04	80	0	0	0	0	1	0	0;
];
%	model startup shutdown n ...
mpc.gencost = [
	2	1500	0	3	0.11	5	150	0	0	0;
	1	0	0	3	0	0	100	1200	300	4000;
	2	0	0	2	1	0	0	0	0	0;
];
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> OpfCase:
    return read(tmp_path_factory.mktemp("case"), CASE)


def read(folder: Path, text: str) -> OpfCase:
    file = folder / "tiny.m"
    file.write_text(text, encoding="utf-8", newline="")
    return load_case(file)


def same(a: object, b: object) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) else x == y
        for part in ("buses", "generators", "branches", "costs")
        for x, y in zip(*(vars(getattr(case, part)).values() for case in (a, b)), strict=True)
    )


def test_codes_of_the_format_become_values(tiny: OpfCase) -> None:
    assert (tiny.name, tiny.base_mva, tiny.notes) == ("tiny", 100.0, ())
    assert tiny.buses.names == ("10", "20", "30")
    assert tiny.buses.areas == ("1", "1", "2")
    assert tiny.buses.shunt_mvar.tolist() == [0, 5, 0]
    assert tiny.generators.names == ("10-1", "20-1")  # the third one is not in service
    assert tiny.generators.q_max_mvar.tolist() == [np.inf, 50]
    assert tiny.branches.names == ("10-20-1", "20-30-1", "10-30-1", "10-30-2")
    assert tiny.branches.rate_mva.tolist() == [150, np.inf, 80, 80]  # 0: no limit
    assert tiny.branches.tap_ratio.tolist() == [1, 0.98, 1, 1]  # 0: a line
    assert tiny.branches.angle_min_deg.tolist() == [-np.inf, -30, -np.inf, -np.inf]
    assert tiny.branches.angle_max_deg.tolist() == [np.inf, 0, np.inf, np.inf]


def test_costs_are_those_of_the_manual(tiny: OpfCase) -> None:
    # At 200 MW: 0.11 200^2 + 5 200 + 150; between (100, 1200) and (300, 4000): 2600.
    assert tiny.costs.usd_per_h(np.array([200.0, 200.0])).tolist() == [5550.0, 2600.0]
    assert tiny.costs.piecewise.tolist() == [False, True]
    assert tiny.reactive_costs is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\t", ",  "),
        (";\n\t", "\n"),
        (";\n\t", "; "),
        ("\n", "\r\n"),
        ("];", "]"),
        ("\t10\t3\t0", "\t10\t3 ... the slack bus\n\t0"),
        ("mpc.baseMVA = 100;", "%{\nmpc.baseMVA = 7;\n%}\nmpc.baseMVA=1e2 % MVA;"),
        ("mpc.baseMVA = 100;", "MVA = 50; k = [1 2]; mpc.baseMVA = MVA * k(1, 2);"),
        ("mpc", "case_struct"),
        ("function mpc = tiny\n", ""),
        ("Inf\t-Inf", "inf -1/0"),
        ("\t90\t30\t", " 100*0.9 (10+20) "),
        ("\t90\t30\t", " 1.8d2./2 -(-3)*10 "),
        ("\t90\t30\t", " 6.^2+54 sqrt(900) "),
        ("mpc.version = '2';", 'mpc.version = "2"; mpc.dcline = [];'),
        ("\t20\t30\t0.01\t0.1\t", " [20:10:30] [0.01 0.1] "),
        ("30\t1\t-30\t0;", "pi*0+30 1 -180/6 0;"),
        ("0\t345\t", "0,345,"),
    ],
)
def test_every_way_of_writing_a_case_gives_the_same_case(
    tmp_path: Path, tiny: OpfCase, old: str, new: str
) -> None:
    assert old in CASE
    case = read(tmp_path, CASE.replace(old, new))
    assert same(case, tiny)


def test_statements_after_the_matrices_change_them(tmp_path: Path, tiny: OpfCase) -> None:
    # As in MATPOWER's distribution cases: loads in kW, impedances in ohm.
    script = """
    [PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD] = idx_bus;
    define_constants;
    Vbase = mpc.bus(1, BASE_KV) * 1e3;  Sbase = mpc.baseMVA * 1e6;
    mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);
    mpc.bus(:, PD) = mpc.bus(:, PD) * 0.8;
    mpc.bus(2:3, QD) = mpc.bus(2:3, PD) * tan(acos(0.8));
    """
    case = read(tmp_path, CASE + script)
    assert case.branches.x_pu == pytest.approx(tiny.branches.x_pu * 100 / 345**2)
    assert case.buses.load_mw == pytest.approx([0, 72, 48])
    assert case.buses.load_mvar == pytest.approx([0, 54, 36])


def test_names_of_buses_costs_of_reactive_power_and_what_is_not_used(tmp_path: Path) -> None:
    more = re.sub(
        r"(?s)(mpc.gencost = \[)(.*?)\];",
        r"\1\2\2]; mpc.bus_name = {'North'; 'It''s %1'; 'South ...'}; mpc.genfuel = {'coal'};",
        CASE,
    )
    case = read(tmp_path, more)
    assert case.buses.labels == ("North", "It's %1", "South ...")
    assert case.reactive_costs is not None
    assert case.reactive_costs.usd_per_h(np.array([10.0, 50.0])).tolist() == [211.0, 600.0]
    assert [note.partition(" (")[0] for note in case.notes] == ["'mpc.genfuel' is not used"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t20\t2\t90", "\t20\t2\tabc", "tiny.m, line 8: 'abc' has no value"),
        ("0.9;\n\t20", "0.9 7;\n\t20", "line 8: row 2 of 'mpc.bus' has 13 values; expected 14"),
        ("\t20\t2\t90", "\t20\t2\tNaN", "line 8, column 'Pd': bus 20: nan cannot be used"),
        ("\t20\t2\t90", "\t20\t7\t90", "line 8, column 'type': bus 20: 7 cannot be used"),
        ("\t10\t3\t0", "\t10\t1\t0", "tiny.m: no bus is of type slack"),
        ("\t20\t60\t0\t50", "\t21\t60\t0\t50", "line 14, column 'bus': generator at bus 21: there"),
        ("10\t20\t0.01", "10\t2\t0.01", "column 'tbus': branch 10-2: there is no bus 2"),
        ("10\t20\t0.01\t0.1", "10\t20\t0\t0", "line 19, column 'x': branch 10-20: the branch has"),
        ("250\t10;", "250\t260;", "column 'Pmax': generator at bus 10: the limits 260 to 250"),
        ("\t2\t1500", "\t3\t1500", "line 27, column 'model': cost of the generator at bus 10: 3"),
        ("1200\t300\t4000", "1200\t90\t4000", "line 28, column 'n': cost of the generator at bus"),
        ("1200\t300\t4000", "1200\t300\t1300", "bus 20: the slope of the cost falls; expected a"),
        ("0\t3\t0.11", "0\t9\t0.11", "bus 10: the row has fewer values than that; expected as"),
        ("\t2\t0\t0\t2\t1\t0", "%\t2\t0\t0\t2\t1\t0", "gencost has 2 rows; expected 3 as gen, or"),
        ("mpc.baseMVA = 100", "mpc.baseMVA = 0", "line 4: baseMVA cannot be used; expected a"),
        ("mpc.baseMVA", "mpc.basemva", "field 'baseMVA' is missing; expected version, baseMVA"),
        ("'2'", "'1'", "line 3: version '1' is not read; expected mpc.version = '2'"),
        ("mpc.gencost = [", "mpc.gencost = [ [", "line 26: '[' is not closed"),
        ("mpc.gencost = [", "mpc.gencost = ", "line 30: ']' closes nothing"),
        ("'2'", "'2", "line 3: a text is not closed"),
        ("mpc.baseMVA = 100", "if 1, mpc.baseMVA = 100; end", "line 4: 'if 1' is not evaluated"),
        ("mpc.baseMVA = 100", "mpc.baseMVA = foo(3)", "line 4: 'foo' has no value"),
        ("mpc.baseMVA = 100", "mpc.baseMVA = 10 ^^ 2", "'^' is in the wrong place; expected a"),
        ("mpc.baseMVA = 100", "mpc.baseMVA = {1}", "a number stands in a list of texts"),
        ("mpc.baseMVA = 100", "run('my.m')", "line 4: 'run' has no value; expected a number, "),
        ("mpc.baseMVA = 100", "x = 1:1e99; mpc.baseMVA = 1", "line 4: the range has too many"),
        ("mpc.gen = [", "mpc.bus(4, 3) = 1; mpc.gen = [", "line 12: there is no row or column 4"),
        ("mpc.gen = [", "mpc.A = [1 2]; mpc.gen = [", "line 12: 'mpc.A' changes the optimum and"),
        ("mpc.gen = [", "mpc.dcline = [1 2 1]; mpc.gen = [", "'mpc.dcline' changes the optimum"),
        ("mpc.gen = [", "mpc.bus_name = {'a'}; mpc.gen = [", "bus_name cannot be used; expected 3"),
        (" = tiny", "", "tiny.m: the case is of version 1"),
        (CASE, "", "tiny.m: the file assigns no fields of a case; expected version 2"),
        ("%TINY", "\0", "tiny.m: the file is not text; expected a MATPOWER case"),
    ],
)
def test_what_is_wrong_is_named_with_line_column_and_element(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in CASE
    text = CASE.replace(old, new, 1)
    if "version 1" in message:
        text = CASE.replace("function mpc = tiny", "function [baseMVA, bus] = tiny")
        text = text.replace("mpc.", "")
    with pytest.raises(TransmissionError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_wrong_name_of_a_file_gets_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "my_case30.m").write_text(CASE)
    with pytest.raises(TransmissionError, match=r"did you mean '.*my_case30\.m'"):
        load_case(tmp_path / "my_case3O.m")


numbers = st.floats(-1e6, 1e6).map(lambda x: f"({x!r})") | st.integers(0, 99).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: (
        st.builds(
            lambda a, op, b: f"({a}{op}{b})",
            inner,
            st.sampled_from([" + ", "-", "*", " / "]),
            inner,
        )
        | inner.map(lambda a: f"-{a}")
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(expressions)
def test_arithmetic_is_that_of_floating_point_numbers(text: str) -> None:
    # Python has the same precedence for these operators.
    try:
        expected = float(eval(text))
    except (ZeroDivisionError, OverflowError):
        return
    assert Expression(text, Script("case.m"), 1).number().tolist() == [[expected]]


pieces = st.sampled_from(
    [*"[](){};:,'\"%=.^-\n\t", "...\n", "mpc.bus", "(:,3)", "Inf", "NaN", "1e999", "end", "''"]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, len(CASE)), st.integers(0, 30), pieces), max_size=3))
def test_damaged_file_is_read_or_refused_with_a_place(
    tmp_path: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = CASE
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    message = "tiny.m"
    try:
        read(tmp_path, text)
    except TransmissionError as error:
        message = str(error)
    assert "tiny.m" in message
