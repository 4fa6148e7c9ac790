"""What a user gives to a comparison: links, options of algorithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from federates.errors import ScenarioError
from federates.scenario.schema_errors import schema_error
from federates.scenario.sections import LinkRule
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import nearest_name
from grid_models.base.sections import Section
from grid_models.base.yaml_lines import YamlError, parse_yaml

Rule = Mapping[str, Any] | LinkRule
Links = str | Rule | Sequence[str | Rule]
Model = TypeVar("Model", bound=BaseModel)
_LINKS = "links"


class _LinkFile(Section):
    links: list[LinkRule]


def link_rules(given: Links | None) -> tuple[LinkRule, ...]:
    """Return the rules of links, in their order; the last that matches a link applies.

    given : A YAML file with a key ``links`` as in a scenario, words ``key=value`` separated by
        commas, which make one rule for all links, a rule as a mapping, or several of these.

    Raises ScenarioError: A file or key that is none, or a value that is not allowed.
    """
    if given is None:
        return ()
    several = [given] if isinstance(given, (str, Mapping, LinkRule)) else list(given)
    rules: list[LinkRule] = []
    words: dict[str, Any] = {}
    for one in several:
        if isinstance(one, LinkRule):
            rules.append(one)
        elif isinstance(one, str) and "=" in one:
            words |= dict(key_value(word, "--links") for word in one.split(","))
        elif isinstance(one, str):
            rules += _rules_of_file(one)
        elif isinstance(one, Mapping):
            rules.append(_checked(LinkRule, YamlSource(_LINKS, dict(one))))
        else:
            raise ScenarioError(
                f"is a {type(one).__name__}", where=_LINKS, expected="a file, text or mapping"
            )
    if words:
        rules.append(_checked(LinkRule, YamlSource("--links", words)))
    return tuple(rules)


def _rules_of_file(name: str) -> list[LinkRule]:
    if not Path(name).is_file():
        raise ScenarioError(
            f"'{name}' is no file and not of the form key=value",
            where="--links",
            expected="a YAML file with a key 'links', or words such as loss=0.2,latency_s=0.05",
            nearest=nearest_name(name, LinkRule.model_fields),
        )
    source = load_yaml(Path(name))
    if _LINKS not in source.data:
        raise ScenarioError("has no key 'links'", where=name, expected="links: [{loss: 0.2}]")
    lines = {key: line for key, line in source.lines.items() if key[:1] == (_LINKS,)}
    part = YamlSource(source.name, {_LINKS: source.data[_LINKS]}, lines)
    return _checked(_LinkFile, part).links


def _checked(model: type[Model], source: YamlSource) -> Model:
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        raise schema_error(source, model, error) from None


def key_value(word: str, where: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``; the value is YAML.

    Raises ScenarioError: The word has another form.
    """
    key, equals, text = (part.strip() for part in word.partition("="))
    try:
        value = parse_yaml(text)[0]
    except YamlError as error:
        raise ScenarioError(f"'{text}' is not a YAML value: {error.what}", where=where) from None
    if not equals or not key or value is None:
        raise ScenarioError(f"'{word}' is not of the form key=value", where=where)
    return key, value


def algorithm_options(
    given: Mapping[str, Any] | Sequence[str] | None, algorithms: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the options of each algorithm: ``{"admm": {"rho": 10}}``.

    given : ``{"admm.penalty_factor": 10}`` or ``{"admm": {"penalty_factor": 10}}``, or words
        ``admm.penalty_factor=10``.

    Raises ScenarioError: An algorithm that is not compared, or a word of another form.
    """
    if given is None:
        return {}
    pairs = given.items() if isinstance(given, Mapping) else (key_value(w, "--set") for w in given)
    options: dict[str, dict[str, Any]] = {}
    for key, value in pairs:
        name, dot, option = str(key).partition(".")
        if name not in algorithms:
            raise ScenarioError(
                f"'{name}' is none of the algorithms",
                where=f"--set {key}",
                expected=f"ALGORITHM.OPTION=VALUE, of {', '.join(algorithms)}",
                nearest=nearest_name(name, algorithms),
            )
        if not dot and not isinstance(value, Mapping):
            raise ScenarioError(
                "no option is named", where=f"--set {key}", expected="ALGORITHM.OPTION=VALUE"
            )
        options.setdefault(name, {}).update({option: value} if dot else value)
    return options
