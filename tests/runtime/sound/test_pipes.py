"""Sound from stdin and from pipes."""

import io
import os
import sys
import threading

import pytest
import soundfile

from ltbm.runtime.cli import main
from ltbm.runtime.stages.audio import load_audio
from tests.support.sound_files import sweep

RATE = 16_000


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, sweep(RATE, 2.0), RATE)
    return path


@pytest.fixture
def pipe(monkeypatch):
    """Makes stdin a pipe with these bytes."""

    def make(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return make


def run(bundle, audio: str, capsys) -> str:
    assert main(["run", str(bundle), audio, "--prompt", "hm ?", "--max-new-tokens", "4"]) == 0
    return capsys.readouterr().out


def test_a_dash_is_stdin(qwen, clip, pipe, capsys):
    from_file = run(qwen[1], str(clip), capsys)
    pipe(clip.read_bytes())
    assert run(qwen[1], "-", capsys) == from_file


def test_a_named_pipe_is_read(clip, tmp_path):
    """/dev/stdin and <(...) are such pipes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(clip.read_bytes(),), daemon=True)
    writer.start()
    assert len(load_audio(fifo, RATE)) == 2 * RATE
    writer.join()


def test_an_empty_stdin_says_so(qwen, pipe, capsys):
    pipe(b"")
    assert main(["run", str(qwen[1]), "-", "--prompt", "hm ?"]) == 1
    assert "stdin is an empty file" in capsys.readouterr().err


def test_a_stream_that_is_no_sound_is_refused_at_once():
    with pytest.raises(ValueError, match="/dev/zero is not readable audio"):
        load_audio("/dev/zero", RATE)


def test_a_stream_without_end_is_refused(clip):
    class Endless:
        """WAV after a header, for ever."""

        data = clip.read_bytes()

        def read(self, count):
            data, self.data = self.data, bytes(count)
            return data

    with pytest.raises(ValueError, match="gives more than 64 MiB"):
        load_audio(Endless(), RATE, max_seconds=30)


def test_stdin_cannot_be_sound_and_questions(qwen, capsys):
    assert main(["run", str(qwen[1]), "-", "--chat"]) == 2
    assert "stdin" in capsys.readouterr().err


def test_a_warning_is_one_line(qwen, clip, capsys):
    data = bytearray(clip.read_bytes())
    data[40:44] = (4 * RATE + 36).to_bytes(4, "little")
    clip.write_bytes(data)
    run_args = ["run", str(qwen[1]), str(clip), "--prompt", "hm ?", "--max-new-tokens", "4"]
    assert main(run_args) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"ltbm: {clip} is 36 bytes shorter than its header says; what is there was read"
