"""Draws docs/pictures/word-errors.svg: word error rate over audio tokens a second, one line a method.

python docs/pictures/word_errors.py

The figures are those of the results that `ltbm eval score` wrote, in docs/quality.
"""

import json
from fractions import Fraction
from itertools import product
from pathlib import Path

from ltbm.runtime.levels import parse_level

OUT = Path(__file__).with_name("word-errors.svg")
RESULTS = Path(__file__).parents[1] / "quality"
PANELS = (
    ("tiny.en-asterisk-report", "tiny.en, telephone prompts, one voice"),
    ("tiny.en-fsdd-report", "tiny.en, digit strings, six voices"),
    ("base-asterisk-report", "base, telephone prompts, one voice"),
    ("base-fsdd-report", "base, digit strings, six voices"),
)
METHODS = (  # method, label, colour
    ("ltbm", "LTBM", "#0b7285"),
    ("global", "Global Merge", "#e8590c"),
    ("pool", "mean pooling", "#862e9c"),
)
WIDTH, HEIGHT = 960, 700
PANEL_WIDTH, PANEL_HEIGHT = 360, 230
LEFTS, TOPS = (70, 540), (84, 394)
TOKENS_PER_SECOND = 25  # of the uncompressed, pooled encoder
HIGHEST = 100  # % on the vertical axis, where capped rates end
INK, SOFT, GRID, PAPER = "#1b2733", "#5b6b7a", "#dde3e8", "#ffffff"


def text(x: float, y: float, content: str, size: int, fill: str = INK, anchor: str = "middle") -> str:
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{content}</text>'


def horizontal(left: int, ratio: Fraction, ratios: list[Fraction]) -> float:
    """The levels stand at equal distances, the uncompressed one at the left."""
    return left + PANEL_WIDTH * ratios.index(ratio) / (len(ratios) - 1)


def vertical(top: int, percent: float) -> float:
    return top + PANEL_HEIGHT * (1 - min(percent, HIGHEST) / HIGHEST)


def capped_errors(rows: list[dict], method: str) -> dict[Fraction, float]:
    """Word error rate, clips capped at 100 %, of a method at each level in proportional attention."""
    rates = {}
    for row in rows:
        if row["level"] == "full" or (row["method"], row["attention"]) == (method, "proportional"):
            rates[parse_level(row["level"]).ratio] = 100 * row["wer_capped"]
    return rates


def axes(left: int, top: int, title: str, ratios: list[Fraction]) -> list[str]:
    parts = [text(left + PANEL_WIDTH / 2, top - 18, title, 16)]
    for percent in range(0, HIGHEST + 1, 20):
        y = vertical(top, percent)
        parts.append(f'<path d="M {left} {y:.0f} H {left + PANEL_WIDTH}" stroke="{GRID}"/>')
        parts.append(text(left - 8, y + 5, f"{percent}", 13, SOFT, "end"))
    for ratio in ratios:
        tokens = f"{float(TOKENS_PER_SECOND * ratio):.3g}"
        parts.append(text(horizontal(left, ratio, ratios), top + PANEL_HEIGHT + 20, tokens, 13, SOFT))
    return parts


def curve(points: list[tuple[float, float]], colour: str) -> list[str]:
    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>']
    for x, y in points:
        parts.append(f'<circle cx="{x:.0f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return parts


def panel(left: int, top: int, name: str, title: str) -> list[str]:
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    rates = {method: capped_errors(rows, method) for method, _, _ in METHODS}
    ratios = sorted(rates["ltbm"], reverse=True)
    parts = axes(left, top, title, ratios)
    for method, _, colour in reversed(METHODS):
        points = []
        for ratio in ratios:
            if ratio in rates[method]:
                points.append((horizontal(left, ratio, ratios), vertical(top, rates[method][ratio])))
        parts += curve(points, colour)
    return parts


def legend() -> list[str]:
    parts = []
    for index, (_, label, colour) in enumerate(METHODS):
        x = 290 + 140 * index
        parts.append(f'<path d="M {x} 675 h 24" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(x + 30, 680, label, 14, anchor="start"))
    return parts


def draw() -> str:
    title = "Word errors in % over audio tokens a second: Whisper, its decoder not trained for merging"
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="{PAPER}"/>']
    parts.append(text(WIDTH / 2, 34, title, 17))
    for (top, left), (name, panel_title) in zip(product(TOPS, LEFTS), PANELS):
        parts += panel(left, top, name, panel_title)
    parts += legend()
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif" aria-label="{title}">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
