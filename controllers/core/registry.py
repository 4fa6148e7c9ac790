"""Controllers by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

from controllers.core.named_classes import NamedClasses
from controllers.core.protocol import Controller

CONTROLLERS: NamedClasses[Controller] = NamedClasses(
    what="controller",
    protocol="controllers.core.protocol.Controller",
    class_methods={"agents": "site, **options"},
    methods={"__init__": "site, hosted, **options", "step": "time_s, inputs, mail"},
    shipped={
        "none": (
            "controllers.baselines.no_control:NoControl",
            "no control: reactive power stays at zero",
        ),
        "bad-policy": (
            "controllers.baselines.bad_policy:BadPolicy",
            "set-points against the grid, malicious or random: what a safety layer must withstand",
        ),
        "volt-var-1547": (
            "controllers.baselines.volt_var_1547:VoltVar1547",
            "local droop of IEEE 1547-2018, with its response times; volt-watt as an option",
        ),
        "volt-var-adaptive": (
            "controllers.baselines.adaptive_volt_var:AdaptiveVoltVar",
            "moves volt-var curves of its own inverters against an oscillation that others cause",
        ),
        "learned-droop": (
            "controllers.learned_droop.controller:LearnedDroop",
            "local volt/var curves of a policy file, trained for the feeder; no communication",
        ),
        "optdist-vc": (
            "controllers.optdist.controller:OptdistVc",
            "distributed optimal voltage control by feedback and neighbour messages (OPTDIST-VC)",
        ),
        "dmpc": (
            "controllers.dmpc.feeder:FeederDmpc",
            "distributed MPC of PV and batteries in clusters: voltage, energy, forecast, by mail",
        ),
        "dmpc-circuit": (
            "controllers.dmpc.circuit:CircuitDmpc",
            "distributed MPC of circuit dynamics: clusters of inverters, edge-wise ADMM by mail",
        ),
        "market": (
            "controllers.market.agents.primary:PrimaryMarket",
            "primary market: bids and awards by mail, cleared centrally, by PAC, NST-PAC or ADMM",
        ),
        "local-market": (
            "controllers.market.agents.local.controller:LocalMarket",
            "local market of homes, their agents and operators, by mail: three levels or fewer",
        ),
        "consumer-market": (
            "controllers.market.agents.consumer.controller:ConsumerMarket",
            "consumer market: homes plan and bid, an operator asks for flexibility by two prices",
        ),
        "resilience-manager": (
            "controllers.market.agents.manager:ResilienceManager",
            "brings the import back after an attack by bending the market's prices, by mail",
        ),
        "reconfiguration": (
            "controllers.reconfiguration.controller:Reconfiguration",
            "restores load after a fault of a line by closing and opening the feeder's switches",
        ),
        "averaging-pi": (
            "controllers.baselines.averaging_pi:AveragingPi",
            "distributed-averaging PI voltage control of circuit dynamics, the DMPC's baseline",
        ),
        "dppd": (
            "controllers.frequency.controller:Dppd",
            "restores a transmission system's frequency by loads at least cost (proximal DPPD)",
        ),
        "alc": (
            "controllers.frequency.controller:SubgradientAlc",
            "automatic load control by sub-gradients, DPPD's baseline",
        ),
        "rt-opf": (
            "controllers.real_time_opf.controller:RtOpf",
            "real-time optimal power flow by feedback: P and Q within limits, areas by mail",
        ),
        "optimisation": (
            "controllers.optimisation.controller:Optimisation",
            "agents of a distributed optimisation algorithm at work on a problem, by mail",
        ),
        "optimum": (
            "controllers.baselines.optimum:Optimum",
            "centralised optimum: one quadratic programme with all measurements, as a benchmark",
        ),
    },
)
descriptions = CONTROLLERS.descriptions
resolve = CONTROLLERS.resolve
