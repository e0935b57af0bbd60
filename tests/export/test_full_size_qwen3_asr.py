"""Qwen3-ASR at its published sizes: what tests/full_size.py writes of it, and what a plan says."""

import json
import math

import pytest

from ltbm.export.writer import Export
from ltbm.runtime.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture
def full_size():
    from tests import full_size

    return full_size


def headers(full_size, family: str, folder):
    """A checkpoint of the published size whose weights are a hole in a file."""
    sizes, header, end = full_size.full_size(family), {}, 0
    for name, shape in full_size.tensor_shapes(family, sizes["encoder"], sizes["llm"]):
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    full_size.write_configuration(folder, family, sizes)
    with open(folder / "model.safetensors", "wb") as stream:
        head = json.dumps(header).encode()
        stream.write(len(head).to_bytes(8, "little") + head)
        stream.truncate(8 + len(head) + end)
    return folder


@pytest.mark.parametrize("family,parameters", [("qwen3_asr", 0.78e9), ("qwen3_asr_1.7b", 2.04e9)])
def test_the_tensors_are_the_model_s(full_size, family, parameters, tmp_path):
    """transformers makes the same names and shapes of this configuration."""
    import torch
    from transformers import AutoConfig, Qwen3ASRForConditionalGeneration

    checkpoint = headers(full_size, family, tmp_path / "checkpoint")
    with torch.device("meta"):
        model = Qwen3ASRForConditionalGeneration(AutoConfig.from_pretrained(checkpoint))
    theirs = {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    sizes = full_size.full_size(family)
    ours = dict(full_size.tensor_shapes(family, sizes["encoder"], sizes["llm"]))
    assert ours == theirs
    assert sum(map(math.prod, ours.values())) == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize("family", ["qwen3_asr", "qwen3_asr_1.7b"])
def test_a_plan_counts_the_weights_that_an_export_writes(full_size, family, tmp_path, capsys):
    from ltbm.profiles.budgets.plan import load_model

    checkpoint = headers(full_size, family, tmp_path / "checkpoint")
    planned = load_model(checkpoint, "float32", "cpu").weights
    written = Export(checkpoint, "float32").estimate(tmp_path / "bundle").stage_bytes
    for stage in ("encoder", "merge", "decoder"):
        assert getattr(planned, stage) == pytest.approx(written[stage], rel=0.01)
    assert (
        main(["export", str(checkpoint), str(tmp_path / "bundle"), "--precision", "int4", "--dry-run"]) == 0
    )
    assert "takes" in capsys.readouterr().out
