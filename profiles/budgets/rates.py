"""What a device sustains: a data sheet's figures times the share that is reached,
or this machine's as measured now."""

from ...runtime.machine import Machine, find_memory
from .device import Device
from .estimate import Rates
from .model import Model

GIB = 2**30
RUNTIME_BYTES = (
    80 * 2**20
)  # Python, numpy, ONNX Runtime and a tokenizer, before a model is loaded (x86-64 Linux)


def device_rates(device: Device, model: Model) -> Rates:
    """Products with float16, bfloat16, int8 and int4 weights run on the tensor cores in FP16,
    float32 ones on the CUDA cores."""

    def rate(precision: str) -> float:
        figure = device.fp32_tflops if precision == "float32" else device.fp16_tflops_dense
        return figure.value * 1e12 * device.compute_efficiency.value

    llm = rate(model.precision.activations)
    return Rates(
        bandwidth=device.bandwidth_gb_s.value * 1e9 * device.bandwidth_efficiency.value,
        encoder=rate(model.precision.encoder),
        llm=llm,
        attention=llm,
        usable=device.usable_memory_gib.value * GIB,
        runtime=device.runtime_gib.value * GIB,
    )


def measured_rates(model: Model, threads: int | None = None) -> Rates:
    """This machine's CPU through ONNX Runtime: products in the widths and precisions of the model's LLM and
    encoder, some seconds."""
    from .probe import Storage, measure_products

    precision = model.precision
    if "bfloat16" in (precision.encoder, precision.activations):
        raise ValueError(
            "ONNX Runtime has no bfloat16 products for CPUs; plan this precision for a GPU (--device)"
        )
    values = Storage(precision.encoder_activations, precision.encoder_activations)
    between = measure_products(model.encoder.width, model.encoder.ffn, values, threads)
    encoder = between
    if precision.encoder == "int8":
        layers = Storage("int8", precision.encoder_activations)
        encoder = measure_products(model.encoder.width, model.encoder.ffn, layers, threads)
    llm = measure_products(
        model.decoder.hidden_size,
        model.decoder.ffn,
        Storage(precision.weights, precision.activations, precision.block_size, precision.accuracy_level),
        threads,
    )
    return Rates(
        bandwidth=llm.bandwidth,
        encoder=encoder.rate,
        llm=llm.rate,
        attention=between.rate,
        move_seconds=1 / between.bandwidth,
        usable=_available_memory(),
        runtime=RUNTIME_BYTES,
        encoder_resident=encoder.resident,
        llm_resident=llm.resident,
        loading=model.head_bytes,
    )  # ONNX Runtime packs one matrix after the other: the largest is there twice


def _available_memory() -> float:
    """Bytes that a new process could have now, without swapping."""
    memory = find_memory(Machine())
    if memory is None:
        raise RuntimeError(
            "this system does not tell its memory (/proc/meminfo): a plan for this machine needs Linux"
        )
    return memory.available
