"""Accepted designs solved again by OpenDSS, at every hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from federates.hosting.case import HostingCase
from federates.hosting.referee import Finding, amount
from grid_models.current_injection.model import ComplexArray
from grid_models.hosting.result import HostingResult

How = Literal["model", "three-phase", "regulators acting"]
"""As searched; phase by phase where the search was balanced; with regulators that act."""

_WORDS: Mapping[How, str] = {
    "model": "the same feeder",
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
    passed : (design, finding) for each limit that a design passes.
    v_error_pu, loading_error : Largest difference to the search's own power flow; None where the
        replay is of another feeder.
    tap_changes : Steps of regulators in all designs together.
    """

    how: How
    designs: tuple[int, ...]
    of: int
    cases: int
    passed: tuple[tuple[int, Finding], ...]
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
            "v_error_pu": self.v_error_pu,
            "loading_error": self.loading_error,
            "tap_changes": self.tap_changes,
        }


def replays(case: HostingCase, result: HostingResult) -> tuple[Replay, ...]:
    """Solve designs again: as searched, phase by phase, and with regulators that act."""
    chosen = chosen_designs(result, case.section.replay, case.scenario.seed)
    hows: list[How] = ["model"]
    if case.section.model == "balanced":
        hows.append("three-phase")
    if case.acting is not None:
        hows.append("regulators acting")
    return tuple(_replay(case, result, chosen, how) for how in hows)


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


def whole_day(case: HostingCase, result: HostingResult, k: int) -> ComplexArray:
    """Return what a design injects at all steps, complex (T, S).

    At steps that the search left out, its PV at the same power factor.
    """
    section, kva = case.section, result.site_kva[k]
    if len(kva) == len(case.kept):
        return np.asarray(kva)
    tan_phi = np.sqrt(1.0 / section.power_factor**2 - 1.0)
    whole = case.whole.pv_pu[:, None] * result.site_kw[k] * (1.0 - 1j * tan_phi)
    whole[case.kept] = kva
    return np.asarray(whole, dtype=np.complex128)


def _replay(case: HostingCase, result: HostingResult, chosen: NDArray[np.intp], how: How) -> Replay:
    passed: list[tuple[int, Finding]] = []
    errors, changes, hours = [(0.0, 0.0)], 0, len(case.kept)
    acting, three_phase = how == "regulators acting", how == "three-phase"
    for k in chosen.tolist():
        kva = whole_day(case, result, k)
        solved = case.solve_again(kva, acting=acting, three_phase=three_phase)
        passed += [(k, found) for found in case.findings(solved, None if acting else case.kept)]
        changes += solved.tap_changes
        if how == "model":
            flow = case.whole.flow(kva)
            errors.append(
                (
                    float(np.nanmax(np.abs(solved.v_pu - flow.v_pu))),
                    float(np.nanmax(np.abs(solved.loading - flow.loading), initial=0.0)),
                )
            )
    v_error, loading_error = np.max(errors, axis=0).tolist()
    known = how == "model"
    return Replay(
        how, tuple(chosen.tolist()), len(result.hc_kw), len(chosen) * hours, tuple(passed),
        v_error if known else None, loading_error if known else None, changes,
    )  # fmt: skip
