"""Audio from a remote address: to the address that was checked, without redirects, within limits."""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urlsplit

from .errors import ApiError, invalid

PIECE = 2**16  # bytes


def fetch(url: str, param: str, most_bytes: int, seconds: float) -> bytes:
    """The bytes at an http or https address whose host is allowed; ApiError says what went wrong."""
    deadline = time.monotonic() + seconds
    connection = None
    try:
        connection = _connect(url, param, seconds)
        connection.request("GET", _target(url), headers={"accept": "audio/*", "user-agent": "ltbm"})
        response = connection.getresponse()
        if response.status != 200:
            raise invalid(
                param, f"the audio's server answered {response.status}, not 200; redirects are not followed"
            )
        return _read(response, param, most_bytes, deadline)
    except (OSError, http.client.HTTPException, ValueError):
        raise invalid(param, "the audio cannot be fetched", "fetch_failed") from None
    finally:
        if connection is not None:
            connection.close()


def _read(response: http.client.HTTPResponse, param: str, most_bytes: int, deadline: float) -> bytes:
    data = bytearray()
    while piece := response.read1(PIECE):
        data += piece
        if len(data) > most_bytes:
            raise ApiError(413, f"the audio is larger than {most_bytes} bytes", param, "too_large")
        if time.monotonic() > deadline:
            raise invalid(param, "the audio took too long to come", "fetch_failed")
    return bytes(data)


def _target(url: str) -> str:
    address = urlsplit(url)
    return (address.path or "/") + (f"?{address.query}" if address.query else "")


def _connect(url: str, param: str, seconds: float) -> http.client.HTTPConnection:
    """A connection to the host's address as it was looked up and checked: no second look-up follows."""
    address = urlsplit(url)
    host = address.hostname or ""
    https = address.scheme.lower() == "https"
    port = address.port or (443 if https else 80)
    sock = socket.create_connection((_public_address(host, port, param), port), timeout=seconds)
    if not https:
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
        connection.sock = sock
        return connection
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
    try:
        connection.sock = context.wrap_socket(sock, server_hostname=host)
    except OSError:
        sock.close()
        raise
    return connection


def _public_address(host: str, port: int, param: str) -> str:
    """The host's address; one that is not public only where it is written out, as it was allowed."""
    try:
        ipaddress.ip_address(host)
        return host
    except ValueError:
        pass
    for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = str(sockaddr[0])
        if not ipaddress.ip_address(found.partition("%")[0]).is_global:
            raise invalid(param, "the host's address is not public", "url_not_allowed")
        return found
    raise OSError("no address")
