"""The controller federate: hosts some or all agents of a controller."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from controllers.core import registry
from controllers.core.errors import ControllerError
from controllers.core.protocol import Controller, ControllerStep, ControlSite
from controllers.safety.settings import SafetySection
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.scenario.kinds import FederateSection, GridUserSection
from grid_models.feeder.model import Der, Feeder, Source

if TYPE_CHECKING:
    from controllers.safety.layer import SafetyLayer
    from federates.core.run_store import RunStore

_SETTLING_STEPS = 10
"""Of a controller that does not say: ten steps, as of the demo's."""
INVERTERS = ("pv", "battery", "inverter")


class ControllerSection(GridUserSection):
    """A distributed controller, in one federate or split over several."""

    kind: Literal["controller"]
    controller: str = Field(description="A shipped name, or module:Class of your own.")
    ders: list[str] | None = Field(
        None,
        description="Names or globs of the DERs it commands; default: all inverters "
        "(PV, batteries and inverters; vehicles are not there all day).",
    )
    split: int | Literal["agents", "areas", "levels"] = Field(
        1,
        description="Number of federates its agents are spread over, or one for each agent, for "
        "each area, or for each level of a market.",
    )
    areas: int = Field(
        4, ge=1, description="Number of areas when split by areas, at most one per bus."
    )
    options: dict[str, Any] = Field({}, description="Options of the controller; see below.")
    safety: SafetySection | None = Field(
        None,
        description="Keeps the voltage band, whatever the controller asks for; see below. "
        "Default: set-points pass as they are.",
    )

    def default_connections(self, name: str, plant: str) -> tuple[tuple[str, str], ...]:
        """Return those of the safety layer: what it measures, and its limits of active power."""
        if self.safety is None:
            return ()
        ports = ["v_pu", "q_kvar", "p_kw", *(["p_avail_kw"] if self.safety.volt_watt else [])]
        measured = tuple((f"{plant}.{port}", f"{name}.safety_{port}") for port in ports)
        if not self.safety.volt_watt:
            return measured
        return (*measured, (f"{name}.p_set_kw", f"{plant}.p_set_kw"))

    @field_validator("split")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or 'agents', 'areas' or 'levels'")
        return value


