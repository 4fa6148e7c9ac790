"""Examples at the end of every help text. Imports the standard library only."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "demo --steps 720 --out runs/demo"),
    "run": (
        "run voltvar-ieee123",
        "run my-study.yaml --steps 100 --set time.step_s=60 --seed 7",
        "run voltvar-ieee123 --attack link-jamming --defence late-mail",
    ),
    "check": ("check my-study.yaml", "check voltvar-ieee123 --set 'links=[{loss: 0.2}]'"),
    "list": ("list",),
    "report": ("report runs/voltvar-ieee123-20250101-120000",),
    "compare": ("compare runs/A runs/B", "compare runs/A runs/B --html side-by-side.html"),
    "sweep": (
        "sweep voltvar-ieee123 --set grid.load_scale=0.8,1,1.2 --seeds 20 --out study",
        "sweep my-study.yaml --table points.csv --workers 2",
    ),
    "dataset": (
        "dataset voltvar-ieee13 false-voltage frozen-measurement --seeds 8 --out data",
        "dataset my-study.yaml my-attack.yaml --seeds 8 --unseen stealthy-ramp --out data",
    ),
    "optimise": (
        "optimise dispatch-1000",
        "optimise dispatch-100 --algorithms dual,admm --links loss=0.2,latency_s=0.05",
    ),
    "hosting": (
        "hosting hosting-ieee123 --placements 100",
        "hosting my-study.yaml --method alone --out map --set hosting.limits.v_max_pu=1.06",
    ),
    "train": (
        "train voltvar-ieee123 --out policy.csv",
        "train my-study.yaml --out policy.csv --minutes 5 --seed 3 --narrow",
    ),
    "new": ("new scenario my-study", "new attack my-attack", "new controller my_control"),
    "schema": ("schema > scenario.schema.json", "schema attack"),
    "replay": (
        "replay runs/A",
        "replay runs/A --into my-study.yaml --offset 600",
        "replay trace.csv --into voltvar-ieee13 --as disturbance",
    ),
    "attack check": ("attack check my-attack.yaml my-study.yaml",),
    "attack explain": ("attack explain link-jamming", "attack explain link-jamming --json"),
    "attack run": (
        "attack run voltvar-ieee123 link-jamming",
        "attack run voltvar-ieee123 link-jamming --steps 720 --defence late-mail",
    ),
    "attack mitm": (
        "attack mitm modbus-mitm --device sunspec-inverter --target 127.0.0.1:1502 --as pv_1",
    ),
    "market certify": (
        "market certify runs/attack-1b-ieee123-20250101-120000",
        "market certify runs/A --time 300 --json",
    ),
    "device check": ("device check lab/inverter.yaml",),
    "device import": ("device import registry.csv -o my-device.yaml",),
    "device scan": ("device scan 192.0.2.7:502/1",),
    "device read": (
        "device read 192.0.2.7:502/1",
        "device read lab/inverter.yaml p_w q_var --json",
    ),
    "device watch": (
        "device watch 192.0.2.7:502/1 701.W --period 2",
        "device watch lab/inverter.yaml p_w --set w_limit_pct=50 --arm inverter",
    ),
    "device write": ("device write lab/inverter.yaml var_set_pct -5 --arm inverter --hold 10",),
    "device test": (
        "device test sunspec-inverter-1547 --procedure volt-var",
        "device test lab/inverter.yaml --procedure volt-watt --arm inverter --grid 127.0.0.1:1600",
    ),
    "emulate inverter": ("emulate inverter --port 1502",),
    "emulate battery": ("emulate battery --port 1502",),
    "emulate thermostat": ("emulate thermostat --port 1502",),
    "emulate device": (
        "emulate device victron --port 1502",
        "emulate device my-device.emulator.yaml",
    ),
}
"""Command -> command lines, without the program's name."""


def add_examples(app: Any, above: str = "") -> None:
    """Put the examples below the help of every command of a typer application."""
    for info in app.registered_commands:
        name = above + (info.name or info.callback.__name__.replace("_", "-"))
        lines = "".join(f"\n  feederate {line}" for line in EXAMPLES.get(name, ()))
        if lines:
            info.epilog = f"\b\nExamples:{lines}"
    for group in app.registered_groups:
        add_examples(group.typer_instance, f"{above}{group.name} ")
