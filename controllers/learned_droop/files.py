"""Policy files: a CSV table with a commented header.

::

    # learned-droop: q = h clip(b0 + b1 x + b2 x^2 + b3 x^3 - k (w - 1), -1, 1), x = p / p_max
    # feeder: ieee123
    # feeder_sha256: 0a1b...
    # filter_gain: 0.071
    # seed: 1
    der,kva,k,b0,b1,b2,b3
    pv_1_1,44.67,55.1,0.02,-0.11,0.3,-0.2

Lines of the header are ``# name: value``; `feeder`, `feeder_sha256` and `filter_gain` are needed.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from controllers.core.errors import ControllerError
from controllers.learned_droop.policy import CUBIC, Policy
from grid_models.base.errors import listed, nearest_name
from grid_models.feeder.model import Der, Feeder

COLUMNS = ("der", "kva", "k", *(f"b{i}" for i in range(CUBIC)))
TITLE = "learned-droop: q = h clip(b0 + b1 x + b2 x^2 + b3 x^3 - k (w - 1), -1, 1), x = p / p_max"
BEGIN = f"# {TITLE.partition(':')[0]}:".encode()
"""Of every policy file."""
_KVA_DIGITS = 1e-4


def feeder_hash(feeder: Feeder) -> str:
    """Return a hash of the feeder's network: buses, lines, switches and transformers.

    Taps, loads and DERs are not part of it; impedances count to six digits.
    """
    digest = hashlib.sha256()
    rows: list[tuple[object, ...]] = [(feeder.name.lower(), feeder.source.base_kv_ll)]
    rows += [(bus.name, bus.phases, f"{bus.base_kv_ln:.6g}") for bus in feeder.buses.values()]
    for line in feeder.lines:
        ohm = [f"{z.real:.6g}{z.imag:+.6g}j" for z in line.z_ohm.ravel()]
        rows.append((line.name, line.from_bus, line.to_bus, line.phases, *ohm))
    rows += [(x.name, x.from_bus, x.to_bus, x.phases) for x in feeder.switches]
    rows += [(x.name, [f"{p:.6g}" for p in x.x_pct]) for x in feeder.transformers]
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def policy_text(policy: Policy) -> str:
    """Return the text of a policy file; numbers have six digits."""
    head = {**policy.origin, "filter_gain": f"{policy.filter_gain:.6g}"}
    numbers = np.column_stack([policy.kva, policy.k, policy.b]).tolist()
    lines = [f"# {TITLE}", *(f"# {name}: {value}" for name, value in head.items())]
    lines.append(",".join(COLUMNS))
    for name, row in zip(policy.names, numbers, strict=True):
        lines.append(",".join([name, *(f"{x:.6g}" for x in row)]))
    return "\n".join(lines) + "\n"


def policy_of(text: str, where: str) -> Policy:
    """Return the policy of a file's text.

    Raises ControllerError: It is not such a table; line and column are named.
    """
    lines = text.splitlines()
    head = [line for line in lines if line.startswith("#")]
    origin = {
        name.strip(): value.strip()
        for name, colon, value in (line[1:].partition(":") for line in head)
        if colon and name.strip() != TITLE.partition(":")[0]
    }
    rows = [(i, line) for i, line in enumerate(lines, 1) if line and not line.startswith("#")]
    table = [next(csv.reader([line])) for _, line in rows]
    if not table or tuple(table[0]) != COLUMNS:
        found = ",".join(table[0]) if table else "nothing"
        raise ControllerError(
            f"the table begins with '{found}'",
            where=where,
            expected=f"the columns {','.join(COLUMNS)}",
        )
    numbers = [
        _numbers(row, f"{where}, line {i}") for (i, _), row in zip(rows[1:], table[1:], strict=True)
    ]
    names = tuple(row[0] for row in table[1:])
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ControllerError(
            f"DER '{twice}' has two rows", where=where, expected="one row per DER"
        )
    gain = _header_gain(origin, where)
    values = np.array(numbers, dtype=np.float64).reshape(len(names), len(COLUMNS) - 1)
    return Policy(names, values[:, 0], values[:, 1], values[:, 2:], gain, origin)


def _numbers(row: Sequence[str], where: str) -> list[float]:
    """Return the numbers of a row, all finite, k and kva above 0."""
    if len(row) != len(COLUMNS):
        raise ControllerError(
            f"{len(row)} columns", where=where, expected=f"{len(COLUMNS)}: {','.join(COLUMNS)}"
        )
    found = []
    for name, text in zip(COLUMNS[1:], row[1:], strict=True):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        positive = name in ("kva", "k")
        if not math.isfinite(value) or (positive and value <= 0.0):
            expected = "a number above 0" if positive else "a finite number"
            raise ControllerError(
                f"{name} of DER '{row[0]}' is '{text}'", where=where, expected=expected
            )
        found.append(value)
    return found


def _header_gain(origin: dict[str, str], where: str) -> float:
    """Take `filter_gain` out of the header; refuse a header that lacks what is needed."""
    for name in ("feeder", "feeder_sha256", "filter_gain"):
        if name not in origin:
            raise ControllerError(
                f"the header has no '{name}'",
                where=where,
                expected=f"a line '# {name}: ...'",
                nearest=nearest_name(name, origin),
            )
    text = origin.pop("filter_gain")
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not 0.0 < gain <= 1.0:
        raise ControllerError(
            f"filter_gain is '{text}'",
            where=where,
            expected="a number above 0 to 1",
        )
    return gain


def fitted(policy: Policy, feeder: Feeder, ders: Sequence[Der], where: str) -> Policy:
    """Return the policy in the order of the DERs.

    Raises ControllerError: It was trained on another feeder, or for other DERs or ratings.
    """
    digest = feeder_hash(feeder)
    if policy.origin.get("feeder_sha256") != digest:
        raise ControllerError(
            f"was trained on another network, feeder '{policy.origin.get('feeder')}' with hash "
            f"{policy.origin.get('feeder_sha256', '')[:12]}",
            where=where,
            expected=f"a policy of feeder '{feeder.name}' with hash {digest[:12]}; "
            "'feederate train' makes one",
        )
    place = {name: i for i, name in enumerate(policy.names)}
    missing = [der.name for der in ders if der.name not in place]
    extra = sorted(place.keys() - {der.name for der in ders})
    for what, names, others in (
        ("has no row for", missing, extra),
        ("has a row for what the controller does not command:", extra, missing),
    ):
        if names:
            raise ControllerError(
                f"{what} {listed(names, 6)}",
                where=where,
                expected="a row for each DER of the controller, and no other",
                nearest=nearest_name(names[0], others),
            )
    for der in ders:
        kva = policy.kva[place[der.name]]
        if abs(kva - der.kva) > _KVA_DIGITS * der.kva:
            raise ControllerError(
                f"was trained for {kva:g} kVA of DER '{der.name}'",
                where=where,
                expected=f"its rating, {der.kva:g} kVA",
            )
    return policy.of([place[der.name] for der in ders])
