"""N episodes of a scenario's feeder, with one batch of power flows per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federates.core.federate import FloatArray
from federates.core.sites import GridSite
from federates.environment.ders import BatchedDers, Rows
from federates.environment.episodes import Episodes, refuse_what_cannot_be
from federates.environment.observations import Observation, Observer
from federates.environment.rewards import Outcome, RewardFunction, reward_of
from federates.kinds.feeder.day import GridDay
from federates.scenario.environment import Environment
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError, PowerFlowError
from grid_models.current_injection.model import ComplexArray

_FAILED = "the power flow did not converge"
_ALL = slice(None)
_TOLERANCE_PU = 1e-9
"""Error of the voltages, unless the grid has a tolerance of its own."""


class World:
    """N episodes of one scenario.

    An episode begins with the state of a run's first step, before any command. A step applies the
    set-points of an action and solves the feeder in the day's next row, as `feederate run` does
    with what a controller has sent between two steps.

    Each episode has one random generator, and every power flow starts cold, so that an episode does
    not depend on the one before.

    Parameters
    ----------
    scenario : Its controllers are not used; the agent stands in for them.
    n : Episodes at a time.
    reward : In place of the scenario's: takes an `Outcome`, returns (N,).

    Attributes
    ----------
    agents : Names of the inverters, in the order of the actions.
    storage : Names of those whose active power is commanded, too.
    nodes : Labels of the voltages.
    observer : What an observation is.

    Raises ScenarioError: A batch of episodes cannot be as a run of the scenario.
    """

    def __init__(self, scenario: Scenario, n: int, reward: RewardFunction | None = None) -> None:
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise FeederateError(f"found {n!r}", where="num_envs", expected="a whole number from 1")
        self.scenario, self.n = scenario, int(n)
        self._spec = spec = scenario.environment or Environment()
        site = GridSite(scenario)
        refuse_what_cannot_be(scenario, site)
        # The circuit of OpenDSS is not kept: without it a world can be copied and pickled.
        day = GridDay(scenario, site=site)
        self._feeder, self._load_kva, self._times_s = day.feeder, day.load_kva, day.times_s
        ders, dt_s = site.feeder.ders, scenario.time.step_s
        der_kva = day.der_kva(dt_s)
        self._ders = BatchedDers(ders, der_kva, n, dt_s)
        day.feeder.linearise(day.load_kva.mean(axis=0), der_kva.mean(axis=0))
        self._tolerance_pu = site.grid.tolerance_pu or _TOLERANCE_PU
        self.agents = tuple(ders[i].name for i in self._ders.inverters)
        self.storage = tuple(ders[i].name for i in self._ders.storage)
        self.nodes = day.feeder.network.nodes
        self._dead = np.flatnonzero(day.feeder.network.w == 0.0)
        self.observer = Observer(spec, ders, self._ders, self.nodes)
        self._reward = reward_of(scenario, reward)
        self.band = (scenario.band.v_min_pu, scenario.band.v_max_pu)
        self._own_source_pu = day.circuit.source_v_pu
        n_loads = len(day.circuit.load_names)
        self._episodes = Episodes(scenario, spec, self._own_source_pu, n_loads, len(self.agents))
        self._generators = [np.random.default_rng(0)] * n
        self._first, self._k = np.zeros((2, n), dtype=np.intp)
        self._load_factor = np.ones((n, n_loads))
        self._source_pu = np.ones(n)
        self._forged_pu = np.zeros((n, len(self.agents)))
        self.v_pu = np.ones((n, len(self.nodes)))
        self._losses_kw = np.zeros(n)

    @property
    def n_actions(self) -> int:
        """Length of an action: reactive power of all inverters, then active power of storage."""
        return len(self.agents) + len(self.storage)

    def restart(self, rows: NDArray[np.intp], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes in some rows, each with a generator of its own."""
        for row, generator in zip(rows.tolist(), generators, strict=True):
            draw = self._episodes.draw(generator)
            self._generators[row] = generator
            self._first[row], self._load_factor[row] = draw.first, draw.load_factor
            self._source_pu[row] = draw.source_pu / self._own_source_pu
            self._forged_pu[row] = draw.forged_pu
        self._k[rows] = self._first[rows]
        self._ders.restart(rows, self._k[rows])

    def act(self, actions: ArrayLike) -> None:
        """Advance all episodes by a step with actions of shape (N, n_actions), before `solve`.

        Raises FeederateError: Their shape is wrong, or one is no number.
        """
        shares, n = self._checked(actions), len(self.agents)
        # An episode at the end of the day is restarted before it is solved.
        self._k = np.minimum(self._k + 1, len(self._times_s) - 1)
        self._ders.step(self._k, shares[:, :n], shares[:, n:])

    def of_shape(self, actions: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return actions as an array.

        Raises FeederateError: They are no numbers of this shape.
        """
        try:
            shares = np.asarray(actions)
        except ValueError:  # rows of different lengths
            shares = np.empty(0, dtype=object)
        if shares.shape == shape and shares.dtype.kind in "fiu":
            return shares
        also = f", then active power of {len(self.storage)}" if self.storage else ""
        raise FeederateError(
            f"actions of type {shares.dtype} and shape {shares.shape}",
            where="step",
            expected=f"numbers from -1 to 1 of shape {shape}: reactive power of "
            f"{len(self.agents)} inverters{also}",
        )

    def _checked(self, actions: ArrayLike) -> FloatArray:
        shares = self.of_shape(actions, (self.n, self.n_actions))
        if not np.isfinite(shares).all():
            episode, i = np.argwhere(~np.isfinite(shares))[0].tolist()
            raise FeederateError(
                f"the action of '{(*self.agents, *self.storage)[i]}' is {shares[episode, i]}",
                where=f"step, episode {episode}",
                expected="a number from -1 to 1",
            )
        return np.clip(shares.astype(np.float64), -1.0, 1.0)

    def solve(self, rows: Rows = _ALL) -> NDArray[np.bool_]:
        """Solve the feeder in some episodes; return which power flows converged, (n_rows,).

        The others keep the state of the last one that did.
        """
        flow = self._feeder.solve(*self.powers(rows), tolerance_pu=self._tolerance_pu)
        good, v_pu = flow.converged, flow.v_pu
        v_pu[:, self._dead] = np.nan
        if len(v_pu) == self.n and good.all():
            self.v_pu, self._losses_kw = v_pu, flow.losses_kw
        else:
            at = np.arange(self.n)[rows][good]
            self.v_pu, self._losses_kw = self.v_pu.copy(), self._losses_kw.copy()
            self.v_pu[at], self._losses_kw[at] = v_pu[good], flow.losses_kw[good]
        return good

    def powers(self, rows: Rows = _ALL) -> tuple[ComplexArray, ComplexArray, FloatArray]:
        """Return what a power flow is solved with.

        Demand, complex (n_rows, n_loads), injections, complex (n_rows, n_ders), and the factor on
        the source's voltage, (n_rows,).
        """
        load_kva = self._load_kva[self._k[rows]] * self._load_factor[rows]
        der_kva = self._ders.p_kw[rows] + 1j * self._ders.q_kvar[rows]
        return load_kva, der_kva, self._source_pu[rows]

    def refuse_unsolved(self, rows: NDArray[np.intp]) -> None:
        """Raise PowerFlowError where there are episodes whose first state has no solution."""
        if rows.size:
            row = int(rows[0])
            times = self._load_factor[row].mean()
            raise PowerFlowError(
                f"{_FAILED} at the begin of {rows.size} of {self.n} episodes",
                where=f"{self.scenario.where('environment')}, episode {row}",
                expected=f"loads that the feeder can carry; those of the day are times {times:.3g} "
                f"at time_s={self._times_s[self._k[row]]:g}",
            )

    def outcome(self) -> Outcome:
        """Return the present state of all episodes; later steps make new arrays."""
        ders, times_s = self._ders, self._times_s[self._k]
        return Outcome(self.band, times_s, self.v_pu, self._losses_kw, ders.p_kw, ders.q_kvar)

    def rewards(self, outcome: Outcome, solved: NDArray[np.bool_]) -> FloatArray:
        """Return the rewards, (N,); minus the failure penalty where not solved.

        Raises FeederateError: The reward is not N finite numbers.
        """
        rewards = np.asarray(self._reward(outcome))
        what = ""
        if rewards.shape != (self.n,) or rewards.dtype.kind not in "fiu":
            what = f"is of type {rewards.dtype} and shape {rewards.shape}"
        elif not np.isfinite(rewards[solved]).all():
            row = int(np.flatnonzero(~np.isfinite(rewards) & solved)[0])
            what = f"is {rewards[row]} in episode {row} at time_s={outcome.time_s[row]:g}"
        if what:
            name = getattr(self._reward, "__name__", type(self._reward).__name__)
            raise FeederateError(
                f"the reward '{name}' {what}",
                where=self.scenario.where("environment", "reward"),
                expected=f"finite numbers of shape ({self.n},)",
            )
        return np.where(solved, rewards, -self._spec.failure_penalty).astype(np.float64)

    def ended(self) -> NDArray[np.bool_]:
        """Return which episodes are at their last step, (N,)."""
        return np.asarray(self._k - self._first >= self._episodes.n_steps)

    def reason(self, row: int) -> str:
        """Say why an episode ended before its time."""
        return f"{_FAILED} at time_s={self._times_s[self._k[row]]:g}"

    def observe(self, rows: Rows = _ALL) -> Observation:
        """Return what agents see in some episodes; see `Observer`."""
        chosen = np.arange(self.n)[rows].tolist()
        generators = [self._generators[i] for i in chosen]
        return self.observer(self.v_pu[rows], self._forged_pu[rows], generators, rows)
