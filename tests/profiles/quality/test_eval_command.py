import json

import numpy as np
import pytest
import soundfile

from ltbm.runtime.cli import main


@pytest.fixture
def clips(tmp_path, make_clip):
    """A published layout with two clips, and a third that is missing."""
    columns = [f"caption_{i}" for i in range(1, 6)]
    rows = [
        f"{name}.wav," + ",".join(f"{name} {column}" for column in columns)
        for name in ("dog", "rain", "lost")
    ]
    (tmp_path / "clotho.csv").write_text("\n".join(["file_name," + ",".join(columns), *rows]) + "\n")
    for seed, name in enumerate(("dog", "rain")):
        soundfile.write(tmp_path / f"{name}.wav", make_clip(1, seed), 16_000)
    return tmp_path


def test_import_answer_and_score(qwen, clips, capsys):
    assert main(["eval", "import", "clotho", str(clips / "clotho.csv")]) == 1
    assert (
        "no audio: lost.wav" in (error := capsys.readouterr().err)
        and "1 of 3 audio files are missing" in error
    )
    assert main(["eval", "import", "clotho", str(clips / "clotho.csv"), "--allow-missing"]) == 0
    items, error = capsys.readouterr()
    assert "2 items; 1 of 3" in error
    (clips / "items.jsonl").write_text(items)

    command = [
        "eval",
        "caption",
        str(qwen[1]),
        "--manifest",
        str(clips / "items.jsonl"),
        "--out",
        str(clips / "clotho"),
        "--max-new-tokens",
        "3",
    ]
    assert main([*command, "--levels", "full,keep25", "--methods", "ltbm,global"]) == 0
    assert "6 of 6 answers" in capsys.readouterr().err
    with open(clips / "clotho" / "answers.jsonl", "a") as stream:
        stream.write('{"item": "do')
    assert main([*command, "--levels", "full,keep25", "--methods", "ltbm,global,stride"]) == 0
    assert (
        "12 bytes of a line that was cut off" in (error := capsys.readouterr().err)
        and "2 of 2 answers" in error
    )
    assert main([*command, "--prompt", "something else"]) == 1
    assert "other settings (prompt was" in capsys.readouterr().err

    assert main(["eval", "score", str(clips / "clotho")]) == 0
    assert "| keep25 | stride | " in capsys.readouterr().out
    assert main(["eval", "score", str(clips / "clotho"), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert len(result["rows"]) == 4 and result == json.loads((clips / "clotho" / "results.json").read_text())
    assert not any(np.isnan(row["cider_d"]) for row in result["rows"])


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--levels", "keep99"], "--levels: unknown 'keep99'"),
        (["--methods", "magic,"], "'magic', ''"),
        (["--limit", "0"], "--limit: 0 is not a whole number from 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens: 0 is not a whole number from 1"),
        (["--positions", "up"], "original, compact"),
    ],
)
def test_wrong_usage(qwen, clips, capsys, flags, words):
    (clips / "items.jsonl").write_text(json.dumps({"id": "1", "audio": "dog.wav", "references": ["a dog"]}))
    out = clips / "out"
    assert (
        main(
            [
                "eval",
                "caption",
                str(qwen[1]),
                "--manifest",
                str(clips / "items.jsonl"),
                "--out",
                str(out),
                *flags,
            ]
        )
        == 2
    )
    assert words in capsys.readouterr().err and not out.exists()


def test_unknown_metrics_are_refused(tmp_path, capsys):
    assert main(["eval", "score", str(tmp_path), "--extra", "bleu"]) == 2
    assert "known are spider, fense" in capsys.readouterr().err
