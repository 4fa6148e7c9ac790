"""The checks of `controllers.core.compliance`: each takes a `Subject` and returns its findings."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import Controller, ControllerStep, ControlSite

STEPS = 30
BAD_LINKS = Post(loss=0.2, max_delay_steps=2, seed=7)
REPEATING_LINKS = Post(loss=0.2, max_delay_steps=2, duplication=0.5, seed=7)
FORBIDDEN_IMPORTS = ("helics", "opendssdirect", "dss", "grid_models.opendss", "federates")
# Names end with the unit; the symbols differ where a unit has no letters.
UNIT_SUFFIXES = {"%": "pct", "degc": "c", "": "", "1": ""}

Trajectory = list[dict[tuple[str, str], float]]


@dataclass(frozen=True)
class Subject:
    """The controller under test with its site and options."""

    cls: type[Controller]
    site: ControlSite
    options: Mapping[str, Any]

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all agents."""
        return self.cls.agents(self.site, **self.options)

    def host(self, parts: int) -> list[Controller]:
        """Spread the agents over `parts` instances, as evenly as they go."""
        shares = np.array_split(np.array(self.agents, dtype=object), min(parts, len(self.agents)))
        return [self.make([str(name) for name in share]) for share in shares]

    def make(self, hosted: Sequence[str]) -> Controller:
        """Return one instance."""
        return self.cls(self.site, tuple(hosted), **self.options)


# --- what an instance says about itself --------------------------------------------------------


def check_construction(subject: Subject) -> list[str]:
    """Agents have unique names; any subset can be hosted; nonsense is refused."""
    agents = subject.agents
    found = []
    if not isinstance(agents, tuple) or not all(isinstance(a, str) and a for a in agents):
        return [f"agents() gives {agents!r}, expected a tuple of non-empty strings"]
    if not agents:
        return ["agents() gives no agent for this site"]
    if len(set(agents)) < len(agents):
        found.append("agents() repeats a name")
    if subject.agents != agents:
        found.append("agents() gives other names when asked again")
    for parts in (1, len(agents)):
        for instance in subject.host(parts):
            missing = [
                name
                for name in ("inputs", "outputs", "links_in", "links_out", "step")
                if not hasattr(instance, name)
            ]
            if missing:
                return [*found, f"an instance has no {', '.join(missing)}"]
    if _accepts(lambda: subject.make([*agents, "no such agent"])):
        found.append("an agent that does not exist is accepted")
    if _accepts(lambda: subject.cls(subject.site, agents, **subject.options, no_such_option_=1)):
        found.append("an unknown option is accepted, so a user's misspelling goes unnoticed")
    return found


def _accepts(make: Callable[[], object]) -> bool:
    try:
        make()
    except Exception:
        return False
    return True


def check_ports(subject: Subject) -> list[str]:
    """Names carry their unit; labels are unique; the parts have the labels of the whole."""
    whole = subject.make(subject.agents)
    parts = subject.host(len(subject.agents))
    found = []
    for side in ("inputs", "outputs"):
        ports: tuple[Port, ...] = getattr(whole, side)
        if not isinstance(ports, tuple) or not all(isinstance(p, Port) for p in ports):
            return [f"{side} is no tuple of Port"]
        if len({p.name for p in ports}) < len(ports):
            found.append(f"{side} repeats a port name")
        for port in ports:
            found += _port_findings(port, side)
            # In parts: a port may be absent where it has no label.
            shares = [label for part in parts for p in getattr(part, side)
                      if p.name == port.name for label in p.labels]  # fmt: skip
            if set(shares) != set(port.labels):
                odd = sorted(set(shares) ^ set(port.labels))
                found.append(f"{side} {port.name}: labels depend on the partition ({odd[0]})")
            if side == "outputs" and len(set(shares)) < len(shares):
                found.append(f"output {port.name}: two agents set the same label")
        units = {p.name: p.unit for p in ports}
        for part in parts:
            for p in getattr(part, side):
                if units.get(p.name) != p.unit:
                    found.append(f"{side} {p.name}: its unit depends on the partition")
    return found


def _port_findings(port: Port, side: str) -> list[str]:
    unit = port.unit.lower()
    suffix = UNIT_SUFFIXES.get(unit, unit)
    found = []
    if suffix and not port.name.endswith(f"_{suffix}"):
        found.append(f"{side} {port.name}: the name does not end with its unit, '_{suffix}'")
    if len(set(port.labels)) < len(port.labels):
        found.append(f"{side} {port.name}: a label is repeated")
    if not all(isinstance(label, str) and label for label in port.labels):
        found.append(f"{side} {port.name}: a label is no text")
    # An input that may stay unfed can start as NaN: nothing is known yet.
    if not np.isfinite(port.initial) and (side != "inputs" or port.required):
        found.append(f"{side} {port.name}: its initial value is not finite")
    return found


