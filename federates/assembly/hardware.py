"""Devices outside the process: one DER for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federates.errors import ScenarioError
from federates.scenario.schema import Scenario


def refuse_shared_hardware(scenario: Scenario, federates: Mapping[str, Any]) -> None:
    """Refuse two DERs at one device: each would undo what the other commands.

    Parameters
    ----------
    federates : By name; those of other people may have no `hardware`.

    Raises ScenarioError.
    """
    users: dict[str, str] = {}
    for name, federate in federates.items():
        for der, address in getattr(federate, "hardware", {}).items():
            if address in users:
                raise ScenarioError(
                    f"'{name}.{der}' and '{users[address]}' are the same device ({address})",
                    where=scenario.where("federates", name, "devices"),
                    expected="one DER for each address and unit",
                )
            users[address] = f"{name}.{der}"
