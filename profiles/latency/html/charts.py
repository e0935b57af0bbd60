"""Charts as inline SVG: stacked bars and points joined by lines. Colours are classes of style.css,
so that they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH = 400  # units of a chart's own; the page scales it, and text stays readable at a phone's width
LINES_HEIGHT = 260
BAR, GAP = 20, 12
LEFT, RIGHT, TOP, BOTTOM = 102, 44, 4, 40  # around the bars
CHARACTER = 7  # width of one at the largest font size of a chart, on average


@dataclass(frozen=True)
class Bar:
    """One stacked bar: a label and a value for each series."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Point:
    """One mark, with a label beside it and a vertical range where one is known."""

    x: float
    y: float
    label: str = ""
    spread: float = 0.0


@dataclass(frozen=True)
class Line:
    """Marks joined in order, in the colour of a series."""

    name: str
    points: Sequence[Point]
    series: int = 0


def svg(title: str, description: str, height: float, body: str, width: float = WIDTH) -> str:
    """An image that scales with its box and says what it shows."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" preserveAspectRatio="xMidYMid '
        f'meet"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )


def legend(names: dict[int, str]) -> str:
    """Name of each series."""
    items = "".join(
        f'<li><span class="swatch s{series}"></span>{escape(name)}</li>' for series, name in names.items()
    )
    return f'<ul class="legend">{items}</ul>'


def stacked_bars(title: str, description: str, names: Sequence[str], bars: Sequence[Bar], unit: str) -> str:
    """Horizontal bars, series in the order of `names`, each bar's sum at its end."""
    largest = max((sum(bar.values) for bar in bars), default=0) or 1
    ticks = nice_ticks(0, largest)
    scale = (WIDTH - LEFT - RIGHT) / ticks[-1]
    bottom = TOP + len(bars) * (BAR + GAP)
    body = [_vertical_grid(ticks, scale, bottom, unit)]
    for row, bar in enumerate(bars):
        y, x = TOP + row * (BAR + GAP) + GAP / 2, LEFT
        body.append(_text(LEFT - 8, y + BAR / 2 + 4, bar.label, "end"))
        for index, (name, value) in enumerate(zip(names, bar.values)):
            tip = escape(f"{bar.label}, {name}: {short(value)} {unit}")
            body.append(
                f'<rect class="s{index}" x="{x:.1f}" y="{y:.1f}" width="{value * scale:.2f}" '
                f'height="{BAR}"><title>{tip}</title></rect>'
            )
            x += value * scale
        body.append(_text(x + 5, y + BAR / 2 + 4, short(sum(bar.values)), "start", "strong"))
    return svg(title, description, bottom + BOTTOM, "".join(body)) + legend(dict(enumerate(names)))


def line_chart(
    title: str, description: str, lines: Sequence[Line], x_label: str, y_label: str, scale: str = "zero"
) -> str:
    """Lines over x from zero; y from zero, `near` the values, or `log`.
    Where several lines have the same label at a place, it stands once."""
    points = [point for line in lines for point in line.points]
    left, right, top, bottom = 54, 24, 26, LINES_HEIGHT - BOTTOM
    x_axis = Axis(nice_ticks(0, max(point.x for point in points)), left, WIDTH - right)
    y_axis = Axis(
        y_ticks([point.y for point in points], [point.y + point.spread / 2 for point in points], scale),
        bottom,
        top,
        scale == "log",
    )
    body = [
        _text((left + WIDTH - right) / 2, LINES_HEIGHT - 6, x_label, "middle", "dim"),
        _text(4, 13, y_label, "start", "dim"),
    ]
    for tick in y_axis.ticks:
        body += [
            _rule(left, WIDTH - right, y_axis.at(tick), y_axis.at(tick)),
            _text(left - 6, y_axis.at(tick) + 4, short(tick), "end", "dim"),
        ]
    body += [_text(x_axis.at(tick), bottom + 16, short(tick), "middle", "dim") for tick in x_axis.ticks]
    body += [_joined(line, x_axis, y_axis) for line in lines]
    labels = LabelPlaces()
    for (x, label), same in _grouped(points).items():
        highest, lowest = (
            max(point.y + point.spread / 2 for point in same),
            min(point.y - point.spread / 2 for point in same),
        )
        body.append(labels.text(x_axis.at(x), y_axis.at(highest), y_axis.at(lowest), label))
    return svg(title, description, LINES_HEIGHT, "".join(body)) + (
        legend({line.series: line.name for line in lines}) if len(lines) > 1 else ""
    )


