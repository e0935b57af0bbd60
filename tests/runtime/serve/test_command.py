"""`ltbm serve` as a command: flags, log, signals."""

import re
import signal

import openai
import pytest

from ltbm.runtime.cli import build_parser, main
from ltbm.runtime.levels import parse_level
from ltbm.runtime.serve.commands import settings_from
from ltbm.runtime.serve.fields import Fields
from ltbm.runtime.serve.level_fields import read_level
from tests.support.serving import question, server_process


def settings(*flags):
    return settings_from(build_parser().parse_args(["serve", "bundle", *flags]))


def test_the_command_from_start_to_end(demo, clips):
    with server_process(
        demo, "--host", "0.0.0.0", "--level", "keep25", "--served-model-name", "ears"
    ) as server:
        with server.client() as client:
            answer = client.chat.completions.create(model="ears", messages=question(clips[0]))
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="ears", messages=[], extra_body={"a\n\x1b[31mb": 1})
        assert (answer.model, answer.ltbm["level"]) == ("ears", "keep25")
    log = "".join(server.log)
    assert "\x1b" not in log and "a  [31mb is not a field" in log
    assert "without a key" in log and "Traceback" not in log
    line = re.search(r"id=[0-9a-f]{32} POST /v1/chat/completions 200 .*", log).group()
    for figure in ("level=keep25", "audio_tokens=150->38", "prompt_tokens=53", "ttft_ms=", "total_ms="):
        assert figure in line


def test_ctrl_c_ends_it_in_order(demo):
    with server_process(demo) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=20) == 0


def test_a_port_that_is_taken(demo):
    with server_process(demo) as server, pytest.raises(AssertionError, match="address already in use"):
        with server_process(demo, "--port", str(server.port)):
            pass


def test_a_missing_bundle_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--level", "keep99"],
        ["--max-new-tokens", "0"],
        ["--port", "70000"],
        ["--max-audio-seconds", "0"],
        ["--max-audio-seconds", "nan"],
        ["--max-queued-requests", "-1"],
        ["--max-prompt-tokens", "0"],
        ["--allowed-local-media-path", "/none"],
        ["--served-model-name", "a:b"],
        ["--top-p", "3"],
    ],
)
def test_wrong_flags_exit_with_2(demo, capsys, flags):
    assert main(["serve", str(demo), *flags]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_key_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("LTBM_API_KEY", "secret")
    assert settings().api_key == "secret" and "secret" not in repr(settings())
    assert settings("--api-key", "other").api_key == "other"


@pytest.mark.parametrize(
    "flags,fields,level",
    [
        ([], {}, parse_level("keep50")),
        (["--level", "keep12"], {}, parse_level("keep12")),
        (["--task", "transcribe"], {}, parse_level("full")),
        (["--level", "keep12"], {"level": "keep75"}, parse_level("keep75")),
        (["--keep-ratio", "0.3"], {"level": "keep75"}, parse_level("keep75")),
        (["--audio-tokens", "9"], {"task": "transcribe"}, parse_level("full")),
        (["--window", "global"], {"level": "keep75"}, parse_level("keep75", window="global")),
        (["--window", "global"], {"window": 3}, parse_level("keep50", window=3)),
        (["--attention", "plain"], {}, parse_level("keep50", attention="plain")),
    ],
)
def test_a_request_s_fields_come_before_the_flags(flags, fields, level):
    assert read_level(Fields({"model": "ltbm", **fields}), settings(*flags)) == level
