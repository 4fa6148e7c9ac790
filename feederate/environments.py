"""Environments for learning: the functions `env`, `vector_env` and `parallel_env`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from federates.scenario.schema import Scenario
from feederate.functions import Changes, PathLike, load, readable_errors
from grid_models.base.errors import FeederateError

if TYPE_CHECKING:
    from federates.environment.gymnasium_env import FeederEnv, FeederVectorEnv
    from federates.environment.parallel import ParallelFeederEnv
    from federates.environment.rewards import RewardFunction

_LIBRARIES = ("gymnasium", "pettingzoo")


def env(
    scenario: PathLike | Scenario,
    *,
    set: Changes | None = None,
    seed: int | None = None,
    reward: RewardFunction | None = None,
    render_mode: str | None = None,
) -> FeederEnv:
    """Return the feeder of a scenario as a Gymnasium environment: the agent is its controller.

    Parameters
    ----------
    scenario, set
        As in `load`. The section ``environment`` says what an episode is.
    seed : int, optional
        Of what is drawn for episodes, from the first ``reset()`` on. The day's seed is the
        scenario's.
    reward : callable, optional
        In place of the scenario's: takes a `federates.environment.rewards.Outcome` of N episodes,
        here one, and returns N numbers.
    render_mode : str, optional
        ``"ansi"``: the voltages as text.

    Raises
    ------
    FeederateError
        Gymnasium is not installed (``pip install 'feederate[rl]'``), or episodes could not be as a
        run of the scenario.
    """
    with _libraries():
        from federates.environment.gymnasium_env import FeederEnv
    with readable_errors():
        return FeederEnv(load(scenario, set=set), seed, reward, render_mode)


def vector_env(
    scenario: PathLike | Scenario,
    num_envs: int,
    *,
    set: Changes | None = None,
    seed: int | None = None,
    reward: RewardFunction | None = None,
    render_mode: str | None = None,
) -> FeederVectorEnv:
    """Return N episodes of a scenario as one Gymnasium vector environment.

    A step of all is one batch of power flows. Equal seeds give equal bytes for equal `num_envs`.

    Parameters
    ----------
    num_envs : int
        N.
    scenario, set, reward, render_mode
        As in `env`.
    seed : int, optional
        Environment i has `seed` + i, from the first ``reset()`` on.

    Raises
    ------
    FeederateError
        As in `env`.
    """
    with _libraries():
        from federates.environment.gymnasium_env import FeederVectorEnv
    with readable_errors():
        return FeederVectorEnv(load(scenario, set=set), num_envs, seed, reward, render_mode)


def parallel_env(
    scenario: PathLike | Scenario,
    *,
    set: Changes | None = None,
    attack: PathLike | None = None,
    mail_width: int | None = None,
    reward: RewardFunction | None = None,
) -> ParallelFeederEnv:
    """Return the federation of a scenario as a PettingZoo environment, one agent per inverter.

    Parameters
    ----------
    scenario, set, attack
        As in `load`. The section ``environment`` says what an episode is.
    mail_width : int, optional
        Numbers in a message to each neighbour, 0 for no mail. Default: the section's; 1 where the
        scenario has links, else 0.
    reward : callable, optional
        As in `env`.

    Raises
    ------
    FeederateError
        PettingZoo is not installed (``pip install 'feederate[rl]'``), or the scenario has no
        inverter to command, or keys of the section that such an environment cannot follow.
    """
    with _libraries():
        from federates.environment.parallel import ParallelFeederEnv
    with readable_errors():
        return ParallelFeederEnv(load(scenario, set=set, attack=attack), mail_width, reward)


@contextmanager
def _libraries() -> Iterator[None]:
    """Say which extra is missing where a library of environments is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        raise FeederateError(
            f"{error.name} is not installed", expected="pip install 'feederate[rl]' before"
        ) from None
