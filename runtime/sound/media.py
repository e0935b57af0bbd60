"""What libsndfile does not read (m4a, aac, webm, amr), through PyAV where the extra `media` is installed."""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from .arrays import mono
from .limits import Limit, check_rate
from .messages import unreadable, warn_audio
from .source import Source

SLACK_SECONDS = 0.5  # by which a container's duration may be off


def has_media() -> bool:
    return find_spec("av") is not None


def decode_media(source: Source, limit: Limit) -> tuple[np.ndarray, float]:
    """The first audio stream: mono [samples] float32 and its rate in Hz."""
    import av  # pyright: ignore[reportMissingImports]  # an extra
    from av.error import FFmpegError  # pyright: ignore[reportMissingImports]  # an extra

    source.file.seek(0)
    try:
        with av.open(source.file) as container:
            if not container.streams.audio:
                raise unreadable(source.name, "it has no sound")
            return _read(container, limit, source.name)
    except FFmpegError as error:
        raise unreadable(source.name, str(error.strerror)) from None


def _read(container, limit: Limit, name: str) -> tuple[np.ndarray, float]:
    rate = check_rate(container.streams.audio[0].rate, f"{name} has a rate that is not taken:")
    seconds = container.duration / 1_000_000 if container.duration else None
    if seconds is not None:
        limit.check(int((seconds - SLACK_SECONDS) * rate), rate, name, "its header says about")
    blocks = []
    samples = 0
    for block in _blocks(container):
        blocks.append(block)
        samples += len(block)
        limit.check(samples, rate, name, "at least")
    if seconds is not None and samples < (seconds - SLACK_SECONDS) * rate:
        warn_audio(f"{name} holds {samples / rate:.1f} s, its header says {seconds:.1f} s: it may be cut")
    return np.concatenate([np.empty(0, np.float32), *blocks]), rate


def _blocks(container) -> Iterator[np.ndarray]:
    """Mono samples of each frame, at the stream's rate."""
    import av  # pyright: ignore[reportMissingImports]  # an extra

    to_floats = av.AudioResampler(format="fltp")
    for frame in container.decode(audio=0):
        for part in to_floats.resample(frame):
            yield mono(part.to_ndarray().T)
    for part in to_floats.resample(None):
        yield mono(part.to_ndarray().T)
