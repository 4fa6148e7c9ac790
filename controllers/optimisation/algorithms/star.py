"""Members of a dispatch and their coordinator as a controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controllers.core.agent_rows import AgentRows, Kind, RowController, Team
from controllers.core.mail import IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.problems.dispatch import Dispatch


def star_of(
    problem: Dispatch,
    members: Callable[[IntArray], AgentRows],
    coordinator: Callable[[], AgentRows],
    widths: tuple[int, int],
    waiting: Waiting | None,
    tolerance: float,
    hosted: Sequence[str] | None,
) -> RowController:
    """Return the members of a dispatch and their coordinator, which is named so.

    members, coordinator : Build them; members from their positions in the problem.
    widths : Numbers of a message of a member and of the coordinator.
    """
    team = Team.star(
        (*problem.names, "coordinator"),
        Kind(problem.size, widths[0], members),
        Kind(1, widths[1], lambda _: coordinator()),
    )
    return RowController(team, hosted, waiting=waiting, tolerance=tolerance)
