"""Who waits for whom, from heartbeats alone.

A federate that is granted time t reads what was published before t. So it waits for those it reads
from whose own next step is earlier; how many steps each has done says which step that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from federates.clock import to_s
from federates.live.roster import HERE

STEPS, WAITS, DONE, UNSEEN = "steps", "waits", "done", "unseen"


def who_waits(
    federates: Sequence[Mapping[str, Any]],
    beats: Sequence[Sequence[int]],
    now_ns: int,
    *,
    paused: bool,
    paced: bool,
    one_loop: bool = False,
) -> list[dict[str, Any]]:
    """Return what each federate does: its last granted time, its next one, and what it waits for.

    Parameters
    ----------
    federates : As `federates.live.roster.roster_of` describes them.
    beats : (busy since, steps, messages) per row of the heartbeat table.
    now_ns : Monotonic time.
    one_loop : Whether one loop steps all of them in time order, so that each waits for all.
    """
    by_name = {f["name"]: f for f in federates}
    next_ns = {f["name"]: _next_ns(f, beats) for f in federates if f["where"] == HERE}
    begun = any(since or steps for since, steps, _ in beats)
    out = []
    for federate in federates:
        name = federate["name"]
        entry = {"name": name, "where": federate["where"], "for": [], "busy_s": 0.0}
        if federate["where"] != HERE:
            out.append(entry | {"does": UNSEEN, "granted_s": None, "next_s": None, "steps": None})
            continue
        since, steps, messages = beats[federate["row"]]
        done = steps if since else steps - 1
        granted_ns = federate["offset_ns"] + done * federate["period_ns"]
        mine = next_ns[name]
        entry |= {
            "steps": steps,
            "messages": messages,
            "granted_s": to_s(granted_ns) if since or steps else None,
            "next_s": to_s(mine) if mine is not None else None,
        }
        if mine is None:
            out.append(entry | {"does": DONE})
        elif since:
            out.append(entry | {"does": STEPS, "busy_s": (now_ns - since) / 1e9})
        else:
            blockers = [
                source
                for source in (next_ns if one_loop else federate["reads"])
                if (other := next_ns.get(source)) is not None and other < mine
            ]
            strangers = [x for x in federate["reads"] if by_name[x]["where"] != HERE]
            if not begun:  # HELICS starts all of them together
                blockers = [f["name"] for f in federates if f["where"] != HERE]
            wall = paced and federate["row"] == 0
            held = "pause" if paused else "wall clock" if wall else None
            out.append(entry | {"does": WAITS, "for": blockers or strangers, "held_by": held})
    return out


def _next_ns(federate: Mapping[str, Any], beats: Sequence[Sequence[int]]) -> int | None:
    """Return the time of the step that a federate does or will do next; None after its last."""
    _, steps, _ = beats[federate["row"]]
    if steps >= federate["steps"]:
        return None
    return int(federate["offset_ns"] + steps * federate["period_ns"])
