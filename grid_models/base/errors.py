"""Errors that a user can act on.

FeederateError                  root of every public failure; says what, where, expected, nearest
|-- GridModelError              a feeder, DER or profile cannot be used
|   |-- FeederError             a table or an OpenDSS file does not give a usable feeder
|   |-- TopologyError           the feeder is not radial, or not connected, where it must be
|   |-- ProfileError            a profile table is malformed or does not cover the run
|   `-- PowerFlowError          a power flow did not converge
`-- (controllers.core.errors.ControllerError, federates.errors.*, each in its own package)
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

_SHOWN = 8  # names in a message
# Of asyncio, which leaves out the reason; and of OSError, ssl.SSLError.
_NO_CONNECT = re.compile(r"\[Errno (\d+)\] Connect call failed \([^)]*\)")
_NUMBERS = re.compile(r"\[(?:Errno (?:-?\d+|None)|SSL[^\]]*)\] | \(_ssl\.c:\d+\)")


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` was most probably meant to be, or None."""
    pool = {c.lower(): c for c in candidates}
    # One wrong letter of two is still near; half of the letters of a long name are not.
    cutoff = 0.5 if len(str(name)) < 5 else 0.6
    hits = difflib.get_close_matches(str(name).lower(), pool, n=1, cutoff=cutoff)
    return pool[hits[0]] if hits else None


def nearest_hint(name: str, candidates: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` with the nearest candidate, '' where none is near."""
    near = nearest_name(name, candidates)
    return f"; did you mean '{near}'?" if near else ""


def listed(names: Sequence[str], shown: int = 12) -> str:
    """Return names separated by commas; of a long list the first ones and how many more."""
    text = ", ".join(names[:shown])
    rest = len(names) - shown
    return f"{text} and {rest} more" if rest > 0 else text


def nothing_called(where: str, what: str, glob: str, names: Iterable[str]) -> str:
    """Say that a glob matches nothing, with some valid names and the nearest."""
    known = list(dict.fromkeys(names))
    some = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    text = f"{where}: no {what} matches '{glob}'; expected a glob over {some or '(there is none)'}"
    return text + nearest_hint(glob, known)


def reason_of(error: BaseException) -> str:
    """Return why a call failed, in the system's words without its numbers: ``Connection refused``.

    '' where the error says nothing.
    """
    text = _NO_CONNECT.sub(lambda found: os.strerror(int(found[1])), str(error))
    return _NUMBERS.sub("", text).strip()


def described(what: str, expected: str | None = None, nearest: str | None = None) -> str:
    """Return ``what; expected ...; did you mean '...'?``, the parts that there are."""
    text = f"{what}; expected {expected}" if expected else what
    return f"{text}; did you mean '{nearest}'?" if nearest else text


class FeederateError(Exception):
    """A failure with what a user needs to correct it.

    Parameters
    ----------
    what : What went wrong, one sentence without a final stop.
    where : File, key, label, device or federate: the place to look at.
    expected : What would have been accepted.
    nearest : The nearest valid name, where a name was not found.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        nearest: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.nearest = nearest
        super().__init__(what)

    def __str__(self) -> str:
        text = described(self.what, self.expected, self.nearest)
        return f"{self.where}: {text}" if self.where else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled whole, for pools of processes: the arguments of subclasses differ.
        return _copied, (type(self), self.args, self.__dict__)


def _copied(kind: type[FeederateError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class GridModelError(FeederateError):
    """Root of this package's errors."""


class FeederError(GridModelError):
    """A table or an OpenDSS file does not give a usable feeder."""


class TopologyError(GridModelError):
    """The feeder is meshed or disconnected where a radial one is needed."""


class ProfileError(GridModelError):
    """A profile table is malformed or does not cover the run."""


class PowerFlowError(GridModelError):
    """A power flow did not converge."""
