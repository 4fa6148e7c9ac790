"""Signal steps: which elements of which inputs they forge."""

from __future__ import annotations

from collections.abc import Iterator

from federates.attacks.layer import AttackLayer
from federates.attacks.plan import Touched
from federates.attacks.selection import drawn, matching
from federates.attacks.view import Key
from federates.errors import WiringError
from federates.scenario.attack_schema import Target
from grid_models.base.errors import nothing_called

Chosen = dict[tuple[int, int | None], list[Key]]
"""Elements of inputs by (step, position of its concealment or None)."""
_Names = dict[str, dict[str, list[Key]]]
"""By ``federate.port`` and label: the elements of inputs that an output feeds, or an input is."""


class SignalLayer(AttackLayer):
    """Signal steps, and the concealments of steps of any layer.

    Attributes
    ----------
    chosen : (step, concealment)
    """

    name = "signal"

    def resolve(self) -> None:
        case, names = self.case, self._names()
        self.chosen: Chosen = {}
        for i, step in enumerate(case.spec.steps):
            if step.layer == self.name:
                self.chosen[i, None] = self._choose(i, step.target, ("target",), names)
            for n, conceal in enumerate(step.conceal):
                target = Target(port=conceal.port, labels=conceal.labels)
                self.chosen[i, n] = self._choose(i, target, ("conceal", n), names)
        for (i, _), keys in self.chosen.items():
            foreign = next((name for name, _, _ in keys if name in case.external), None)
            if foreign is not None:
                self.problems.append(
                    f"{case.spec.where('steps', i, 'target')}: the external federate '{foreign}' "
                    "reads its topics by itself, nothing can stand in between; expected another "
                    "reader"
                )
        self.problems += self._shown_twice()
        for (i, shown), keys in self.chosen.items():
            acts_on = (f"element {k} of {instance}.{port}" for instance, port, k in keys)
            # The action acts when the producers of its values step.
            timings = map(case.federation.timing_of, keys) if shown is None else ()
            self.add(i, acts_on, timings, self._touched(keys), shown)

    def _names(self) -> _Names:
        federation = self.case.federation
        names: _Names = {}
        for word, instance, port in federation.ports("inputs"):
            if port.name in federation.own_inputs:
                continue
            for k, label in enumerate(port.labels):
                key = (instance, port.name, k)
                names.setdefault(word, {}).setdefault(label, []).append(key)
                origin = federation.origin[key]
                if origin.source:
                    out = f"{federation.group_of[origin.source]}.{origin.port}"
                    labels = federation.port(origin.source, origin.port, "outputs").labels
                    names.setdefault(out, {}).setdefault(labels[origin.position], []).append(key)
        return names

    def _choose(
        self, i: int, target: Target, where: tuple[str | int, ...], names: _Names
    ) -> list[Key]:
        """Return the input elements that a target means, drawn by label."""
        assert target.port is not None
        spec, where = self.case.spec, ("steps", i, *where)
        ports = matching(names, [target.port])
        if not ports:
            self.problems.append(
                nothing_called(spec.where(*where, "port"), "port that is read", target.port, names)
            )
            return []
        labels = list(dict.fromkeys(label for port in ports for label in names[port]))
        for n, glob in enumerate(target.labels):
            if not matching(labels, [glob]):
                at = spec.where(*where, "labels", n)
                self.problems.append(nothing_called(at, f"label of {ports[0]}", glob, labels))
        try:
            kept = set(drawn(matching(labels, target.labels), target, spec, i))
        except WiringError as error:
            self.problems += error.problems
            return []
        keys = [key for p in ports for label, ks in names[p].items() if label in kept for key in ks]
        return list(dict.fromkeys(keys))

    def _shown_twice(self) -> Iterator[str]:
        """Say which concealments act on a value that their step acts on in another way already."""
        spec, federation = self.case.spec, self.case.federation
        for (i, n), keys in self.chosen.items():
            if n is None:
                continue
            for (j, m), others in self.chosen.items():
                shared = set(keys) & set(others) if i == j and (m is None or m < n) else ()
                if shared:
                    instance, port, k = next(key for key in keys if key in shared)
                    label = federation.port(instance, port, "inputs").labels[k]
                    what = (
                        "the step's own target" if m is None else f"shown by conceal[{m}] already"
                    )
                    yield (
                        f"{spec.where('steps', i, 'conceal', n)}: {label} of "
                        f"{federation.group_of[instance]}.{port} is {what}; expected other "
                        "signals: one value can be seen in one way only"
                    )
                    break

    def _touched(self, keys: list[Key]) -> Iterator[Touched]:
        """Yield the labels of outputs, or of inputs that nobody feeds, port by port."""
        federation = self.case.federation
        labels: dict[tuple[str, str], dict[str, None]] = {}
        readers: dict[tuple[str, str], dict[str, None]] = {}
        for key in keys:
            origin, reader = federation.origin[key], f"{federation.group_of[key[0]]}.{key[1]}"
            if origin.source:
                instance, name, k, side = *origin.element, "outputs"
            else:
                instance, name, k, side = *key, "inputs"
            port = federation.port(instance, name, side)
            what = f"labels of {federation.group_of[instance]}.{name}", port.unit
            labels.setdefault(what, {})[port.labels[k]] = None
            if not what[0].endswith(f" {reader}"):
                readers.setdefault(what, {})[reader] = None
        for what, names in labels.items():
            yield Touched(what[0], tuple(names), what[1], tuple(readers.get(what, ())))
