"""``feederate check``: the federates and the wiring of a scenario, as data and as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape

from federates.assembly.federation import Assembly, warnings_of
from federates.clock import to_s
from federates.commands.terminal import output, print_table
from federates.core.federate import Federate
from federates.core.wiring import FederateWiring
from federates.errors import ScenarioError
from federates.kinds.external import ExternalFederate
from federates.runs.options import RunOptions
from federates.scenario.kinds import FederateSection
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError

Built = dict[str, Federate | ExternalFederate]


@dataclass(frozen=True)
class FederateRow:
    """One federate of the scenario; `count` instances when it is split.

    `optional_inputs`, `optional_outputs`: ports that it would have if the scenario used them.
    """

    name: str
    kind: str
    count: int
    agents: int
    period_s: float
    offset_s: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    optional_inputs: tuple[str, ...]
    optional_outputs: tuple[str, ...]


@dataclass(frozen=True)
class WireRow:
    """One connection between two ports, all instances together."""

    source: str
    target: str
    unit: str
    labels: int
    noise: float


@dataclass(frozen=True)
class CheckResult:
    """The federates and connections of a valid scenario."""

    name: str
    title: str
    steps: int
    step_s: float
    federates: tuple[FederateRow, ...]
    wires: tuple[WireRow, ...]
    mail_links: int
    imperfect_links: int
    warnings: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    """Labels of every port, by ``federate.port``, in the order of its vector."""


def check_command(options: RunOptions, *, labels: bool = False) -> None:
    """Check a scenario as the options say, and by itself with each defence that it names.

    `labels`: print those of every port in place of the tables.

    Raises FeederateError: What is wrong, of all of them.
    """
    scenario = options.load()
    result, problems = check_scenario(scenario), []
    for name in scenario.defences if options.defence is None else ():
        try:
            check_scenario(replace(options, defence=name).load())
        except FeederateError as error:
            problems += [f"with the defence '{name}': {line}" for line in str(error).splitlines()]
    if problems:
        raise ScenarioError("\n".join(problems))
    if labels:
        print_labels(result)
    else:
        print_check(result, output())


def check_scenario(scenario: Scenario) -> CheckResult:
    """Build and wire a scenario as `run` does, and describe it.

    Raises FeederateError: What `run` would refuse; a `WiringError` lists every problem.
    """
    assembly = Assembly(scenario)
    built, wirings = assembly.assemble()
    try:
        return CheckResult(
            scenario.name,
            scenario.title,
            assembly.n_steps,
            scenario.time.step_s,
            _federates(assembly, built),
            _wires(assembly, built, wirings),
            sum(len(f.links_in) for f in built.values()),
            sum(len(w.link_quality) for w in wirings.values()),
            warnings_of(scenario, built, wirings),
            {
                f"{name}.{port.name}": port.labels
                for name, federate in built.items()
                for port in (*federate.inputs, *federate.outputs)
            },
        )
    finally:
        for federate in built.values():
            if isinstance(federate, Federate):
                federate.close()


def _federates(assembly: Assembly, built: Built) -> tuple[FederateRow, ...]:
    agents: dict[str, int] = {}
    for instance in assembly.instances:
        agents[instance.group] = agents.get(instance.group, 0) + len(instance.agents)
    rows = []
    for group, names in assembly.groups.items():
        spec, timing = assembly.scenario.federates.get(group), built[names[0]].timing
        rows.append(
            FederateRow(
                group,
                _kind(spec),
                len(names),
                agents.get(group, 0),
                to_s(timing.period_ns),
                to_s(timing.offset_ns),
                _ports(built, names, "inputs"),
                _ports(built, names, "outputs"),
                getattr(built[names[0]], "optional_inputs", ()),
                getattr(built[names[0]], "optional_outputs", ()),
            )
        )
    return tuple(rows)


def _kind(section: FederateSection | None) -> str:
    if section is None:
        return "attack"
    return getattr(section, "controller", None) or section.kind


def _ports(built: Built, names: list[str], side: str) -> tuple[str, ...]:
    """Return ``name[labels]`` of each port, summed over the instances."""
    sizes: dict[str, int] = {}
    for name in names:
        for port in getattr(built[name], side):
            sizes[port.name] = sizes.get(port.name, 0) + len(port.labels)
    return tuple(f"{port}[{size}]" for port, size in sizes.items())


def _wires(
    assembly: Assembly, built: Built, wirings: dict[str, FederateWiring]
) -> tuple[WireRow, ...]:
    group_of = {name: group for group, names in assembly.groups.items() for name in names}
    rows: dict[tuple[str, str, str, float], int] = {}
    for target, wiring in wirings.items():
        units = {port.name: port.unit for port in built[target].inputs}
        for port, feeds in wiring.feeds.items():
            for feed in feeds:
                source = f"{group_of[feed.source]}.{feed.port}"
                key = (source, f"{group_of[target]}.{port}", units[port], feed.noise)
                size = feed.source_size if feed.source_index is None else feed.source_index.size
                rows[key] = rows.get(key, 0) + size
    return tuple(WireRow(s, t, unit, size, noise) for (s, t, unit, noise), size in rows.items())


def print_check(result: CheckResult, console: Console) -> None:
    """Print the federates and the wiring."""
    console.print(f"[bold]{result.name}[/bold]  {escape(result.title)}", soft_wrap=True)
    console.print(f"{result.steps} steps of {result.step_s:g} s\n")
    head = ("Federate", "Kind", "Every", "Offset", "Ports")
    print_table(console, head, map(_federate_cells, result.federates), numbers=(2, 3))
    if result.wires:
        cells = [
            (w.source, w.target, w.unit, str(w.labels), f"{w.noise:g}" if w.noise else "-")
            for w in result.wires
        ]
        print_table(console, ("From", "To", "Unit", "Labels", "Noise"), cells, numbers=(3, 4))
    mail = f"{result.mail_links} mail links between agents"
    if result.imperfect_links:
        mail += f", {result.imperfect_links} of them with latency, jitter, loss or noise"
    console.print(mail if result.mail_links else "no mail between agents")
    for words in result.warnings:
        console.print(f"[yellow]warning[/yellow]: {escape(words)}", soft_wrap=True)
    console.print("[green]the scenario fits together[/green]")


def print_labels(result: CheckResult) -> None:
    """Print the labels of every port as YAML, one port a line, to be copied into a scenario."""
    for port, labels in result.labels.items():
        print(f"{port}: {json.dumps(list(labels), ensure_ascii=False)}")


def _federate_cells(row: FederateRow) -> tuple[str, ...]:
    parts = [row.kind]
    if row.agents:
        parts.append(f"{row.agents} agent{'s' if row.agents > 1 else ''}")
    if row.count > 1:
        parts.append(f"in {row.count} federates")
    sides = (
        ("in  ", row.inputs),
        ("out ", row.outputs),
        ("in if connected  ", row.optional_inputs),
        ("out if used  ", row.optional_outputs),
    )
    ports = "\n".join(side + " ".join(names) for side, names in sides if names)
    return row.name, "\n".join(parts), f"{row.period_s:g} s", f"{row.offset_s:g} s", ports
