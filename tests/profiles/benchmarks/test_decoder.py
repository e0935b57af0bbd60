"""The decoder benchmark: that its runners do the same work, its counts, its ratios and its output;
no time is judged here."""

import json
import shutil

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime", reason="runs the decoder: pip install 'ltbm[cpu]'")
pytest.importorskip("transformers", reason="makes and runs the model: pip install 'ltbm[parity]'")

from ltbm.profiles.benchmarks import decoder, models
from ltbm.profiles.benchmarks.decoder import Setup, prompt_ids
from ltbm.profiles.benchmarks.models import LLMS, make_models, operations, same_weights, weight_bytes
from ltbm.profiles.benchmarks.report import markdown, summary
from ltbm.profiles.benchmarks.runners import Remote, open_runner, request
from ltbm.runtime.cli import main
from ltbm.runtime.precision import Precision

pytestmark = pytest.mark.slow

TINY = LLMS["audioflamingo3"] | dict(
    hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96, vocab_size=512
)


@pytest.fixture(scope="module")
def int4_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int4")
    make_models(folder, TINY, (1, 2), False, lambda line: None)
    return folder


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(LLMS, "tiny", TINY)
    for name in decoder.BLAS_THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GLIBC_TUNABLES", "")


def test_runners_answer_alike_on_the_same_weights(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(models, "PRECISION", Precision("float32", "float32", "float32", "float32", "float32"))
    make_models(tmp_path, TINY, (2,), False, lambda line: None)
    prompt = prompt_ids(Setup("tiny"), 21)
    runners = {
        name: open_runner(name, tmp_path, 2, 6, 1) for name in ("gqa", "ort24", "std24", "transformers")
    }
    answers = {name: request(runner, prompt, 6) for name, runner in runners.items()}
    assert all(answer["token_ids"] == answers["transformers"]["token_ids"] for answer in answers.values())
    assert (
        len(answers["gqa"]["token_ids"]) == 6
        and len(answers["gqa"]["step_ms"]) == len(answers["gqa"]["host_ms"]) == 5
    )
    assert all(0 < host < step for host, step in zip(answers["gqa"]["host_ms"], answers["gqa"]["step_ms"]))
    assert answers["transformers"]["host_ms"] is None
    token_bytes = 2 * 2 * 2 * 16 * 4  # key and value, layers, KV heads, head_dim, float32
    assert answers["gqa"]["kv_bytes"] == 64 * token_bytes  # the first bucket
    assert answers["transformers"]["kv_bytes"] == (21 + 5) * token_bytes
    logits = {name: runner.logits(prompt) for name, runner in runners.items()}
    for name in ("gqa", "ort24", "std24"):
        np.testing.assert_allclose(logits[name], logits["transformers"], atol=1e-4)
    assert (
        request(runners["gqa"], prompt, 6)["token_ids"] == answers["gqa"]["token_ids"]
    )  # nothing is left of the first request


def test_operations_are_those_of_the_graph(int4_models):
    graph = onnx.load(int4_models / "ours.2" / "decoder.gqa.onnx", load_external_data=False).graph
    tokens, done, all_tokens = 40, 0, True
    for node in graph.node:
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "GatherND":
            all_tokens = False
        if node.op_type == "MatMulNBits":
            done += 2 * sizes["K"] * sizes["N"] * (tokens if all_tokens else 1)
    attention = (
        2 * 2 * 64 * tokens**2
    )  # layers, an addition for each multiplication, width: half of scores and sums
    assert operations(TINY, 2, tokens) == done + attention


def test_weights_are_counted_and_compared(int4_models, tmp_path):
    ours = int4_models / "ours.1" / "decoder.gqa.onnx"
    quantised = 64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 96
    scales, rest = (
        (quantised + 512 * 64) // 32 * 4,
        (64 + 64 + 2 * 32 + 2 * 64) * 4,
    )  # rest: bias of q, k, v and three norms
    assert weight_bytes(ours) == quantised // 2 + 512 * 64 + scales + rest
    assert same_weights(ours, ours) == (6, 6)
    shutil.copytree(ours.parent, tmp_path / "other")
    codes = next(
        tensor
        for tensor in onnx.load(ours, load_external_data=False).graph.initializer
        if tensor.name == "lm_head.codes"
    )
    offset = next(int(entry.value) for entry in codes.external_data if entry.key == "offset")
    weights = np.memmap(tmp_path / "other" / "decoder.weights", np.uint8, "r+")
    weights[offset] ^= 1
    weights.flush()
    assert same_weights(tmp_path / "other" / "decoder.gqa.onnx", ours) == (5, 6)


def test_models_of_another_llm_are_not_taken_for_its_own(int4_models):
    for text, layers in ((TINY, (2, 3)), (TINY | dict(hidden_size=128), (1,))):
        with pytest.raises(ValueError, match="holds 2 layers of width 64, wanted .* give another folder"):
            make_models(int4_models, text, layers, False, lambda line: None)


def _found() -> dict:
    """Two counts of layers, ours and a peer, three rounds; the peer is 3, 7 and 2 times as slow."""

    def turn(layers, runner, round, ms):
        return dict(
            runner=runner,
            layers=layers,
            tokens=30,
            round=round,
            prefill_ms=ms,
            step_ms=[ms / 10, ms / 10, ms],
            kv_bytes=2**20,
            host_ms=[0.1] * 3 if runner == "gqa" else None,
            token_ids=[1, 2],
        )

    ours = {layers: [10.0 + layers * scale for scale in (1, 10, 100)] for layers in (2, 4)}
    turns = [
        turn(layers, name, i, ms * factor)
        for layers in (2, 4)
        for i, ms in enumerate(ours[layers])
        for name, factor in (("gqa", 1), ("genai", (3, 7, 2)[i]))
    ]
    facts = dict(
        memory={name: dict(peak=2**30, mapped=2**20, resident=2**30) for name in ("gqa", "genai")},
        cosine={"genai": {"gqa": 0.5, "genai": 1.0}},
        equal_matrices=(5, 6),
        weight_bytes=10**9 - 2**20,
        operations={30: 10**9},
    )
    setup = dict(
        llm="tiny", layers=(2, 4), runners=("gqa", "transformers", "genai"), threads=1, rounds=3, processes=1
    )
    return dict(
        setup=setup,
        whole_layers=28,
        missing=["transformers"],
        machine=dict(cpu="A", bandwidth=1e10, matrix_rate=1e11),
        by_layers={2: facts, 4: facts},
        turns=turns,
    )


def test_ratios_are_medians_over_rounds_and_the_whole_model_is_on_the_line():
    rows = summary(_found())
    first = {row["runner"]: row for row in rows if row["layers"] == 2}
    assert (
        first["genai"]["prefill"]["times_ours"] == first["genai"]["step"]["times_ours"] == 3
    )  # neither the mean, 4, nor that of the medians, 7
    assert first["gqa"]["prefill"]["p50"] == 30 and first["genai"]["prefill"]["p50"] == 210
    assert first["gqa"]["prefill"]["floor"] == 10 and first["gqa"]["step"]["floor"] == 100
    whole = {row["runner"]: row for row in rows if row["layers"] == 28}
    assert whole["gqa"]["prefill"]["p50"] == pytest.approx(10 + 28 * 10) and whole["gqa"]["extrapolated"]
    assert whole["genai"]["prefill"]["times_ours"] == pytest.approx(7)


def test_the_tables_name_what_is_missing_and_what_is_extrapolated():
    found = _found()
    text = markdown(found | {"rows": summary(found)})
    assert (
        "| about 28 | 30 | gqa | 290.0 |" in text and "transformers is not installed and was left out" in text
    )
    assert "5 of 6 quantised matrices are equal" in text and "| 2 | genai | 1,024 | 1 |  | 1.00000 |" in text


def test_the_command_measures_in_processes_and_names_what_is_missing(
    int4_models, tmp_path, capsys, monkeypatch, tiny
):
    monkeypatch.setitem(decoder.PACKAGES, "genai", "no_such_package")
    arguments = [
        "--llm",
        "tiny",
        "--layers",
        "1",
        "2",
        "--runners",
        "gqa",
        "genai",
        "--audio-tokens",
        "40",
        "10",
        "--rounds",
        "2",
        "--processes",
        "1",
        "--new-tokens",
        "3",
        "--threads",
        "1",
    ]
    main(
        ["bench", "decoder", *arguments, "--folder", str(int4_models), "--json", str(tmp_path / "found.json")]
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert "genai is not installed and was left out" in capsys.readouterr().out and found["missing"] == [
        "genai"
    ]
    assert [(turn["layers"], turn["round"], turn["tokens"]) for turn in found["turns"]] == [
        (layers, number, tokens) for layers in (1, 2) for number in (1, 2) for tokens in (70, 40)
    ]
    assert all(turn["prefill_ms"] > 0 and len(turn["step_ms"]) == 2 for turn in found["turns"])
    assert [row["layers"] for row in found["rows"]] == [1, 1, 2, 2, 28, 28]
    assert found["by_layers"]["2"]["memory"]["gqa"]["peak"] > 2**20


def test_what_fails_in_a_process_is_told_with_its_runner(tmp_path):
    with pytest.raises(RuntimeError, match=r"gqa: .*ours\.2"):
        Remote("gqa", tmp_path, 2, 4, 1)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(llm="gpt"), "llm 'gpt' is none of"),
        (dict(runners=("gqa", "vllm")), "runners 'vllm' is none of"),
        (dict(runners=("genai", "gqa")), "the first runner is what the others are compared with"),
        (dict(rounds=0), "start at 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Setup(**{"llm": "qwen2_audio"} | options)
