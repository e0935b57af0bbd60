"""The page of a profile's report: whole, styled, escaped; its charts and the merge map."""

import base64
import re
import struct
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from ltbm.profiles.latency.html.charts import (
    Bar,
    Line,
    Point,
    line_chart,
    log_ticks,
    nice_ticks,
    stacked_bars,
)
from ltbm.profiles.latency.html.elements import bullets, facts, folded, note, section, table
from ltbm.profiles.latency.html.merge_map import groups_svg, merge_map, png_uri
from ltbm.profiles.latency.html.page import page
from ltbm.profiles.latency.quality_points import quality_points

VOID = ("meta", "img", "br")


class Checker(HTMLParser):
    """Every element closed in its turn; text and names of classes kept."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.classes, self.titles = [], [], set(), 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.classes |= set(attributes.get("class", "").split())
        if attributes.get("role") == "img":
            self.titles += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


QUALITY = {
    "rows": [
        {
            "level": level,
            "method": method,
            "positions": "original",
            "attention": attention,
            "tokens_in": 9,
            "event_f1": value,
        }
        for level, method, attention, value in (
            ("full", "ltbm", "proportional", 0.9),
            ("keep25", "ltbm", "proportional", 0.8),
            ("keep25", "ltbm", "plain", 0.1),
            ("keep25", "pool", "proportional", 0.6),
        )
    ]
}


def test_the_page_is_whole_and_says_everything(made_profile):
    found = checked(page(made_profile, QUALITY))
    text = " ".join(found.text)
    for words in (
        "In words",
        "Time of a request",
        "Peak memory",
        "Tokens and time to first token",
        "Quality and speed",
        "What the kept tokens miss",
        "What was merged",
        "Distance from the floor",
        "Where and how",
        "keep25",
        "<b>What?</b>",
    ):
        assert words in text
    assert found.titles == 6  # five charts and one level's groups


def test_every_class_has_its_style(made_profile):
    text = page(made_profile, QUALITY)
    styled = set(re.findall(r"\.([a-z][\w-]*)", text.split("<style>")[1].split("</style>")[0]))
    assert checked(text).classes - styled == {"s0"} - styled


def test_the_page_keeps_to_both_schemes_and_small_screens(made_profile):
    text = page(made_profile)
    assert "prefers-color-scheme: dark" in text and 'name="viewport" content="width=device-width' in text
    names = [set(re.findall(r"--([\w-]+):", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)]
    assert len(names) == 2 and names[0] == names[1]


def test_quality_is_taken_in_the_default_modes_with_full_on_every_curve():
    assert quality_points(QUALITY) == (
        "event f1",
        {"ltbm": {"full": 90.0, "keep25": 80.0}, "pool": {"full": 90.0, "keep25": 60.0}},
    )
    assert quality_points(QUALITY | {"metric": "tokens"})[0] == "event f1"


# --- charts ---


def image(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text[: text.index("</svg>") + 6])


def test_bars_are_as_long_as_their_values():
    root = image(stacked_bars("t", "d", ["a", "b"], [Bar("x", [2, 3]), Bar("y", [4, 0])], "ms"))
    rects = [(float(rect.get("x")), float(rect.get("width"))) for rect in root.iter("rect")]
    assert rects[1][1] == pytest.approx(1.5 * rects[0][1], abs=0.1) and rects[1][0] == pytest.approx(
        rects[0][0] + rects[0][1], abs=0.1
    )
    assert rects[2][1] == pytest.approx(2 * rects[0][1], abs=0.1) and rects[3][1] == 0
    assert [text.text for text in root.iter("text") if text.get("class") == "strong"] == ["5", "4"]


@pytest.mark.parametrize("scale", ["zero", "near", "log"])
def test_marks_stand_where_their_values_are(scale):
    root = image(
        line_chart("t", "d", [Line("a", [Point(1, 10, "p"), Point(2, 20), Point(4, 40)])], "x", "y", scale)
    )
    x, y = (np.array([float(mark.get(name)) for mark in root.iter("circle")]) for name in ("cx", "cy"))
    assert (x[2] - x[1]) == pytest.approx(2 * (x[1] - x[0]), abs=0.2)
    assert (y[1] - y[2]) == pytest.approx((1 if scale == "log" else 2) * (y[0] - y[1]), abs=0.2)
    assert [text.text for text in root.iter("text")].count("p") == 1


def test_labels_do_not_cover_each_other():
    root = image(
        line_chart(
            "t",
            "d",
            [Line("a", [Point(100, 10, "first"), Point(101, 10, "second"), Point(102, 10, "third")])],
            "x",
            "y",
        )
    )
    places = {
        text.text: float(text.get("y"))
        for text in root.iter("text")
        if text.text in ("first", "second", "third")
    }
    assert set(places) == {"first", "second"} and places["first"] < places["second"]


def test_what_users_wrote_is_escaped():
    assert "<i>" not in stacked_bars("<i>", "<i>", ["<i>"], [Bar("<i>", [1])], "<i>")
    assert "<i>" not in table("<i>", ["<i>"], [["<i>"]]) + section(
        "<i>", note("<i>"), folded("<i>", ""), bullets(["<i>"]), facts({"<i>": "<i>"})
    )
    assert "<i>" not in line_chart("<i>", "<i>", [Line("<i>", [Point(1, 1, "<i>")])], "<i>", "<i>")


@pytest.mark.parametrize(
    "low, high, ticks",
    [
        (0, 9, [0, 2.5, 5, 7.5, 10]),
        (0, 1000, [0, 250, 500, 750, 1000]),
        (58, 99, [40, 60, 80, 100]),
        (5, 5, [4, 6]),
        (0, 0, [0, 0.25]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, ticks):
    found = nice_ticks(low, high)
    assert found[0] <= low and found[-1] >= high and len(found) >= 2
    assert found == pytest.approx(ticks)


@pytest.mark.parametrize(
    "low, high, ticks",
    [
        (0.5, 231, [0.1, 1, 10, 100, 1000]),
        (11, 254, [10, 20, 50, 100, 200, 500]),
        (3, 3, [2, 5]),
        (10, 10, [10, 20]),
    ],
)
def test_logarithmic_ticks_enclose_the_values(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


# --- the merge map ---


def test_groups_are_cells_by_size_with_arcs_between_their_pieces():
    root = ElementTree.fromstring(groups_svg("keep25", [0, 0, 0, 1, 0, 1, 1, 2], [1, 3, 7], 56))
    paths = {path.get("class"): path.get("d") for path in root.iter("path")}
    assert paths["g2"].count("M") == 4 and paths["g0"] == "M49 4h6v20h-6z"
    assert paths["arc"].count("Q") == 2 and paths["anchor"].count("M") == 3


def test_the_spectrogram_is_a_png_of_its_values():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = base64.b64decode(png_uri(pixels).split(",")[1])
    chunks, at = {}, 8
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunks[kind] = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + chunks[kind])
        at += 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (4, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 5)
    assert not lines[:, 0].any() and np.array_equal(lines[:, 1:], pixels) and len(chunks[b"PLTE"]) == 768


def test_the_map_has_a_row_a_level(made_profile):
    found = checked(merge_map(made_profile.fidelity.map, 40.0))
    assert "keep25: 12 tokens, then 3" in " ".join(found.text)
