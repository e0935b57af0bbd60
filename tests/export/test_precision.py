import pytest

from ltbm.export.precision import choose_precision


@pytest.mark.parametrize(
    "weights,options,words",
    [
        ("float32", {}, "float32"),
        ("float16", {}, "float16"),
        ("bfloat16", {}, "bfloat16; embeddings float32"),
        (
            "int4",
            {},
            "int4 in blocks of 32, accuracy level 4; lm_head int8; activations float32; encoder float32; "
            "embeddings float32",
        ),
        (
            "int4",
            dict(activations="float16", lm_head_precision="float16"),
            "int4 in blocks of 32, accuracy level 4; lm_head float16; activations float16; encoder float16; "
            "embeddings float16",
        ),
        (
            "int8",
            dict(symmetric=False, block_size=128, encoder_precision="float16"),
            "int8 in blocks of 128, asymmetric, accuracy level 4; activations float32; encoder float16; "
            "embeddings float32",
        ),
        (
            "int4",
            dict(encoder_precision="int8"),
            "int4 in blocks of 32, accuracy level 4; lm_head int8; activations float32; encoder int8; "
            "embeddings float32",
        ),
        (
            "int4",
            dict(accuracy_level=0),
            "int4 in blocks of 32, accuracy level 0; activations float32; encoder float32; embeddings "
            "float32",
        ),
        (
            "int4",
            dict(target="tensorrt"),
            "int4 in blocks of 32, signed, for TensorRT; lm_head float16; activations float16; encoder "
            "float16; embeddings float16",
        ),
    ],
)
def test_what_is_left_out_follows(weights, options, words):
    assert str(choose_precision(weights, "float32", **options)) == words


@pytest.mark.parametrize("weights", ["float32", "float16", "int4"])
def test_embeddings_stay_exact(weights):
    assert choose_precision(weights, "bfloat16").embeddings == "bfloat16"
    assert choose_precision(weights, "float16").embeddings == "float16"


@pytest.mark.parametrize(
    "weights,options,words",
    [
        ("int3", {}, "precision 'int3' is none of float32, float16, bfloat16, int4, int8"),
        ("float16", dict(activations="float32"), "activations float32 with weights float16"),
        ("int4", dict(activations="int8"), "activations 'int8' is none of float32, float16, bfloat16"),
        ("int4", dict(block_size=48), "block size 48 is none of 16, 32"),
        ("int4", dict(accuracy_level=2), "accuracy level 2 is none of 0, 1, 4"),
        ("int8", dict(accuracy_level=0), "accuracy level 0 with the LLM's matrices in int8"),
        ("int4", dict(accuracy_level=1, lm_head_precision="int8"), "level 1 with the LM head in int8"),
        ("int8", dict(target="tensorrt"), "TensorRT takes no blocks of int8"),
        ("int4", dict(target="tensorrt", symmetric=False), "no zero points"),
        ("int4", dict(target="tensorrt", encoder_precision="int8"), "an int8 encoder runs on CPUs only"),
        ("bfloat16", dict(encoder_precision="int8"), "int8 with activations bfloat16"),
        ("int4", dict(encoder_precision="int4"), "encoder precision 'int4' is none of float32"),
        ("int4", dict(target="jetson"), "target 'jetson' is none of onnxruntime, tensorrt"),
    ],
)
def test_what_does_not_go_together(weights, options, words):
    with pytest.raises(ValueError, match=words):
        choose_precision(weights, "float32", **options)


@pytest.mark.parametrize(
    "weights,options,where",
    [
        ("float16", {}, "ONNX Runtime, TensorRT"),
        ("int4", {}, "ONNX Runtime"),
        ("int4", dict(target="tensorrt"), "TensorRT"),
        ("bfloat16", {}, "ONNX Runtime, TensorRT; GPUs only, for its bfloat16"),
        ("float16", dict(encoder_precision="int8"), "ONNX Runtime; CPUs only, for its int8 encoder"),
        ("int4", dict(encoder_precision="bfloat16"), "ONNX Runtime; GPUs only, for its bfloat16"),
    ],
)
def test_where_a_bundle_runs(weights, options, where):
    assert choose_precision(weights, "bfloat16", **options).runs_on == where


def test_an_int8_encoder_leaves_the_stages_beside_it_in_float32():
    precision = choose_precision("float16", "float16", encoder_precision="int8")
    assert (precision.encoder_activations, precision.audio_embeds) == ("float32", "float32")
    assert precision.obstacle("cuda") == "its int8 encoder is for CPUs" and not precision.obstacle("cpu")
    float16 = choose_precision("float16", "float16")
    assert float16.encoder_activations == "float16" and not float16.obstacle("cuda")
