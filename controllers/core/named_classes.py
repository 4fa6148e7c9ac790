"""Classes by name: those that ship, imported only when asked for, and a user's ``module:Class``.

`NamedClasses` is the registry of controllers and of detectors: one line per shipped class.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from controllers.core.errors import ControllerError
from grid_models.base.errors import nearest_name

T = TypeVar("T")


@dataclass(frozen=True)
class NamedClasses(Generic[T]):
    """Shipped classes of one protocol by name, and a user's own as ``module:Class``.

    Attributes
    ----------
    what : What the classes are, for messages: ``'controller'``.
    protocol : Full name of the protocol, for messages.
    methods, class_methods : What a class must have, with the arguments after self or cls.
    shipped : Name to (``module:Class``, one-line description).
    """

    what: str
    protocol: str
    methods: Mapping[str, str]
    shipped: Mapping[str, tuple[str, str]]
    class_methods: Mapping[str, str] = field(default_factory=dict)

    def descriptions(self) -> dict[str, str]:
        """Return the name of every shipped class with its description."""
        return {name: text for name, (_, text) in self.shipped.items()}

    def resolve(self, name: str) -> type[T]:
        """Return a class by its name; imports only that one.

        Raises ControllerError: The name is unknown, the module cannot be imported, it has no such
        class, or the class does not follow the protocol; the message says what is missing.
        """
        shipped = {known: target for known, (target, _) in self.shipped.items()}
        found = load_class(name, shipped, self.what)
        self._check(found, f"{self.what} '{name}'")
        return cast(type[T], found)

    def _check(self, found: type, where: str) -> None:
        wanted = {**self.class_methods, **self.methods}
        missing = [f"{m}({a})" for m, a in wanted.items() if not callable(getattr(found, m, None))]
        if missing:
            raise ControllerError(
                f"'{found.__name__}' is no {self.what}: it lacks " + " and ".join(missing),
                where=where,
                expected=f"a class that follows {self.protocol}",
            )
        for method in self.class_methods:
            if not isinstance(inspect.getattr_static(found, method), (classmethod, staticmethod)):
                raise ControllerError(
                    f"'{found.__name__}.{method}' needs an instance",
                    where=where,
                    expected="a classmethod: it is called before any instance exists",
                )
        for method, arguments in self.methods.items():
            count = 1 + len([a for a in arguments.split(", ") if not a.startswith("*")])
            try:
                signature = inspect.signature(getattr(found, method))
                # A required keyword is an option, which a scenario may give.
                bind = signature.bind_partial if method == "__init__" else signature.bind
                bind(*[None] * count)
            except TypeError as error:
                raise ControllerError(
                    f"'{found.__name__}.{method}' has another signature ({error})",
                    where=where,
                    expected=f"{method}(self, {arguments})",
                ) from None


def load_class(name: str, shipped: Mapping[str, str], what: str) -> type:
    """Return a class by its shipped name or as ``module:Class``; imports only that one.

    `what`: What it is the class of, for messages: ``'controller'``.

    Raises ControllerError: The name is unknown, the module cannot be imported, or it has no such
    class.
    """
    where = f"{what} '{name}'"
    module_name, colon, class_name = shipped.get(name, name).partition(":")
    if not colon or not module_name or not class_name:
        raise ControllerError(
            f"no such {what}",
            where=where,
            expected="one of " + ", ".join(shipped) + ", or 'module:Class'",
            nearest=nearest_name(name, shipped),
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail or exit on import
        raise ControllerError(
            f"module '{module_name}' cannot be imported ({type(error).__name__}: {error})",
            where=where,
            expected="an importable module, beside the file that names it or on PYTHONPATH",
        ) from error
    if not hasattr(module, class_name):
        classes = [n for n, obj in vars(module).items() if inspect.isclass(obj)]
        raise ControllerError(
            f"module '{module_name}' has no '{class_name}'",
            where=where,
            expected="the name of a class of the module",
            nearest=nearest_name(class_name, classes),
        )
    found = getattr(module, class_name)
    if not inspect.isclass(found):
        raise ControllerError(
            f"module '{module_name}' has no class '{class_name}', it is {type(found).__name__}, "
            "not a class",
            where=where,
            expected="the name of a class of the module",
        )
    return found
