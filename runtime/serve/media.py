"""Where a request's audio comes from: base64 in the body, a data: URL, or what the server's flags allow."""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from .errors import ApiError, invalid
from .fetching import fetch
from .fields import Fields
from .settings import Limits, Media

FORMATS = ("wav", "flac", "ogg", "opus", "mp3")
FORMAT_NAMES = "WAV, FLAC, OGG/Opus and MP3"
PIECE = 2**20  # characters of base64 decoded at once: other threads go on in between


@dataclass(frozen=True)
class AudioSource:
    """One audio of a request, not yet read. One of the four is set.

    param: the request's field, for messages
    """

    param: str
    base64: str | None = None
    data: bytes | None = None
    url: str | None = None
    file: Path | None = None


def read_input_audio(part: Fields) -> AudioSource:
    """`input_audio`: base64 and the name of its format, which the bytes themselves decide."""
    part.only(("data", "format"))
    part.required("data")
    if part.text("format", "wav").lower() not in FORMATS:
        raise part.wrong("format", f"one of {', '.join(FORMATS)}; the server reads {FORMAT_NAMES}")
    return AudioSource(part.param("data"), base64=part.text("data"))


def read_audio_url(part: Fields, media: Media) -> AudioSource:
    """`audio_url`: data:, and http:, https: and file: where they are allowed."""
    part.only(("url",))
    part.required("url")
    url = part.text("url")
    param = part.param("url")
    scheme = url[:10].partition(":")[0].lower()
    if scheme == "data":
        return _data_url(url, param)
    try:
        address = urlsplit(url)
        host = (address.hostname or "").lower()
        address.port  # noqa: B018  ValueError where it is not a number
    except ValueError:
        raise invalid(param, "the address is not a URL") from None
    if scheme in ("http", "https"):
        if host not in media.hosts:
            raise invalid(param, "audio is not fetched from this host: it is not allowed", "url_not_allowed")
        return AudioSource(param, url=url)
    if scheme == "file" and media.folder is not None:
        return AudioSource(param, file=_allowed_file(address.path, media.folder, param))
    raise invalid(param, "only data: addresses are taken here", "url_not_allowed")


def read_source(source: AudioSource, limits: Limits) -> bytes:
    """The bytes; to be called off the event loop."""
    if source.data is not None:
        return source.data
    if source.base64 is not None:
        return decode_base64(source.base64, source.param)
    if source.file is not None:
        return _read_file(source.file, source.param, limits.body_bytes)
    assert source.url is not None, "one of the four is set"
    return fetch(source.url, source.param, limits.body_bytes, limits.fetch_seconds)


def decode_base64(text: str, param: str) -> bytes:
    """The bytes in `text`; ApiError where it is not base64."""
    decoded = bytearray()
    try:
        for start in range(0, len(text), PIECE):
            decoded += base64.b64decode(text[start : start + PIECE], validate=True)
    except (binascii.Error, ValueError):
        raise invalid(param, f"{param} is not base64", "invalid_base64") from None
    return bytes(decoded)


def _data_url(url: str, param: str) -> AudioSource:
    head, comma, data = url.partition(",")
    if not comma:
        raise invalid(param, "a data: address has a comma before its data")
    if head.lower().endswith(";base64"):
        return AudioSource(param, base64=data)
    return AudioSource(param, data=unquote_to_bytes(data))


def _allowed_file(path: str, folder: Path, param: str) -> Path:
    """A file under `folder`, links resolved; which files there are is not told."""
    try:
        file = Path(unquote_to_bytes(path).decode()).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            return file
    except (OSError, ValueError):
        pass
    raise invalid(param, "no such file where files are allowed", "url_not_allowed")


def _read_file(file: Path, param: str, most_bytes: int) -> bytes:
    try:
        with open(file, "rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError:
        raise invalid(param, "the file cannot be read") from None
    if len(data) > most_bytes:
        raise ApiError(413, f"the file is larger than {most_bytes} bytes", param, "too_large")
    return data
