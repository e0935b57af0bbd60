"""The flavours of a bundle's decoder: graphs of the same weights, each for what some runtimes can execute."""

from ..versions import version_tuple

GQA = "gqa"  # ONNX Runtime on the CPU: its own attention with a cache updated in place
GQA_INT8_KV = "gqa8"  # gqa with an int8 KV cache
STANDARD = "std24"  # operators of opset 24 with a cache updated in place, for ONNX Runtime on CUDA
FIXED_CAPACITY = "trt24"  # std24 for TensorRT: a cache of fixed capacity, attention over the tokens seen
STANDARD_QUANTISED = "ort24"  # std24 with ONNX Runtime's own product for quantised weights
GROWING = "concat20"  # operators of opset 20; every step writes a longer cache

GQA_HEAD_MULTIPLE = 8  # head sizes that ONNX Runtime's own attention takes
TENSORRT_IN_PLACE_SINCE = (10, 15)  # its KVCacheUpdate, which FIXED_CAPACITY needs


def takes_gqa(head_dim: int) -> bool:
    """Whether ONNX Runtime's own attention takes heads of this size; else a bundle has no such decoder."""
    return head_dim % GQA_HEAD_MULTIPLE == 0


def tensorrt_flavour(version: str) -> str:
    """The decoder that TensorRT `version` runs."""
    return FIXED_CAPACITY if version_tuple(version) >= TENSORRT_IN_PLACE_SINCE else GROWING
