"""The report of a profile: remarks, tables, the page and its charts."""

import json
from dataclasses import replace

import pytest

from ltbm.profiles.latency.html.page import page
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
        "Peak memory at full is 1000 MiB, 80 % of it weights (1 MiB mapped from files); "
        "keep25 holds 3.00 MiB of KV cache in place of 12.0" in said
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
