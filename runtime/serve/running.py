"""The server as a process: session, port, log and signals."""

import logging
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from ..session import Session
from .application import application
from .server import Server
from .settings import Settings

log = logging.getLogger("ltbm.serve")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEEP_ALIVE_SECONDS = 15


def run_server(
    bundle: str, session_options: dict[str, Any], settings: Settings, host: str, port: int
) -> None:
    """Open the session, serve until SIGINT or SIGTERM, give requests their last seconds, close."""
    server = Server.open(lambda: Session.open(bundle, **session_options), settings)
    _log_to_stderr()
    try:
        if host not in LOOPBACK and settings.api_key is None:
            log.warning("warning: %s is reachable from the network without a key; set --api-key", host)
        with signals_end_in_order():
            _Uvicorn(uvicorn_config(server, host, port)).run()
    finally:
        server.close()


def uvicorn_config(server: Server, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        application(server),
        host=host,
        port=port,
        http="h11",
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(server.settings.limits.shutdown_seconds),
    )


class _Uvicorn(uvicorn.Server):
    """Says where it serves once the port is open."""

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        for listening in self.servers:
            for socket in listening.sockets:
                host, port = socket.getsockname()[:2]
                log.info("serving http://%s:%d/ (API at /v1)", f"[{host}]" if ":" in host else host, port)


@contextmanager
def signals_end_in_order() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more, for others; here it has done its work."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former):
            signal.signal(number, handler)


def _log_to_stderr() -> None:
    """One line a request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every piece sent to a client that went
    for name, level in (("ltbm.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
