"""Schema errors of a scenario or attack file, with file, line and key."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from federates.errors import ScenarioError
from federates.scenario.yaml_source import YamlSource
from grid_models.base.errors import described
from grid_models.base.schema_errors import schema_problems


def schema_error(
    source: YamlSource, root: type[BaseModel], error: ValidationError
) -> ScenarioError:
    """Return one error with a line for every problem, in the order of the file."""
    problems = sorted(schema_problems(root, error), key=lambda p: source.line(p.path))
    return ScenarioError(
        "\n".join(f"{source.where(p.path)}: {described(*p[1:])}" for p in problems)
    )
