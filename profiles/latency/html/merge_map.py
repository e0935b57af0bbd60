"""What was merged, to be seen: a clip's spectrogram, and below it every level's groups on the same time
axis."""

import base64
import struct
import zlib
from html import escape
from itertools import groupby

import numpy as np

from ..records import MergeMap

TOKEN_WIDTH = 7  # pixels
CELL, ARCS, ANCHOR = (
    20,
    12,
    4,
)  # heights of a row's cells, of the arcs below them, and of the ticks above them
SPECTROGRAM = 132  # pixels high
SIZE_CLASSES = ((1, "1"), (2, "2"), (4, "3-4"), (8, "5-8"), (16, "9-16"), (10**9, "17 and more"))
"""Largest group of each shade, and its name in the legend."""
SHADES = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def merge_map(groups: MergeMap, token_ms: float) -> str:
    """The map as HTML, in a box that scrolls sideways on its own."""
    tokens = (
        groups.mel_shape[1] // 2 if not groups.source_maps else len(next(iter(groups.source_maps.values())))
    )
    width = tokens * TOKEN_WIDTH
    rows = "".join(
        f'<p class="map-label">{escape(level)}: {tokens} tokens, then {max(source_map) + 1}</p>'
        + groups_svg(level, source_map, groups.anchors[level], width)
        for level, source_map in groups.source_maps.items()
    )
    return (
        '<div class="map" tabindex="0" role="group" aria-label="Merge map, scrolls sideways"><div '
        f'style="width:{width}px">'
        f'<img width="{width}" height="{SPECTROGRAM}" alt="Log-mel spectrogram of the clip, low frequencies '
        'at the bottom" '
        f'src="{png_uri(picture(groups))}">'
        f"{time_axis(tokens, token_ms, width)}{rows}</div></div>{size_legend()}"
    )


def groups_svg(level: str, source_map: list[int], anchors: list[int], width: int) -> str:
    """One level: neighbours of one group as one cell shaded by the group's size, a tick at its anchor,
    arcs where a group is in pieces."""
    sizes = np.bincount(source_map)
    cells, pieces = {index: [] for index in range(len(SIZE_CLASSES))}, {}
    for group, run in groupby(range(len(source_map)), key=source_map.__getitem__):
        run = list(run)
        pieces.setdefault(group, []).append((run[0], run[-1] + 1))
        cells[size_class(sizes[group])].append(
            f"M{run[0] * TOKEN_WIDTH} "
            f"{ANCHOR}h{len(run) * TOKEN_WIDTH - 1}v{CELL}h{1 - len(run) * TOKEN_WIDTH}z"
        )
    paths = "".join(
        f'<path class="g{index}" d="{"".join(parts)}"/>' for index, parts in cells.items() if parts
    )
    arcs = "".join(
        _arc(left[1], right[0]) for group in pieces.values() for left, right in zip(group, group[1:])
    )
    ticks = "".join(f"M{(anchor + 0.5) * TOKEN_WIDTH:g} 0v{ANCHOR - 1}" for anchor in anchors)
    description = (
        f"{len(source_map)} encoder tokens in {len(anchors)} groups; the largest holds "
        f"{sizes.max()}, {sum(sizes == 1)} stand alone."
    )
    height = ANCHOR + CELL + ARCS
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"><title>Groups at '
        f"{escape(level)}</title>"
        f'<desc>{description}</desc>{paths}<path class="arc" d="{arcs}"/><path class="anchor" '
        f'd="{ticks}"/></svg>'
    )


def _arc(left: int, right: int) -> str:
    """From one piece of a group to the next, below the cells."""
    start, end, top = (left - 0.5) * TOKEN_WIDTH, (right + 0.5) * TOKEN_WIDTH, ANCHOR + CELL
    return f"M{start:g} {top}Q{(start + end) / 2:g} {top + 2 * ARCS - 4} {end:g} {top}"


def size_class(size: int) -> int:
    return next(index for index, (largest, _) in enumerate(SIZE_CLASSES) if size <= largest)


def size_legend() -> str:
    items = "".join(
        f'<li><span class="swatch g{index}"></span>{name}</li>'
        for index, (_, name) in enumerate(SIZE_CLASSES)
    )
    return f'<ul class="legend"><li>tokens in a group:</li>{items}</ul>'


def time_axis(tokens: int, token_ms: float, width: int) -> str:
    seconds = np.arange(0, tokens * token_ms / 1e3, 1)
    marks = "".join(
        f'<text class="dim" x="{second * 1e3 / token_ms * TOKEN_WIDTH + 2:.1f}" y="12">{second:.0f} s</text>'
        for second in seconds
    )
    return f'<svg width="{width}" height="16" viewBox="0 0 {width} 16" aria-hidden="true">{marks}</svg>'


# --- the spectrogram ---


def picture(groups: MergeMap) -> np.ndarray:
    """Bytes [rows, columns], high frequencies at the top."""
    return np.frombuffer(base64.b64decode(groups.mel), np.uint8).reshape(groups.mel_shape)[::-1]


def png_uri(pixels: np.ndarray) -> str:
    """`pixels` [rows, columns] uint8 through the palette SHADES, as a data URI."""
    rows, columns = pixels.shape
    lines = np.hstack([np.zeros((rows, 1), np.uint8), pixels])  # filter 0 before every line
    palette = np.stack(
        [np.interp(np.arange(256), np.linspace(0, 255, len(SHADES)), channel) for channel in zip(*SHADES)],
        axis=1,
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*part)
        for part in (
            (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),  # 8 bits, with a palette
            (b"PLTE", np.rint(palette).astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
