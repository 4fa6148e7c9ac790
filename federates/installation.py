"""Is the installation whole? Most of the packages have generic names that others may also use.

A folder called ``controllers`` on PYTHONPATH, or another distribution that ships one, would be
imported in place of ours and fail far away from the cause. So the command line asks this first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("grid_models", "controllers", "hil", "federates", "feederate")


class InstallationError(Exception):
    """The packages do not belong together.

    Not a `FeederateError`: that class lies in one of the packages that may be the wrong one.
    """


def check_installation(packages: Sequence[str] = PACKAGES) -> Path:
    """Return the folder that holds the packages; imports none of them.

    Parameters
    ----------
    packages : sequence of str
        Import names that belong together.

    Raises
    ------
    InstallationError
        One of them is missing, or lies in another folder; the message gives both paths.
    """
    return common_parent({name: _folder(name) for name in packages})


def common_parent(folders: Mapping[str, Path | None]) -> Path:
    """Return the folder that all packages lie in (`folders` maps import names to packages).

    Raises
    ------
    InstallationError
        As `check_installation`.
    """
    ours = Path(__file__).resolve().parents[1]
    for name, folder in folders.items():
        if folder is None:
            raise InstallationError(
                f"the package '{name}' is missing from {ours}; expected " + ", ".join(folders)
            )
        if folder.parent != ours:
            raise InstallationError(
                f"Python finds another package called '{name}' in {folder}; expected the one in "
                f"{ours / name}; take {folder.parent} off PYTHONPATH, or uninstall that package"
            )
    return ours


def _folder(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.origin is not None:
        return Path(spec.origin).resolve().parent
    # A folder without __init__.py: not ours, but found all the same.
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]).resolve() if places else None
