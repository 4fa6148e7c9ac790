"""Which ports, labels and elements a target means, and the draw of a share of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from federates.attacks.schema import AttackSpec, Target
from grid_models import counter_rng
from grid_models.errors import nearest_name

_DRAW_CHANNEL = 34
_SHOWN = 8


def matching(names: Iterable[str], globs: Sequence[str]) -> list[str]:
    """Return the names that match one of the globs, in their order."""
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def drawn(names: Sequence[str], target: Target, spec: AttackSpec, step: int) -> list[str]:
    """Return the share of `names` that the target's fraction or count leaves, in their order.

    The draw is of the attack's seed, the step's id and the name only, so it does not depend on how
    the federation is hosted or on what else matches.
    """
    if target.fraction is None and target.count is None:
        return list(names)
    if target.count is not None:
        n = min(target.count, len(names))
    else:
        # A share is of somebody: a small one of few is one, not nobody.
        n = max(1, math.floor((target.fraction or 0.0) * len(names) + 0.5))
    streams = counter_rng.stream_ids(f"{spec.steps[step].id}/{name}" for name in names)
    rank = counter_rng.uniform(spec.seed, streams, 0, _DRAW_CHANNEL)
    kept = set(np.argsort(rank, kind="stable")[:n].tolist())
    return [name for i, name in enumerate(names) if i in kept]


def nothing_called(where: str, what: str, glob: str, names: Iterable[str]) -> str:
    """Say that a glob matches nothing, with some valid names and the nearest."""
    known = list(dict.fromkeys(names))
    near = nearest_name(glob, known)
    some = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    text = f"{where}: no {what} matches '{glob}'; expected a glob over {some or '(there is none)'}"
    return text + (f"; did you mean '{near}'?" if near else "")
