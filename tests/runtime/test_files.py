"""Files are written whole or not at all, also by several writers at once."""

import threading

import pytest

from ltbm.runtime.files import write_whole


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_processes_take_turns_to_write_a_file(tmp_path):
    """A file that another writes is waited for; what a killed one left is written anew."""
    (tmp_path / ".file.part").write_bytes(b"left" * 1000)
    contents = [bytes([number]) * 100_000 for number in range(4)]
    writers = [
        threading.Thread(target=lambda data=data: [write_whole(tmp_path / "file", data) for _ in range(20)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert not (tmp_path / "file").exists() or (tmp_path / "file").read_bytes() in contents
    assert names(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_leaves_the_former_one(tmp_path):
    write_whole(tmp_path / "file", b"former")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "file", "text")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"former"