def check_links(subject: Subject) -> list[str]:
    """Links start and end at hosted agents; what one end declares the other does too."""
    agents = subject.agents
    found = []
    tables = {}
    for parts in (1, 2, len(agents)):
        out: dict[str, int] = {}
        into: dict[str, int] = {}
        position = 0
        for share, instance in zip(
            np.array_split(np.array(agents, dtype=object), min(parts, len(agents))),
            subject.host(parts),
            strict=True,
        ):
            hosted = {str(name) for name in share}
            position += len(hosted)
            for side, table, end in (
                (instance.links_out, out, "source"),
                (instance.links_in, into, "target"),
            ):
                for link in side:
                    if getattr(link, end) not in hosted:
                        found.append(f"{link.key}: its {end} is not hosted by the instance")
                    if link.key in table:
                        found.append(f"{link.key}: declared twice")
                    if link.width < 1:
                        found.append(f"{link.key}: width {link.width}")
                    table[link.key] = link.width
        found += [f"{key}: nobody receives it" for key in out if key not in into]
        found += [f"{key}: nobody sends it" for key in into if key not in out]
        found += [
            f"{key}: sent with width {out[key]}, received with width {into[key]}"
            for key in out
            if into.get(key, out[key]) != out[key]
        ]
        tables[parts] = (out, into)
    if any(table != tables[1] for table in tables.values()):
        found.append("the links depend on the partition")
    return list(dict.fromkeys(found))


def check_imports(subject: Subject) -> list[str]:
    """The modules of the class do not import the simulators or the federation."""
    found = []
    for cls in subject.cls.__mro__:
        module = sys.modules.get(cls.__module__)
        if module is None or cls.__module__ in {"builtins", "abc", "typing"}:
            continue
        try:
            tree = ast.parse(inspect.getsource(module))
        except (OSError, TypeError, SyntaxError):
            continue  # typed into an interpreter: nothing to read
        found += [
            f"{cls.__module__} imports {name}"
            for name in _imported(tree)
            if any(name == bad or name.startswith(f"{bad}.") for bad in FORBIDDEN_IMPORTS)
        ]
    return sorted(set(found))


def _imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


# --- how it behaves over time ------------------------------------------------------------------


def excite(subject: Subject, port: Port, step: int) -> FloatArray:
    """Return synthetic measurements, a function of unit, label and step only.

    Voltages swing by 0.06 pu around 1 (below, in and above the band), kW between a DER's limits.
    """
    rating = {d.name: (d.p_min_kw, d.p_max_kw) for d in subject.site.ders}
    values = np.empty(len(port.labels))
    for i, label in enumerate(port.labels):
        # A phase of its own for every label, spread by the golden ratio of its letters' codes.
        phase = 0.618 * sum((k + 1) * ord(c) for k, c in enumerate(label))
        wave = float(np.sin(0.4 * step + phase))
        if port.unit == "pu":
            values[i] = 1.0 + 0.06 * wave
        elif port.unit == "kW" and label in rating:
            low, high = rating[label]
            values[i] = low + (high - low) * (0.5 + 0.5 * wave)
        else:
            values[i] = port.initial + wave
    return values


class _Watched:
    """An instance between loop and controller that checks each step's shapes and side effects."""

    def __init__(self, instance: Controller, found: list[str]) -> None:
        self.inputs, self.outputs = instance.inputs, instance.outputs
        self.links_in, self.links_out = instance.links_in, instance.links_out
        self._instance = instance
        self._found = found
        self._given: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        before = {name: v.copy() for name, v in inputs.items()}
        letters = (mail.link.copy(), mail.round.copy(), mail.values.copy())
        result = self._instance.step(time_s, inputs, mail)
        # equal_nan: a measurement may be NaN on purpose.
        if inputs.keys() != before.keys() or not all(
            np.array_equal(v, before[n], equal_nan=True) for n, v in inputs.items()
        ):
            self._found.append("step changes its inputs")
        if not all(map(np.array_equal, letters, (mail.link, mail.round, mail.values))):
            self._found.append("step changes its mail")
        if any(not np.array_equal(kept, copy, equal_nan=True) for kept, copy in self._given):
            self._found.append("step changes what an earlier step returned (return copies)")
        self._shapes(result)
        arrays = [*result.outputs.values(), result.mail.link, result.mail.round, result.mail.values]
        self._given = [(a, a.copy()) for a in arrays if isinstance(a, np.ndarray)]
        return result

    def _shapes(self, result: ControllerStep) -> None:
        names = {port.name for port in self.outputs}
        if set(result.outputs) != names:
            self._found.append(f"outputs are {sorted(result.outputs)}, ports {sorted(names)}")
            return
        for port in self.outputs:
            values = result.outputs[port.name]
            expected = (len(port.labels),)
            if not isinstance(values, np.ndarray) or values.dtype != np.float64:
                self._found.append(f"output {port.name} is no float64 array")
            elif values.shape != expected:
                self._found.append(f"output {port.name} has shape {values.shape} not {expected}")
            elif not np.isfinite(values).all():
                label = port.labels[int(np.argmin(np.isfinite(values)))]
                self._found.append(f"output {port.name} of {label} is not finite")
        mail = result.mail
        if mail.link.shape != mail.round.shape:
            self._found.append("mail.link and mail.round differ in length")
        elif mail.link.size and not 0 <= mail.link.min() <= mail.link.max() < len(self.links_out):
            self._found.append("mail.link points outside links_out")
        elif mail.values.size != sum(self.links_out[i].width for i in mail.link):
            self._found.append("mail.values does not hold the declared widths")
        elif not np.isfinite(mail.values).all():
            self._found.append("mail holds a number that is not finite")


