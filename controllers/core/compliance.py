"""The compliance test of the controller protocol, for shipped and third-party controllers.

In a script or a test::

    from controllers.core.compliance import check_controller
    check_controller(MyDroop, gain=10.0)          # raises ComplianceError with all findings

On the command line::

    python -m controllers.core.compliance my_droop:MyDroop --option gain=10

The checks run on a built-in five-bus site (`controllers.core.sample_site`) unless another is
given, and carry mail in process over links that lose, delay and repeat it; no federation is
started.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controllers.core.compliance_checks import CHECKS, Subject, check_construction
from controllers.core.errors import ControllerError
from controllers.core.protocol import Controller, ControlSite
from controllers.core.registry import resolve
from controllers.core.sample_site import sample_site
from grid_models.base.errors import FeederateError


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of one check: `findings` is empty when it passed."""

    name: str
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class ComplianceError(ControllerError, AssertionError):
    """A controller breaks the protocol; `checks` holds every check, the failed ones included."""

    def __init__(self, controller: str, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        self.findings = tuple(f"{c.name}: {f}" for c in checks for f in c.findings)
        lines = "".join(f"\n  - {finding}" for finding in self.findings)
        super().__init__(f"{len(self.findings)} findings{lines}", where=f"controller {controller}")


def check_controller(
    controller: type[Controller] | str, site: ControlSite | None = None, **options: Any
) -> tuple[Check, ...]:
    """Check that a controller follows `controllers.core.protocol` and return what was checked.

    Parameters
    ----------
    site : Default: the built-in five-bus site.
    **options
        The controller's own options.

    Raises
    ------
    ComplianceError
        Something was found (also an AssertionError, for pytest); it lists every finding.
    ControllerError: There is no such controller.
    """
    checks = examine_controller(controller, site, **options)
    if not all(check.passed for check in checks):
        raise ComplianceError(_name(controller), checks)
    return checks


def examine_controller(
    controller: type[Controller] | str, site: ControlSite | None = None, **options: Any
) -> tuple[Check, ...]:
    """Run every check and return the outcomes; see `check_controller`.

    When the controller cannot be constructed the other checks do not run.
    """
    cls = resolve(controller) if isinstance(controller, str) else controller
    subject = Subject(cls, sample_site() if site is None else site, options)
    first = _run("construction", check_construction, subject)
    if not first.passed:
        return (first,)
    return (first, *(_run(name, check, subject) for name, check in CHECKS.items()))


def _run(name: str, check: Callable[[Subject], list[str]], subject: Subject) -> Check:
    try:
        found = check(subject)
    except Exception as error:  # a third party's code may fail in any way; that is a finding
        found = [f"raised {type(error).__name__}: {error}{_place(error)}"]
    return Check(name, tuple(found))


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" (in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})"


def _name(controller: type[Any] | str) -> str:
    return controller if isinstance(controller, str) else controller.__name__


# --- command line --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a controller and print the outcomes; return 0 when all passed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m controllers.core.compliance",
        description="Check that a controller follows the protocol.",
    )
    parser.add_argument("controller", help="module:Class, or the name of a shipped controller")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="passed to the class"
    )
    given = parser.parse_args(arguments)
    try:
        options = dict(_option(text) for text in given.option)
        checks = examine_controller(given.controller, **options)
    except FeederateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.name:<{width}}  {'pass' if check.passed else 'FAIL'}")
        for finding in check.findings:
            print(f"{'':<{width}}    {finding}")
    failed = sum(not check.passed for check in checks)
    print(f"{given.controller}: {len(checks) - failed} checks passed, {failed} failed")
    return 1 if failed else 0


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ControllerError(f"'{text}' is no option", where="--option", expected="KEY=VALUE")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, {"true": True, "false": False}.get(value, value)


if __name__ == "__main__":
    sys.exit(main())
