"""Classes by name: those that ship, imported only when asked for, and a user's ``module:Class``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

from controllers.core.errors import ControllerError
from grid_models.base.errors import nearest_name


def load_class(name: str, shipped: Mapping[str, str], what: str) -> type:
    """Return a class by its shipped name or as ``module:Class``; imports only that one.

    Parameters
    ----------
    what : What it is the class of, for messages: ``'controller'``.

    Raises
    ------
    ControllerError: The name is unknown, the module cannot be imported, or it has no such class.
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
    except Exception as error:  # a user's module may fail in any way while it is imported
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
