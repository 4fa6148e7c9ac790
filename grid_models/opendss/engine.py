"""The OpenDSS engine: one context with the few calls that are needed, errors as `DssError`.

The only module that imports the engine. Each `Engine` has a context of its own, so several live
side by side, in one thread or in many. One context belongs to one thread at a time.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grid_models.base.errors import PowerFlowError
from grid_models.opendss.environment import existing, settle_environment

MAX_ITERATIONS = 100
MAX_CONTROL_ITERATIONS = 100
_CONTROLS_UNSETTLED = 485  # the engine's number of this error


class DssError(Exception):
    """The engine refused a command."""


# Contexts that wait for another circuit: to make one takes 10 ms, a tenth of building a feeder.
_idle: list[Any] = []
_MOST_IDLE = 2
_disposing = threading.RLock()


def _let_go(dss: Any, own: bool) -> None:
    """Keep a context for the next circuit if only this package's commands ran in it."""
    if own and len(_idle) < _MOST_IDLE:
        _idle.append(dss)
    else:
        _dispose(dss)


def _dispose(dss: Any) -> None:
    """End a context now. Nothing may use it afterwards.

    The engine's Python layers keep every context for ever (2.5 MB for each circuit of a sweep):
    three tables map it weakly to objects that hold it strongly. They also end it wrongly: their
    destructors register the callbacks again, in whichever thread the garbage collector runs, and a
    process with circuits in several threads crashes.
    """
    from dss_python_backend.events import (  # type: ignore[import-untyped]
        EventCallbackManager,
    )

    util = dss._api_util
    with _disposing:
        manager = _callbacks(dss)
        manager.unregister_all()
        # What their destructors call later would use a context that is gone.
        util.unregister_callbacks = manager.unregister_all = _nothing
        for holder, table in (
            (type(dss), "_ctx_to_dss"),
            (type(util), "_ctx_to_util"),
            (EventCallbackManager, "_ctx_to_manager"),
        ):
            # A later version without such a table has nothing to forget.
            getattr(holder, table, {}).pop(util.ctx, None)
        util.ffi.release(util.ctx)


def _callbacks(dss: Any) -> Any:
    """Return what holds the Python functions that the engine calls.

    Nothing here needs these, and an interrupt (Ctrl-C) while one of them runs would be lost.
    """
    from dss_python_backend.events import get_manager_for_ctx

    return get_manager_for_ctx(dss._api_util.ctx)


def _nothing() -> None:
    """Do nothing."""


def _opendssdirect() -> Any:
    """Import the engine without pandas, which it would import for tables that nothing here reads.

    Where pandas is installed, its import takes several times as long as the engine's.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import opendssdirect
    finally:
        sys.meta_path.remove(finder)
    return opendssdirect


class _NoPandas:
    """Hides pandas from imports of the thread that made this; other threads may import it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


class Engine:
    """One engine context with the few calls that are needed, errors as `DssError`.

    Parameters
    ----------
    own : Whether only this package's commands will run in it, ``clear`` first. Files of the user's
        may set what outlives their circuit, so that no other may follow in the same context.
    """

    def __init__(self, *, own: bool = False) -> None:
        settle_environment()
        engine = _opendssdirect().dss
        # Process-wide in the engine: neither a new context nor a master file may move the process
        # to another folder, and no file may open an editor.
        engine.Basic.AllowChangeDir(False)
        engine.Basic.AllowEditor(False)
        engine.Basic.AllowForms(False)
        with existing(Path(engine.Basic.DataPath())):
            self.dss: Any = _idle.pop() if own and _idle else engine.NewContext()
        _callbacks(self.dss).unregister_all()
        util = self.dss._api_util
        self.lib: Any = util.lib_unpatched
        self.ffi: Any = util.ffi
        self.ctx: Any = util.ctx
        self._error_number: Any = self.lib.ctx_Error_Get_NumberPtr(self.ctx)
        self.controls_settled = True
        weakref.finalize(self, _let_go, self.dss, own).atexit = False

    def take_error(self) -> str | None:
        """Return the engine's pending error message, if any, and clear it."""
        if self._error_number[0] == 0:
            return None
        self._error_number[0] = 0
        text = self.ffi.string(self.lib.ctx_Error_Get_Description(self.ctx))
        return " ".join(text.decode("utf-8", "replace").split())

    def command(self, text: str) -> str:
        """Run one command and return its result."""
        self.lib.ctx_Text_Set_Command(self.ctx, text.encode())
        message = self.take_error()
        if message is not None:
            raise DssError(message)
        result = self.lib.ctx_Text_Get_Result(self.ctx)
        if result == self.ffi.NULL:
            return ""
        return str(self.ffi.string(result).decode(errors="replace"))

    def value(self, element: str, name: str) -> str:
        """Return a property of an element, ``load.l1``, as text; it becomes the active one."""
        # Not '? load.l1.kw': names may hold blanks and dots.
        self.command(f'select "{element}"')
        return self.command(f"? {name}")

    def times_counted(self) -> float:
        """Return how often the engine counts each power: in a positive-sequence circuit 3 times."""
        return 3.0 if int(self.dss.Settings.CktModel()) == 1 else 1.0

    def circuit_name(self) -> str:
        """Return the name of the circuit, or '' where there is none."""
        return str(self.dss.Circuit.Name()) if self.dss.Basic.NumCircuits() else ""

    def handles(self, kind: str, names: Sequence[str]) -> Any:
        """Return a C array of the engine's objects `names` of class `kind`."""
        class_index = self.lib.ctx_DSS_SetActiveClass(self.ctx, kind.encode())
        found = [self.lib.Obj_GetHandleByName(self.ctx, class_index, n.encode()) for n in names]
        message = self.take_error()
        if message is not None:
            raise DssError(message)
        return self.ffi.new("void*[]", found)

    def property_index(self, kind: str, name: str) -> int:
        """Return the engine's number of a property of a class."""
        self.lib.ctx_DSS_SetActiveClass(self.ctx, kind.encode())
        self.dss.ActiveClass.First()
        names = [str(n).lower() for n in self.dss.Element.AllPropertyNames()]
        return names.index(name) + 1

    def first_solution(self, name: str, *, control_mode: str) -> None:
        """Solve a compiled file as it stands, in snapshot mode.

        `control_mode`: 'static' lets the file's controls act until they have settled, 'off' not at
        all, the others as far as their delays let them.

        Raises PowerFlowError: It did not converge; the message names circuit `name`.
        """
        self.command("set mode=snapshot")
        self.command(f"set controlmode={control_mode}")
        self.command(f"set maxiterations={MAX_ITERATIONS}")
        self.command(f"set maxcontroliter={MAX_CONTROL_ITERATIONS}")
        self.lib.ctx_Solution_Solve(self.ctx)
        message = self.solution_error()
        if message is not None:
            raise PowerFlowError(
                f"the power flow did not converge{': ' + message if message else ''}",
                where=f"circuit '{name}'",
            )

    def solution_error(self) -> str | None:
        """Return None when the last solution converged, else the message ('' without one).

        Controls that did not settle leave a converged power flow: `controls_settled` is then False.
        """
        self.controls_settled = self._error_number[0] != _CONTROLS_UNSETTLED
        message = self.take_error()
        if message is not None and self.controls_settled:
            return message
        converged = self.lib.ctx_Solution_Get_Converged(self.ctx)
        if not self.controls_settled:
            # The engine gives up every later solution, until a run of solutions begins: here of 0.
            self.command("set number=0")
            self.lib.ctx_Solution_Solve(self.ctx)
            self.command("set number=1")
        return None if converged else ""
