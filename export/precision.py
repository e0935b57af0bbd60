"""Which types a bundle is written in: the choices of `ltbm export`, made whole and checked."""

from ..runtime.precision import Precision

BITS = {"int4": 4, "int8": 8}
BLOCK_SIZES = (16, 32, 64, 128, 256)  # weights
ACCURACY_LEVELS = (0, 1, 4)
INT8_ACCURACY_LEVEL = 4
"""The only one at which ONNX Runtime multiplies blocks of int8 as they are: at others it writes the matrix
out in float32 at every product, 60 times as slow for one token (1024 x 8192, ONNX Runtime 1.32, AVX2)."""
FLOATS = ("float32", "float16", "bfloat16")
PRECISIONS = (*FLOATS, *BITS)
ENCODER_PRECISIONS = (*FLOATS, "int8")
TARGETS = ("onnxruntime", "tensorrt")


def choose_precision(
    weights: str,
    table: str,
    target: str = "onnxruntime",
    activations: str | None = None,
    encoder_precision: str | None = None,
    lm_head_precision: str | None = None,
    block_size: int = 32,
    symmetric: bool = True,
    accuracy_level: int = 4,
) -> Precision:
    """The types of a bundle; ValueError for what does not go together.

    weights: of the LLM's matrices; table: the type of the checkpoint's embedding table
    target: what quantised weights are packed for; bundles of float types run everywhere
    activations: left out, the weights' type where it is float, else float32 (float16 for TensorRT)
    encoder_precision: left out, the activations'; int8 is of its linear layers, for CPUs
    lm_head_precision: left out, the weights', but int8 under int4 at accuracy level 4
        (the activations' type for TensorRT)
    """
    activations = activations or _usual_activations(weights, target)
    lm_head = lm_head_precision or _usual_lm_head(weights, target, activations, accuracy_level)
    encoder = encoder_precision or activations
    _check_types(weights, target, activations, encoder, lm_head)
    _check_combination(weights, activations, lm_head, target, symmetric)
    _check_int8_encoder(encoder, activations, target)
    _check_blocks(weights, lm_head, block_size, accuracy_level)
    quantised = weights in BITS or lm_head in BITS
    return Precision(
        encoder=encoder,
        activations=activations,
        weights=weights,
        lm_head=lm_head,
        embeddings=_embeddings_type(table, activations),
        block_size=block_size if quantised else 0,
        symmetric=symmetric,
        accuracy_level=accuracy_level if quantised else 0,
        signed=quantised and target == "tensorrt",
    )


def _usual_activations(weights: str, target: str) -> str:
    if weights not in BITS:
        return weights
    return "float16" if target == "tensorrt" else "float32"


def _usual_lm_head(weights: str, target: str, activations: str, accuracy_level: int) -> str:
    if weights not in BITS:
        return weights
    if target == "tensorrt":
        return activations
    return "int8" if accuracy_level == INT8_ACCURACY_LEVEL else weights


def _embeddings_type(table: str, activations: str) -> str:
    """The table's own type, but float16 for a float32 one under an LLM in float16."""
    return "float16" if (table, activations) == ("float32", "float16") else table


def _check_types(weights: str, target: str, activations: str, encoder: str, lm_head: str) -> None:
    _check_known("precision", weights, PRECISIONS)
    _check_known("target", target, TARGETS)
    _check_known("activations", activations, FLOATS)
    _check_known("encoder precision", encoder, ENCODER_PRECISIONS)
    _check_known("lm_head precision", lm_head, PRECISIONS)


def _check_known(option: str, value, known: tuple) -> None:
    if value not in known:
        raise ValueError(f"{option} {value!r} is none of {', '.join(map(str, known))}")


def _check_combination(weights: str, activations: str, lm_head: str, target: str, symmetric: bool) -> None:
    if weights in FLOATS and activations != weights:
        raise ValueError(
            f"activations {activations} with weights {weights}: matrices that are not quantised have the "
            "activations' type"
        )
    if target == "tensorrt" and ("int8" in (weights, lm_head) or not symmetric):
        raise ValueError(
            "TensorRT takes no blocks of int8 and no zero points: give int4 or a float type, symmetric"
        )


def _check_int8_encoder(encoder: str, activations: str, target: str) -> None:
    """It has ONNX Runtime's products and attention for CPUs, where the LLM must run too."""
    if encoder == "int8" and (target == "tensorrt" or activations == "bfloat16"):
        wanted = "target tensorrt" if target == "tensorrt" else "activations bfloat16"
        raise ValueError(
            f"encoder precision int8 with {wanted}: an int8 encoder runs on CPUs only; "
            f"give one of {', '.join(FLOATS)}"
        )


def _check_blocks(weights: str, lm_head: str, block_size: int, accuracy_level: int) -> None:
    _check_known("block size", block_size, BLOCK_SIZES)
    _check_known("accuracy level", accuracy_level, ACCURACY_LEVELS)
    if "int8" in (weights, lm_head) and accuracy_level != INT8_ACCURACY_LEVEL:
        what = "the LLM's matrices" if weights == "int8" else "the LM head"
        raise ValueError(
            f"accuracy level {accuracy_level} with {what} in int8: ONNX Runtime would write them out in "
            f"float32 at every product; give --accuracy-level {INT8_ACCURACY_LEVEL}, or int4 or a float type"
        )