@dataclass(frozen=True)
class Axis:
    """Ticks, and the places of the first and the last of them on the page."""

    ticks: Sequence[float]
    first: float
    last: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (
            log10(part) if self.logarithmic else part for part in (self.ticks[0], self.ticks[-1], value)
        )
        return self.first + (value - low) / (high - low) * (self.last - self.first)


def y_ticks(values: Sequence[float], tops: Sequence[float], scale: str) -> list[float]:
    if scale == "log":
        return log_ticks(min(values), max(values))
    return nice_ticks(min(values) if scale == "near" else 0, max(tops))


def _grouped(points: Sequence[Point]) -> dict[tuple[float, str], list[Point]]:
    """The points of each label at each x."""
    found: dict[tuple[float, str], list[Point]] = {}
    for point in points:
        if point.label:
            found.setdefault((point.x, point.label), []).append(point)
    return found


def _joined(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    """Series 0 is bolder, so that it shows where another lies over it."""
    places = [(x_axis.at(point.x), y_axis.at(point.y)) for point in line.points]
    marks = [
        f'<polyline class="line l{line.series}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    ]
    for (x, y), point in zip(places, line.points):
        if point.spread:
            ends = y_axis.at(point.y - point.spread / 2), y_axis.at(point.y + point.spread / 2)
            marks.append(
                f'<line class="line l{line.series}" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" '
                f'y2="{ends[1]:.1f}"/>'
            )
        tip = escape(f"{line.name} {point.label}: {short(point.x)}, {short(point.y)}")
        marks.append(
            f'<circle class="s{line.series} mark" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{4 if line.series else 6}"><title>{tip}</title></circle>'
        )
    return "".join(marks)


class LabelPlaces:
    """Labels above their marks, or below, where they meet no other label; left out (the mark has a tooltip)
    where both are taken."""

    def __init__(self):
        self._taken: list[tuple[float, float, float, float]] = []

    def text(self, x: float, top: float, bottom: float, label: str) -> str:
        """A label over marks that stand from `top` to `bottom` at x."""
        half = len(label) * CHARACTER / 2
        x = min(max(x, 54 + half), WIDTH - half - 2)
        for baseline in (top - 10, bottom + 21):
            box = (x - half, baseline - 11, x + half, baseline + 2)
            if not any(
                box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self._taken
            ):
                self._taken.append(box)
                return _text(x, baseline, label, "middle")
        return ""


def _vertical_grid(ticks: list[float], scale: float, bottom: float, unit: str) -> str:
    parts = []
    for tick in ticks:
        x = LEFT + tick * scale
        parts += [_rule(x, x, TOP, bottom), _text(x, bottom + 16, short(tick), "middle", "dim")]
    return "".join(parts) + _text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, unit, "middle", "dim")


def _rule(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def nice_ticks(smallest: float, largest: float, count: int = 4) -> list[float]:
    """About `count` ticks around the values; the step is 1, 2, 2.5 or 5 times a power of ten."""
    raw = ((largest - smallest) or abs(largest) or 1) / count
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = floor(smallest / step + 1e-9), ceil(largest / step - 1e-9)
    return [tick * step for tick in range(first, max(last, first + 1) + 1)]


def log_ticks(smallest: float, largest: float) -> list[float]:
    """1, 10, 100, ... (and 2, 5, ... where that gives few) around the values."""
    low, high = floor(log10(smallest)), floor(log10(largest)) + 1
    factors = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [factor * 10.0**power for power in range(low, high + 1) for factor in factors]
    first = max(place for place, tick in enumerate(ticks) if tick <= smallest * (1 + 1e-9))
    last = min(place for place, tick in enumerate(ticks) if tick >= largest * (1 - 1e-9) and place > first)
    return ticks[first : last + 1]


def short(value: float) -> str:
    """Three digits at most, no exponent: axis labels and sums."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
