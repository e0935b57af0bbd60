from pathlib import Path

import pytest

from ltbm.export.scratch import scratch_folder


def export(out, content: str = "new", fail: bool = False, said=None) -> None:
    with scratch_folder(out, (said if said is not None else []).append) as scratch:
        (scratch / "file").write_text(content)
        if fail:
            raise ValueError("no")


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_takes_the_name_when_whole(tmp_path):
    export(tmp_path / "deep" / "bundle")
    assert names(tmp_path / "deep") == ["bundle"]
    export(tmp_path / "deep" / "bundle", "newer")
    assert names(tmp_path / "deep") == ["bundle"] and (tmp_path / "deep/bundle/file").read_text() == "newer"


def test_an_error_leaves_what_was_there(tmp_path):
    export(tmp_path / "bundle")
    with pytest.raises(ValueError):
        export(tmp_path / "bundle", "newer", fail=True)
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle/file").read_text() == "new"


def test_a_second_export_of_the_same_folder_is_refused(tmp_path):
    with scratch_folder(tmp_path / "bundle", print) as scratch:
        (scratch / "file").touch()
        with pytest.raises(FileExistsError, match="another export is writing .*bundle"):
            export(tmp_path / "bundle")
        export(tmp_path / "other")
        assert scratch.exists()
    assert names(tmp_path) == ["bundle", "other"]


def test_what_a_killed_export_left_goes(tmp_path):
    (tmp_path / ".bundle.export-dead").mkdir()
    (tmp_path / ".bundle.export-dead" / "file").touch()
    for other in (".bundle.mine", ".bundle2.export-dead", "bundle.export-dead"):
        (tmp_path / other).mkdir()
    said = []
    export(tmp_path / "bundle", said=said)
    assert names(tmp_path) == sorted([".bundle.mine", ".bundle2.export-dead", "bundle", "bundle.export-dead"])
    assert len(said) == 1 and ".bundle.export-dead" in said[0]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    """The former bundle gets its name back, even if this export fails."""
    (tmp_path / ".bundle.export-former").mkdir()
    (tmp_path / ".bundle.export-former" / "file").write_text("former")
    with pytest.raises(ValueError):
        export(tmp_path / "bundle", fail=True)
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle/file").read_text() == "former"


def test_a_bundle_that_cannot_be_named_leaves_the_former_one(tmp_path, monkeypatch):
    export(tmp_path / "bundle")
    rename = Path.rename

    def interrupted(path, target):
        if target.name == "bundle" and not path.name.endswith("former"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "bundle", "newer")
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle/file").read_text() == "new"


def test_a_folder_that_appeared_meanwhile_is_kept(tmp_path):
    with pytest.raises(FileExistsError, match="bundle appeared during the export and is kept"):
        with scratch_folder(tmp_path / "bundle", print):
            (tmp_path / "bundle").mkdir()
            (tmp_path / "bundle" / "file").write_text("theirs")
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle/file").read_text() == "theirs"
