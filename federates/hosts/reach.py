"""Which part of a federation runs on this host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """Which part of a federation runs here, for runs that span several hosts.

    `join` is the URL of a HELICS broker that runs elsewhere, `listen` the URL at which this host
    runs the broker, `only` the names (or groups) of the federates to run here; None means all.
    """

    join: str | None = None
    listen: str | None = None
    only: tuple[str, ...] | None = None

    @property
    def here_only(self) -> bool:
        """Whether the whole federation runs on this host."""
        return self.join is None and self.listen is None and self.only is None
