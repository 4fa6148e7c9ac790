"""``feederate emulate``: emulated devices behind real Modbus/TCP, in a process of their own.

One command per role; their options come from the table in `hil.emulators.options`.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
import typer.core

from hil.emulators.options import EmulatorOptions, EmulatorRole, default_of, options_of


class _Emulated(typer.core.TyperGroup):
    """Takes ``emulate CONFIG`` for ``emulate device CONFIG``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and what is left of the arguments."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [EmulatorRole.device.value, *args]
        return super().resolve_command(ctx, args)


emulate_app = typer.Typer(
    cls=_Emulated,
    help="Emulated devices behind real Modbus/TCP, until SIGTERM or Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_ABOUT = {
    EmulatorRole.inverter: "PV inverters, SunSpec 701 to 713 and 715, after IEEE 1547-2018.",
    EmulatorRole.battery: "Batteries, SunSpec models of the inverter with 713 and 704 WSet.",
    EmulatorRole.thermostat: "Thermostats with CTA-2045 verbs, each in a house.",
    EmulatorRole.device: "Devices of a configuration; 'emulate CONFIG' is the same.",
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
        default = default_of(option.name, role)
        if known["argument"]:
            setting = typer.Argument(help=known["help"], metavar=known["metavar"])
            default = inspect.Parameter.empty
        parameters.append(
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
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
