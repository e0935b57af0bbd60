"""File names of any bytes: read where a library can, refused in one line where none can, shown escaped."""

import json
import os
import subprocess
import sys

import pytest
import soundfile

from ltbm.runtime.cli import main
from ltbm.runtime.files import as_utf8

COMMAND = [sys.executable, "-c", "import sys; from ltbm.runtime.cli import main; sys.exit(main())"]
LATIN = os.fsdecode(b"caf\xe9")  # as a disk written under Latin-1 has it


@pytest.fixture(scope="module")
def clip(make_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / f"{LATIN}.wav"
    soundfile.write(os.fsencode(path), make_clip(2), 16_000)
    return path


def ltbm(*words, stdin: bytes = b"", **variables) -> subprocess.CompletedProcess:
    """A command in a process of its own, whose output is the bytes that a terminal gets."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], input=stdin, capture_output=True, env=os.environ | variables
    )


def test_a_chat_names_and_reads_such_a_clip_though_stdout_is_ascii(qwen, clip):
    lines = b"/audio %s\nhi\nh\xe9\n/audio caf\xe9\n" % os.fsencode(clip)
    done = ltbm(
        "run", qwen[1], clip, "--chat", "--max-new-tokens", "3", stdin=lines, PYTHONIOENCODING="ascii:strict"
    )
    said = done.stderr.decode("ascii").splitlines()
    assert done.returncode == 0 and "100 audio tokens" in said[0]  # two clips of 2 s
    assert said[1] == "ltbm: the prompt holds bytes that are no UTF-8 text: convert it; the chat goes on"
    assert said[2] == r"ltbm: no audio file caf\udce9; the chat goes on"


@pytest.mark.parametrize("role", ["bundle", "checkpoint", "out"])
def test_a_folder_that_no_library_opens(qwen, tmp_path, capsys, role):
    folder = tmp_path / LATIN
    if role != "out":
        folder.symlink_to(qwen[1] if role == "bundle" else qwen[0])
    words = {
        "bundle": ["inspect", str(folder)],
        "checkpoint": ["export", str(folder), str(tmp_path / "bundle")],
        "out": ["export", str(qwen[0]), str(folder)],
    }
    assert main(words[role]) == 1
    error = capsys.readouterr().err
    assert r"caf\udce9 is not UTF-8, which onnxruntime cannot open: rename the folder" in error
    assert error.count("\n") == 1


def test_answers_about_such_a_clip(qwen, clip, tmp_path, capsys):
    items = [{"id": name, "audio": str(clip), "references": ["a dog"]} for name in (LATIN, "b")]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    out = ["--manifest", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / LATIN)]
    few = ["--levels", "full", "--methods", "ltbm", "--max-new-tokens", "2"]
    assert main(["eval", "caption", str(qwen[1]), *out, *few]) == 0
    assert main(["eval", "score", str(tmp_path / LATIN)]) == 0
    assert r"caf\udce9" in capsys.readouterr().err


def test_a_report_with_such_a_name():
    assert as_utf8(f"{LATIN}.wav: é") == rb"caf\udce9.wav: " + "é".encode()