def _drive(
    subject: Subject,
    parts: int,
    post: Post = BAD_LINKS,
    measure: Callable[[Port, int], FloatArray] | None = None,
) -> tuple[Trajectory, list[str]]:
    """Run `parts` instances for `STEPS` steps; return the outputs and what was noticed."""
    found: list[str] = []
    hosts: list[Any] = [_Watched(instance, found) for instance in subject.host(parts)]
    loop = MailLoop(
        hosts, post, measure or (lambda port, k: excite(subject, port, k)), subject.site.period_s
    )
    trajectory = []
    for _ in range(STEPS):
        done = loop.step()
        if found:
            break
        trajectory.append(loop.outputs(done))
    return trajectory, list(dict.fromkeys(found))


def check_step(subject: Subject) -> list[str]:
    """Every step returns finite arrays of the declared shapes and changes nothing it was given."""
    return list(dict.fromkeys(f for parts in (1, 2) for f in _drive(subject, parts)[1]))


def check_limits(subject: Subject) -> list[str]:
    """Set-points stay within the rating of the DER they are labelled with."""
    by_name = {der.name: der for der in subject.site.ders}
    units = {port.name: port.unit for port in subject.make(subject.agents).outputs}
    found = []
    for k, outputs in enumerate(_drive(subject, 1)[0]):
        for (port, label), value in outputs.items():
            der = by_name.get(label)
            if der is None or units[port] not in {"kvar", "kW"}:
                continue
            low, high = (
                (-der.kva, der.kva) if units[port] == "kvar" else (der.p_min_kw, der.p_max_kw)
            )
            slack = 1e-9 * max(der.kva, 1.0)  # rounding of the controller's own arithmetic
            if not low - slack <= value <= high + slack:
                found.append(f"{port} of {label} is {value:.6g} at step {k}, {low:g} to {high:g}")
    return found[:5]


def check_determinism(subject: Subject) -> list[str]:
    """Two runs from the same start give the same bits."""
    return _compare(_drive(subject, 1)[0], _drive(subject, 1)[0], "a second run")


def check_partition(subject: Subject) -> list[str]:
    """One instance, two, and one per agent give the same bits over links that lose and delay."""
    whole = _drive(subject, 1)[0]
    found = []
    for parts in sorted({min(2, len(subject.agents)), len(subject.agents)} - {1}):
        found += _compare(whole, _drive(subject, parts)[0], f"{parts} instances")
    return found


def check_repeated_mail(subject: Subject) -> list[str]:
    """A message that arrives again, at once or later, changes nothing (absolute state)."""
    once = _drive(subject, 1, Post(seed=7))[0]
    twice = _drive(subject, 1, Post(duplication=1.0, seed=7))[0]
    found = _compare(once, twice, "mail delivered twice")
    return found + _drive(subject, 2, REPEATING_LINKS)[1]


def check_bad_measurements(subject: Subject) -> list[str]:
    """Outputs and mail stay finite when measurements are NaN: from the start, at times, in part."""

    def always(port: Port, step: int) -> FloatArray:
        return np.full(len(port.labels), np.nan)

    def at_times(port: Port, step: int) -> FloatArray:
        values = excite(subject, port, step)
        values[step % 3 :: 3] = np.nan
        return np.full(len(values), np.nan) if step in {5, 6} else values

    found = [f"NaN in every measurement: {f}" for f in _drive(subject, 1, measure=always)[1]]
    return found + [f"NaN at times: {f}" for f in _drive(subject, 2, measure=at_times)[1]]


def _compare(one: Trajectory, other: Trajectory, what: str) -> list[str]:
    if len(one) != len(other):
        return [f"{what}: {len(other)} usable steps instead of {len(one)}"]
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        for key in a:
            if a[key] != b.get(key):
                port, label = key
                return [
                    f"{what}: {port} of {label} differs at step {k}: {a[key]!r}, {b.get(key)!r}"
                ]
    return []


CHECKS: dict[str, Callable[[Subject], list[str]]] = {
    "ports": check_ports,
    "links": check_links,
    "imports": check_imports,
    "step": check_step,
    "limits": check_limits,
    "determinism": check_determinism,
    "partition independence": check_partition,
    "repeated mail": check_repeated_mail,
    "bad measurements": check_bad_measurements,
}
