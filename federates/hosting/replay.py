"""Accepted designs solved again by OpenDSS, at every hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.hosting.case import HostingCase
from federates.hosting.methods import Answer
from federates.hosting.referee import Finding, amount
from grid_models.current_injection.model import ComplexArray
from grid_models.hosting.result import HostingResult
from grid_models.hosting.search import power_per_kw

How = Literal["model", "fresh days", "three-phase", "regulators acting"]
"""As searched; each on a day that it was not made for, where days are uncertain; phase by phase
where the search was balanced; with regulators that act."""

_WORDS: Mapping[How, str] = {
    "model": "the same feeder",
    "fresh days": "a fresh day for each design",
    "three-phase": "the feeder phase by phase",
    "regulators acting": "regulators that act",
}


@dataclass(frozen=True)
class Replay:
    """What OpenDSS found of some designs.

    Attributes
    ----------
    how : See `How`.
    designs : Positions of the designs that were solved; `of` is how many there are.
    cases : Power flows solved.
    passed : (design, finding) for each limit that a design passes by more than `tolerance`.
    v_error_pu, loading_error : Largest difference to the search's own power flow; None where the
        replay is of another feeder.
    tap_changes : Steps of regulators in all designs together.
    """

    how: How
    designs: tuple[int, ...]
    of: int
    cases: int
    passed: tuple[tuple[int, Finding], ...]
    tolerance: float
    v_error_pu: float | None = None
    loading_error: float | None = None
    tap_changes: int = 0

    @property
    def worst(self) -> tuple[Finding, ...]:
        """The largest excess of each kind of limit."""
        found: dict[str, Finding] = {}
        for _, finding in self.passed:
            if finding.kind not in found or finding.excess > found[finding.kind].excess:
                found[finding.kind] = finding
        return tuple(found.values())

    def __str__(self) -> str:
        """Write it in words."""
        if not self.designs:
            return f"OpenDSS, {_WORDS[self.how]}: no design to solve"
        text = f"OpenDSS, {_WORDS[self.how]}: {len(self.designs)} of {self.of} designs, "
        text += f"{self.cases:,} power flows: "
        beyond = len({k for k, _ in self.passed})
        if beyond:
            text += f"{beyond} designs pass limits, at most {'; '.join(map(str, self.worst))}"
        else:
            text += "all within the limits"
        if self.v_error_pu is not None:
            text += f"; voltages differ by {self.v_error_pu:.0e} pu"
        acting = self.how == "regulators acting"
        return text + (f"; {self.tap_changes} tap changes" if acting else "")

    def summary(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "by": "OpenDSS",
            "how": self.how,
            "designs": len(self.designs),
            "of": self.of,
            "cases": self.cases,
            "designs_beyond": len({k for k, _ in self.passed}),
            "excess": [
                {
                    **found._asdict(),
                    "excess": found.excess if np.isfinite(found.excess) else None,
                    "words": amount(found.kind, found.excess),
                }
                for found in self.worst
            ],
            "tolerance": self.tolerance,
            "v_error_pu": self.v_error_pu,
            "loading_error": self.loading_error,
            "tap_changes": self.tap_changes,
        }


def replays(case: HostingCase, answer: Answer) -> tuple[Replay, ...]:
    """Solve designs again, in every way that applies."""
    chosen = chosen_designs(answer.result, case.section.replay, case.scenario.seed)
    hows: list[How] = ["model"]
    if answer.fresh is not None:
        hows.append("fresh days")
    if case.section.model == "balanced":
        hows.append("three-phase")
    if case.acting is not None:
        hows.append("regulators acting")
    return tuple(_replay(case, answer, chosen, how) for how in hows)


def chosen_designs(result: HostingResult, most: int | str, seed: int) -> NDArray[np.intp]:
    """Return positions of designs: all, or those with least and most PV and others at random."""
    ok = np.flatnonzero(np.isfinite(result.hc_kw))
    if most == "all" or len(ok) <= int(most):
        return ok
    order = ok[np.argsort(result.hc_kw[ok], kind="stable")]
    ends = order[[0, -1][: int(most)]]
    rest = np.setdiff1d(order, ends)
    others = np.random.default_rng(seed).choice(rest, int(most) - len(ends), replace=False)
    return np.sort(np.concatenate([ends, others]))


def whole_day(
    case: HostingCase, answer: Answer, k: int, *, fresh: bool = False
) -> tuple[ComplexArray, ComplexArray | None]:
    """Return what a design injects at all steps, complex (T, S), and the demand if it has its own.

    At steps that the search left out, its PV at the same power factor, and the case's demand.
    """
    result, kept = answer.result, case.kept
    load: ComplexArray | None
    if fresh and answer.fresh is not None:
        kva, load = answer.fresh(k)
    else:
        kva, load = result.site_kva[k], None if answer.load_kva is None else answer.load_kva[k]
    if kept.all():
        return np.asarray(kva), load
    per_kw = power_per_kw(case.section.power_factor)
    whole = np.asarray(case.whole.pv_pu[:, None] * result.site_kw[k] * per_kw, dtype=np.complex128)
    whole[kept] = kva
    if load is not None:
        load, some = np.array(case.whole.load_kva), load
        load[kept] = some
    return whole, load


def _replay(case: HostingCase, answer: Answer, chosen: NDArray[np.intp], how: How) -> Replay:
    passed: list[tuple[int, Finding]] = []
    v_error, loading_error, changes = 0.0, 0.0, 0
    acting, three_phase = how == "regulators acting", how == "three-phase"
    for k in chosen.tolist():
        kva, load = whole_day(case, answer, k, fresh=how == "fresh days")
        solved = case.solve_again(kva, load, acting=acting, three_phase=three_phase)
        found = case.findings(solved, None if acting else case.kept)
        if how in ("model", "fresh days"):
            found += case.switched_off(kva, load, solved)
        passed += [(k, one) for one in found if one.excess > answer.tolerance]
        changes += solved.tap_changes
        if how == "model":
            flow = case.whole.flow(kva, load_kva=load)
            v_error = max(v_error, _largest(solved.v_pu - flow.v_pu))
            loading_error = max(loading_error, _largest(solved.loading - flow.loading))
    known = how == "model"
    return Replay(
        how, tuple(chosen.tolist()), len(answer.result.hc_kw), len(chosen) * len(case.kept),
        tuple(passed), answer.tolerance, v_error if known else None,
        loading_error if known else None, changes,
    )  # fmt: skip


def _largest(values: FloatArray) -> float:
    return float(np.nanmax(np.abs(values), initial=0.0))
