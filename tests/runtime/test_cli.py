import json
import subprocess
import sys

import pytest
import soundfile

from ltbm.runtime.cli import main


@pytest.fixture(scope="module")
def clip_file(make_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    soundfile.write(path, make_clip(5), 16_000)
    return str(path)


def test_run_prints_one_object_that_can_be_replayed(qwen, clip_file, capsys):
    assert (
        main(
            [
                "run",
                str(qwen[1]),
                clip_file,
                "--prompt",
                "hm ?",
                "--level",
                "keep25",
                "--max-new-tokens",
                "5",
                "--json",
            ]
        )
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    wanted = {
        "text",
        "token_ids",
        "prompt_token_ids",
        "tokens_in",
        "tokens_out",
        "level",
        "keep_ratio",
        "window",
        "positions",
        "attention",
        "applied",
        "reason",
        "timings",
    }
    assert wanted <= set(answer)
    assert (answer["tokens_in"], answer["tokens_out"], answer["window"]) == (125, 32, 8)


def test_run_streams_text_to_stdout_and_figures_to_stderr(qwen, clip_file, capsys):
    assert (
        main(
            [
                "run",
                str(qwen[1]),
                clip_file,
                "--prompt",
                "hm ?",
                "--keep-ratio",
                "0.3",
                "--window",
                "global",
                "--max-new-tokens",
                "5",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert out.strip() and "125 audio tokens -> 38" in err


def test_chat_goes_on_from_stdin(qwen, clip_file, capsys, monkeypatch):
    import io

    lines = ["what is it ?\n", f"/audio {clip_file}\n", "and this ?\n", "\n", "never asked\n"]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(lines)))
    assert (
        main(
            [
                "run",
                str(qwen[1]),
                clip_file,
                "--chat",
                "--task",
                "qa",
                "--prompt",
                "hm ?",
                "--max-new-tokens",
                "4",
                "--json",
            ]
        )
        == 0
    )
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["tokens_in"] for answer in answers] == [125, 125, 250]
    assert [answer["level"] for answer in answers] == ["keep50"] * 3
    assert [answer["reused_tokens"] > 32 for answer in answers] == [False, True, True]


def test_run_without_a_question(qwen, clip_file, capsys):
    assert main(["run", str(qwen[1]), clip_file]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_inspect_as_table_and_json(qwen, capsys):
    assert main(["inspect", str(qwen[1]), "--verify"]) == 0
    assert "qwen2_audio" in capsys.readouterr().out
    assert main(["inspect", str(qwen[1]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kv_bytes_per_segment"]["keep25"] * 750 == facts["kv_bytes_per_segment"]["full"] * 188


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--level", "keep99"], "levels are"),
        (["--keep-ratio", "2"], "outside"),
        (["--keep-ratio", "1e999999999"], "not a number"),
        (["--window", "far"], "auto, global"),
        (["--top-p", "3"], "--top-p: 3 is not a number above 0 and at most 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens: 0 is not a whole number from 1"),
        (["--audio-tokens", "0"], "--audio-tokens: 0 is not a whole number from 1"),
        (["--temperature", "1e-9"], "--temperature 1e-09 is neither 0 (greedy) nor at least 0.001"),
    ],
)
def test_wrong_usage_exits_with_2(qwen, clip_file, capsys, flags, words):
    assert main(["run", str(qwen[1]), clip_file, "--prompt", "hm ?", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_missing_clip_exits_with_1_and_one_line(qwen, capsys):
    assert main(["run", str(qwen[1]), "none.wav", "--prompt", "hm ?"]) == 1
    error = capsys.readouterr().err
    assert "no audio file none.wav" in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_missing_bundle_exits_with_1(tmp_path, clip_file, capsys):
    assert main(["run", str(tmp_path / "none"), clip_file, "--prompt", "hm ?"]) == 1
    assert "ltbm export" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["--debug", "inspect", str(tmp_path / "none")])


def test_wrong_flags_exit_with_2_and_one_line(capsys):
    assert main(["run"]) == 2
    error = capsys.readouterr().err
    assert "bundle, audio; see ltbm run --help" in error and error.count("\n") == 1


def test_the_command_is_installed():
    out = subprocess.run(
        [sys.executable, "-c", "import sys; from ltbm.runtime.cli import main; sys.exit(main(['--help']))"],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0 and all(
        word in out.stdout for word in ("export", "inspect", "run", "parity", "demo")
    )


def test_a_closed_pipe_is_no_traceback(qwen):
    code = f"import sys; from ltbm.runtime.cli import main; sys.exit(main(['inspect', {str(qwen[1])!r}]))"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" | true'], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
