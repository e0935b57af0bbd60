"""A head size that ONNX Runtime's own attention refuses: the standard decoder runs in its place."""

import numpy as np
import pytest

from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.session import Session

HEADS = dict(hidden_size=160, num_attention_heads=8)  # of 20 values; a multiple of 8 is asked for


@pytest.mark.parametrize("precision, flavour", [("float32", "std24"), ("int4", "ort24")])
def test_heads_of_20_values(make_checkpoint, tmp_path, capsys, precision, flavour):
    """The export's own parity lines hold the decoders against transformers; the session runs one of them."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen2_audio", **HEADS)
    assert main(["export", str(checkpoint), str(tmp_path / "bundle"), "--precision", precision]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok") for line in lines)
    assert any(line.split()[1:5] == ["greedy", "tokens", "full", flavour] for line in lines)
    assert "gqa" not in Bundle.open(tmp_path / "bundle").manifest.flavours
    with Session.open(tmp_path / "bundle") as session:
        assert session.pipeline.engines.flavour == flavour
        assert len(session.generate(np.sin(np.arange(16_000) / 9), "?", max_new_tokens=4).token_ids) == 4


def test_no_int8_cache_for_them(make_bundle, capsys):
    _, bundle = make_bundle("qwen2_audio", **HEADS)
    assert main(["calibrate", str(bundle), "--audio", "none.wav"]) == 1
    assert "heads of a multiple of 8 values, this model's have 20" in capsys.readouterr().err
