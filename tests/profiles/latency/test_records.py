"""The records of a profile and profile.json."""

from ltbm.profiles.latency.records import FailedRow, Profile, Row, measured


def test_a_record_has_what_the_file_has(make_profile):
    assert Profile.from_json(make_profile()).to_json() == make_profile()


def test_a_failed_row_is_kept_and_not_measured(make_profile):
    data = make_profile()
    data["rows"][1] = {"level": "keep25", "method": "ltbm", "runs": [], "error": "out of memory"}
    profile = Profile.from_json(data)
    assert [type(row) for row in profile.rows] == [Row, FailedRow]
    assert [row.level for row in measured(profile)] == ["full"]
    assert profile.to_json() == data
