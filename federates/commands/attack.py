"""``feederate attack check|explain``: what an attack file would do to a scenario, before it does.

``feederate attack run`` is in `federates.commands.paired`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from federates.commands.explain import AttackExplained, StepExplained, explain_attack
from federates.commands.terminal import output, print_table
from federates.errors import ScenarioError
from federates.reports import attack_words as words
from federates.scenario.attack_files import find_attack, load_attack, shipped_attacks
from federates.scenario.schema import (
    Scenario,
    find_scenario,
    load_scenario,
    shipped_dir,
    shipped_scenarios,
)
from federates.scenario.yaml_source import load_yaml

Kind = Literal["attack", "scenario"]


def check(
    first: str, second: str | None, overrides: tuple[str, ...], defence: str | None
) -> AttackExplained:
    """Say that an attack fits a scenario, or everything that is wrong."""
    found = explain_attack(attacked_scenario(first, second, overrides, defence))
    console = output()
    console.print(
        f"[green]fits[/green]: {escape(found.spec.id)} on {escape(found.scenario)}", soft_wrap=True
    )
    for step in found.steps:
        touches = ", ".join(t.count() for t in step.touches) or "nothing"
        console.print(f"  {step.id}: {touches}", markup=False, soft_wrap=True)
    return found


def explain(
    first: str, second: str | None, overrides: tuple[str, ...], defence: str | None
) -> AttackExplained:
    """Return what an attack would touch in a scenario."""
    return explain_attack(attacked_scenario(first, second, overrides, defence))


def attacked_scenario(
    first: str, second: str | None, overrides: tuple[str, ...] = (), defence: str | None = None
) -> Scenario:
    """Load the scenario with the attack on it; see `pair`.

    Raises ScenarioError: What cannot be read, or nothing that attacks.
    """
    name, attack = pair(first, second, documented=("attack", "scenario"))
    scenario = load_scenario(name, overrides, attack=attack, defence=defence)
    if scenario.attack_spec is None:
        raise ScenarioError(
            "the scenario names no attack",
            where=name,
            expected="an attack file or the name of a shipped attack beside it",
        )
    return scenario


def pair(first: str, second: str | None, documented: tuple[Kind, Kind]) -> tuple[str, str | None]:
    """Tell a scenario and an attack apart, given in any order, one of them perhaps left out.

    Parameters
    ----------
    first, second : Paths or shipped names. With one only, the scenario names its attack or the
        attack its scenario.
    documented : What the two are where their content does not tell.

    Returns
    -------
    scenario : str
    attack : str or None
        None: the scenario's own.
    """
    if second is None:
        if (_kind_of(first) or documented[0]) == "scenario":
            return first, None
        return _scenario_of(first), first
    kinds = _kind_of(first), _kind_of(second)
    swapped = kinds in (documented[::-1], (documented[1], None), (None, documented[0]))
    by_kind = dict(zip(documented, (second, first) if swapped else (first, second), strict=True))
    return by_kind["scenario"], by_kind["attack"]


def _kind_of(name: str) -> Kind | None:
    """Return what a path or a name means; None where it cannot be told."""
    path = Path(name)
    if path.is_file():
        data = load_yaml(path).data
        if "federates" in data or "grid" in data:
            return "scenario"
        return "attack" if "steps" in data or "techniques" in data else None
    if name in shipped_scenarios():
        return "scenario"
    return "attack" if name in shipped_attacks(shipped_dir()) else None


def _scenario_of(attack: str) -> str:
    """Return the path of the scenario that an attack file names."""
    path = find_attack(attack, shipped_attacks(shipped_dir()), Path())
    spec = load_attack(path)
    if spec.scenario is None:
        raise ScenarioError(
            "names no scenario", where=str(path), expected="the key 'scenario', or a SCENARIO"
        )
    for folder in (spec.base_dir, spec.base_dir.parent):
        if (folder / spec.scenario).is_file():
            return str(folder / spec.scenario)
    try:
        find_scenario(spec.scenario)
    except ScenarioError as error:
        error.where = spec.where("scenario")
        raise
    return spec.scenario


def as_data(found: AttackExplained) -> dict[str, Any]:
    """Return the explanation as plain data."""
    spec = found.spec
    return {
        "attack": spec.id,
        "scenario": found.scenario,
        "seed": spec.seed,
        "techniques": words.techniques(spec),
        "attack_version": spec.attack_version,
        "steps": [dataclasses.asdict(step) for step in found.steps],
    }


def print_explained(found: AttackExplained, console: Console) -> None:
    """Print one block per step: when, what it touches, what it does, who sees what instead."""
    spec = found.spec
    console.print(f"[bold]{escape(spec.id)}[/bold]  {escape(spec.title)}", soft_wrap=True)
    console.print(f"on {escape(found.scenario)}, seed {spec.seed}", soft_wrap=True)
    for technique in words.techniques(spec):
        console.print(f"  {escape(technique)}", soft_wrap=True)
    if spec.techniques:
        console.print(f"  (MITRE ATT&CK for ICS {spec.attack_version})")
    rows: list[tuple[str, str, str]] = []
    for step in found.steps:
        rows += [("", "", "")] if rows else []
        rows += [(step.id if i == 0 else "", *row) for i, row in enumerate(_rows(step))]
    print_table(console, ("Step", "", "What would happen"), rows, ())
    console.print("nothing was started")


def _rows(step: StepExplained) -> list[tuple[str, str]]:
    """Return what is said of a step, as (key, text)."""
    shown = [(t.text(), what) for t, what in step.shows]
    return [
        *([("title", step.title)] if step.title else []),
        ("layer", step.layer),
        ("when", f"{step.when}, {step.lasting}"),
        *(("touches", touched.text()) for touched in step.touches),
        ("does", step.does),
        *(("shows", f"{text}; readers see {what}") for text, what in shown),
    ]
