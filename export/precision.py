"""Which types a bundle is written in: the choices of `ltbm export`, made whole and checked."""

from ..runtime.bundle import Precision

BITS = {"int4": 4, "int8": 8}
BLOCK_SIZES = (16, 32, 64, 128, 256)  # weights
ACCURACY_LEVELS = (0, 1, 4)
FLOATS = ("float32", "float16", "bfloat16")
PRECISIONS = (*FLOATS, *BITS)
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
    """The types of a bundle whose LLM has `weights`, from a checkpoint whose embedding table has the type
    `table`.

    target: what quantised weights are packed for; bundles of float types run everywhere
    What is left out follows: activations the weights where those are float,
        else float32 (float16 for TensorRT); the
    encoder the activations; the LM head the weights, but under int4 int8 (the activations' type for
    TensorRT). ValueError for what does not go together.
    """
    packed = target == "tensorrt" and weights in BITS
    if weights in BITS:
        activations = activations or ("float16" if packed else "float32")
        lm_head = lm_head_precision or (activations if packed else "int8")
    else:
        activations, lm_head = activations or weights, lm_head_precision or weights
    encoder = encoder_precision or activations
    for option, value, known in (
        ("precision", weights, PRECISIONS),
        ("target", target, TARGETS),
        ("activations", activations, FLOATS),
        ("encoder precision", encoder, FLOATS),
        ("lm_head precision", lm_head, PRECISIONS),
        ("block size", block_size, BLOCK_SIZES),
        ("accuracy level", accuracy_level, ACCURACY_LEVELS),
    ):
        if value not in known:
            raise ValueError(f"{option} {value!r} is none of {', '.join(map(str, known))}")
    if weights in FLOATS and activations != weights:
        raise ValueError(
            f"activations {activations} with weights {weights}: matrices that are not quantised have the "
            "activations' type"
        )
    if target == "tensorrt" and ("int8" in (weights, lm_head) or not symmetric):
        raise ValueError(
            "TensorRT takes no blocks of int8 and no zero points: give int4 or a float type, symmetric"
        )
    quantised = weights in BITS or lm_head in BITS
    return Precision(
        encoder=encoder,
        activations=activations,
        weights=weights,
        lm_head=lm_head,
        embeddings="float16" if (table, activations) == ("float32", "float16") else table,
        block_size=block_size if quantised else 0,
        symmetric=symmetric,
        accuracy_level=accuracy_level if quantised else 0,
        signed=quantised and target == "tensorrt",
    )
