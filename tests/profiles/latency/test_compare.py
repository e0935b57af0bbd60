"""`ltbm compare` of made-up profiles."""

import json
from dataclasses import replace

import pytest

from ltbm.profiles.latency.compare import Figure, compare, markdown
from ltbm.profiles.latency.records import Profile
from ltbm.profiles.latency.report import read_profile, write_report
from ltbm.runtime.cli import main


def test_the_same_profile_does_not_differ(made_profile):
    found = compare(made_profile, made_profile)
    assert found.notes == [] and [row.a for row in found.rows] == ["full", "keep25"]
    for row in found.rows:
        for figure in row.figures.values():
            assert figure.ratio == 1 and not figure.beyond_spread


def test_levels_of_two_profiles_are_set_side_by_side(made_profile):
    (row,) = compare(made_profile, made_profile, ["full", "keep25"]).rows
    ttft, encoder = row.figures["TTFT ms"], row.figures["encoder ms"]
    assert ttft == Figure(1000, 300, 0.3, True)
    assert not encoder.beyond_spread
    assert "| TTFT ms | 1000 | 300 | 0.30 | yes |" in markdown(
        compare(made_profile, made_profile, ["full", "keep25"])
    )


@pytest.mark.parametrize("change, beyond", [(20.5, False), (21.5, True)])
def test_a_difference_counts_beyond_both_spreads(made_profile, make_profile, change, beyond):
    other = make_profile()
    other["rows"][0]["figures"]["ttft"] |= {"p50": 1000 - change, "spread": 1.0}  # the first one's is 20
    assert compare(made_profile, Profile.from_json(other)).rows[0].figures["TTFT ms"].beyond_spread is beyond


def test_what_else_differs_is_said(made_profile, make_profile):
    other = make_profile()
    other["machine"]["cpu"], other["versions"]["onnxruntime"], other["options"]["threads"] = (
        "B CPU",
        "1.24",
        1,
    )
    other["bundle"]["sha256"], other["clips"][0]["sha256"], other["complete"] = "cd", "22", False
    other["rows"][1]["load_average"] = 1.6
    assert compare(made_profile, Profile.from_json(other)).notes == [
        "machine differs: A CPU and B CPU",
        "onnxruntime differs: 1.32 and 1.24",
        "threads differs: None and 1",
        "the bundles differ: tiny, float32 and tiny, float32",
        "the clips differ (1 of 0.5 s and 1 of 0.5 s): only figures per token and the real-time factor mean "
        "anything",
        "the machine was not equally busy: load average 0.5 and 1.6",
        "the second profile is not complete",
    ]


def test_nothing_in_common_is_refused(made_profile):
    a = replace(made_profile, rows=made_profile.rows[:1])
    b = replace(made_profile, rows=made_profile.rows[1:])
    with pytest.raises(
        ValueError, match="no level in common: the first has full, the second keep25; give --levels"
    ):
        compare(a, b)
    with pytest.raises(ValueError, match="level keep25 is not in its profile; the first has full"):
        compare(a, b, ["keep25", "keep25"])


def test_the_command_prints_and_writes(made_profile, tmp_path, capsys):
    write_report(tmp_path / "a", made_profile)
    write_report(tmp_path / "b", made_profile)
    assert (
        main(
            [
                "compare",
                str(tmp_path / "a"),
                str(tmp_path / "b" / "profile.json"),
                "--out",
                str(tmp_path / "out.md"),
            ]
        )
        == 0
    )
    assert (
        "| full | a | b | b / a | beyond the spreads |" in (out := capsys.readouterr().out)
        and out == (tmp_path / "out.md").read_text()
    )
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--levels", "full"]) == 2
    assert main(["compare", str(tmp_path / "a"), str(tmp_path)]) == 1


def test_a_profile_of_an_older_version_is_compared(make_profile, made_profile, tmp_path):
    data = make_profile()
    del data["options"]["kv_cache"], data["machine"]["last_level_cache_bytes"]
    (tmp_path / "profile.json").write_text(json.dumps(data))
    comparison = compare(read_profile(tmp_path), made_profile)
    assert comparison.notes == [] and len(comparison.rows) == 2
