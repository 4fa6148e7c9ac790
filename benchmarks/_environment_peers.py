"""Steps per second of Grid2Op and gym-anm; `python benchmarks/_environment_peers.py SECONDS`.

A process of its own, called by `environment.py`: the libraries may stand in another folder and
bring other versions of ours. Figures as JSON on standard output, null where one is not installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any


def grid2op() -> tuple[str, Callable[[], bool], Callable[[], Any]]:
    """Return Grid2Op's 14 buses with lightsim2grid, solved without an action."""
    import grid2op as library
    from lightsim2grid import LightSimBackend

    env = library.make("l2rpn_case14_sandbox", test=True, backend=LightSimBackend())
    env.seed(0)
    action = env.action_space()
    return library.__version__, lambda: bool(env.step(action)[2]), env.reset


def gym_anm() -> tuple[str, Callable[[], bool], Callable[[], Any]]:
    """Return gym-anm's six buses under random actions."""
    from importlib.metadata import version

    import gymnasium

    env = gymnasium.make("gym_anm:ANM6Easy-v0")
    env.action_space.seed(0)

    def step() -> bool:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        return bool(terminated or truncated)

    return version("gym-anm"), step, lambda: env.reset(seed=0)


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    seconds, found = float(sys.argv[1]), {}
    for make in (grid2op, gym_anm):
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                version, step, reset = make()
            except ModuleNotFoundError:
                found[make.__name__] = None
                continue
            reset()
            begin, count = time.process_time(), 0
            while time.process_time() - begin < seconds:
                count += 1
                if step():
                    reset()
            rate = count / (time.process_time() - begin)
        found[make.__name__] = {"version": version, "steps_per_s": round(rate, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
