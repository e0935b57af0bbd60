"""A server of `ltbm serve` in a thread, and the official client pointed at it."""

import base64
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import uvicorn

from ltbm.runtime.serve.running import uvicorn_config
from ltbm.runtime.serve.server import Server
from ltbm.runtime.serve.settings import Settings
from ltbm.runtime.session import Session

QUESTION = "What do you hear ?"


@dataclass
class Address:
    """A server that listens on a port of this machine."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, api_key: str = "none", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def post_raw(self, body: dict) -> socket.socket:
        """A chat request on a socket of its own, its answer not read."""
        data = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        connection = self.connect()
        connection.sendall(head.encode() + data)
        return connection

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict, bytes]:
        """Status, headers and body of a request with nothing done to it on the way."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def post(self, body: dict, path: str = "/v1/chat/completions") -> tuple[int, dict]:
        """Status and object of a JSON request."""
        status, _, answer = self.request(
            "POST", path, json.dumps(body).encode(), content_type="application/json"
        )
        return status, json.loads(answer)


@dataclass
class LiveServer(Address):
    """A server in a thread of this process."""

    server: Server
    uvicorn: uvicorn.Server

    def wait_until(self, running: int, queued: int, seconds: float = 60.0) -> float:
        """Wait until so many requests run and wait; the seconds that it took."""
        engine = self.server.engine
        begun = time.perf_counter()
        while (engine.running, engine.queued) != (running, queued):
            waited = time.perf_counter() - begun
            assert waited < seconds, f"{engine.running} run and {engine.queued} wait"
            time.sleep(0.001)
        return time.perf_counter() - begun


@dataclass
class ServerProcess(Address):
    """`ltbm serve` in a process of its own; `log` is what it has printed so far."""

    process: subprocess.Popen
    log: list[str]


class SlowSession(Session):
    """A session whose tokens take their time, and which counts its requests."""

    seconds = 0.05  # a token
    requests = 0

    def respond(self, request, clock):
        SlowSession.requests += 1
        pieces = super().respond(request, clock)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                return stop.value
            yield piece
            time.sleep(self.seconds)


@contextmanager
def serving(
    bundle: Path, settings: Settings | None = None, session: type[Session] = Session
) -> Iterator[LiveServer]:
    """A server over `bundle`, closed at the end."""
    server = Server.open(lambda: session.open(bundle), settings or Settings())
    running = uvicorn.Server(uvicorn_config(server, "127.0.0.1", 0))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield LiveServer(port, server, running)
    finally:
        running.should_exit = True
        thread.join(timeout=30)
        server.close()


@contextmanager
def server_process(bundle: Path, *flags: str) -> Iterator[ServerProcess]:
    """The command itself; at the end it gets SIGTERM and has to end in order."""
    code = "import sys; from ltbm.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", str(bundle), "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    try:
        yield ServerProcess(_announced_port(process, log), process, log)
        process.terminate()
        assert process.wait(timeout=30) == 0, "".join(log)
    finally:
        process.kill()
        process.wait()


def _announced_port(process: subprocess.Popen, log: list[str]) -> int:
    """The port in the line that says where it serves; what it prints is read on in a thread."""
    assert process.stderr is not None
    for line in process.stderr:
        log.append(line)
        if match := re.search(r"http://[^/]+:(\d+)/", line):
            threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True).start()
            return int(match.group(1))
    raise AssertionError("".join(log))


def audio_part(path: Path) -> dict:
    """A file as a content part of a message."""
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": path.suffix[1:]}}


def question(*audios: Path, text: str = QUESTION) -> list[dict]:
    """One message of the user's: audios, then the text."""
    parts = [audio_part(path) for path in audios]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
