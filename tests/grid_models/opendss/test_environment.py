"""The engine must survive changes of its surroundings after it was loaded, and change none."""

import subprocess
import sys
from pathlib import Path

import pytest

THREADS_AFTER_CHANGES = """
import os, threading
os.environ["FIRST_OF_OUR_OWN"] = "1"  # from now on the C library may move its table
from grid_models.catalog import open_circuit
circuit = open_circuit("ieee13")
junk = []
for k in range(3000):  # grows the table again and again, and fills what was freed
    os.environ[f"VARIABLE_{k}"] = "x" * 50
    junk.append(bytearray(b"\\xff" * (8 * k)))
failed = []
def work():
    circuit.set_loads(circuit.load_kw, circuit.load_kvar)
    circuit.solve()
    failed.append(False)
for _ in range(5):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
assert failed == [False] * 5
assert os.environ["VARIABLE_2999"] and os.popen("echo $VARIABLE_2999").read().startswith("x")
"""


def test_a_thread_started_after_the_environment_grew_can_solve() -> None:
    # Without the stable table this ends with SIGSEGV (exit code -11).
    done = subprocess.run(
        [sys.executable, "-c", THREADS_AFTER_CHANGES], timeout=600, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]


IN_ANOTHER_FOLDER = """
import os, shutil
{load}
os.chdir("../..")
here = os.getcwd()
{remove}
before = sorted(os.listdir())
from grid_models.opendss.engine import Engine
Engine().command("new circuit.c")
assert (os.getcwd(), sorted(os.listdir())) == (here, before), (os.getcwd(), os.listdir())
"""


@pytest.mark.parametrize("remove", ["", "shutil.rmtree('first')"])
@pytest.mark.parametrize(
    "load", ["import opendssdirect", "from grid_models.opendss.engine import Engine; Engine()"]
)
def test_a_new_context_neither_moves_the_process_nor_makes_a_folder(
    tmp_path: Path, load: str, remove: str
) -> None:
    # Without care it ends with SIGSEGV where the folder of the import is gone, and else goes there.
    (tmp_path / "first" / "inner").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_FOLDER.format(load=load, remove=remove)],
        cwd=tmp_path / "first" / "inner",
        timeout=600,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]
