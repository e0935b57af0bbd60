"""Draws docs/pictures/pipeline.svg: where merging sits and what it saves at 7B width.

python docs/pictures/draw.py

The figures are those of docs/evidence.md: Qwen2-Audio's size, 30 s of audio, level keep25 beside full.
"""

from pathlib import Path

OUT = Path(__file__).with_name("pipeline.svg")
WIDTH, HEIGHT = 960, 330
INK, SOFT, ACCENT, PAPER = "#1b2733", "#5b6b7a", "#0b7285", "#ffffff"
BOX_TOP, BOX_HEIGHT, BOX_WIDTH = 70, 92, 220
BOXES = (  # left edge, title, lines, fill
    (30, "audio encoder", ("log-mels of the clip,", "of its own length"), "#e7f0f7"),
    (370, "LTBM merge", ("similar neighbours", "become one token"), "#d3f1ee"),
    (710, "LLM", ("prefill and decode,", "KV cache in place"), "#e7f0f7"),
)
ARROWS = ((250, 370, "750 tokens"), (590, 710, "188 tokens"))
SAVINGS = (
    ("audio tokens", "750", "188"),
    ("KV cache of the audio (float16)", "375 MiB", "94 MiB"),
    ("first token on two CPU cores (int4, measured)", "64 s", "28 s"),
)


def text(
    x: int, y: int, content: str, size: int, fill: str = INK, anchor: str = "middle", weight: int = 400
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{content}</text>'
    )


def box(left: int, title: str, lines: tuple[str, ...], fill: str) -> list[str]:
    middle = left + BOX_WIDTH // 2
    parts = [
        f'<rect x="{left}" y="{BOX_TOP}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10" '
        f'fill="{fill}" stroke="{ACCENT}" stroke-width="1.5"/>',
        text(middle, BOX_TOP + 30, title, 19, weight=600),
    ]
    for row, line in enumerate(lines):
        parts.append(text(middle, BOX_TOP + 54 + 20 * row, line, 15, SOFT))
    return parts


def arrow(begin: int, end: int, label: str) -> list[str]:
    y = BOX_TOP + BOX_HEIGHT // 2
    return [
        f'<line x1="{begin + 8}" y1="{y}" x2="{end - 16}" y2="{y}" stroke="{INK}" stroke-width="2"/>',
        f'<path d="M {end - 18} {y - 6} L {end - 6} {y} L {end - 18} {y + 6} Z" fill="{INK}"/>',
        text((begin + end) // 2, y - 12, label, 15, ACCENT, weight=600),
    ]


def savings() -> list[str]:
    parts = [
        text(590, 210, "full", 15, SOFT, weight=600),
        text(730, 210, "keep25", 15, ACCENT, weight=600),
    ]
    for row, (name, full, merged) in enumerate(SAVINGS):
        y = 238 + 28 * row
        parts.append(text(510, y, name, 16, anchor="end"))
        parts.append(text(590, y, full, 16))
        parts.append(text(730, y, merged, 16, ACCENT, weight=600))
    return parts


def draw() -> str:
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="{PAPER}"/>']
    parts.append(text(WIDTH // 2, 40, "30 s of sound through a 7B audio-language model", 20, weight=600))
    for one in BOXES:
        parts += box(*one)
    for one in ARROWS:
        parts += arrow(*one)
    parts += savings()
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, sans-serif" '
        'aria-label="Audio encoder, LTBM merge, LLM: 750 audio tokens become 188, KV cache 375 MiB becomes '
        f'94 MiB, first token 64 s becomes 28 s">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
