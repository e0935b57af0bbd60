"""The counts against the graphs that are exported, the arithmetic of an estimate,
and the devices' figures."""

import re
from dataclasses import replace

import onnx
import pytest

from ltbm.export.precision import choose_precision
from ltbm.profiles.budgets.counts import decode_work, encoder_work, merge_work, prefill_work, segment_lengths
from ltbm.profiles.budgets.device import Figure, device_names, load_device
from ltbm.profiles.budgets.estimate import Rates, Request, choose, estimate, longest_audio, memory_of
from ltbm.profiles.budgets.model import Model, StageBytes, counted_bytes, model_of_bundle, model_of_checkpoint
from ltbm.profiles.budgets.plan import make_plan
from ltbm.profiles.budgets.rates import device_rates
from ltbm.runtime.bundle import AudioSpec, Bundle, DecoderSpec, EncoderSpec
from ltbm.runtime.levels import NAMED_RATIOS, Level
from ltbm.runtime.session import Session

FULL, KEEP25 = Level("full", NAMED_RATIOS["full"]), Level("keep25", NAMED_RATIOS["keep25"])
RATES = Rates(bandwidth=1e9, encoder=1e12, llm=2e12, attention=4e12, usable=2**40, runtime=1000.0)


@pytest.fixture(scope="module", params=["float32", "int4", "float32, int8 encoder"])
def exported(request, make_bundle, family):
    precision, _, int8_encoder = request.param.partition(", ")
    export = dict(encoder_precision="int8") if int8_encoder else None
    checkpoint, path = make_bundle(family, precision, export)
    return checkpoint, Bundle.open(path)


