"""What only some TensorRTs have: attention that may be taken apart, and compute capabilities to build for."""

from collections.abc import Sequence


def allow_decomposed_attention(trt, network) -> None:
    """Attention without a kernel of its own, as in float32, is taken apart instead of refused.

    Nothing before TensorRT 10.14, whose parser makes no attention layers.
    """
    kind = getattr(trt.LayerType, "ATTENTION_OUTPUT", None)
    if kind is None:
        return
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == kind:
            layer.__class__ = trt.IAttentionOutputLayer  # get_layer gives the base class
            layer.attention.decomposable = True


def set_capabilities(trt, config, capabilities: Sequence[str]) -> None:
    """Build for these, such as SM89, on a machine of any; none are set where there are none."""
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        if not config.set_compute_capability(trt.ComputeCapability.__members__[name], index):
            raise RuntimeError(f"TensorRT-RTX refused to build for {name.lower()}")


def dotted(capability: str) -> str:
    """SM89 -> 8.9, SM120 -> 12.0."""
    digits = capability.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def undotted(capabilities: str) -> list[str]:
    """8.6, 8.9 -> SM86, SM89."""
    return ["SM" + one.replace(".", "") for one in capabilities.split(", ")]
