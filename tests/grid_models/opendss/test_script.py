"""A user's OpenDSS files: found, read and followed as the engine would, and nothing written."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from grid_models.base.errors import FeederError
from grid_models.catalog import load_feeder
from grid_models.opendss.engine import Engine
from grid_models.opendss.master import open_master
from grid_models.opendss.script import compile_master

HEAD = """clear
set defaultbasefrequency=50
new circuit.yard basekv=11 bus1=src pu=1.02 mvasc3=150 mvasc1=120
new linecode.k nphases=3 r1=0.3 x1=0.35 r0=0.8 x0=1.1 c1=0 c0=0 units=km
new line.one bus1=src bus2=mid linecode=k length=1.5 units=km
new line.two bus1=mid bus2=end linecode=k length=2.5 units=km
"""
LOADS = """new load.m bus1=mid kv=11 kw=700 kvar=150
new load.e bus1=end kv=11 kw=400 kvar=120
"""
TAIL = "set voltagebases=[11 0.4]\ncalcvoltagebases\n"
METERED = HEAD + LOADS + TAIL + "new energymeter.em element=line.one\nnew monitor.mo line.one 1\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a master file (and others) and stand in an empty folder beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def write(text, **files):
        for name, content in {"Master.dss": text, **files}.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "Master.dss"

    return write


def tree(folder):
    """Everything below a folder, with contents and times."""
    return {
        str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in [folder, *folder.rglob("*")]
    }


def import_kw(path):
    """The power from the source, with the loads of the file."""
    return open_master(path).source_kw_kvar()[0]


def engine_alone_kw(text, options=""):
    """The same from nothing but the engine."""
    engine = Engine()
    for row in text.splitlines():
        engine.command(row)
    for load in ("m", "e"):
        engine.command(f"edit load.{load} vminpu=0.7 vmaxpu=1.3")
    engine.command(f"solve tolerance=1e-6 {options}")
    return -engine.dss.Circuit.TotalPower()[0]


def loads_kw(path):
    engine = Engine()
    compile_master(engine, path)
    return {name: float(engine.command(f"? load.{name}.kw")) for name in ("m", "e")}


def shape(path, kind="loadshape", name="s", values="mult"):
    engine = Engine()
    compile_master(engine, path)
    if (kind, values) == ("loadshape", "mult"):
        # As it acts: a mapped file stays a file.
        engine.dss.LoadShape.Name(name)
        return [float(v) for v in engine.dss.LoadShape.PMult()]
    text = engine.command(f"? {kind}.{name}.{values}")
    return [float(v) for v in text.strip("[] ").replace(",", " ").split()]


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings_give_the_same_circuit(write, encoding):
    text = HEAD + LOADS.replace("load.m", "load.mü") + TAIL
    feeder = load_feeder(write(text.encode(encoding)))
    assert [(load.name, load.kw) for load in feeder.loads] == [("mü", 700.0), ("e", 400.0)]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + LOADS + "! the loads end here\0\r\n" + TAIL,
        HEAD.replace("\n", "\r") + LOADS + TAIL + "\0\0\0",
        (HEAD + LOADS + TAIL).rstrip(),
        HEAD + "/* old:\nnew load.x bus1=mid kw=9 */\n" + LOADS + TAIL,
        HEAD + "new load.m bus1=mid kv=11 // first\n~ kw=700\nmore kvar=150!\n"
        "new load.e bus1=end kv=11\nm kw=400 kvar=120\n" + TAIL,
        HEAD + LOADS.replace("kw=700", "") + "load.m.kw=700\nkvar=150\n" + TAIL,
        HEAD + "new load.m\n~ bus1=mid\n\n!x\n~ kv=11, kw=(7 100 *) kvar=150\n"
        "new object=load.e bus1=end kv=11 kw=400 kvar=120\n" + TAIL,
        HEAD + LOADS + "set voltageb=[11 0.4]\ncalcv\nsol\nsho taps\nexp voltages\n",
    ],
)
def test_as_the_engine_reads_it(write, text):
    assert import_kw(write(text)) == pytest.approx(engine_alone_kw(HEAD + LOADS + TAIL), abs=1e-3)


def test_a_comment_that_is_not_closed_is_said(write):
    path = write(HEAD + LOADS + TAIL + "/* from here\nnew load.x bus1=mid kw=900\n")
    (note,) = compile_master(Engine(), path).notes
    assert "Master.dss: the comment from row 11 to the end is not closed" in note


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("redirekt more.dss", r"row 11: OpenDSS: Unknown Command 'redirekt'.*mean 'redirect'"),
        ("set lodmult=2", r"row 11: OpenDSS has no option 'lodmult'.*did you mean 'Loadmult'"),
        ("redirect lods.dss", r"row 11: the file 'lods.dss' does not exist.*mean 'loads.dss'"),
        ("redirect c:\\old\\loads.dss", r"row 11: the file .* not exist.*mean 'loads.dss'"),
        ("buscoords nix.csv", "row 11: the file 'nix.csv' does not exist"),
        ("new loadshape.s csvfile=lods.dss", "row 11: the file 'lods.dss' does not exist"),
        ("cd nowhere", "row 11: the file 'nowhere' does not exist"),
        ("redirect", "row 11: 'redirect' names no file"),
        ("redirect master.dss", r"more than 30 deep"),
        ("redirect here", "'here' is not a file"),
    ],
)
def test_what_cannot_be_followed_names_file_and_row(write, rows, message):
    path = write(HEAD + LOADS + TAIL + rows, **{"loads.dss": LOADS})
    with pytest.raises(
        FeederError, match=rf"(?s)Master\.dss, {message}" if "row" in message else message
    ):
        compile_master(Engine(), path)


# ---------------------------------------------------------------- solve and its options


@pytest.mark.parametrize(
    ("rows", "multiplier"),
    [
        ("solve mode=snap loadmult=0.5", 0.5),
        ("sol loadmu=0.25", 0.25),
        ("solve\nset loadmult=0.7\nsolve", 0.7),
        ("set loadmult=0.7 LinkBranches=[line.two] num_subcircuits=3\nsolve", 0.7),
        ("solve loadmult=2\nsolve mode=daily number=3 loadmult=1", 1.0),
        ("solve mode=snap, loadmult = (0.5 0.1 +) ! half", 0.6),
    ],
)
def test_options_of_solve_count(write, rows, multiplier):
    kw = import_kw(write(METERED + rows))
    wanted = engine_alone_kw(HEAD + LOADS + TAIL, f"loadmult={multiplier}")
    assert kw == pytest.approx(wanted, abs=1e-3)


def test_what_follows_a_solution_counts(write):
    rows = "solve\nedit load.m kw=500\ndisable load.e\nsolve\nbatchedit load..* kvar=90\n"
    circuit = open_master(write(METERED + rows))
    assert list(circuit.load_names) == ["m"]
    assert (circuit.load_kw.tolist(), circuit.load_kvar.tolist()) == ([500.0], [90.0])


def test_modes_times_and_steps_reach_the_engine(write):
    engine = Engine()
    rows = "solve mode=yearly stepsize=15m hour=30 controlmode=time number=96"
    master = compile_master(engine, write(METERED + rows))
    solution = engine.dss.Solution
    assert (master.solved_in, master.notes) == (None, ())
    assert (str(solution.ModeID()).lower(), int(solution.ControlMode())) == ("yearly", 2)
    assert (float(solution.StepSize()), int(solution.Hour())) == (900.0, 30)


@pytest.mark.parametrize("mode", ["harmonics", "dyn", "faultstudy", "M1", "direct"])
def test_a_mode_that_is_no_power_flow_in_time_is_said(write, mode):
    path = write(METERED + f"solve\nset mode={mode}\nsolve number=9\n")
    note = f"the file's solution mode '{mode.lower()}' is passed over; power flows are solved"
    assert note in open_master(path).feeder.notes
    path = write(METERED + f"solve mode={mode}\nsolve mode=daily")
    engine = Engine()
    assert compile_master(engine, path).notes == ()
    assert engine.dss.Solution.ModeID() == "Daily"


def test_commands_that_might_have_mattered_are_counted(write):
    path = write(METERED + "doscmd echo hello\ndistribute kw=500\ndos x\nshow taps\n")
    assert compile_master(Engine(), path).notes == (
        "2 'doscmd' commands of the file passed over",
        "1 'distribute' command of the file passed over",
    )


# ---------------------------------------------------------------- nothing is written

REG = """new transformer.rg windings=2 buses=(end reg) kvs=(11 11) kvas=(4000 4000) xhl=0.01
new load.r bus1=reg kv=11 kw=50 kvar=10
"""


@pytest.mark.parametrize(
    "rows",
    [
        "solve\nexport voltages\nexp powers\nexport monitors mo\nExport Meters\nexpor y",
        "solve\nshow voltages ln nodes\nsho taps\nshow buses\nsh eventlog\nplot profile\ndump",
        "solve\nsave circuit dir=saved\nsave\nvisualize voltages line.one\nalignf Master.dss",
        "set trace=yes\nsolve",
        "set tracecontrol=yes recorder=yes querylog=yes showexport=yes\n? load.m.kw\nsolve",
        "set casename=year1\nset demand=yes\nset DIVerbose=yes\nset overloadreport=true "
        "voltexceptionreport=yes\nset year=1\nsolve mode=yearly number=24\nclosedi",
        "set demandint=yes\nset case=other\nsolve mode=daily number=3\nclosed\nsample",
        "new loadshape.s npts=3 interval=1 mult=(1 2 3) action=dblsave",
        REG + "new regcontrol.rc transformer=rg winding=2 vreg=120 ptratio=60 debugtrace=yes",
        REG + "new regcontrol.rc transformer=rg winding=2 vreg=120 ptratio=60\n~ deb=y\nsolve",
        REG + "new regcontrol.rc transformer=rg winding=2\nregcontrol.rc.debugtrace=true",
        "new generator.g bus1=end kv=11 kw=30 debugtrace=yes\nsolve",
        "new pvsystem.p bus1=end kv=11 pmpp=30 kva=30 debugtrace=yes\nsolve",
        "new storage.b bus1=end kv=11 kwrated=30 debugtrace=yes\nsolve",
        "new capacitor.c bus1=end kv=11 kvar=90\n"
        "new capcontrol.cc element=line.two capacitor=c type=kvar eventlog=yes\nsolve",
        "set datapath=results\nsolve\nexport voltages",
        'set datapath="D:\\study\\out"\nsolve\nexport voltages',
        "set eventlogdefault=yes log=yes\nsolve\nCalcIncMatrix\nget mode",
        "distribute kw=100\nrephase startline=line.two phasedesignation='.2'\nuuids Master.dss",
        "energymeter.em.action=save\nreset\nsolve mode=snap",
    ],
)
def test_nothing_is_written(write, tmp_path, rows):
    path = write(METERED + rows)
    before = tree(tmp_path)
    circuit = open_master(path)
    for step in range(3):
        circuit.set_time(3600.0 * step)
        circuit.solve()
    # A second compilation while the first circuit is open.
    open_master(path)
    assert tree(tmp_path) == before
    assert Path.cwd() == tmp_path / "here"


def test_a_folder_that_cannot_be_written_to(write, tmp_path, monkeypatch):
    path = write(METERED + "set demand=yes\nsolve\nexport voltages\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path.parent.chmod(0o555)
    try:
        assert import_kw(path) > 1000.0
    finally:
        path.parent.chmod(0o755)
    assert not (tmp_path / "home").exists()


# ---------------------------------------------------------------- where files are


@pytest.mark.parametrize(
    "rows",
    [
        "cd parts\nredirect loads.dss",
        "set datapath=parts\nredirect loads.dss",
        "SET DATA=Parts\nredir LOADS.DSS",
        "redirect Parts\\Loads.dss",
        'redirect "PARTS\\loads"',
        "redirect file=parts/loads.dss ! here",
        "redirect parts\\all.dss",
        "compile parts/empty.dss\nredirect loads.dss",
        "cd parts\ncd ..\nredirect ./parts/../parts/loads.dss",
        "var @where=parts\\loads.dss\nredirect @where",
    ],
)
def test_files_are_found_as_on_windows(write, tmp_path, rows):
    files = {
        "Parts__loads.dss": LOADS,
        "Parts__all.dss": "cd ..\nredirect parts/loads.dss\n",
        "Parts__empty.dss": "! nothing\n",
        "LODES.dss": "",
    }
    path = write(HEAD + rows + "\n" + TAIL, **files)
    before = tree(tmp_path)
    assert loads_kw(path) == {"m": 700.0, "e": 400.0}
    assert tree(tmp_path) == before


def test_after_a_redirect_paths_start_where_they_did(write):
    files = {"a__one.dss": "cd ../b\nredirect m.dss\n", "b__m.dss": LOADS, "b__n.dss": "bogus\n",
             "n.dss": "edit load.m kw=5\n"}  # fmt: skip
    assert loads_kw(write(HEAD + "redirect a/one.dss\nredirect n.dss\n", **files))["m"] == 5.0


def test_a_data_path_that_does_not_exist_is_said(write):
    circuit = open_master(write(METERED + "set datapath=results\n"))
    assert any("row 13: there is no folder 'results'" in note for note in circuit.feeder.notes)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8-sig", "utf-16"])
def test_coordinates(write, encoding):
    rows = "busc Geo\\XY.CSV\n"
    xy = "mid, 1, 2\nend, 3, 4\n".encode(encoding)
    feeder = load_feeder(write(METERED + rows, **{"geo__xy.csv": xy}))
    assert [(feeder.buses[b].x_ft, feeder.buses[b].y_ft) for b in ("mid", "end")] == [
        (1, 2),
        (3, 4),
    ]


def test_names_of_devices_by_uuid(write):
    rows = "uuids IDS.dat\n"
    ids = "line.one {0A0F5C2E-0000-4000-8000-000000000001}\n"
    assert import_kw(write(METERED + rows, **{"ids.dat": ids})) > 1000.0


# ---------------------------------------------------------------- files of shapes and curves

VALUES = [0.5, 0.625, 1.0]
CSV = "".join(f"{v!r}\n" for v in VALUES)
TWO = "".join(f"{v!r}, {v / 4!r}\n" for v in VALUES)
NEW = "new loadshape.s npts=3 interval=1"


@pytest.mark.parametrize(
    ("rows", "files"),
    [
        (f"{NEW} mult=(file=Data\\S.CSV)", {"data__s.csv": CSV}),
        (f"{NEW} csvfile=data/s.csv", {"data__s.csv": CSV}),
        (f"{NEW}\n~ csv='DATA/S.csv'", {"data__s.csv": CSV}),
        (f"{NEW}\nloadshape.s.csvfile=DATA/S.csv", {"data__s.csv": CSV}),
        (f"{NEW}\nedit loadshape.s c=s.csv", {"S.csv": CSV}),
        (f'{NEW} mult="file=s.csv"', {"S.csv": CSV}),
        (f"{NEW} mult=[file='s.csv', col=2, header=yes]", {"S.csv": "P,Q\n1,0.5\n1,0.625\n1,1\n"}),
        (f"{NEW} mult=(file=s.csv ,col=2, header=yes)", {"s.csv": "P,Q\n1,0.5\n1,0.625\n1,1\n"}),
        (f"{NEW} pqcsvfile=s.csv", {"S.csv": TWO}),
        (f"{NEW} sng=s.sng", {"S.SNG": struct.pack("<3f", *VALUES)}),
        (f"{NEW} dblfile=s.dbl", {"S.DBL": struct.pack("<3d", *VALUES)}),
        (f"{NEW} mult={{dblfile=s.dbl}}", {"S.DBL": struct.pack("<3d", *VALUES)}),
        (f"{NEW} mult=(sngfile=s.sng)", {"S.SNG": struct.pack("<3f", *VALUES)}),
        (f"{NEW} memorymapping=yes mult=(dblfile=s.dbl)", {"S.DBL": struct.pack("<3d", *VALUES)}),
        (f"{NEW} csvfile=s.csv", {"S.csv": CSV.encode("utf-8-sig")}),
        (f"{NEW} mult=(file=s.csv)", {"S.csv": CSV.encode("utf-16")}),
        (f"{NEW} csvfile='my (old) data/s.csv'", {"My (old) data__S.csv": CSV}),
        ("cd data\n" + f"{NEW} mult=(file=s.csv)", {"data__S.csv": CSV}),
        ("redirect data/all.dss", {"data__all.dss": f"{NEW} csvfile=S.csv\n", "data__s.csv": CSV}),
    ],
)  # fmt: skip
def test_shapes_are_found_and_read(write, tmp_path, rows, files):
    path = write(HEAD + rows + "\n" + TAIL, **files)
    before = tree(tmp_path)
    assert shape(path) == VALUES
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("new xycurve.s npts=3 xarray=(file=A.csv) yarray=(1 2 3)", ("xycurve", "s", "xarray")),
        ("new growthshape.s npts=3 year=(1 2 3) mult=(file=A.csv)", ("growthshape", "s", "mult")),
        ("new tshape.s npts=3 interval=1 csvfile=A.csv", ("tshape", "s", "temp")),
        ("new priceshape.s npts=3 interval=1 csvfile=A.csv", ("priceshape", "s", "price")),
        ("new spectrum.s numharm=3 harmonic=(1 3 5) %mag=(file=A.csv)", ("spectrum", "s", "%mag")),
    ],
)
def test_other_curves_too(write, rows, what):
    values = shape(write(HEAD + rows + "\n" + TAIL, **{"a.csv": CSV}), *what)
    assert values == [100.0 * v for v in VALUES] if what[2] == "%mag!" else VALUES


def parquet(path, **columns):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    "rows",
    [
        f"{NEW} csvfile=S.parquet",
        f"{NEW} mult=(file=S.parquet)",
        f"{NEW} mult=(file=table.pq, column=2)",
        f"{NEW} mult=[file=table.pq, header=yes, col=2] qmult=(file=table.pq, col=3)",
        f"{NEW} pqcsvfile=pq.parquet",
    ],
)
def test_shapes_in_parquet(write, tmp_path, rows):
    path = write(HEAD + rows + "\n" + TAIL)
    parquet(tmp_path / "s.parquet", kw=VALUES)
    parquet(tmp_path / "pq.parquet", kw=VALUES, kvar=[1.0, 2.0, 3.0])
    parquet(tmp_path / "table.pq", time=["a", "b", "c"], kw=VALUES, kvar=[1, 2, 3])
    before = tree(tmp_path)
    assert shape(path) == VALUES
    if "pqcsv" in rows or "qmult" in rows:
        assert shape(path, values="qmult") == [1.0, 2.0, 3.0]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"{NEW} csvfile=table.pq", "column 'time' of 'table.pq' is not numeric"),
        (f"{NEW} mult=(file=table.pq, col=4)", "'table.pq' has no column 4; expected .* 1 to 3"),
        (f"{NEW} mult=(file=table.pq, col=3)", "column 'kvar' of 'table.pq' has empty values"),
        (f"{NEW} dblfile=table.pq", "'table.pq' is a Parquet file; expected csvfile="),
        (f"{NEW} csvfile=bad.pq", "bad.pq' cannot be read"),
    ],
)
def test_parquet_that_cannot_be_used(write, tmp_path, rows, message):
    path = write(HEAD + rows, **{"bad.pq": b"PAR1 and no more"})
    parquet(tmp_path / "table.pq", time=["a", "b", "c"], kw=VALUES, kvar=[1, None, 3])
    with pytest.raises(FeederError, match=rf"Master\.dss, row 7: .*{message}"):
        compile_master(Engine(), path)


def test_a_shape_drives_the_loads(write):
    rows = LOADS.replace("kvar=150", "kvar=150 daily=s").replace("kvar=120", "kvar=120 daily=s")
    path = write(HEAD + f"{NEW} mult=(file=S.CSV)\n" + rows + TAIL, **{"s.csv": CSV})
    circuit = open_master(path, load_shapes=True, step_s=3600.0)
    found = []
    for hour in (1, 2, 3):
        circuit.set_time(3600.0 * hour)
        circuit.solve()
        found.append(circuit.source_kw_kvar()[0] - circuit.losses_kw())
    np.testing.assert_allclose(found, 1100.0 * np.array(VALUES), rtol=1e-6)


# ---------------------------------------------------------------- models that are no files


def test_a_folder_of_opendss_files_names_its_master(write):
    path = write(METERED, **{"loads.dss": LOADS})
    with pytest.raises(FeederError, match=rf"(?s)a folder of OpenDSS files.*mean '{path}'"):
        load_feeder(path.parent)
    path.rename(path.with_name("run.dss"))
    with pytest.raises(FeederError, match=r"one of loads\.dss, run\.dss"):
        load_feeder(path.parent)


def test_home_is_expanded(write, monkeypatch):
    path = write(METERED)
    monkeypatch.setenv("HOME", str(path.parent))
    assert load_feeder(os.path.join("~", path.name)).name == "yard"


@pytest.mark.parametrize("name", ["l.e.2", "l e", "l/e-2", "l e.2"])
def test_names_with_blanks_and_dots(write, name):
    text = HEAD + LOADS.replace("new load.e", f'new "load.{name}"') + TAIL
    text += f'new "pvsystem.{name}" bus1=end kv=11 kva=90 pmpp=80 irradiance=1 daily=default\n'
    path = write(text)
    circuit = open_master(path, file_ders="ours")
    assert circuit.load_names == ("m", name)
    assert circuit.der_names == (f"pvsystem_{name}",)
    assert open_master(path, load_shapes=True).load_names == ("m", name)


def test_a_name_given_twice_where_the_file_allows_it(write):
    twice = "new load.e bus1=mid kv=11 kw=90 kvar=10\n~ kvar=30\nnew load.E bus1=mid kv=11 kw=10\n"
    rest = LOADS + twice + "edit load.e kw=350\n" + TAIL
    circuit = open_master(write(HEAD + "set allowdup=y\n" + rest))
    assert circuit.load_names == ("m", "e", "e_2", "e_3")
    np.testing.assert_allclose(circuit.load_kw, [700, 350, 90, 10])
    assert any("a name twice (2): load.e_2, load.E_3" in n for n in circuit.feeder.notes)
    cleared = open_master(write(HEAD + "set allowdup=y\n" + HEAD + LOADS + TAIL))
    assert cleared.load_names == ("m", "e")
    with pytest.raises(FeederError, match=r"row 9.*expected .*edit"):
        open_master(write(HEAD + rest))


def test_bases_and_coordinates_of_buses_after_a_solution(write):
    bases = "".join(f"setkvbase bus={b} kvln=6.5\n" for b in ("src", "mid", "end", "ende"))
    text = HEAD + LOADS + "solve\nbuscoords xy.csv\nsetbusxy bus=end x=5 y=6\n" + bases
    feeder = open_master(write(text, **{"xy.csv": "mid 1 2\n"})).feeder
    assert {bus.base_kv_ln for bus in feeder.buses.values()} == {6.5}
    mid, end = feeder.buses["mid"], feeder.buses["end"]
    assert (mid.x_ft, mid.y_ft, end.x_ft, end.y_ft) == (1, 2, 5, 6)
    assert any("'setkvbase'" in note and "row 15" in note for note in feeder.notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("new load.x bus1=end kw=1 kww=3", r"\"kww\".*did you mean 'kW'"),
        ("new lod.x bus1=end", r"\"lod\".*did you mean 'Load'"),
        ("new line.x bus1=end bus2=q linecode=kk", r"\"kk\" not found.*did you mean 'k'"),
        ("new monitor.x element=line.tow", r"not set; did you mean 'two'"),
        ("open line.tow 1", r"not found.*did you mean 'two'"),
        ("load.em.kw=3", r"\"em\" not found.*did you mean 'm'"),
        ("new load.x bus1=end kw=6OO", r"OpenDSS: Invalid inline math entry: \"6OO\"$"),
    ],
)
def test_what_the_engine_refuses_comes_with_the_nearest_name(write, row, message):
    rows = HEAD + LOADS + f"{row}\n"
    with pytest.raises(FeederError, match=rf"row {rows.count(chr(10))}: .*{message}"):
        open_master(write(rows))


@pytest.mark.parametrize("row", ["edit load.m kw=3", "disable load.m", "new lod.x kw=3"])
def test_nothing_can_be_changed_before_there_is_a_circuit(write, row):
    with pytest.raises(FeederError, match="row 1: OpenDSS: "):
        open_master(write(f"{row}\n{HEAD}"))


def test_commands_for_elements_that_are_not_there_are_said(write):
    rows = HEAD + LOADS + "edit load.em kw=3\ndisable line.tow\nedit load.e kw=4\nnext\n"
    notes = open_master(write(rows + TAIL)).feeder.notes
    note = next(n for n in notes if "not there (2)" in n)
    assert "row 9: 'load.em' (did you mean 'm'?)" in note
    assert "row 10: 'line.tow' (did you mean 'two'?)" in note
    assert "1 'next' command of the file passed over" in notes