def weights_of(bundle: Bundle, name: str) -> tuple[int, int]:
    """(weights that products and convolutions multiply, their bytes) in a graph, without its data."""
    graph = onnx.load(bundle.file(name), load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    multiplying = ("MatMul", "MatMulNBits", "MatMulIntegerToFloat", "Conv")
    products = [node for node in graph.node if node.op_type in multiplying and node.input[1] in tensors]
    values = size = 0
    for node in products:
        stored = [
            tensors[name]
            for name in (filter(None, node.input[1:4]) if node.op_type == "MatMulNBits" else node.input[1:2])
        ]
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        dims = (attributes["K"], attributes["N"]) if node.op_type == "MatMulNBits" else stored[0].dims
        product = 1
        for dim in dims:
            product *= dim
        values += product
        size += sum(
            int(entry.value) for tensor in stored for entry in tensor.external_data if entry.key == "length"
        )
    return values, size


def test_weights_are_those_of_the_exported_graphs(exported):
    """One token's operations in decode, one position's in the encoder, one kept token's in the projector."""
    _, bundle = exported
    model = model_of_bundle(bundle)
    e = model.encoder
    assert decode_work(model, 0).linear == 2 * weights_of(bundle, "decoder.gqa.onnx")[0]
    convolutions = 3 * e.width * e.n_mels  # conv1 runs on every frame: twice a position
    assert encoder_work(model, [3000]).linear == 2 * 1500 * (
        weights_of(bundle, "encoder.onnx")[0] + convolutions
    )
    assert merge_work(model, 1).linear == pytest.approx(
        2 * weights_of(bundle, "merge.onnx")[0], rel=0.2
    )  # its file holds biases too


def test_prefill_multiplies_each_token_but_the_last_layer_only_one(exported):
    model = model_of_bundle(exported[1])
    per_token = prefill_work(model, 101).linear - prefill_work(model, 100).linear
    assert per_token == decode_work(model, 0).linear - 2 * (model.head + model.layer_rest)
    assert prefill_work(model, 1).linear == decode_work(model, 0).linear


def test_a_configuration_is_counted_as_its_export_is_written(exported):
    checkpoint, bundle = exported
    planned = model_of_checkpoint(str(checkpoint), bundle.manifest.precision)
    matrices = {name: weights_of(bundle, f"{name}.onnx")[1] for name in ("encoder", "merge", "decoder.gqa")}
    tables = planned.decoder.max_positions * planned.decoder.head_dim * planned.value_bytes
    positions = planned.encoder.positions * planned.encoder.width * 4
    assert planned.weights == StageBytes(
        matrices["encoder"] + positions, matrices["merge"], matrices["decoder.gqa"] + tables
    )
    read = model_of_bundle(bundle)
    assert replace(read, name="", weights=None, projector=0) == replace(
        planned, name="", weights=None, projector=0
    )


def test_an_estimate_is_the_roofline_of_its_counts(qwen):
    model = replace(model_of_bundle(Bundle.open(qwen[1])), weights=StageBytes(3e6, 2e6, 7e6))
    found = estimate(model, RATES, Request(10.0, 20, 64), KEEP25)
    assert (found.tokens_in, found.tokens_out) == (250, 63)
    encoder, prefill = encoder_work(model, segment_lengths(model, 10.0)), prefill_work(model, 83)
    assert found.encoder == pytest.approx(
        1e3 * (max(3e6 / 1e9, encoder.linear / 1e12) + encoder.attention / 4e12)
    )
    assert found.prefill == pytest.approx(
        1e3 * (7e6 / 1e9 + prefill.attention / 4e12)
    )  # tiny: bound by bytes
    assert found.ttft == pytest.approx(found.encoder + 2e6 / 1e9 * 1e3 + found.prefill)
    assert found.tpot == pytest.approx(
        1e3 * ((7e6 + model.kv_bytes(115)) / 1e9 + decode_work(model, 115).attention / 4e12)
    )


def test_more_arithmetic_than_bytes_bounds_the_prefill(qwen):
    model = replace(model_of_bundle(Bundle.open(qwen[1])), weights=StageBytes(1, 1, 1))
    work = prefill_work(model, 270)
    found = estimate(model, RATES, Request(10.0, 20, 64), FULL)
    assert found.prefill == pytest.approx(1e3 * (work.linear / 2e12 + work.attention / 4e12))
    slower = estimate(model, replace(RATES, move_seconds=1e-9), Request(10.0, 20, 64), FULL)
    assert slower.prefill - found.prefill == pytest.approx(1e3 * work.moved_bytes / 1e9)


def test_the_kv_cache_is_what_a_session_allocates(qwen, make_clip):
    with Session.open(qwen[1]) as session:  # a new one: what was asked before leaves a larger cache
        answer = session.generate(make_clip(12), "hm ?", "keep25", max_new_tokens=40)
    model = model_of_bundle(session.bundle)
    text = len(answer.prompt_token_ids) - answer.tokens_out
    found = estimate(model, RATES, Request(12.0, text, 40), KEEP25)
    assert (found.tokens_in, found.tokens_out, found.memory.kv_cache) == (
        answer.tokens_in,
        answer.tokens_out,
        answer.kv_allocated_bytes,
    )


def test_windows_beyond_the_first_are_encoded_too(qwen):
    model = model_of_bundle(Bundle.open(qwen[1]))
    assert segment_lengths(model, 65.0) == [3000, 3000, 500]
    assert encoder_work(model, [3000] * 3).linear == 3 * encoder_work(model, [3000]).linear
    assert (
        encoder_work(model, [3000] * 9).live_bytes == 4 * encoder_work(model, [3000]).live_bytes
    )  # four windows at once


def test_memory_has_its_parts_and_low_memory_holds_one_stage_at_a_time(qwen):
    model = replace(model_of_bundle(Bundle.open(qwen[1])), weights=StageBytes(5e9, 1e9, 2e9))
    memory = memory_of(model, RATES, Request(), FULL)
    heard = encoder_work(model, [3000]).live_bytes
    assert memory.weights == 8e9 and memory.runtime == 1000
    assert memory.total == memory.weights + memory.kv_cache + memory.activations + memory.runtime
    assert memory.low_memory == 6e9 + heard + 1000
    assert (
        memory_of(model, replace(RATES, llm_resident=2.0, loading=9e9), Request(), FULL).low_memory
        == 4e9 + 9e9 + 1000
    )


def test_the_longest_audio_is_the_last_second_that_fits(qwen):
    model = model_of_bundle(Bundle.open(qwen[1]))
    seconds, limit = longest_audio(model, RATES, Request(), FULL)
    assert limit == "positions"  # 4096: with 94 tokens of text and answer, 4002 tokens of audio
    assert (
        sum(
            estimate(model, RATES, Request(float(seconds + extra)), FULL).tokens_in + 94 <= 4096
            for extra in (0, 1)
        )
        == 1
    )
    small = replace(RATES, usable=memory_of(model, RATES, Request(60.0), FULL).low_memory)
    seconds, limit = longest_audio(model, small, Request(), FULL)
    assert limit == "memory" and 60 <= seconds < 62
    assert longest_audio(model, small, Request(), KEEP25)[0] >= seconds


def test_the_level_chosen_has_the_most_tokens_within_the_limits(qwen):
    model = replace(model_of_bundle(Bundle.open(qwen[1])), weights=StageBytes(1, 1, 1e12))
    slow = replace(RATES, llm=1e9, encoder=1e15, bandwidth=1e18)
    all_levels = [
        estimate(model, slow, Request(), Level(name, ratio)) for name, ratio in NAMED_RATIOS.items()
    ]
    assert choose(all_levels, None, None)[0].level == "full"
    limit = (all_levels[2].ttft + all_levels[3].ttft) / 2
    chosen, reason = choose(all_levels, limit, None)
    assert chosen.level == "keep33" and f"TTFT of {limit:g} ms" in reason and "low-memory" not in reason
    assert choose(all_levels, all_levels[-1].ttft / 2, None)[0] is None
    assert "keep6 comes nearest" in choose(all_levels, None, 10.0)[1]
    assert choose(all_levels, None, all_levels[0].memory.low_memory - 1)[0].level != "full"
    assert "low-memory" in choose(all_levels, None, all_levels[0].memory.low_memory)[1]


@pytest.mark.parametrize("name", device_names())
def test_every_figure_of_a_device_has_a_source_and_a_day(name):
    device = load_device(name)
    figures = [value for value in vars(device).values() if isinstance(value, Figure)]
    assert len(figures) == 9 and device.title and device.cpu
    for figure in figures:
        assert (
            figure.value > 0 and len(figure.source) > 10 and re.fullmatch(r"20\d\d-\d\d-\d\d", figure.checked)
        )
    assert (
        device.usable_memory_gib.value * 2**30 < device.memory_gb.value * 1e9 * 1.075
    )  # data sheets' GB are 2^30 bytes on modules
    assert device.bandwidth_efficiency.value < 1 and device.compute_efficiency.value < 1
    assert 1.9 < device.int8_tops_dense.value / device.fp16_tflops_dense.value < 4.1  # both dense


def qwen3(layers: int, width: int, heads: int, ffn: int) -> Model:
    """A Qwen3 LLM in INT4 with groups of 128 and a float16 LM head, as TensorRT Edge-LLM measures it."""
    precision = choose_precision("int4", "bfloat16", target="tensorrt", block_size=128)
    model = Model(
        "Qwen3",
        AudioSpec(16000, 400, 160, 128, 3000, 1, 1280),
        EncoderSpec(32, 1280, 20, 5120, 128, 1500),
        DecoderSpec(layers, width, heads, 8, 128, 151936, 40960, ffn),
        0,
        precision,
        StageBytes(0, 0, 0),
    )
    return replace(model, weights=counted_bytes(model))


QWEN3_8B, QWEN3_1B7 = qwen3(36, 4096, 32, 12288), qwen3(28, 2048, 16, 6144)


@pytest.mark.parametrize(
    "device,model,prompt,prefill_ms,context,tokens_per_second",
    [
        ("thor", QWEN3_8B, 2048, 663, 2048, 46),
        ("agx-orin-64gb", QWEN3_8B, 2048, 1384, 2048, 31),
        ("orin-nx-16gb", QWEN3_8B, 2048, 2944, 2048, 18),
        ("agx-orin-64gb", QWEN3_8B, 292, 225.1, 400, 32.3),
        ("orin-nx-16gb", QWEN3_8B, 292, 462.1, 400, 18.9),
        ("orin-nano-8gb-15w", QWEN3_1B7, 292, 190.9, 400, 36.9),
    ],
)
def test_published_figures_of_an_llm_are_within_a_quarter(
    device, model, prompt, prefill_ms, context, tokens_per_second
):
    """TensorRT Edge-LLM 0.9 and 0.11; Qwen3-VL's rows for 292 tokens, whose LLM is Qwen3's."""
    rates = device_rates(load_device(device), model)
    work, step = prefill_work(model, prompt), decode_work(model, context)
    assert 1e3 * (work.linear / rates.llm + work.attention / rates.attention) == pytest.approx(
        prefill_ms, rel=0.25
    )
    assert rates.bandwidth / step.weight_bytes == pytest.approx(tokens_per_second, rel=0.25)


def test_a_plan_of_a_checkpoint_is_in_the_types_that_the_device_takes(qwen):
    thor, default = make_plan(qwen[0], "thor"), make_plan(qwen[0], "thor", precision="float32")
    assert (
        "TensorRT" in thor.precision
        and "float16" in thor.precision
        and default.precision.startswith("float32")
    )
    assert [one.level for one in make_plan(qwen[0], "thor", levels=("keep25", "full")).estimates] == [
        "full",
        "keep25",
    ]
    with pytest.raises(ValueError, match="has its precision"):
        make_plan(qwen[1], "thor", precision="int8")
    with pytest.raises(ValueError, match="devices are"):
        make_plan(qwen[1], "toaster")
    most = make_plan(qwen[0], "thor").rates.usable  # a limit above what there is does not make room
    assert (
        make_plan(qwen[0], "thor", memory_gib=1e6).reason
        == make_plan(qwen[0], "thor", memory_gib=most / 2**30).reason
    )
