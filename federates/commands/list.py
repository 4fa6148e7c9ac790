"""``feederate list``: all shipped parts, one line each."""

from __future__ import annotations

import typer

from controllers.core.registry import descriptions
from controllers.optimisation.algorithms.catalog import ALGORITHMS
from controllers.optimisation.problems.catalog import problems
from federates.errors import ScenarioError
from federates.scenario.attack_files import load_attack, shipped_attacks
from federates.scenario.schema import load_scenario, shipped_dir, shipped_scenarios
from grid_models.catalog import shipped_feeders


def print_list() -> None:
    """Print shipped scenarios, attacks, feeders, controllers, problems and algorithms."""
    titles = {}
    for name, path in shipped_scenarios().items():
        try:
            titles[name] = load_scenario(path).title
        except ScenarioError as error:
            titles[name] = f"({error})"
    attacks = {}
    for name, path in shipped_attacks(shipped_dir()).items():
        try:
            spec = load_attack(path)
            attacks[name] = spec.title + (f" (on {spec.scenario})" if spec.scenario else "")
        except ScenarioError as error:
            attacks[name] = f"({error})"
    sections = {
        "Scenarios": titles,
        "Attacks": attacks,
        "Feeders": shipped_feeders(),
        "Controllers": descriptions(),
        "Optimisation problems": problems(),
        "Optimisation algorithms": {name: one.about for name, one in ALGORITHMS.items()},
    }
    for i, (section, entries) in enumerate(sections.items()):
        typer.secho(("\n" if i else "") + section, bold=True)
        width = max(map(len, entries), default=0)
        for name, text in entries.items():
            typer.echo(f"  {name:<{width}}  {text}".rstrip())
