"""Remote audio: only from hosts that are allowed, never from the inside, without redirects, within limits."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ltbm.runtime.serve import fetching
from ltbm.runtime.serve.errors import ApiError
from ltbm.runtime.serve.fetching import fetch
from ltbm.runtime.serve.settings import Media, Settings
from tests.support.serving import QUESTION, question, serving


@pytest.fixture(scope="module")
def remote(clips):
    """A web server on this machine with one clip."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/clip.flac":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(clips[0].read_bytes())
            elif self.path == "/away":
                self.send_response(302)
                self.send_header("location", "/clip.flac")
                self.end_headers()
            elif self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            else:
                self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def get(url: str, most_bytes: int = 2**20, seconds: float = 5) -> bytes:
    return fetch(url, "url", most_bytes, seconds)


def test_an_allowed_host(demo, clips, remote):
    settings = Settings(media=Media(hosts=frozenset(["127.0.0.1"])))
    part = {"type": "audio_url", "audio_url": {"url": f"http://127.0.0.1:{remote}/clip.flac"}}
    with serving(demo, settings) as server, server.client() as client:
        content = [part, {"type": "text", "text": QUESTION}]
        answer = client.chat.completions.create(model="ltbm", messages=[{"role": "user", "content": content}])
        same = client.chat.completions.create(model="ltbm", messages=question(clips[0]))
        assert answer.choices == same.choices
        part["audio_url"]["url"] = f"http://localhost:{remote}/clip.flac"
        status, error = server.post({"model": "ltbm", "messages": [{"role": "user", "content": content}]})
        assert status == 400 and error["error"]["code"] == "url_not_allowed"


def test_a_name_of_a_private_address(remote):
    with pytest.raises(ApiError, match="not public"):
        get(f"http://localhost:{remote}/clip.flac")


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "100.64.0.1", "0.0.0.0"]
)
def test_a_name_that_resolves_to_the_inside(monkeypatch, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(family, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ApiError, match="not public"):
        get("http://rebound.example/")


def test_redirects_are_not_followed(remote):
    with pytest.raises(ApiError, match="302"):
        get(f"http://127.0.0.1:{remote}/away")


def test_errors_of_the_host(remote):
    with pytest.raises(ApiError, match="404"):
        get(f"http://127.0.0.1:{remote}/none")


def test_more_bytes_than_are_taken(remote):
    with pytest.raises(ApiError, match="larger") as caught:
        get(f"http://127.0.0.1:{remote}/clip.flac", most_bytes=1000)
    assert caught.value.status == 413


def test_a_slow_host_is_left(remote):
    begun = time.monotonic()
    with pytest.raises(ApiError, match="too long"):
        get(f"http://127.0.0.1:{remote}/slow", seconds=0.5)
    assert time.monotonic() - begun < 10  # of the 20 s that it would take


def test_nobody_there():
    with pytest.raises(ApiError, match="cannot be fetched"):
        get("http://127.0.0.1:1/")
