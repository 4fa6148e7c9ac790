"""The engine must survive changes of the environment between loading it and a new thread."""

import subprocess
import sys

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
