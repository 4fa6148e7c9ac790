"""The globs of a scenario's ``record`` section, checked against what there is to record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from federates.core.mail_routes import Wirable
from federates.scenario.schema import Scenario
from grid_models.base.errors import nothing_called


def unmatched_records(scenario: Scenario, federates: Sequence[Wirable]) -> Iterator[str]:
    """Yield a sentence, with file, line and key, for each glob that matches nothing."""
    record = scenario.record
    optional = [(f.name, name) for f in federates for name in getattr(f, "optional_outputs", ())]
    ports = {f"{f.name}.{port.name}": port for f in federates for port in f.outputs}
    known = [*ports, *(f"{name}.{port}" for name, port in optional)]
    owners = [f"{f.name}.*" for f in federates if f.outputs]
    for i, glob in enumerate(record.ports):
        if glob != "*" and not any(fnmatchcase(name, glob) for name in ports):
            where = scenario.where("record", "ports", i)
            yield nothing_called(where, "output port", glob, [*owners, *known])
    recorded = [p for n, p in ports.items() if any(fnmatchcase(n, g) for g in record.ports)]
    labels = list(dict.fromkeys(label for port in recorded for label in port.labels))
    for i, glob in enumerate(record.labels if recorded else ()):
        if glob != "*" and not any(fnmatchcase(label, glob) for label in labels):
            where = scenario.where("record", "labels", i)
            yield nothing_called(where, "label of a recorded port", glob, labels)