class ControllerFederate(Federate):
    """A `controllers.core.protocol.Controller` on the federation's time.

    Parameters
    ----------
    context : Its `agents` are those that this federate hosts.
    """

    Section = ControllerSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        assert isinstance(context.section, ControllerSection)
        cls, site, options = _setup(context)
        with context.option_errors(ControllerError):
            own = cls(site, context.agents, **options)
        self.controller: Controller | SafetyLayer = own
        if context.section.safety is not None:
            self.controller = _made_safe(context, own, site)
        self.inputs = self.controller.inputs
        self.outputs = self.controller.outputs
        self.links_in = self.controller.links_in
        self.links_out = self.controller.links_out
        self._take_events = getattr(self.controller, "take_events", None)
        self._store: RunStore | None = None

    @classmethod
    def parts(cls, context: FederateContext) -> list[tuple[str, ...]]:
        """Divide the agents over federates; trajectories do not depend on how."""
        section = context.section
        assert isinstance(section, ControllerSection)
        controller, site, options = _setup(context)
        with context.option_errors(ControllerError):
            agents = controller.agents(site, **options)
        if not agents:
            raise context.error(
                "the controller has no agent: the grid has no DER it commands",
                expected="at least one rule under grid.ders",
            )
        if section.split == "agents":
            return [(agent,) for agent in agents]
        if section.split == "areas":
            return _by_area(context, section.areas, agents)
        if section.split == "levels":
            return _by_level(context, controller, agents)
        n = section.split
        if n > len(agents):
            raise context.error(
                f"found {n}; the controller has {len(agents)} agents",
                "split",
                expected=f"a whole number from 1 to {len(agents)}, 'agents' or 'areas'",
            )
        bounds = [len(agents) * i // n for i in range(n + 1)]
        return [agents[a:b] for a, b in itertools.pairwise(bounds)]

    @classmethod
    def steps_per_period(cls, section: FederateSection) -> int:
        """Return the controller's own number, for agents that need several rounds of mail."""
        assert isinstance(section, ControllerSection)
        try:
            several = getattr(registry.resolve(section.controller), "steps_per_period", None)
            return 1 if several is None else int(several(**section.options))
        except ControllerError:
            return 1  # `parts` raises it again, with file, line and key

    @classmethod
    def settling_s(cls, section: FederateSection, period_s: float) -> float:
        """Return the controller's own time, ten steps where it has none."""
        assert isinstance(section, ControllerSection)
        try:
            own = getattr(registry.resolve(section.controller), "settling_s", None)
            if own is not None:
                settling_s = float(own(period_s, **section.options))
                least_s = 0.0 if section.safety is None else _SETTLING_STEPS * period_s
                return max(settling_s, least_s)
        except ControllerError:
            return 0.0  # `parts` raises it again, with file, line and key
        return _SETTLING_STEPS * period_s

    def start(self, store: RunStore) -> None:
        """Keep the run's list of events for a controller that reports some."""
        self._store = store

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Let the agents step; record the events that they report."""
        result = self.controller.step(time_s, inputs, mail)
        if self._take_events is not None and self._store is not None:
            self._store.events(self.name, time_s, self._take_events())
        return result

    def summary(self) -> dict[str, float]:
        """Return the controller's own metrics, if it has any."""
        own = getattr(self.controller, "summary", None)
        return dict(own()) if own is not None else {}


def _setup(context: FederateContext) -> tuple[type[Controller], ControlSite, dict[str, Any]]:
    """Return class, site and options of a controller, the same for all parts of a split one."""
    section = context.section
    assert isinstance(section, ControllerSection)
    if "setup" not in context.shared:
        with context.located(ControllerError, "controller"):
            cls = registry.resolve(section.controller)
        band = context.scenario.band
        site = ControlSite(
            feeder=_feeder(context),
            ders=_commanded(context, section.ders),
            period_s=context.period_s,
            v_min_pu=band.v_min_pu,
            v_max_pu=band.v_max_pu,
            seed=context.scenario.seed,
            start_s=context.scenario.time.start_s,
            outlook=context.site.outlook if _has_grid(context) else None,
            ports=context.site.ports if _has_grid(context) else None,
            text_of=partial(_text_of, context.scenario.base_dir),
        )
        context.shared["setup"] = cls, site
    cls, site = context.shared["setup"]
    return cls, site, section.options


def _made_safe(context: FederateContext, inner: Controller, site: ControlSite) -> SafetyLayer:
    """Return the controller with the safety layer of its section."""
    # Every process reads every section: only those with a layer load its models, and scipy.
    from controllers.safety.layer import safety_layer
    from controllers.safety.model import SafetyModel

    section = context.section
    assert isinstance(section, ControllerSection)
    assert section.safety is not None
    agents = type(inner).agents(site, **section.options)
    _refuse_unconnected(context, section.safety)
    with context.located(ControllerError, "safety"):
        if section.safety.kind == "central" and tuple(context.agents) != agents:
            raise ControllerError(
                "kind 'central' needs all set-points in one federate",
                expected="no key 'split', or kind: price",
            )
        if "safety" not in context.shared:
            context.shared["safety"] = SafetyModel.of(site)
        return safety_layer(inner, context.shared["safety"], site, section.safety, agents)


def _refuse_unconnected(context: FederateContext, safety: SafetySection) -> None:
    """Raise ScenarioError where set-points of a layer reach nobody."""
    sources = {wire.source for wire in context.scenario.wires}
    for port in ("q_set_kvar", "p_set_kw") if safety.volt_watt else ("q_set_kvar",):
        if f"{context.group}.{port}" not in sources:
            instead = ", or volt_watt: false" if port == "p_set_kw" else ""
            raise context.error(
                f"{context.group}.{port} is connected to nothing, so the layer would act in vain",
                "safety",
                expected=f"a connection of it to the {port} of the plant{instead}",
            )


def _text_of(folder: Path, name: str) -> str:
    """Return the text of a file that an option names: beside the scenario, else as it stands."""
    path = Path(name).expanduser()
    path = folder / path if (folder / path).exists() else path
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ControllerError(f"cannot read '{path}': {reason}", expected="a text file") from None


def _feeder(context: FederateContext) -> Feeder:
    """Return the plant's feeder; one without buses where no plant has a grid and none is given."""
    if _has_grid(context):
        return context.site.feeder
    return Feeder("no feeder", Source("", 1.0), {})


def _has_grid(context: FederateContext) -> bool:
    """Whether a plant has a grid, or the scenario gives one."""
    scenario = context.scenario
    return bool(scenario.plants) or "grid" in scenario.model_fields_set


def _commanded(context: FederateContext, globs: list[str] | None) -> tuple[Der, ...]:
    ders = _feeder(context).ders
    if globs is None:
        return tuple(der for der in ders if der.kind in INVERTERS)
    chosen = context.ders(globs, "ders")
    return tuple(der for der in ders if der.name in chosen)


def inverters(site: GridSite) -> tuple[Der, ...]:
    """Return the DERs of a grid that a controller commands by default.

    Raises ScenarioError: There is none.
    """
    found = tuple(der for der in site.feeder.ders if der.kind in INVERTERS)
    if not found:
        raise ScenarioError(
            "there is no inverter to command",
            where=site.where("ders"),
            expected="a rule for PV, batteries or inverters",
        )
    return found


def _by_level(
    context: FederateContext, controller: type[Controller], agents: tuple[str, ...]
) -> list[tuple[str, ...]]:
    level_of = getattr(controller, "level_of", None)
    if level_of is None:
        raise context.error(
            f"the agents of '{controller.__name__}' have no levels",
            "split",
            expected="a number, 'agents' or 'areas'",
        )
    return [tuple(group) for _, group in itertools.groupby(agents, key=level_of)]


def _by_area(
    context: FederateContext, n_areas: int, agents: tuple[str, ...]
) -> list[tuple[str, ...]]:
    from grid_models.feeder.topology import areas, radial_tree

    feeder = context.site.feeder
    bus_of = {der.name: der.bus for der in feeder.ders}
    elsewhere = next((agent for agent in agents if agent not in bus_of), None)
    if elsewhere is not None:
        raise context.error(
            f"agent '{elsewhere}' is not named after a DER, so it lies in no area",
            "split",
            expected="a number, or 'agents'",
        )
    area = areas(feeder, min(n_areas, len(radial_tree(feeder).buses)))
    parts: dict[int, list[str]] = {}
    for agent in agents:
        parts.setdefault(area[bus_of[agent]], []).append(agent)
    return [tuple(parts[key]) for key in sorted(parts)]
