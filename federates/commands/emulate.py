"""``feederate emulate``: emulated devices behind real Modbus/TCP, in a process of their own.

One command per role; their options come from the table in `hil.emulators.options`.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from hil.emulators.options import EmulatorOptions, EmulatorRole, default_of, options_of

emulate_app = typer.Typer(
    help="Emulated devices behind real Modbus/TCP, until SIGTERM or Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_ABOUT = {
    EmulatorRole.inverter: "PV inverters, SunSpec 701-706, 712, 713, 715, after IEEE 1547-2018.",
    EmulatorRole.battery: "Batteries, SunSpec models of the inverter with 713 and 704 WSet.",
    EmulatorRole.thermostat: "Thermostats with CTA-2045 verbs, each in a house.",
}


def _command(role: EmulatorRole) -> None:
    """Add the command of one role; its parameters are those of the table."""
    types = inspect.get_annotations(EmulatorOptions, eval_str=True)
    parameters = []
    for option in options_of(role):
        known = option.metadata
        flags = [known["flag"] or "--" + option.name.replace("_", "-")]
        setting: Any = typer.Option(
            *flags, min=known["min"], max=known["max"], help=known["help"], metavar=known["metavar"]
        )
        parameters.append(
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default_of(option.name, role),
                annotation=Annotated[types[option.name], setting],
            )
        )

    def command(**given: Any) -> None:
        from hil.emulators.host import serve

        options = EmulatorOptions(role=role, **given)
        if options.tls is None and options.host not in ("127.0.0.1", "::1", "localhost"):
            typer.echo(f"warning: {options.host} is open to the network without TLS", err=True)
        serve(options.plant(), options.labels, options)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    emulate_app.command(role.value, help=_ABOUT[role])(command)


for _role in EmulatorRole:
    _command(_role)
