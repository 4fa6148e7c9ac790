"""The live page's process: ``python -m federates.live.server``, started by `federates.live.page`.

Protocol: one JSON line on standard input with the run's roster. It serves until standard input
ends, shows the end of the run to those that look, and ends. ``stop`` on standard output asks the
run to end.

It only reads what the run writes anyway. The one thing that it writes is the order to pause, in the
heartbeat table; if it is killed, the parent takes that order back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import secrets
import socket
import time
import traceback
from collections.abc import AsyncIterator
from functools import partial
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from federates.live.state import RunView
from grid_models.base.parent import unbuffered_stdin, watch_parent

LOOK_S = 1.0
_FAREWELL_S = 0.7
"""A page that draws comes back within this time, and then learns the end of the run."""
_NICE = 5
_KEY = "x-feederate-key"
_FILES = {
    "/": ("federates.live", "static/live.html", "text/html"),
    "/live.js": ("federates.live", "static/live.js", "text/javascript"),
    "/live.css": ("federates.live", "static/live.css", "text/css"),
    "/tables.js": ("federates.reports", "templates/tables.js", "text/javascript"),
    "/time_charts.js": ("federates.reports", "templates/time_charts.js", "text/javascript"),
    "/page.css": ("federates.reports", "templates/page.css", "text/css"),
    "/uplot.js": ("federates.reports", "vendor/uplot/uPlot.iife.min.js", "text/javascript"),
    "/uplot.css": ("federates.reports", "vendor/uplot/uPlot.min.css", "text/css"),
}
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


class LiveServer:
    """Answers the page's requests about one run."""

    def __init__(self, job: dict[str, Any], tell: Any) -> None:
        self.view = RunView(job["roster"])
        self._key, self._open, self._tell = job["key"], job["loopback"], tell
        self._looked = asyncio.Condition()
        self._asked_s = -math.inf
        self.app = Starlette(
            routes=[
                *(Route(path, partial(self._file, path)) for path in _FILES),
                Route("/run", self._run),
                Route("/grid", self._grid),
                Route("/state", self._state),
                Route("/{order:str}", self._order, methods=["POST"]),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=job["hosts"])],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._look())
        yield
        looking.cancel()

    async def _look(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:  # a file that cannot be read now may be readable at the next look
                traceback.print_exc()
            await asyncio.sleep(LOOK_S)

    async def refresh(self) -> None:
        """Read the run again, and answer those that wait for it."""
        self.view.look()
        async with self._looked:
            self._looked.notify_all()

    async def end(self) -> None:
        """Show the end of the run to the pages that are open."""
        self.view.ended = True
        await self.refresh()
        if time.monotonic() - self._asked_s < 3.0 * LOOK_S:
            await asyncio.sleep(_FAREWELL_S)

    async def _file(self, path: str, _: Request) -> Response:
        package, name, media_type = _FILES[path]
        text = (resources.files(package) / name).read_text(encoding="utf-8")
        return Response(text, media_type=media_type, headers=_HEADERS)

    async def _run(self, _: Request) -> Response:
        """Return what does not change, and the key of the buttons where everybody may have it."""
        roster = {k: v for k, v in self.view.roster.items() if k != "devices"}
        # Other sites cannot read an answer of this one, so the key keeps them from its buttons.
        key = self._key if self._open else None
        return JSONResponse(roster | {"key": key, "recorded": self.view.recorded()})

    async def _grid(self, request: Request) -> Response:
        return JSONResponse(self.view.grid(self._plant(request)))

    async def _state(self, request: Request) -> Response:
        """Return the state at the next look; at once for the first request of a page."""
        self._asked_s = time.monotonic()
        if "first" not in request.query_params and not self.view.ended:
            async with self._looked:
                await self._looked.wait()
        wanted = request.query_params.getlist("curve")[:8]
        return JSONResponse(self.view.state(wanted, self._plant(request)), headers=_HEADERS)

    def _plant(self, request: Request) -> str:
        plants = self.view.roster["plants"]
        asked = request.query_params.get("plant", "")
        return asked if asked in plants else next(iter(plants), "")

    async def _order(self, request: Request) -> Response:
        order, view = request.path_params["order"], self.view
        if not secrets.compare_digest(request.headers.get(_KEY, ""), self._key):
            return JSONResponse({"error": "open the printed address to use the buttons"}, 403)
        if not view.running():
            return JSONResponse({"error": "the run has ended"}, 409)
        if order == "stop":
            self._tell("stop")
        elif order == "resume":
            view.progress.resume()
        elif order == "pause" and not view.roster["spans_hosts"]:
            view.progress.pause()
        else:
            return JSONResponse({"error": f"no such order here: {order}"}, 404)
        return JSONResponse({"done": order})


async def serve(job: dict[str, Any], tell: Any) -> None:
    """Serve until standard input ends."""
    live = LiveServer(job, tell)
    config = uvicorn.Config(
        live.app, ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    async def end() -> None:
        await live.end()
        server.should_exit = True

    def ended() -> None:
        asyncio.run_coroutine_threadsafe(end(), loop)

    watch_parent(ended)
    with socket.socket(fileno=job["socket"]) as listening:
        await server.serve(sockets=[listening])


def main() -> None:
    """Read the job and serve."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.nice(_NICE)  # the run goes first

    def tell(word: str) -> None:
        with contextlib.suppress(OSError):
            print(word, file=out, flush=True)

    with unbuffered_stdin() as stdin:
        job = json.loads(stdin.readline())
    asyncio.run(serve(job, tell))


if __name__ == "__main__":
    main()
