"""Tables of a hosting study, as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from federates.hosting.case import HostingCase
from federates.hosting.methods import Answer
from federates.hosting.referee import Finding
from federates.hosting.replay import Replay, whole_day
from grid_models.feeder.model import Der, Feeder
from grid_models.hosting.result import HostingResult

Columns = Mapping[str, Any]
_NOTHING = Finding("", "", np.nan, 0.0, 0)


def site_label(site: Der, feeder: Feeder) -> str:
    """Return the bus of a site, with its phases where the bus has others: ``65``, ``65.1``."""
    whole = site.phases == feeder.buses[site.bus].phases
    return site.bus if whole else ".".join([site.bus, *map(str, site.phases)])


def study_tables(
    case: HostingCase, method: str, answer: Answer, replays: Sequence[Replay]
) -> dict[str, Columns]:
    """Return the tables of a study: the method's own, and those that all methods have."""
    result = answer.result
    tables = {"nodes": _nodes(case, method, result), "limiting": _limiting(result)}
    if method != "alone" and np.isfinite(result.hc_kw).any():
        tables["day"] = _day(case, answer)
    own = {name: table for name, table in result.tables.items() if name != "sites"}  # our nodes
    return {**tables, "replay": _replay(result, replays), **own}


def _nodes(case: HostingCase, method: str, result: HostingResult) -> Columns:
    """Return a row for each site: alone what it hosts by itself, else its share of the designs."""
    model, feeder = case.whole, case.day.circuit.feeder
    sites = model.sites
    places: dict[str, Any] = {
        "node": [site_label(site, feeder) for site in sites],
        "bus": [site.bus for site in sites],
        "phases": ["".join(map(str, site.phases)) for site in sites],
    }
    if method == "alone":
        limits = result.binding
        return places | {
            "hc_kw": result.hc_kw,
            "hc_pct": 100.0 * result.hc_kw / model.base_kva,
            "limit": [b.kind for b in limits],
            "element": [b.element for b in limits],
            "hour": [b.hour for b in limits],
        }
    kw = result.site_kw[np.isfinite(result.hc_kw)]
    if not len(kw):
        kw = np.full((1, len(sites)), np.nan)
    return places | {
        "pv_kw_mean": kw.mean(axis=0),
        "pv_kw_min": kw.min(axis=0),
        "pv_kw_max": kw.max(axis=0),
        "designs_with_pv_pct": 100.0 * (kw > 0.0).mean(axis=0),
    }


def _limiting(result: HostingResult) -> Columns:
    """Return how many designs each limit ends, by element and hour, the most frequent first."""
    ended = Counter(
        (b.kind or "none", b.element, b.hour)
        for b, kw in zip(result.binding, result.hc_kw, strict=True)
        if np.isfinite(kw)
    )
    rows = [(*key, n) for key, n in ended.most_common()]
    return _columns(("limit", "element", "hour", "designs"), rows)


def _day(case: HostingCase, answer: Answer) -> Columns:
    """Return the day of the design with the median hosting capacity beside the base case."""
    model, result = case.whole, answer.result
    order = np.argsort(result.hc_kw, kind="stable")  # NaN last
    known = order[: int(np.isfinite(result.hc_kw).sum())]
    kva, load = whole_day(case, answer, int(known[(len(known) - 1) // 2]))
    flow, before = model.flow(kva, load_kva=load), model.flow()
    live = np.abs(model.feeder.network.w) > 0.0
    columns = {
        "hour": model.hours,
        "load_kw": (model.load_kva if load is None else load).real.sum(axis=1),
        "site_kw": kva.real.sum(axis=1),
        "site_kvar": kva.imag.sum(axis=1),
    }
    for name, of in (("base_", before), ("", flow)):
        columns |= {
            f"{name}import_kw": model.watt_scale * of.import_kva.real,
            f"{name}v_min_pu": of.v_pu[:, live].min(axis=1),
            f"{name}v_max_pu": of.v_pu[:, live].max(axis=1),
            f"{name}loading_max_pct": 100.0 * of.loading.max(axis=1, initial=0.0),
        }
    return columns


def _replay(result: HostingResult, replays: Sequence[Replay]) -> Columns:
    """Return a row for each design and limit that it passes in OpenDSS; one row where none."""
    rows: list[tuple[Any, ...]] = []
    for replay in replays:
        for k in replay.designs:
            design = (replay.how, result.names[k], float(result.hc_kw[k]))
            found = [finding for at, finding in replay.passed if at == k]
            rows += [(*design, *finding) for finding in found or [_NOTHING]]
    head = ("how", "design", "hc_kw", "limit", "element", "hour", "excess", "cases")
    return _columns(head, rows)


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def write_tables(tables: Mapping[str, Columns], folder: Path) -> None:
    """Write each table as ``NAME.parquet``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, columns in tables.items():
        pq.write_table(pa.table(dict(columns)), folder / f"{name}.parquet", compression="zstd")
