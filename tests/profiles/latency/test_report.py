"""The report of a profile: remarks, tables, the page and its charts."""

import base64
import json
import re
import struct
import zlib
from dataclasses import replace
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
from ltbm.profiles.latency.records import Profile
from ltbm.profiles.latency.remarks import number, remarks
from ltbm.profiles.latency.report import (
    markdown,
    read_profile,
    read_quality,
    table_csv,
    write_report,
)

VOID = ("meta", "img", "br")


def test_the_bottleneck_is_said_in_words(made_profile):
    assert remarks(made_profile)[0] == (
        "At full, prefill is 88 % of the time to first token; at keep25 it is 61 %, and the first token "
        "comes "
        "70 % earlier (1000 ms, then 300 ms)."
    )


def test_distance_from_the_floor_memory_and_fidelity_are_said(made_profile):
    said = "\n".join(remarks(made_profile))
    assert (
        "each further token takes 50.0 ms; reading its 100 MiB at the measured 10.0 GB/s takes 10.0 ms: 5.0 "
        "times the floor." in said
    )
    assert (
        "Peak memory at full is 1000 MiB, 80 % of it weights; keep25 holds 3.00 MiB of KV cache in place of "
        "12.0" in said
    )
    assert "At keep25, LTBM's tokens miss 20 % of the encoder tokens' variance (pool 50 %)." in said


def test_a_quiet_measurement_raises_no_doubts(made_profile):
    assert len(remarks(made_profile)) == 4


def _slower_keep25(profile):
    profile["rows"][1]["figures"] = profile["rows"][0]["figures"]


def _rest(profile):
    profile["rows"][0]["figures"]["other"]["p50"] = 100


def _busy(profile):
    profile["rows"][1]["load_average"] = 9.0


def _outside(profile):
    profile["rows"][0]["memory"]["peak_outside"] *= 1.06


def _opening(profile):
    profile["rows"][0]["memory"]["peak_while"] = "opening"


def _gpu(profile):
    profile["options"]["device"] = "cuda"
    for row in profile["rows"]:
        row["floors"] = {}


def _noisy(profile):
    profile["rows"][0]["figures"]["ttft"]["spread"] = 200


def _drift(profile):
    profile["rows"][1]["figures"]["encoder"]["p50"] = 150


def _governor(profile):
    profile["machine"]["governor"] = "powersave"


def _spill(profile):
    profile["fidelity"]["rows"][1]["spill"] = 3


def _failed(profile):
    profile["rows"][1] = {
        "level": "keep25",
        "method": "ltbm",
        "error": "the process was killed by signal 9",
        "runs": [],
    }


def _none(profile):
    profile["rows"] = []


def _unapplied(profile):
    profile["rows"][1] |= {"applied": False, "reason": "keeping 1/4 of 1 tokens, rounded up, is all of them"}


@pytest.mark.parametrize(
    "change, words",
    [
        (_slower_keep25, "keep25: the first token comes no earlier than at full, beyond the spread"),
        (_rest, "Up to 7 % of end to end (full) lies outside the stages"),
        (_busy, "load average 9.0 on 2 cores"),
        (_outside, "differs by more than 5 %"),
        (_opening, "Memory peaked while opening"),
        (_noisy, "TTFT of full spreads by more than 15 %"),
        (_gpu, "what the GPU holds is not measured"),
        (_drift, "yet took 100 to 150 ms"),
        (_governor, "The CPU governor is powersave"),
        (_spill, "keep25 took 3 merges outside its window"),
        (_failed, "keep25 (ltbm) failed: the process was killed by signal 9"),
        (_none, "No time was measured."),
        (_unapplied, "keep25 changed nothing: keeping 1/4 of 1 tokens"),
    ],
)
def test_what_is_odd_is_said(make_profile, change, words):
    data = make_profile()
    change(data)
    profile = Profile.from_json(data)
    assert words in "\n".join(remarks(profile))
    page(profile), markdown(profile), table_csv(profile)


@pytest.mark.parametrize(
    "value, text", [(1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.012"), (0, "0.000")]
)
def test_numbers_have_no_exponent(value, text):
    assert number(value) == text


def test_the_table_has_a_line_a_level(made_profile):
    lines = markdown(made_profile).splitlines()
    assert (
        lines[2]
        == "| full | ltbm | 12 → 12 | 1000 | 20.0 | 100 | 4.00 | 882 | 50.0 | 1500 | 0.100 | 12.0 | 1000 |"
    )
    assert "| pool | 50.0 |" in lines


def test_the_csv_has_every_figure(made_profile):
    lines = table_csv(made_profile).splitlines()
    assert lines[0] == "level,method,tokens_in,tokens_out,figure,unit,p50,p90,p95,p99,spread"
    assert (
        "full,ltbm,12,12,prefill,ms,882,896.112,897.876,899.287,17.64" in lines
        and "keep25,ltbm,12,3,memory_peak,bytes,1048576000,,,," in lines
    )


def test_the_files_are_replaced_whole(made_profile, tmp_path):
    write_report(tmp_path, made_profile)
    write_report(tmp_path, replace(made_profile, complete=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "profile.json",
        "report.html",
        "table.csv",
        "table.md",
    ]
    assert not read_profile(tmp_path).complete
    assert json.loads((tmp_path / "profile.json").read_text())["remarks"]
    assert "Not complete: the profile was interrupted." in (tmp_path / "table.md").read_text()


def test_what_is_no_profile_is_refused(tmp_path):
    (tmp_path / "profile.json").write_text('{"format": "ltbm-profile-0"}')
    with pytest.raises(ValueError, match="has format 'ltbm-profile-0', expected 'ltbm-profile-1'"):
        read_profile(tmp_path)
    (tmp_path / "profile.json").write_text('{"format": "ltbm-profile-1"}')
    with pytest.raises(ValueError, match="lacks fields of a profile .'options'."):
        read_profile(tmp_path)
    (tmp_path / "profile.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_profile(tmp_path)
    (tmp_path / "results.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match="no rows with figures"):
        read_quality(tmp_path / "results.json")


# --- the page
# -------------------------------------------------------------------------------------------------------


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


# --- charts
# ---------------------------------------------------------------------------------------------------------


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


# --- the merge map
# --------------------------------------------------------------------------------------------------


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
